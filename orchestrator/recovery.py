"""What puts things right after something died: leases that ran out, queues that were lost, ends that were missed.

Any number of these may run, anywhere: each step is a guarded write.
"""

import logging
import socket
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Final

from django.conf import settings
from django.db import DatabaseError
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
from orchestrator.recording import CANCELLED_WAITING, Ending, Recorder, settle, skip
from orchestrator.rotation import PasswordChange
from orchestrator.run_directory import started_hosts, sweep
from orchestrator.scheduling import start_due

log = logging.getLogger(__name__)

_KEYS_KEPT: Final = timedelta(hours=24)
_TOKENS_KEPT: Final = timedelta(days=7)  # after they expired: who wonders why a script fails finds it in the list
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
    now = timezone.now()
    for slice_ in Slice.objects.expired(now).select_related("mass_command"):
        if not _is_ours(slice_) and slice_.lease_expires > now - timedelta(seconds=settings.LEASE_SECONDS):
            continue  # a recovery on the worker's machine can read its journal: it goes first
        lease = uuid.uuid4()
        if Slice.objects.seize(slice_.pk, old=slice_.lease, new=lease, seconds=settings.LEASE_SECONDS):
            slice_.refresh_from_db()
            with _alone(slice_), origin.through(origin.Door.WORKER):  # in the place of the dead one
                _end_for(slice_, lease)


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
    defer(slice_, unstarted, not_before=timezone.now(), again=False)
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
    """
    started = started_hosts(round_ident(slice_, 0))
    if started is None:
        return []
    return [who.command for host, who in assignments.items() if host not in started]


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
