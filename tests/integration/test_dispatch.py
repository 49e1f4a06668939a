"""What the queue is asked and told, with a real queue server: the jobs that RQ forgets, and workers that stop."""

import errno
import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import django_rq
import pytest
from django.conf import settings
from rq import Queue
from rq.job import Job, JobStatus

from orchestrator import dispatch, jobs
from orchestrator.events import HostEvent
from orchestrator.models import Command, Device, MassCommand, Slice
from orchestrator.run_directory import run_directory, started_hosts
from orchestrator.runner import Orders, RunOutcome, RunRequest
from orchestrator.stack import redis_program
from tests.integration.engine import until
from tests.integration.test_recording import counts, finished, run

pytestmark = pytest.mark.django_db(transaction=True)

__all__ = ("run",)  # a fixture


@pytest.fixture
def queue() -> Iterator[Queue]:
    """The queue of the tests' settings, with a server."""
    path = Path(settings.REDIS_URL.removeprefix("unix://"))
    with subprocess.Popen(redis_program(path).argv, stdout=subprocess.DEVNULL) as server:
        try:
            until(path.exists, 10)
            yield django_rq.get_queue("commands")
        finally:
            server.terminate()


def test_a_job_that_rq_has_lost_track_of_is_not_pending(queue: Queue) -> None:
    pairs = [(uuid.uuid4(), 1) for _ in range(5)]
    dispatch.enqueue(pairs)
    assert dispatch.pending(pairs) == set(pairs)
    popped, starting, stuck, ended, _ = [
        Job.fetch(dispatch.job_id(*pair), connection=queue.connection) for pair in pairs
    ]
    for job in (popped, starting, stuck, ended):
        queue.remove(job)
    now = datetime.now(UTC)
    for job, status, since in (
        (starting, JobStatus.STARTED, now),
        (stuck, JobStatus.STARTED, now - timedelta(minutes=1)),
        (ended, JobStatus.FAILED, now),
    ):
        job.started_at = since
        job.save()
        job.set_status(status)
    assert dispatch.pending(pairs) == {pairs[1], pairs[4]}


def test_drained_workers_may_start_nothing_until_they_go_on(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    for on, may in ((False, True), (True, False), (False, True)):
        dispatch.drain(on=on)
        monkeypatch.setattr(dispatch, "_drain", dispatch._Drain())  # which would look again in a second
        assert dispatch.may_start() is may


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it, and this process is a worker that was asked to stop."""
    monkeypatch.setattr(dispatch, "_drain", dispatch._Drain())
    return lambda: monkeypatch.setattr(dispatch.SliceWorker, "asked_to_stop", True)


def test_a_worker_that_is_asked_to_stop_gives_a_slice_back_that_it_has_not_begun(
    run: MassCommand, outbox: list[Any], asked: Callable[[], None]
) -> None:
    slice_ = run.slices.get()
    asked()
    jobs.run_slice(str(slice_.pk), 1)
    slice_.refresh_from_db()
    assert (slice_.status, slice_.attempt, slice_.spawned) == ("queued", 2, None)
    assert outbox[-1] == (slice_.pk, 2)
    assert counts(run) == {"queued": 3}


def test_a_worker_that_is_asked_to_stop_gives_back_the_devices_that_it_has_not_started(
    run: MassCommand, outbox: list[Any], asked: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    Device.objects.update(host_key="ssh-ed25519 AAAA")

    def carry_out(request: RunRequest, *, on_event: Callable[[HostEvent], None], orders: Orders) -> RunOutcome:
        hosts = [target.host_name for target in request.targets]
        assert not orders.drain()
        asked()
        assert orders.drain()
        orders.withdrawn(hosts[1:])
        on_event(finished(hosts[0], rc=0))
        return RunOutcome("completed")

    monkeypatch.setattr("orchestrator.runner.run", carry_out)
    first = run.slices.get()
    jobs.run_slice(str(first.pk), 1)
    assert counts(run) == {"success": 1, "queued": 2}
    again = Slice.objects.get(mass_command=run, status="queued")
    assert (again.size, again.tries, again.wave) == (2, 0, 1)
    assert outbox[-1] == (again.pk, 1)
    first.refresh_from_db()
    assert (first.status, first.size) == ("finished", 1)
    assert not Command.objects.filter(mass_command=run, holds_device=True).exists()


def test_a_worker_that_starts_wipes_what_dead_runs_have_left(
    queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django.conf.settings.RUN_DIR", str(tmp_path))
    monkeypatch.setattr("orchestrator.run_directory.PATH_BYTES", 200)
    with pytest.raises(LookupError), run_directory("dead", ["d0"]) as dead:
        (dead / "secret").write_text("old-Secret1")
        shutil.copytree(dead, dead.with_name("kept"))
        raise LookupError
    dead.with_name("kept").rename(dead)
    with run_directory("alive", ["d0"]) as alive:
        (alive / "secret").write_text("old-Secret1")
        dispatch.SliceWorker([queue], connection=queue.connection).work(burst=True)
        assert (alive / "secret").exists()
    assert not (dead / "secret").exists()
    assert started_hosts("dead") == frozenset()  # as recovery may yet ask


def test_the_deadline_counts_for_the_slice_with_which_the_run_begins(
    run: MassCommand, outbox: list[Any], asked: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    Device.objects.update(host_key="ssh-ed25519 AAAA")
    MassCommand.objects.update(deadline_seconds=7.0)
    seen: list[float] = []

    def carry_out(request: RunRequest, **_: Any) -> RunOutcome:
        seen.append(request.deadline)
        return RunOutcome("deadline")

    monkeypatch.setattr("orchestrator.runner.run", carry_out)
    jobs.run_slice(str(run.slices.get().pk), 1)
    assert 0 < seen[0] <= 7
    assert counts(run) == {"terminated": 3}


def test_a_worker_whose_disk_is_full_says_so(
    run: MassCommand, outbox: list[Any], asked: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    Device.objects.update(host_key="ssh-ed25519 AAAA")

    def carry_out(*_: Any, **__: Any) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/run/orchestrator-run-0")

    monkeypatch.setattr("orchestrator.runner.run", carry_out)
    jobs.run_slice(str(run.slices.get().pk), 1)
    assert counts(run) == {"failed": 3}
    reasons = set(Command.objects.values_list("reason", flat=True))
    assert reasons == {"Ansible could not run the command. The worker's machine says: No space left on device."}
