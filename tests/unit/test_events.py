"""Events of ansible-runner as HostEvents: a case is a file of events/."""

import json
import string
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.events import REASONS, HostEvent, parse
from orchestrator.states import CommandStatus

CASES = sorted((Path(__file__).parent / "events").glob("*.json"))
DEFAULTS = {"status": None, "code": "", "reason": "", "rc": None, "stdout": "", "stderr": "", "truncated": False}


def case_name(path: Path) -> str:
    """What the case says."""
    return str(json.loads(path.read_text())["why"])


@pytest.mark.parametrize("path", CASES, ids=case_name)
def test_an_event_tells_of_a_device_what(path: Path) -> None:
    case = json.loads(path.read_text())
    found = parse(case["event"])
    if case["expected"] is None:
        assert found is None
        return
    assert found is not None
    expected = DEFAULTS | {"bytes_total": 0, "recap": None} | case["expected"]
    assert asdict(found) == expected | {"at": datetime.fromisoformat(expected["at"])}


@pytest.mark.parametrize("created", [None, "", "yesterday", "2026-01-02T03:04:05"])
def test_a_time_is_always_aware(created: Any) -> None:
    event = parse({"event": "runner_on_ok", "created": created, "event_data": {"host": "x"}})
    assert event is not None
    assert event.at.tzinfo is not None
    if created != "2026-01-02T03:04:05":
        assert datetime.now(UTC) - event.at < timedelta(seconds=5)


def test_every_reason_is_a_sentence_and_asks_for_nothing_unknown() -> None:
    for code, reason in REASONS.items():
        assert {name for _, name, _, _ in string.Formatter().parse(reason) if name} <= {"detail", "seconds", "rc"}, code
        assert reason.endswith((".", "{detail}")), code


def test_a_finished_event_has_a_status_that_ends_a_command() -> None:
    kinds = ("runner_on_ok", "runner_on_skipped", "runner_on_failed", "runner_on_unreachable")
    for kind in kinds:
        for code in ("", *REASONS):
            event = parse({"event": kind, "event_data": {"host": "x", "res": {"orchestrator": {"code": code}}}})
            assert isinstance(event, HostEvent)
            assert event.status in {
                CommandStatus.SUCCESS, CommandStatus.FAILED, CommandStatus.UNREACHABLE, CommandStatus.TIMED_OUT,
                CommandStatus.CANCELLED,
            }  # fmt: skip
            assert bool(event.reason) == bool(event.code)
