"""What died is put right: nothing runs twice, nothing stays open."""

import uuid
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from redis.exceptions import ConnectionError as RedisConnectionError

from orchestrator import actions, recovery
from orchestrator.journal import Journal, path
from orchestrator.models import Command, Device, MassCommand, Preview, Slice
from orchestrator.planning import plan
from orchestrator.states import CommandStatus
from tests import factories
from tests.integration.test_recording import counts, finished, launch, run, take

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database]

__all__ = ("run",)  # a fixture


@pytest.fixture(autouse=True)
def empty_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue that knows no job: what a lost Redis comes back as; and nobody who could live waits."""
    monkeypatch.setattr("orchestrator.dispatch.pending", lambda slices: set())
    monkeypatch.setattr("orchestrator.recovery._SECOND_LOOK", 0.0)


def expire(slice_: Slice) -> None:
    """Let the lease of a slice run out, as that of a worker that died long ago on another machine does."""
    Slice.objects.filter(pk=slice_.pk).update(lease_expires=timezone.now() - timedelta(hours=1))


def age(slice_: Slice) -> None:
    """Let a slice have been queued for long."""
    Slice.objects.filter(pk=slice_.pk).update(enqueued=timezone.now() - timedelta(minutes=1))


def only_started(monkeypatch: pytest.MonkeyPatch, slice_: Slice, *hosts: str) -> None:
    """Let the directory of the slice's first attempt say that something was started for these only."""
    said = {f"{slice_.pk}-1-0": frozenset(hosts)}

    def started(ident: str, *, evict: bool) -> frozenset[str] | None:
        return said.get(ident)

    monkeypatch.setattr("orchestrator.recovery.started_hosts", started)


def test_a_dead_worker_that_had_started_leaves_lost_rows(run: MassCommand) -> None:
    slice_, lease, _ = take(run)
    assert Slice.objects.spawn(slice_.pk, lease=lease)
    expire(slice_)
    recovery.recover()
    run.refresh_from_db()
    assert (run.status, run.counts["lost"]) == ("failed", 3)
    assert "may have" in Command.objects.filter(mass_command=run)[0].reason


def test_what_a_dead_worker_had_heard_is_recovered_from_its_journal(run: MassCommand) -> None:
    slice_, lease, assignments = take(run)
    Slice.objects.spawn(slice_.pk, lease=lease)
    with Journal(slice_.pk, 1, assignments) as journal:
        journal.add(finished("d0", rc=0, stdout="up"))
        journal.add(finished("d1", CommandStatus.FAILED, rc=3))
    with path(slice_.pk, 1).open("a") as torn:
        torn.write('{"host_name": "d2", "kind": "fini')
    expire(slice_)
    recovery.recover()
    assert counts(run) == {"success": 1, "failed": 1, "lost": 1}
    row = Command.objects.get(mass_command=run, device_name="d0")
    assert (row.stdout, row.rc) == ("up", 0)
    assert not path(slice_.pk, 1).exists()


def test_devices_for_which_nothing_was_started_have_another_turn(
    run: MassCommand, outbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    slice_, lease, assignments = take(run)
    Slice.objects.spawn(slice_.pk, lease=lease)
    with Journal(slice_.pk, 1, assignments) as journal:
        journal.add(finished("d0", rc=0))
    only_started(monkeypatch, slice_, "d0", "d1")
    outbox.clear()
    expire(slice_)
    recovery.recover()
    assert counts(run) == {"success": 1, "lost": 1, "queued": 1}
    again = Slice.objects.get(mass_command=run, status="queued")
    assert outbox == [(again.pk, 1)]
    assert [row.device_name for row in Command.objects.filter(slice=again)] == ["d2"]


def test_a_dead_worker_that_had_not_started_gives_the_slice_back(run: MassCommand, outbox: Any) -> None:
    slice_, lease, _ = take(run)
    outbox.clear()
    expire(slice_)
    recovery.recover()
    assert outbox == [(slice_.pk, 2)]
    assert not Slice.objects.spawn(slice_.pk, lease=lease)  # the first worker wakes up again, and must not start
    assert Slice.objects.take(slice_.pk, attempt=1, worker="late", seconds=30) is None
    assert Slice.objects.take(slice_.pk, attempt=2, worker="new", seconds=30) is not None


def test_a_lease_that_is_renewed_is_left_alone(run: MassCommand) -> None:
    slice_, _, _ = take(run)
    recovery.recover()
    slice_.refresh_from_db()
    assert slice_.status == "running"


def test_a_lost_queue_is_rebuilt_from_the_database(run: MassCommand, outbox: Any) -> None:
    slice_ = run.slices.get()
    outbox.clear()
    recovery.recover()
    assert not outbox  # it was queued just now: its job may still be on its way
    age(slice_)
    recovery.recover()
    recovery.recover()
    assert outbox == [(slice_.pk, 2)]
    assert Slice.objects.take(slice_.pk, attempt=1, worker="old delivery", seconds=30) is None


def test_a_queue_that_cannot_be_reached_is_asked_again_later(
    run: MassCommand, outbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(slices: Iterable[tuple[uuid.UUID, int]]) -> set[tuple[uuid.UUID, int]]:
        raise RedisConnectionError

    monkeypatch.setattr("orchestrator.dispatch.pending", unreachable)
    outbox.clear()
    age(run.slices.get())
    recovery.recover()
    assert not outbox


def test_a_cancelled_run_of_a_dead_worker_ends_cancelled_and_says_who_may_have_run(
    run: MassCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    slice_, lease, assignments = take(run)
    Slice.objects.spawn(slice_.pk, lease=lease)
    Journal(slice_.pk, 1, assignments).__exit__()
    only_started(monkeypatch, slice_, "d0", "d1")
    MassCommand.objects.filter(pk=run.pk).update(cancel_requested=timezone.now(), status="cancelling")
    expire(slice_)
    recovery.recover()
    run.refresh_from_db()
    assert (run.status, run.counts["cancelled"]) == ("cancelled", 3)
    rows = Command.objects.filter(mass_command=run).order_by("device_name")
    assert ["may have" in row.reason for row in rows] == [True, True, False]


def test_single_cancelled_devices_of_a_dead_worker_have_no_other_turn(
    run: MassCommand, outbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    slice_, lease, assignments = take(run)
    Slice.objects.spawn(slice_.pk, lease=lease)
    Journal(slice_.pk, 1, assignments).__exit__()
    only_started(monkeypatch, slice_, "d0")
    Command.objects.filter(mass_command=run, device_name__in=("d0", "d1")).update(cancel_requested=timezone.now())
    expire(slice_)
    recovery.recover()
    assert counts(run) == {"cancelled": 2, "queued": 1}
    rows = Command.objects.filter(mass_command=run).order_by("device_name")
    assert ["may have" in row.reason for row in rows] == [True, False, False]
    again = Slice.objects.get(mass_command=run, status="queued")
    assert again.tries == 0  # it had no turn yet, so the next wave waits for it


def test_a_single_device_that_was_cancelled_before_its_worker_began_is_not_contacted(run: MassCommand) -> None:
    Device.objects.update(host_key="ssh-ed25519 AAAA")
    slice_, lease, _ = take(run)
    device = Command.objects.get(mass_command=run, device_name="d1").device_id
    actions.cancel(actor=factories.superuser(), run=run, devices=[device] if device else [])
    assert len(plan(slice_).bare) == 2
    assert counts(run) == {"cancelled": 1, "queued": 2}
    Command.objects.filter(mass_command=run, device_name="d2").update(cancel_requested=timezone.now())
    assert Slice.objects.hand_back(slice_.pk, lease=lease)  # a row that was marked at the last moment
    recovery.go_on()
    assert counts(run) == {"cancelled": 2, "queued": 1}


def test_a_run_whose_end_was_missed_is_ended(run: MassCommand) -> None:
    Command.objects.filter(mass_command=run).update(status="success", finished=timezone.now())
    MassCommand.objects.filter(pk=run.pk).update(queued_count=0, success_count=3)
    recovery.recover()
    run.refresh_from_db()
    assert run.status == "success"


def test_a_lost_password_change_leaves_both_passwords_to_be_tried(outbox: Any) -> None:
    device = factories.device()
    new = launch(
        device.organization_id,
        type="change_password",
        input={"password": "n3w-Secret", "confirm_password": "n3w-Secret"},
    )
    slice_, lease, _ = take(new)
    Slice.objects.spawn(slice_.pk, lease=lease)
    Command.objects.filter(mass_command=new).update(status="running")
    MassCommand.objects.filter(pk=new.pk).update(queued_count=0, running_count=1)
    expire(slice_)
    recovery.recover()
    links = device.device_credentials.order_by("position")
    assert [link.credential.secrets().password for link in links] == ["old-Secret1", "n3w-Secret"]


def test_old_previews_are_forgotten() -> None:
    Preview.objects.create(digest="a" * 64, members=b"")
    Preview.objects.filter(digest="a" * 64).update(shown=timezone.now() - timedelta(days=2))
    recovery.recover()
    assert not Preview.objects.exists()


def test_what_breaks_one_run_keeps_no_other_from_its_end(run: MassCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    other = launch(factories.device().organization_id)
    for made in (run, other):
        Command.objects.filter(mass_command=made).update(status="success", finished=timezone.now())
        MassCommand.objects.filter(pk=made.pk).update(queued_count=0, success_count=made.device_count)
    monkeypatch.setattr("orchestrator.recovery.reap", lambda: 1 / 0)
    finish = MassCommand.objects.finish_if_done
    monkeypatch.setattr(
        "orchestrator.models.MassCommand.objects.finish_if_done", lambda pk: 1 / 0 if pk == run.pk else finish(pk)
    )
    recovery.recover()
    other.refresh_from_db()
    assert other.status == "success"
