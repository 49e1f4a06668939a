"""Writes down each event that concerns a host, and the recap: a JSON line each, into the file RECORD."""

from __future__ import annotations

import json
import os
import re
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: record
type: stdout
short_description: events as JSON lines
description: For the comparison of two strategies.
"""

# What differs between two runs of anything: moments, random names, process ids, and the paths that each has for itself.
PASSING = frozenset(
    {
        "start",
        "end",
        "delta",
        "atime",
        "mtime",
        "ctime",
        "date_time",
        "inode",
        "ansible_job_id",
        "started",
        "seconds",
        "stop",
    }
)
RANDOM = (
    (re.compile(r"(?<=/)(device_)?linear(?![a-z_])"), "fast-path"),
    (re.compile(r"ansible-tmp-[0-9.]+-[0-9]+-[0-9]+|ansible-local-\S+|\bj[0-9]+\.[0-9]+"), "TMP"),
    (re.compile(r"success-[a-z]{32}|(?<=key=)[a-z]{32}"), "KEY"),
    (re.compile(r"(?<=pid=)[0-9]+"), "PID"),
    (re.compile(r"sent [0-9.]+, received [0-9.]+|Paused for [0-9.]+"), "RATES"),
    (re.compile(r"\b[0-9]+\.[0-9]{3,}\b(?!\.)"), "SECONDS"),
)


def settled(value: Any) -> Any:
    """The value without what is never the same twice."""
    if isinstance(value, dict):
        return {str(name): settled(part) for name, part in value.items() if name not in PASSING}
    if isinstance(value, (list, tuple)):
        return [settled(part) for part in value]
    if isinstance(value, str):
        for pattern, word in RANDOM:
            value = pattern.sub(word, value)
        return value if len(value) < 10_000 else f"{value[:100]}…{len(value)}…{value[-100:]}"
    return value if isinstance(value, (bool, int, float, type(None))) else repr(value)


class CallbackModule(CallbackBase):  # type: ignore[misc]  # Ansible has no types
    """One line for each."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "record"

    def _write(self, **line: Any) -> None:
        with open(os.environ["RECORD"], "a", encoding="ascii") as file:
            file.write(json.dumps(line) + "\n")

    def _result(self, event: str, result: Any, **more: Any) -> None:
        said = settled(json.loads(self._dump_results(result._result, indent=None)))
        self._write(host=result._host.name, event=event, task=result._task.get_name(), result=said, **more)

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._play = play.get_name()

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        self._write(host=host.name, event="start", task=task.get_name())

    def v2_runner_on_ok(self, result: Any) -> None:
        self._result("ok", result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._result("failed", result, ignored=ignore_errors)

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._result("skipped", result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._result("unreachable", result)

    def v2_runner_retry(self, result: Any) -> None:
        self._result("retry", result)

    def v2_runner_item_on_ok(self, result: Any) -> None:
        self._result("item ok", result)

    def v2_runner_item_on_failed(self, result: Any) -> None:
        self._result("item failed", result)

    def v2_runner_item_on_skipped(self, result: Any) -> None:
        self._result("item skipped", result)

    def v2_runner_on_async_ok(self, result: Any) -> None:
        self._result("async ok", result)

    def v2_runner_on_async_failed(self, result: Any) -> None:
        self._result("async failed", result)

    def v2_on_file_diff(self, result: Any) -> None:
        self._result("diff", result)

    def v2_playbook_on_notify(self, handler: Any, host: Any) -> None:
        self._write(host=host.name, event="notified", task=handler.get_name())

    def v2_playbook_on_stats(self, stats: Any) -> None:
        for host in stats.processed:
            self._write(host=host, event="recap", **stats.summarize(host))
