"""Who stood still past a lease: nothing that is another's by then is touched, and who lives keeps its slice."""

import os
import signal
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import pytest
from django.conf import settings
from django.db import OperationalError, connections
from django.utils import timezone
from rq import Queue

from orchestrator import dispatch, jobs, planning, recovery
from orchestrator.locking import LeaseLostError, lock_devices
from orchestrator.models import Command, Device, MassCommand, Slice
from orchestrator.pacing import advance
from orchestrator.runner import RunOutcome
from orchestrator.settling import Ending, settle
from tests.integration.engine import until
from tests.integration.test_dispatch import queue
from tests.integration.test_recording import counts, launch, run, take
from tests.integration.test_recovery import expire

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database]

__all__ = ("queue", "run")  # fixtures


def take_over(slice_: Slice) -> uuid.UUID:
    """Let recovery put the slice back, and another worker take it; its lease."""
    expire(slice_)
    recovery.recover()
    again = Slice.objects.get(pk=slice_.pk)
    lease = Slice.objects.take(slice_.pk, attempt=again.attempt, worker="other", seconds=30)
    assert lease is not None
    return lease


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody who could live is waited for."""
    monkeypatch.setattr("orchestrator.recovery._SECOND_LOOK", 0.0)


def test_a_worker_that_was_frozen_before_its_start_plans_and_ends_nothing_of_who_has_the_slice_now(
    run: MassCommand, outbox: Any
) -> None:
    Device.objects.update(host_key="ssh-ed25519 AAAA")
    Device.objects.filter(name="d0").update(is_active=False)  # what a plan would end
    frozen, lease, _ = take(run)
    take_over(frozen)
    with pytest.raises(LeaseLostError):
        planning.plan(frozen)
    assert counts(run) == {"queued": 3}
    assert not Command.objects.filter(holds_device=True).exists()
    planning.plan(Slice.objects.get(pk=frozen.pk))
    assert not settle(frozen, lease=lease, ending=Ending.PAUSED)
    assert Command.objects.filter(holds_device=True).count() == 2
    assert counts(run) == {"queued": 2, "skipped": 1}


def test_a_worker_that_was_frozen_takes_no_busy_device_out_of_a_slice_of_another(run: MassCommand, outbox: Any) -> None:
    Device.objects.update(host_key="ssh-ed25519 AAAA")
    planning.plan(take(run)[0])
    second = launch(Device.objects.values_list("organization_id", flat=True)[0])
    frozen, _, _ = take(second)
    take_over(frozen)
    with pytest.raises(LeaseLostError):
        planning.plan(frozen)
    assert second.slices.count() == 1


def test_a_worker_whose_slice_was_taken_while_it_planned_does_nothing(
    run: MassCommand, outbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    Device.objects.update(host_key="ssh-ed25519 AAAA")
    slice_ = run.slices.get()
    lock = "orchestrator.planning.lock_devices"

    def freeze(mine: Slice) -> frozenset[uuid.UUID]:
        take_over(mine)
        return lock_devices(mine)

    def never(*_: Any, **__: Any) -> RunOutcome:
        raise AssertionError("Ansible was started")

    monkeypatch.setattr(lock, freeze)
    monkeypatch.setattr("orchestrator.runner.run", never)
    jobs.run_slice(str(slice_.pk), 1)
    slice_.refresh_from_db()
    assert (slice_.status, slice_.worker, slice_.spawned) == ("running", "other", None)
    assert counts(run) == {"queued": 3}


@pytest.mark.parametrize("lives", [True, False], ids=["lives", "is dead"])
def test_whose_lease_ran_out_while_all_stood_still_may_renew_it(
    run: MassCommand, monkeypatch: pytest.MonkeyPatch, lives: bool
) -> None:
    slice_, lease, _ = take(run)
    Slice.objects.spawn(slice_.pk, lease=lease)
    expire(slice_)

    def moment(seconds: float) -> None:
        if lives:
            Slice.objects.renew(slice_.pk, lease=lease, seconds=30)

    monkeypatch.setattr("orchestrator.recovery.time.sleep", moment)
    recovery.reap()
    assert counts(run) == ({"queued": 3} if lives else {"lost": 3})


def test_a_database_that_is_locked_while_a_slice_is_planned_fails_no_device(
    run: MassCommand, outbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(_: Slice) -> NoReturn:
        raise OperationalError("database is locked")

    monkeypatch.setattr("orchestrator.planning.lock_devices", locked)
    slice_ = run.slices.get()
    with pytest.raises(OperationalError):
        jobs.run_slice(str(slice_.pk), 1)
    assert counts(run) == {"queued": 3}
    expire(slice_)
    recovery.recover()
    slice_.refresh_from_db()
    assert (slice_.status, slice_.attempt) == ("queued", 2)
    assert slice_.enqueued <= timezone.now()
    advance(run.pk)
    assert outbox[-1] == (slice_.pk, 2)


@pytest.mark.parametrize("goes_on", [True, False], ids=["its slice went on", "its slice is its own"])
def test_a_horse_that_stands_still_keeps_its_worker_only_while_its_slice_is_its_own(
    run: MassCommand, queue: Queue, monkeypatch: pytest.MonkeyPatch, goes_on: bool
) -> None:
    slice_ = run.slices.get()
    began = Path(settings.REDIS_URL.removeprefix("unix://")).with_name("began")

    def stand_still(slice_id: str, attempt: int) -> None:
        Slice.objects.take(uuid.UUID(slice_id), attempt=attempt, worker="frozen", seconds=30)
        began.write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGSTOP)

    def watch() -> None:
        until(lambda: began.exists() and began.read_text(), 60)
        horse = int(began.read_text())
        if goes_on:
            Slice.objects.filter(pk=slice_.pk).update(status="finished", lease=None, lease_expires=None)
        else:
            time.sleep(5)  # several looks
            assert Path(f"/proc/{horse}/stat").read_text().split()[2] == "T"
            os.kill(horse, signal.SIGKILL)
        connections.close_all()

    monkeypatch.setattr(jobs, "run_slice", stand_still)
    queue.enqueue(dispatch.JOB, str(slice_.pk), 1)
    connections.close_all()  # the horse would inherit it
    with ThreadPoolExecutor(1) as threads:
        watching = threads.submit(watch)
        worker = dispatch.SliceWorker([queue], connection=queue.connection, job_monitoring_interval=1)
        worker.work(burst=True)  # ends when its horse has ended
        watching.result()
    began.unlink()
