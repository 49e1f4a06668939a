"""What puts things right after something died: leases that ran out, queues that were lost, ends that were missed.

Any number of these may run, anywhere: each step is a guarded write.
"""

import logging
import socket
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Final

from django.conf import settings
from django.db import DatabaseError
from django.db.models import Count, F, Max
from django.utils import timezone
from redis.exceptions import RedisError

from orchestrator import dispatch, journal, origin
from orchestrator.exceptions import SecretUnreadableError
from orchestrator.journal import Assignment
from orchestrator.locking import defer
from orchestrator.models import Command, IdempotencyKey, MassCommand, Preview, Slice, Token
from orchestrator.pacing import advance, why_not
from orchestrator.planning import password_change, round_ident
from orchestrator.querysets import CommandQuerySet
from orchestrator.recording import Recorder
from orchestrator.rotation import PasswordChange
from orchestrator.run_directory import started_hosts, sweep
from orchestrator.scheduling import start_due
from orchestrator.settling import CANCELLED_WAITING, Ending, settle, skip

log = logging.getLogger(__name__)

_KEYS_KEPT: Final = timedelta(hours=24)
_TOKENS_KEPT: Final = timedelta(days=7)  # after they expired: who wonders why a script fails finds it in the list
_SECOND_LOOK: Final = 3.0  # seconds; a worker that lives renews its lease within, once it can
_PATIENCE: Final = 15.0  # seconds that a slice may be queued before somebody looks for its job


def recover() -> None:
    """One round of everything; what breaks one step, or one row, keeps no other from its end."""
    steps = (reap, requeue, start_due, go_on, partial(sweep, older_than=3 * settings.LEASE_SECONDS), forget)
    for step in steps:
        with _alone(step):
            step()


@contextmanager
def _alone(what: object) -> Iterator[None]:
    """Log an error instead of passing it on; a database that can't be used is everybody's."""
    try:
        yield
    except DatabaseError:
        raise
    except Exception:
        log.exception("The recovery of %s failed; it is tried again", what)


def reap() -> None:
    """End what dead workers left, with what their journals hold."""
    overdue = _overdue()
    now = timezone.now()
    for slice_ in Slice.objects.expired(now).filter(lease__in=overdue).select_related("mass_command"):
        if not _is_ours(slice_) and slice_.lease_expires > now - timedelta(seconds=settings.LEASE_SECONDS):
            continue  # a recovery on the worker's machine can read its journal: it goes first
        lease = uuid.uuid4()
        if Slice.objects.seize(slice_.pk, old=slice_.lease, new=lease, seconds=settings.LEASE_SECONDS):
            slice_.refresh_from_db()
            with _alone(slice_), origin.through(origin.Door.WORKER):  # in the place of the dead one
                _end_for(slice_, lease)


def _overdue() -> list[uuid.UUID]:
    """The leases that have run out and are not renewed although they could be.

    Where all stood still (a locked or restarted database, a machine that slept, a clock that was set) every lease has
    run out, and its worker may live: it has a moment to say so, from a write on that succeeds.
    """
    overdue = Slice.objects.expired(timezone.now())
    leases = list(overdue.values_list("lease", flat=True))
    if leases and overdue.filter(lease__in=leases).update(worker=F("worker")):
        time.sleep(_SECOND_LOOK)
    return leases


def _is_ours(slice_: Slice) -> bool:
    return slice_.worker.rpartition(":")[0] == socket.gethostname()


def _end_for(slice_: Slice, lease: uuid.UUID) -> None:
    """End a slice in its dead worker's place: what had not started goes back, what may have started is lost."""
    run = slice_.mass_command
    if slice_.spawned is None:
        if ending := why_not(run):
            settle(slice_, lease=lease, ending=ending)
        elif Slice.objects.hand_back(slice_.pk, lease=lease):
            log.warning("Slice %s was taken and never started; it goes back to the queue", slice_.pk)
            dispatch.enqueue([(slice_.pk, slice_.attempt + 1)])
        return
    log.warning("The worker %s of slice %s died", slice_.worker, slice_.pk)
    change = _password_change(run)
    assignments, events = journal.read(slice_.pk, slice_.attempt)
    with Recorder(slice_, lease=lease, assignments=assignments, change=change) as recorder:
        for event in events:
            recorder.record(event)
    unstarted = Command.objects.filter(slice=slice_, pk__in=_unstarted(slice_, assignments))
    if run.cancel_requested:
        skip(run.pk, dict.fromkeys(_queued(unstarted), CANCELLED_WAITING))
        settle(slice_, lease=lease, ending=Ending.CANCELLED_LOST, change=change)
        return
    skip(run.pk, dict.fromkeys(_queued(unstarted.filter(cancel_requested__isnull=False)), CANCELLED_WAITING))
    defer(slice_, unstarted, lease=lease, not_before=timezone.now(), again=False)
    settle(slice_, lease=lease, ending=Ending.LOST, change=change)


def _password_change(run: MassCommand) -> PasswordChange | None:
    try:
        return password_change(run)
    except SecretUnreadableError:  # one run whose key is gone must not keep all the others from their end
        log.exception("The credentials of run %s can't follow its new password", run.pk)
        return None


def _unstarted(slice_: Slice, assignments: Mapping[str, Assignment]) -> list[uuid.UUID]:
    """The rows for whose devices nothing was ever started: the attempt's directory tells them surely.

    Only while it was in its first round: in a later one, which tries other credentials, all devices had their turn.
    Its worker may live, and have been frozen for long: what goes on for it is ended, whichever its round.
    """
    ours = _is_ours(slice_)
    started, *_ = [started_hosts(round_ident(slice_, number), evict=ours) for number in range(_rounds(slice_))]
    if started is None:
        return []
    return [who.command for host, who in assignments.items() if host not in started]


def _rounds(slice_: Slice) -> int:
    """How many times Ansible may have been started for an attempt at the slice: for each credential once."""
    counts = Command.objects.filter(slice=slice_).annotate(n=Count("device__device_credentials"))
    return max(1, counts.aggregate(most=Max("n"))["most"] or 0)


def _queued(rows: CommandQuerySet) -> Iterable[uuid.UUID]:
    return rows.filter(status="queued").values_list("pk", flat=True)


def requeue() -> None:
    """Deliver again what is queued in the database and not in the queue; an earlier delivery does nothing then."""
    before = timezone.now() - timedelta(seconds=_PATIENCE)
    waiting = dict(Slice.objects.filter(status="queued", enqueued__lt=before).values_list("pk", "attempt"))
    if not waiting:
        return
    try:
        lost = set(waiting.items()) - dispatch.pending(waiting.items())
    except (RedisError, OSError) as error:
        log.warning("The queue can't be reached: %s", error)
        return
    again = [(pk, attempt + 1) for pk, attempt in lost if Slice.objects.redeliver(pk, attempt=attempt)]
    if again:
        log.warning("%d slices were not in the queue; they are put in again", len(again))
        dispatch.enqueue(again)


def go_on() -> None:
    """Let each active run do what is due: a wave, a retry, its deadline, its end."""
    for run in MassCommand.objects.active().values_list("pk", flat=True):
        with _alone(run):
            MassCommand.objects.finish_if_done(run)
            advance(run)


def forget() -> None:
    """Delete what has expired: previews, keys of launches, and tokens."""
    now = timezone.now()
    Preview.objects.filter(shown__lt=now - timedelta(hours=settings.PREVIEW_HOURS)).delete()
    IdempotencyKey.objects.filter(created__lt=now - _KEYS_KEPT).delete()
    Token.objects.filter(expiry__lt=now - _TOKENS_KEPT).delete()
