"""What the recap of a play says of devices that it never reached."""

from typing import Any

import pytest

from orchestrator.plays import PlayReader
from orchestrator.states import CommandStatus

FAILED = {
    "event": "runner_on_failed", "created": "2026-01-01T00:00:00+00:00",
    "event_data": {"host": "localhost", "task": "Try", "res": {"msg": "no"}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("recap", "status", "said"),
    [
        ({"rescued": {"localhost": 1}, "failures": {"localhost": 0}}, CommandStatus.SKIPPED, ""),
        ({"failures": {"localhost": 1}}, CommandStatus.TERMINATED, 'Task "Try" failed on localhost.'),
        ({"dark": {"localhost": 1}}, CommandStatus.TERMINATED, 'Task "Try" failed on localhost.'),
    ],
)
def test_only_a_failure_that_was_not_rescued_ends_a_play(recap: dict[str, Any], status: str, said: str) -> None:
    reader = PlayReader("run", ["device-1"], diff=False)
    assert list(reader.read(FAILED)) == []
    event = {"event": "playbook_on_stats", "created": "2026-01-01T00:00:01+00:00", "event_data": recap}
    (result,) = reader.end(event, matched=["device-1"])
    assert (result.status, said in result.reason) == (status, True)
