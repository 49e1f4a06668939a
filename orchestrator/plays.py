"""Events of a whole play as what became of each device, and of each of its tasks.  Pure translation.

A task may fail and be rescued or ignored, so a device's result is final only in the recap: failed, unreachable, or
else a success.  Devices that the play never reached are told apart by what it was for.
"""

import difflib
import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from orchestrator.events import REASONS, HostEvent, judge, moment, plain_text
from orchestrator.output import cut
from orchestrator.states import CommandStatus

TEXT_LIMIT: Final = 16_384  # bytes of each text of a task
DEVICE_LIMIT: Final = 1 << 20  # bytes of the texts of all tasks of a device
TASK_LIMIT: Final = 2_000  # tasks of a device that are kept
_DIFF_LIMIT: Final = 1 << 18  # characters of what is compared
_ITEMS: Final = 50  # of a loop that are told
NAME_LENGTH: Final = 500  # characters of the names of plays and tasks, of a loop's items and of a reason
_COUNTS: Final = {  # in the recap → in ansible-runner's event
    "ok": "ok", "changed": "changed", "unreachable": "dark", "failed": "failures", "skipped": "skipped",
    "rescued": "rescued", "ignored": "ignored",
}  # fmt: skip
_HIDDEN: Final = "The task has no_log: its output is not kept."
_INNER: Final = frozenset({"changed", "failed", "invocation", "warnings", "deprecations", "msg", "diff", "results"})
_RESULTS: Final = frozenset({"runner_on_ok", "runner_on_failed", "runner_on_skipped", "runner_on_unreachable"})


@dataclass(frozen=True, slots=True)
class TaskEvent:
    """What one task did on one device."""

    host_name: str
    key: str  # of this event among all of the run: a repeated one is the same
    number: int  # of the device's tasks, from 1
    at: datetime  # of its start, aware
    duration: float  # seconds
    play: str
    task: str
    module: str
    status: str  # "ok" | "changed" | "failed" | "ignored" | "skipped" | "unreachable"
    message: str = ""
    stdout: str = ""
    stderr: str = ""
    diff: str = ""
    rc: int | None = None
    truncated: bool = False


@dataclass(slots=True)
class _Device:
    """What was heard of a device so far."""

    tasks: int = 0
    size: int = 0  # bytes of texts that were kept
    contacted: bool = False
    worst: tuple[str, Mapping[str, Any]] | None = None  # the task that failed last, with its event
    spoke: Mapping[str, Any] = field(default_factory=dict)  # the last result that had an output


class PlayReader:
    """Reads the events of one ansible-playbook in their order."""

    def __init__(self, ident: str, hosts: Collection[str], *, diff: bool) -> None:
        self._ident, self._hosts, self._diff = ident, frozenset(hosts), diff
        self._devices: defaultdict[str, _Device] = defaultdict(_Device)
        self._broken: dict[str, str] = {}  # host that is no device → what failed there last

    def read(self, event: Mapping[str, Any]) -> Iterator[HostEvent | TaskEvent]:
        """What an event tells; the end of the devices is told by ``end``."""
        kind, data = event.get("event"), event.get("event_data") or {}
        host = data.get("host")
        if host not in self._hosts:
            if kind == "runner_on_failed" and not data.get("ignore_errors"):
                self._broken[str(host)] = f'Task "{plain_text(data.get("task"))}" failed on {plain_text(host)}.'
            return
        if kind == "runner_on_start":
            if host not in self._devices:
                self._devices[host] = _Device()
                yield HostEvent(host_name=host, kind="started", at=moment(event.get("created")))
        elif kind in _RESULTS:
            yield from self._task(str(kind), host, event, data)

    def end(self, event: Mapping[str, Any], *, matched: Collection[str]) -> Iterator[HostEvent]:
        """Each device's result by the recap.  ``matched``: the hosts that some play of the playbook is for."""
        data, at = event.get("event_data") or {}, moment(event.get("created"))
        recaps = {host: {name: int((data.get(key) or {}).get(host, 0)) for name, key in _COUNTS.items()}
                  for host in self._hosts}  # fmt: skip
        # What was rescued is in no recap as a failure, and ended nothing.
        ended = {host for key in ("failures", "dark") for host, count in (data.get(key) or {}).items() if count}
        broken = next((said for host, said in self._broken.items() if host in ended), "")
        aborted = bool(broken) or any(recap["failed"] or recap["unreachable"] for recap in recaps.values())
        for host, recap in recaps.items():
            if any(recap.values()):
                yield self._result(host, recap, at)
            elif host in self._devices:
                continue  # begun, and not heard of again: nobody knows
            else:
                yield self._never_reached(host, at, matched=host in matched, aborted=aborted, broken=broken)

    def _task(self, kind: str, host: str, event: Mapping[str, Any], data: Mapping[str, Any]) -> Iterator[TaskEvent]:
        device, result = self._devices[host], data.get("res") or {}
        device.tasks += 1
        away = bool(result.get("_ansible_delegated_vars"))
        if kind == "runner_on_unreachable" or (kind == "runner_on_failed" and not data.get("ignore_errors")):
            device.worst = (kind, {**data, "contacted": device.contacted or away})
        device.contacted |= kind not in ("runner_on_unreachable", "runner_on_skipped")
        if result.get("stdout") and not _hidden(result):
            device.spoke = result
        if device.tasks > TASK_LIMIT:
            return
        texts = _texts(result, str(data.get("task_action") or ""), diff=self._diff)
        kept, truncated = {}, False
        for name, text in texts.items():
            limited = cut(text, min(TEXT_LIMIT, max(0, DEVICE_LIMIT - device.size)))
            kept[name], truncated = limited.text, truncated or limited.truncated
            device.size += len(limited.text.encode())
        start = data.get("start") or event.get("created")
        yield TaskEvent(
            host_name=host, key=f"{self._ident}/{device.tasks}", number=device.tasks, at=moment(start),
            duration=float(data.get("duration") or 0.0), play=plain_text(data.get("play"))[:NAME_LENGTH],
            task=plain_text(data.get("task"))[:NAME_LENGTH], module=plain_text(data.get("task_action"))[:128],
            status=_status(kind, data, result), rc=_rc(result), truncated=truncated, **kept,
        )  # fmt: skip

    def _result(self, host: str, recap: Mapping[str, int], at: datetime) -> HostEvent:
        device = self._devices[host]
        status, code, reason, said = CommandStatus.SUCCESS, "", "", device.spoke
        if recap["unreachable"] or recap["failed"]:
            status = CommandStatus.UNREACHABLE if recap["unreachable"] else CommandStatus.FAILED
            code, reason, said = "task_failed", "", {}
            if device.worst:
                status, code, reason = _judged(status, *device.worst)
                said = device.worst[1].get("res") or {}
            if _hidden(said):
                said = {}
        out, err = cut(plain_text(said.get("stdout")), TEXT_LIMIT), cut(plain_text(said.get("stderr")), TEXT_LIMIT)
        return HostEvent(
            host_name=host, kind="finished", at=at, status=status, code=code, reason=reason, rc=_rc(said),
            stdout=out.text, stderr=err.text, truncated=out.truncated or err.truncated, bytes_total=out.size + err.size,
            recap=dict(recap),
        )  # fmt: skip

    def _never_reached(self, host: str, at: datetime, *, matched: bool, aborted: bool, broken: str) -> HostEvent:
        status, code, detail = CommandStatus.SKIPPED, "no_task" if matched else "not_matched", ""
        if matched and aborted:
            status, code, detail = CommandStatus.TERMINATED, "not_reached", broken
        reason = REASONS[code].format(detail=detail).strip()
        return HostEvent(host_name=host, kind="finished", at=at, status=status, code=code, reason=reason)


def _judged(status: CommandStatus, kind: str, data: Mapping[str, Any]) -> tuple[CommandStatus, str, str]:
    """Status, code and reason of a device whose play ended with this task."""
    result, task = data.get("res") or {}, plain_text(data.get("task"))
    if _hidden(result):
        return status, "task_failed", f'Task "{task}" failed. {_HIDDEN}'
    judged, code, sentence = judge(kind, result)
    if judged in (CommandStatus.CANCELLED, CommandStatus.TIMED_OUT):
        return judged, code, f'Task "{task}": {sentence}'
    if status is CommandStatus.UNREACHABLE:
        if data["contacted"]:  # not "offline": tasks were run there, or the task was another host's
            return status, "went_away", REASONS["went_away"].format(detail=f'Task "{task}": {sentence}')
        return status, code, sentence
    detail = _message(result, "") or sentence
    return status, "task_failed", REASONS["task_failed"].format(detail=f'"{task}": {detail[:NAME_LENGTH]}')


def _status(kind: str, data: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    if kind == "runner_on_failed":
        return "ignored" if data.get("ignore_errors") else "failed"
    if kind == "runner_on_ok":
        return "changed" if result.get("changed") else "ok"
    return kind.removeprefix("runner_on_")


def _rc(result: Mapping[str, Any]) -> int | None:
    rc = result.get("rc")
    return rc if isinstance(rc, int) and abs(rc) < 1 << 31 else None


def _hidden(result: Mapping[str, Any]) -> bool:
    return "censored" in result or bool(result.get("_ansible_no_log"))


def _texts(result: Mapping[str, Any], module: str, *, diff: bool) -> dict[str, str]:
    """What a result tells: its message, its output, and its diff if that was asked for."""
    if _hidden(result):
        return {"message": _HIDDEN}
    texts = {"message": _message(result, module), "stdout": _joined(result, "stdout")}
    texts["stderr"] = _joined(result, "stderr")
    if diff:
        texts["diff"] = "".join(_diffs(result))
    return {name: text for name, text in texts.items() if text}


def _message(result: Mapping[str, Any], module: str) -> str:
    items = result.get("results")
    if isinstance(items, list) and items and isinstance(items[0], Mapping):
        lines = [f"{_label(item)}: {_message(item, module) or _word(item)}" for item in items[:_ITEMS]]
        if len(items) > _ITEMS:
            lines.append(f"… and {len(items) - _ITEMS} more")
        return "\n".join(lines)
    if _hidden(result):
        return _HIDDEN
    said = result.get("msg")
    if said is None and module.endswith("debug") and not result.get("skipped"):
        said = {name: value for name, value in result.items() if name not in _INNER and not name.startswith("_")}
    if said is None and result.get("skip_reason"):
        said = result["skip_reason"]
    if said is None or said == "":
        return ""
    return plain_text(said if isinstance(said, str) else json.dumps(said, ensure_ascii=False, default=str))


def _label(item: Mapping[str, Any]) -> str:
    said = item.get("_ansible_item_label", item.get("item", ""))
    text = plain_text(said if isinstance(said, str) else json.dumps(said, ensure_ascii=False, default=str))
    return cut(text, NAME_LENGTH).text  # what is cut out in the middle of a secret, the redactor sees by the gap


def _word(item: Mapping[str, Any]) -> str:
    named = ("unreachable", "failed", "skipped", "changed")
    return next((name for name in named if item.get(name)), "ok")


def _joined(result: Mapping[str, Any], name: str) -> str:
    items = result.get("results")
    if isinstance(items, list):
        return "".join(plain_text(item.get(name)) for item in items if isinstance(item, Mapping) and not _hidden(item))
    return plain_text(result.get(name))


def _diffs(result: Mapping[str, Any]) -> Iterator[str]:
    """In the unified form, as --diff shows them."""
    items = result.get("results")
    if isinstance(items, list):
        for item in items:
            if isinstance(item, Mapping) and not _hidden(item):
                yield from _diffs(item)
    found = result.get("diff")
    for part in found if isinstance(found, list) else [found]:
        if isinstance(part, Mapping):
            yield from _diff(part)


def _diff(part: Mapping[str, Any]) -> Iterator[str]:
    if "prepared" in part:
        yield plain_text(part["prepared"])
    if "before" not in part or "after" not in part:
        return
    before, after = (_lines(part[name]) for name in ("before", "after"))
    if sum(map(len, before)) + sum(map(len, after)) > _DIFF_LIMIT:
        yield "[too long to compare]\n"
        return
    headers = [f"{name}: {plain_text(part[key])}" if part.get(key) else name
               for name, key in (("before", "before_header"), ("after", "after_header"))]  # fmt: skip
    yield from difflib.unified_diff(before, after, headers[0], headers[1])


def _lines(value: Any) -> list[str]:
    text = value if isinstance(value, str) else json.dumps(value, indent=1, sort_keys=True, default=str)
    return [line if line.endswith("\n") else line + "\n" for line in plain_text(text).splitlines(keepends=True)]
