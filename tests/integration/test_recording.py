"""Results into rows: guarded by status and lease, counters in step."""

import contextlib
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from orchestrator import actions
from orchestrator.events import HostEvent
from orchestrator.journal import Assignment, Journal
from orchestrator.models import Command, MassCommand, Slice
from orchestrator.recording import Recorder
from orchestrator.settling import Ending, settle
from orchestrator.states import CommandStatus
from orchestrator.targeting import TargetFilter
from tests import factories

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database]


@pytest.fixture
def run(outbox: Any) -> MassCommand:
    """A launched run on three devices."""
    organization = factories.organization()
    for number in range(3):
        factories.device(organization=organization, name=f"d{number}")
    return launch(organization.pk)


def launch(organization: uuid.UUID, **values: Any) -> MassCommand:
    """Launch a custom command, or what the values say."""
    request = {"type": "custom", "input": {"command": "uptime"}} | values
    targets = TargetFilter(organization=organization)
    return actions.launch(actor=factories.superuser(), request=actions.LaunchRequest(targets=targets, **request))


def take(run: MassCommand) -> tuple[Slice, uuid.UUID, dict[str, Assignment]]:
    """Take the run's slice, as a worker does."""
    slice_ = run.slices.get()
    lease = Slice.objects.take(slice_.pk, attempt=1, worker="test", seconds=30)
    assert lease is not None
    slice_.refresh_from_db()
    MassCommand.objects.begin(run.pk)
    rows = Command.objects.filter(slice=slice_)
    return slice_, lease, {row.device_name: Assignment(row.pk, row.device_id, "root") for row in rows if row.device_id}


def finished(host: str, status: CommandStatus = CommandStatus.SUCCESS, **values: Any) -> HostEvent:
    """A result."""
    return HostEvent(host_name=host, kind="finished", at=datetime.now(UTC), status=status, **values)


def record(run: MassCommand, lease: uuid.UUID, assignments: dict[str, Assignment], *events: HostEvent) -> Recorder:
    """Record these events and wait until they are written."""
    slice_ = run.slices.get()
    with Recorder(slice_, lease=lease, assignments=assignments) as recorder:
        for event in events:
            recorder.record(event)
    return recorder


def counts(run: MassCommand) -> dict[str, int]:
    """The counters that are not zero; they must be what a recount says."""
    run.refresh_from_db()
    rows = list(Command.objects.filter(mass_command=run).values_list("status", flat=True))
    assert {status: number for status, number in run.counts.items() if number} == {s: rows.count(s) for s in rows}
    return {status: number for status, number in run.counts.items() if number}


def test_events_fill_their_rows_and_the_run_ends_with_the_last(run: MassCommand) -> None:
    slice_, lease, assignments = take(run)
    record(
        run,
        lease,
        assignments,
        HostEvent(host_name="d0", kind="started", at=datetime.now(UTC)),
        finished("d0", rc=0, stdout="up\x00 1 day"),
        finished("d1", CommandStatus.FAILED, rc=3, stderr="no"),
    )
    assert counts(run) == {"success": 1, "failed": 1, "queued": 1}
    assert run.status == "running"
    row = Command.objects.get(mass_command=run, device_name="d0")
    assert (row.rc, row.stdout) == (0, "up\ufffd 1 day")
    record(run, lease, assignments, finished("d2", rc=0))
    settle(slice_, lease=lease, ending=Ending.COMPLETED)
    assert counts(run) == {"success": 2, "failed": 1}
    assert (run.status, run.finished is not None) == ("partial", True)


def test_a_batch_takes_the_same_number_of_queries_for_any_number_of_devices(outbox: Any) -> None:
    numbers = []
    for devices in (2, 20):
        organization = factories.organization()
        shared = factories.credential(organization=organization)
        for _ in range(devices):
            factories.device(organization=organization, credentials=[shared])
        made = launch(organization.pk)
        slice_, lease, assignments = take(made)
        recorder = Recorder(slice_, lease=lease, assignments=assignments)
        for events in (
            [HostEvent(host_name=host, kind="started", at=datetime.now(UTC)) for host in assignments],
            [finished(host, rc=0) for host in assignments],
        ):
            with CaptureQueriesContext(connection) as queries:
                recorder._write(events)
            numbers.append(len(queries))
        assert counts(made) == {"success": devices}
    assert numbers[:2] == numbers[2:]


def test_a_recorder_that_cannot_write_stops_its_run(run: MassCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    _, lease, assignments = take(run)
    monkeypatch.setattr("orchestrator.recording._apply", lambda row, event: 1 / 0)
    recorder = record(run, lease, assignments, finished("d0"))
    assert recorder.stop_requested
    assert recorder.lease_lost


def test_a_journal_that_cannot_be_written_costs_no_result(run: MassCommand) -> None:
    slice_, lease, assignments = take(run)
    with (
        Journal(slice_.pk, 1, assignments) as journal,
        Recorder(slice_, lease=lease, assignments=assignments, journal=journal) as recorder,
    ):
        journal._file.close()
        journal._file = Path("/dev/full").open("w")  # noqa: SIM115 - the journal closes it
        recorder.record(finished("d0", stdout="x" * 20_000))
        with contextlib.suppress(OSError):
            journal._file.close()
    assert counts(run) == {"success": 1, "queued": 2}


def test_a_finished_row_never_changes(run: MassCommand) -> None:
    _, lease, assignments = take(run)
    record(run, lease, assignments, finished("d0"))
    record(run, lease, assignments, finished("d0", CommandStatus.FAILED, rc=1))
    assert counts(run) == {"success": 1, "queued": 2}


def test_events_of_unknown_hosts_are_nobodys(run: MassCommand) -> None:
    _, lease, assignments = take(run)
    record(run, lease, assignments, finished("localhost"))
    assert counts(run) == {"queued": 3}


def test_a_worker_that_lost_its_lease_writes_nothing(run: MassCommand) -> None:
    slice_, lease, assignments = take(run)
    Slice.objects.filter(pk=slice_.pk).update(lease=uuid.uuid4())
    recorder = record(run, lease, assignments, finished("d0"))
    assert recorder.lease_lost
    assert recorder.stop_requested
    assert counts(run) == {"queued": 3}
    assert not settle(slice_, lease=lease, ending=Ending.CRASHED)


def test_a_slice_is_taken_once(run: MassCommand) -> None:
    slice_, _, _ = take(run)
    assert Slice.objects.take(slice_.pk, attempt=1, worker="other", seconds=30) is None


@pytest.mark.parametrize(
    ("ending", "waiting", "started"),
    [
        (Ending.COMPLETED, "lost", "lost"),
        (Ending.STOPPED, "cancelled", "cancelled"),
        (Ending.DEADLINE, "terminated", "timed_out"),
        (Ending.CRASHED, "failed", "lost"),
        (Ending.LOST, "lost", "lost"),
        (Ending.CANCELLED_LOST, "cancelled", "cancelled"),
    ],
)
def test_every_device_gets_an_end_with_a_reason(run: MassCommand, ending: Ending, waiting: str, started: str) -> None:
    slice_, lease, assignments = take(run)
    record(run, lease, assignments, finished("d0"), HostEvent(host_name="d1", kind="started", at=datetime.now(UTC)))
    settle(slice_, lease=lease, ending=ending, detail="Why.")
    rows = {row.device_name: row for row in Command.objects.filter(mass_command=run)}
    assert [rows[name].status for name in ("d0", "d1", "d2")] == ["success", started, waiting]
    assert rows["d1"].reason
    assert rows["d2"].reason
    assert sum(counts(run).values()) == 3
    assert run.finished


def test_the_secrets_of_a_run_end_with_it(outbox: Any) -> None:
    device = factories.device()
    password = {"password": "n3w-Secret", "confirm_password": "n3w-Secret"}
    run = launch(device.organization_id, type="change_password", input=password)
    assert run.secret_input() == password
    slice_, lease, _ = take(run)
    settle(slice_, lease=lease, ending=Ending.LOST)
    run.refresh_from_db()
    assert run.sealed_input == ""


def test_a_cancelled_run_tells_its_recorder_to_stop(run: MassCommand) -> None:
    slice_, lease, assignments = take(run)
    actions.cancel(actor=factories.superuser(), run=run)
    with Recorder(slice_, lease=lease, assignments=assignments) as recorder:
        assert recorder._stop.wait(5)
    assert counts(run) == {"queued": 3}  # its worker ends them, once nothing runs any more
    assert run.status == "cancelling"
    settle(slice_, lease=lease, ending=Ending.STOPPED)
    assert counts(run) == {"cancelled": 3}
    assert run.status == "cancelled"


def cancel(run: MassCommand, *names: str) -> None:
    """Cancel single devices."""
    rows = Command.objects.filter(mass_command=run, device_name__in=names)
    devices = [row.device_id for row in rows if row.device_id]
    actions.cancel(actor=factories.superuser(), run=run, devices=devices)


def test_a_single_device_that_a_worker_has_is_left_to_the_worker_to_end(run: MassCommand) -> None:
    slice_, lease, assignments = take(run)
    recorder = Recorder(slice_, lease=lease, assignments=assignments)
    recorder._look()
    assert not recorder.cancelled_hosts
    cancel(run, "d1")
    recorder._look()
    assert set(recorder.cancelled_hosts) == {"d1"}
    assert not recorder.stop_requested
    assert counts(run) == {"queued": 3}
    end = finished("d1", CommandStatus.CANCELLED, code="cancelled_running", reason="Cancelled while it ran.")
    record(run, lease, assignments, end, finished("d0", rc=0), finished("d2", rc=0))
    assert counts(run) == {"success": 2, "cancelled": 1}


@pytest.mark.parametrize(
    ("ending", "waiting"), [(Ending.COMPLETED, "may have"), (Ending.CRASHED, "before"), (Ending.LOST, "may have")]
)
def test_a_cancelled_device_without_a_result_is_cancelled_and_says_whether_it_may_have_run(
    run: MassCommand, ending: Ending, waiting: str
) -> None:
    slice_, lease, assignments = take(run)
    record(run, lease, assignments, HostEvent(host_name="d1", kind="started", at=datetime.now(UTC)))
    cancel(run, "d1", "d2")
    settle(slice_, lease=lease, ending=ending)
    rows = {row.device_name: row for row in Command.objects.filter(mass_command=run)}
    assert (rows["d1"].status, rows["d2"].status) == ("cancelled", "cancelled")
    assert "may have" in rows["d1"].reason
    assert waiting in rows["d2"].reason
    assert rows["d0"].status != "cancelled"
    assert counts(run)["cancelled"] == 2


def test_a_device_that_ended_before_its_cancel_was_seen_keeps_its_result(run: MassCommand) -> None:
    slice_, lease, assignments = take(run)
    cancel(run, "d0")
    record(run, lease, assignments, finished("d0", rc=0))
    cancel(run, "d0")
    settle(slice_, lease=lease, ending=Ending.COMPLETED)
    assert Command.objects.get(mass_command=run, device_name="d0").status == "success"


def test_a_cancelled_device_does_not_wait_to_be_online(run: MassCommand) -> None:
    MassCommand.objects.filter(pk=run.pk).update(offline_until=timezone.now() + timedelta(hours=1))
    run.refresh_from_db()
    _, lease, assignments = take(run)
    cancel(run, "d0")
    for name in ("d0", "d1"):
        record(run, lease, assignments, finished(name, CommandStatus.UNREACHABLE, code="refused", reason="Refused."))
    rows = {row.device_name: row.status for row in Command.objects.filter(mass_command=run)}
    assert rows == {"d0": "unreachable", "d1": "queued", "d2": "queued"}


def test_a_run_that_waits_is_cancelled_at_once(run: MassCommand) -> None:
    actions.cancel(actor=factories.superuser(), run=run)
    assert counts(run) == {"cancelled": 3}
    assert run.status == "cancelled"
