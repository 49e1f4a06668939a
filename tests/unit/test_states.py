"""States: what follows from what, and what they add up to."""

import pytest

from orchestrator.states import FINISHED, OPEN, RUN_TRANSITIONS, TRANSITIONS, CommandStatus, RunStatus, summarize


def test_every_status_has_its_transitions() -> None:
    assert set(TRANSITIONS) == set(CommandStatus)
    assert set(RUN_TRANSITIONS) == set(RunStatus)


def test_a_finished_status_never_changes() -> None:
    assert all(not TRANSITIONS[status] for status in FINISHED)
    assert all(TRANSITIONS[status] for status in OPEN)


def test_a_running_device_is_never_skipped_or_terminated() -> None:
    assert not TRANSITIONS[CommandStatus.RUNNING] & {CommandStatus.SKIPPED, CommandStatus.TERMINATED}


@pytest.mark.parametrize(
    ("counts", "status"),
    [
        ({"success": 3}, "success"),
        ({"success": 2, "failed": 1}, "partial"),
        ({"success": 2, "skipped": 1}, "partial"),
        ({"success": 1, "lost": 1}, "partial"),
        ({"failed": 1, "unreachable": 4}, "failed"),
        ({"skipped": 2}, "failed"),
        ({"cancelled": 1, "success": 5}, "cancelled"),
        ({"terminated": 4, "failed": 1}, "failed"),
        ({}, "failed"),
    ],
)
def test_the_devices_add_up_to_the_run(counts: dict[str, int], status: str) -> None:
    assert summarize(counts) == status


@pytest.mark.parametrize("still_open", sorted(OPEN))
def test_a_run_is_never_judged_early(still_open: str) -> None:
    with pytest.raises(ValueError, match="not finished"):
        summarize({"success": 10, still_open: 1})
