"""Waves, limits, budgets, pauses, locks and deadlines, over the rows; no device is contacted."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from orchestrator import actions, planning, recovery
from orchestrator.events import HostEvent
from orchestrator.models import Command, MassCommand, Organization, Slice
from orchestrator.pacing import Controls, Wait, advance, waits_for
from orchestrator.recording import Recorder
from orchestrator.settling import Ending, settle
from orchestrator.states import CommandStatus
from orchestrator.targeting import TargetFilter
from tests import factories

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database]

Result = Callable[[int], CommandStatus]


@pytest.fixture(autouse=True)
def queue(outbox: Any) -> Any:
    """Nothing is run."""
    return outbox


def launch(devices: int = 10, *, organization: Organization | None = None, **controls: Any) -> MassCommand:
    """A run on new devices."""
    if organization is None:
        organization = factories.organization()
        shared = factories.credential(organization=organization)
        for _ in range(devices):
            factories.device(organization=organization, credentials=[shared], host_key="ssh-ed25519 AAAA")
    return actions.launch(
        actor=factories.superuser(),
        request=actions.LaunchRequest(
            type="custom",
            input={"command": "uptime"},
            targets=TargetFilter(organization=organization.pk),
            controls=Controls(**controls),
        ),
    )


def released(run: MassCommand) -> list[Slice]:
    """What a worker may take now."""
    return list(Slice.objects.filter(mass_command=run, status="queued").order_by("number"))


def work(slice_: Slice, status: CommandStatus = CommandStatus.SUCCESS, code: str = "") -> None:
    """Do what a worker does with a slice whose devices all end in this status."""
    lease = Slice.objects.take(slice_.pk, attempt=slice_.attempt, worker="test", seconds=30)
    assert lease is not None
    MassCommand.objects.begin(slice_.mass_command_id)
    plan = planning.plan(Slice.objects.select_related("mass_command").get(pk=slice_.pk))
    assert Slice.objects.spawn(slice_.pk, lease=lease)
    run = MassCommand.objects.get(pk=slice_.mass_command_id)
    with Recorder(
        Slice.objects.select_related("mass_command").get(pk=slice_.pk), lease=lease, assignments=plan.assignments
    ) as recorder:
        for host in plan.assignments:
            recorder.record(HostEvent(host_name=host, kind="started", at=datetime.now(UTC)))
            recorder.record(HostEvent(host_name=host, kind="finished", at=datetime.now(UTC), status=status, code=code))
    settle(Slice.objects.select_related("mass_command").get(pk=slice_.pk), lease=lease, ending=Ending.COMPLETED)
    advance(run.pk)


def counts(run: MassCommand) -> dict[str, int]:
    """The counters that are not zero; they must be what a recount says."""
    run.refresh_from_db()
    rows = list(Command.objects.filter(mass_command=run).values_list("status", flat=True))
    assert {status: number for status, number in run.counts.items() if number} == {s: rows.count(s) for s in rows}
    return {status: number for status, number in run.counts.items() if number}


def test_never_more_devices_in_flight_than_allowed() -> None:
    run = launch(23, max_concurrency=5)
    rounds = 0
    while waiting := released(run):
        rounds += 1
        in_flight = sum(Slice.objects.filter(mass_command=run, status="queued").values_list("size", flat=True))
        assert 0 < in_flight <= 5
        work(waiting[0])
    assert counts(run) == {"success": 23}
    assert rounds > 5


def test_a_failed_canary_ends_the_run() -> None:
    run = launch(10, canary=1)
    (canary,) = released(run)
    assert canary.size == 1
    work(canary, CommandStatus.FAILED)
    assert counts(run) == {"failed": 1, "terminated": 9}
    assert run.status == "failed"
    assert "first devices" in Command.objects.filter(mass_command=run, status="terminated")[0].reason


def test_a_canary_that_lives_lets_the_rest_start() -> None:
    run = launch(10, canary=1)
    work(released(run)[0])
    assert sum(slice_.size for slice_ in released(run)) == 9


def test_a_spent_error_budget_terminates_what_has_not_started() -> None:
    run = launch(10, max_concurrency=2, max_errors=1)
    work(released(run)[0], CommandStatus.FAILED)
    assert counts(run)["queued"] == 9  # one error is allowed
    work(released(run)[0], CommandStatus.UNREACHABLE)
    assert counts(run) == {"failed": 1, "unreachable": 1, "terminated": 8}
    assert "errors" in Command.objects.filter(mass_command=run, status="terminated")[0].reason


def test_the_next_wave_waits_for_its_time(settings: Any) -> None:
    run = launch(4, max_concurrency=2, pause=60.0)
    for slice_ in released(run):
        work(slice_)
    assert not released(run)
    run.refresh_from_db()
    assert waits_for(run) == Wait("pause", run.wave_due)
    assert run.wave_due
    assert run.wave_due > timezone.now() + timedelta(seconds=50)
    MassCommand.objects.filter(pk=run.pk).update(wave_due=timezone.now())
    recovery.go_on()
    for slice_ in released(run):
        work(slice_)
    assert counts(run) == {"success": 4}


def test_a_manual_pause_waits_for_an_approval() -> None:
    run = launch(4, max_concurrency=2, pause="manual")
    for slice_ in released(run):
        work(slice_)
    recovery.go_on()
    assert not released(run)
    run.refresh_from_db()
    assert waits_for(run) == Wait("approval")
    actions.resume(actor=factories.superuser(), run=run)
    assert sum(slice_.size for slice_ in released(run)) == 2


def test_a_paused_run_starts_nothing_until_it_is_resumed() -> None:
    run = launch(10, max_concurrency=4)
    slice_ = released(run)[0]
    lease = Slice.objects.take(slice_.pk, attempt=slice_.attempt, worker="w", seconds=30)
    assert lease
    actions.pause(actor=factories.superuser(), run=run)
    assert not released(run)
    assert not Slice.objects.spawn(slice_.pk, lease=lease)
    settle(slice_, lease=lease, ending=Ending.PAUSED)
    recovery.go_on()
    assert not released(run)
    actions.resume(actor=factories.superuser(), run=run)
    while waiting := released(run):
        work(waiting[0])
    assert counts(run) == {"success": 10}


def test_a_deadline_ends_what_has_not_started() -> None:
    run = launch(4, max_concurrency=2, deadline=100.0)
    work(released(run)[0])
    MassCommand.objects.filter(pk=run.pk).update(deadline=timezone.now())
    recovery.go_on()
    assert counts(run) == {"success": 1, "terminated": 3}
    assert run.status == "partial"


def test_a_run_for_later_starts_when_it_is_time() -> None:
    run = launch(2, run_at=timezone.now() + timedelta(hours=1))
    recovery.go_on()
    assert (run.status, released(run)) == ("scheduled", [])
    MassCommand.objects.filter(pk=run.pk).update(run_at=timezone.now())
    recovery.go_on()
    run.refresh_from_db()
    assert run.status == "queued"
    assert len(released(run)) == 1


def test_a_run_for_later_can_be_cancelled() -> None:
    run = launch(2, run_at=timezone.now() + timedelta(hours=1))
    actions.cancel(actor=factories.superuser(), run=run)
    assert counts(run) == {"cancelled": 2}
    assert run.status == "cancelled"


@pytest.mark.parametrize(
    ("on_conflict", "ends"),
    [("skip", {"skipped": 2}), ("fail", {"failed": 2}), ("queue", {"queued": 2})],
)
def test_two_runs_never_hold_one_device(on_conflict: str, ends: dict[str, int]) -> None:
    first = launch(2)
    second = launch(organization=first.organization, on_conflict=on_conflict)
    held = planning.plan(Slice.objects.select_related("mass_command").get(mass_command=first))
    assert len(held.assignments) == 2
    work(released(second)[0])
    assert counts(second) == ends
    if on_conflict == "queue":
        Command.objects.filter(mass_command=first).update(holds_device=False)  # the first run lets go
        Slice.objects.filter(mass_command=second, status="held").update(not_before=timezone.now())
        recovery.go_on()
        work(released(second)[0])
        assert counts(second) == {"success": 2}
    assert not Command.objects.filter(mass_command=second, holds_device=True).exists()


def test_offline_devices_wait_and_are_tried_again_later() -> None:
    run = launch(2, wait_for_offline_until=timezone.now() + timedelta(hours=3))
    work(released(run)[0], CommandStatus.UNREACHABLE, "refused")
    assert counts(run) == {"queued": 2}
    later = Slice.objects.get(mass_command=run, status="held")
    assert later.not_before
    assert 40 < (later.not_before - timezone.now()).total_seconds() < 76
    Slice.objects.filter(pk=later.pk).update(not_before=timezone.now())
    recovery.go_on()
    work(released(run)[0])
    assert counts(run) == {"success": 2}


def test_a_device_that_refuses_the_login_does_not_wait() -> None:
    run = launch(1, wait_for_offline_until=timezone.now() + timedelta(hours=3))
    work(released(run)[0], CommandStatus.UNREACHABLE, "auth")
    assert counts(run) == {"unreachable": 1}


def test_waiting_ends_at_the_time_given() -> None:
    run = launch(1, wait_for_offline_until=timezone.now() + timedelta(hours=3))
    work(released(run)[0], CommandStatus.UNREACHABLE, "timeout")
    MassCommand.objects.filter(pk=run.pk).update(offline_until=timezone.now())
    Slice.objects.filter(mass_command=run, status="held").update(not_before=timezone.now())
    recovery.go_on()
    work(released(run)[0], CommandStatus.UNREACHABLE, "timeout")
    assert counts(run) == {"unreachable": 1}


def test_waiting_devices_can_be_cancelled() -> None:
    run = launch(2, wait_for_offline_until=timezone.now() + timedelta(hours=3))
    work(released(run)[0], CommandStatus.UNREACHABLE, "no_route")
    actions.cancel(actor=factories.superuser(), run=run)
    assert counts(run) == {"cancelled": 2}


def test_single_devices_of_a_run_can_be_cancelled() -> None:
    run = launch(10, max_concurrency=2)
    row = Command.objects.filter(mass_command=run, slice__status="held")[0]
    assert row.device_id
    actions.cancel(actor=factories.superuser(), run=run, devices=[row.device_id])
    assert counts(run) == {"queued": 9, "cancelled": 1}
    while waiting := released(run):
        work(waiting[0])
    assert counts(run) == {"success": 9, "cancelled": 1}


def test_a_retry_runs_on_what_failed_over_all_slices() -> None:
    run = launch(6, max_concurrency=2)
    for number, status in enumerate([CommandStatus.SUCCESS, CommandStatus.FAILED, CommandStatus.UNREACHABLE] * 2):
        assert number < 6
        work(released(run)[0], status)
    child = actions.retry(actor=factories.superuser(), run=run)
    assert (child.parent, child.device_count, child.input) == (run, 4, run.input)
    only = actions.retry(actor=factories.superuser(), run=run, statuses=["failed"])
    assert only.device_count == 2
