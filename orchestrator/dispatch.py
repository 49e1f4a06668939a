"""The queue: slices go in as RQ jobs whose arguments are ids only.  The only importer of rq and django_rq.

The database is the truth.  A queue that is lost or can't be reached loses nothing: recovery puts every queued
slice in again that has no pending job.
"""

import logging
import os
import signal
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any, Final

import django_rq
from django.db import DatabaseError, connections
from redis.exceptions import RedisError
from rq import Queue, Worker
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.suspension import is_suspended, resume, suspend

from orchestrator.models import Slice
from orchestrator.run_directory import sweep

log = logging.getLogger(__name__)

QUEUE: Final = "commands"
JOB: Final = "orchestrator.jobs.run_slice"  # by path: the web process never imports Ansible
_JOB_TIMEOUT: Final = 86_400  # seconds; a run ends by its own deadline long before (SIGALRM hits at any bytecode)
_KEEP_RESULT: Final = 3_600  # seconds, for the dashboard
_KEEP_FAILURE: Final = 7 * 86_400  # seconds
KEPT_SECONDS: Final = 86_400.0  # that recovery may still ask which devices of a dead run were started
_BEGINNING: Final = timedelta(seconds=15)  # in which a job that was started has taken its slice
_LOOK, _LOOK_AGAIN = 1.0, 30.0  # seconds between two looks whether the workers are drained; after one that failed
_ASK: Final = signal.SIGUSR1  # from a worker that is asked to stop to its horse


def job_id(slice_id: uuid.UUID, attempt: int) -> str:
    """The id of the job for one delivery of a slice."""
    return f"{slice_id}-{attempt}"


def enqueue(slices: Iterable[tuple[uuid.UUID, int]]) -> bool:
    """Put (slice id, attempt) pairs into the queue; False when it can't be reached, and recovery will do it."""
    jobs = [
        Queue.prepare_data(
            JOB,
            args=(str(slice_id), attempt),
            job_id=job_id(slice_id, attempt),
            timeout=_JOB_TIMEOUT,
            result_ttl=_KEEP_RESULT,
            failure_ttl=_KEEP_FAILURE,
            description=f"slice {slice_id}, attempt {attempt}",
        )
        for slice_id, attempt in slices
    ]
    try:
        django_rq.get_queue(QUEUE).enqueue_many(jobs)
    except (RedisError, OSError) as error:
        log.warning("The queue can't be reached; recovery will put %d slices in later: %s", len(jobs), error)
        return False
    return True


def pending(slices: Iterable[tuple[uuid.UUID, int]]) -> set[tuple[uuid.UUID, int]]:
    """Those of the (slice id, attempt) pairs whose job waits, or was started just now.

    RQ's word alone is not enough: a worker that is killed between taking a job out of the list and starting it leaves
    a job that says "queued" and is in no list, and one that is killed a moment later leaves one that is "started" for
    long.

    Raises:
        RedisError: the queue can't be reached, so nothing is known.
    """
    wanted = {job_id(*pair): pair for pair in slices}
    queue = django_rq.get_queue(QUEUE)
    jobs = Job.fetch_many(list(wanted), connection=queue.connection)
    listed = set(queue.get_job_ids())  # after the jobs: what is taken out meanwhile is delivered once too often
    return {wanted[job.id] for job in jobs if job is not None and (job.id in listed or _begins(job))}


def _begins(job: Job) -> bool:
    if job.get_status(refresh=False) != JobStatus.STARTED or job.started_at is None:
        return False
    since = job.started_at if job.started_at.tzinfo else job.started_at.replace(tzinfo=UTC)
    return datetime.now(UTC) - since < _BEGINNING


class SliceWorker(Worker):
    """RQ's worker, whose horse hears that the worker was asked to stop: it then starts no more devices.

    RQ's own lets the horse finish its job, which may be hours of devices that were not even contacted.
    """

    asked_to_stop = False  # of this process, whether it is the worker or its horse
    _left_behind = ""  # the job whose slice had gone on without its horse at the last look

    def work(self, *words: Any, **options: Any) -> bool:
        """Wipe what dead runs of this machine have left, no recovery may run here that does it; load a job; work."""
        try:
            sweep(older_than=KEPT_SECONDS)
        except OSError:
            log.exception("What dead runs have left could not be looked at")
        import_module(JOB.rpartition(".")[0]).prepare()  # once, and not in each horse
        return super().work(*words, **options)

    def _install_signal_handlers(self) -> None:
        super()._install_signal_handlers()  # type: ignore[no-untyped-call]
        signal.signal(_ASK, _note)  # here already, so that a horse that was forked just now does not die of it

    def setup_work_horse_signals(self) -> None:
        """In the horse: a service manager may well ask every process of the service, and not the worker only."""
        super().setup_work_horse_signals()  # type: ignore[no-untyped-call]
        signal.signal(signal.SIGTERM, _note)

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        """Fork; who was asked to stop meanwhile had no horse to tell."""
        super().fork_work_horse(job, queue)
        if self._stop_requested:
            self._tell_horse()

    def maintain_heartbeats(self, job: Job, execution: Execution) -> None:
        """Also end a horse whose slice went on without it: one that stands still would keep its worker for a day.

        At the second look only: one that has just ended its slice is about to end, too.
        """
        super().maintain_heartbeats(job, execution)
        gone = _went_on(job)
        if gone and self._left_behind == job.id:
            log.warning("The horse of job %s stands still, and its slice went on without it: it is ended", job.id)
            self.kill_horse()
        self._left_behind = job.id if gone else ""

    def handle_warm_shutdown_request(self) -> None:
        """The first SIGTERM or SIGINT; a second one kills."""
        super().handle_warm_shutdown_request()  # type: ignore[no-untyped-call]
        self._tell_horse()

    def _tell_horse(self) -> None:
        if self.horse_pid:
            with suppress(ProcessLookupError):
                os.kill(self.horse_pid, _ASK)


def _went_on(job: Job) -> bool:
    """Whether the job's slice was ended, or given to another; False when the database doesn't say."""
    slice_id, attempt = job.args
    try:
        return not Slice.objects.filter(pk=slice_id, status="running", attempt=attempt).exists()
    except DatabaseError:
        return False
    finally:
        connections.close_all()  # the next horse would inherit it


def _note(*_: Any) -> None:
    SliceWorker.asked_to_stop = True


def may_start() -> bool:
    """Whether this worker may start devices: it was not asked to stop, and the workers are not drained."""
    return not (SliceWorker.asked_to_stop or _drain.on())


class _Drain:
    """Whether the workers are drained; asked for every now and then only, and seldom when the queue does not answer."""

    def __init__(self) -> None:
        self._on, self._due = False, 0.0

    def on(self) -> bool:
        """As it was a moment ago."""
        if time.monotonic() >= self._due:
            try:
                self._on, pause = draining(), _LOOK
            except (RedisError, OSError):
                self._on, pause = False, _LOOK_AGAIN
            self._due = time.monotonic() + pause
        return self._on


_drain = _Drain()


def reachable() -> bool:
    """Whether the queue answers."""
    try:
        return bool(django_rq.get_queue(QUEUE).connection.ping())
    except (RedisError, OSError):
        return False


def worker_count() -> int:
    """The number of workers that are registered for the queue.

    Raises:
        RedisError: the queue can't be reached.
    """
    queue = django_rq.get_queue(QUEUE)
    return len(Worker.all(queue=queue))


def drain(*, on: bool) -> None:
    """Let the workers finish the devices that they have started and begin nothing new, or go on.

    Raises:
        RedisError: the queue can't be reached.
    """
    connection = django_rq.get_queue(QUEUE).connection
    if on:
        suspend(connection)
    elif is_suspended(connection):
        resume(connection)


def draining() -> bool:
    """Whether the workers take nothing new.

    Raises:
        RedisError: the queue can't be reached.
    """
    return bool(is_suspended(django_rq.get_queue(QUEUE).connection))
