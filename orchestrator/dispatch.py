"""The queue: slices go in as RQ jobs whose arguments are ids only.  The only importer of rq and django_rq.

The database is the truth.  A queue that is lost or can't be reached loses nothing: recovery puts every queued
slice in again that has no pending job.
"""

import logging
import uuid
from collections.abc import Iterable
from typing import Final

import django_rq
from redis.exceptions import RedisError
from rq import Queue, Worker
from rq.job import Job, JobStatus
from rq.suspension import is_suspended, resume, suspend

log = logging.getLogger(__name__)

QUEUE: Final = "commands"
JOB: Final = "orchestrator.jobs.run_slice"  # by path: the web process never imports Ansible
_JOB_TIMEOUT: Final = 86_400  # seconds; a run ends by its own deadline long before (SIGALRM hits at any bytecode)
_KEEP_RESULT: Final = 3_600  # seconds, for the dashboard
_KEEP_FAILURE: Final = 7 * 86_400  # seconds
_PENDING: Final = frozenset({JobStatus.QUEUED, JobStatus.STARTED, JobStatus.DEFERRED, JobStatus.SCHEDULED})


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
    """Those of the (slice id, attempt) pairs whose job waits or runs.

    Raises:
        RedisError: the queue can't be reached, so nothing is known.
    """
    wanted = {job_id(*pair): pair for pair in slices}
    queue = django_rq.get_queue(QUEUE)
    jobs = Job.fetch_many(list(wanted), connection=queue.connection)
    return {wanted[job.id] for job in jobs if job is not None and job.get_status(refresh=False) in _PENDING}


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
    """Let the workers finish what they run and take nothing new, or go on.

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
