"""How slices end: what becomes of the devices that have no result of their own, and of the run after its last slice."""

import enum
import logging
import random
import uuid
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from orchestrator import journal
from orchestrator.events import REASONS
from orchestrator.locking import LeaseLostError, defer
from orchestrator.models import Command, MassCommand, Slice
from orchestrator.querysets import CommandQuerySet
from orchestrator.recording import WAITS
from orchestrator.rotation import PasswordChange, follow
from orchestrator.states import CommandStatus

log = logging.getLogger(__name__)


class Ending(enum.StrEnum):
    """How a slice ended, for the devices that have no result of their own."""

    COMPLETED = "completed"
    STOPPED = "stopped"
    DEADLINE = "deadline"
    CRASHED = "crashed"
    LOST = "lost"
    CANCELLED_LOST = "cancelled_lost"
    TERMINATED = "terminated"
    CANARY_FAILED = "canary_failed"
    PAUSED = "paused"


_C = CommandStatus
CANCELLED_WAITING: Final = (_C.CANCELLED, "cancelled", "Cancelled before the device was contacted.")
_CANCELLED_RUNNING: Final = (_C.CANCELLED, "cancelled_running", REASONS["cancelled_running"])
_CANCELLED_LOST: Final = (
    _C.CANCELLED, "cancelled_running", "Cancelled, and its worker died; the device may have carried out the command.",
)  # fmt: skip
# Ending → (what becomes of queued devices, of running ones), each with its code and reason.
_LEFT_OVER: Final[Mapping[Ending, tuple[tuple[CommandStatus, str, str], tuple[CommandStatus, str, str]]]] = {
    Ending.COMPLETED: (
        (_C.LOST, "no_result", "The run ended without a word about this device."),
        (_C.LOST, "no_result", "The run ended without a result of this device; it may have carried out the command."),
    ),
    Ending.STOPPED: (
        CANCELLED_WAITING,
        _CANCELLED_RUNNING,
    ),
    Ending.CANCELLED_LOST: (_CANCELLED_LOST, _CANCELLED_LOST),
    Ending.DEADLINE: (
        (_C.TERMINATED, "deadline", "The time for the run was over before the device was contacted."),
        (_C.TIMED_OUT, "deadline", "The time for the run was over; the command may still be running on the device."),
    ),
    Ending.CRASHED: (
        (_C.FAILED, "crashed", "Ansible could not run the command. {detail}"),
        (_C.LOST, "crashed", "Ansible broke off; the device may have carried out the command. {detail}"),
    ),
    Ending.TERMINATED: (
        (_C.TERMINATED, "error_budget", "The run had more errors than it may have; the device was not contacted."),
        (_C.LOST, "error_budget", "The run was ended; the device may have carried out the command."),
    ),
    Ending.CANARY_FAILED: (
        (_C.TERMINATED, "canary_failed", "The first devices did not all succeed; this one was not contacted."),
        (_C.LOST, "canary_failed", "The run was ended; the device may have carried out the command."),
    ),
    Ending.LOST: (
        (_C.LOST, "worker_died", "The worker died; the device may have carried out the command."),
        (_C.LOST, "worker_died", "The worker died; the device may have carried out the command."),
    ),
}
_UNSURE: Final = frozenset({Ending.COMPLETED, Ending.LOST, Ending.CANCELLED_LOST})  # of queued rows, if anything ran
_OTHERS_MAY_FOLLOW: Final = frozenset({Ending.COMPLETED, Ending.CRASHED, Ending.LOST})
_OFFLINE_RETRY_MOST: Final = 3_600.0  # seconds


def _defer_offline(slice_: Slice, lease: uuid.UUID) -> None:
    waiting = Command.objects.filter(slice=slice_, status=_C.QUEUED, reason_code=WAITS)
    until = slice_.mass_command.offline_until
    if until is None:
        return
    seconds = min(settings.OFFLINE_RETRY_SECONDS * 2**slice_.tries, _OFFLINE_RETRY_MOST)
    seconds *= random.uniform(0.75, 1.25)  # noqa: S311 - spreads load, hides nothing
    defer(slice_, waiting, lease=lease, not_before=min(timezone.now() + timedelta(seconds=seconds), until))


def skip(run: uuid.UUID, reasons: Mapping[uuid.UUID, tuple[CommandStatus, str, str]]) -> None:
    """End queued rows that are not to be contacted: row id → (status, code, reason)."""
    if not reasons:
        return
    with transaction.atomic():
        change = MassCommand.objects.next_change(run)
        moves: Counter[tuple[str, str]] = Counter()
        for verdict in set(reasons.values()):
            status, code, reason = verdict
            rows = Command.objects.filter(pk__in=[pk for pk, said in reasons.items() if said == verdict])
            moves[_C.QUEUED, status] += rows.end(
                source=_C.QUEUED, target=status, code=code, reason=reason, change=change
            )
        MassCommand.objects.count_moves(run, moves)


def settle(
    slice_: Slice, *, lease: uuid.UUID, ending: Ending, detail: str = "", change: PasswordChange | None = None
) -> bool:
    """End a slice: give every open device of it a finished status, free the lease, end the run if it was the last.

    Returns False, and changes nothing, when the lease is no longer ours.  A paused slice is held again instead.
    """
    if ending == Ending.PAUSED:
        with transaction.atomic():
            ours = Slice.objects.put_back(slice_.pk, lease=lease)
            if ours:  # else these are the locks of whoever has the slice now
                Command.objects.filter(slice=slice_, status=_C.QUEUED).update(holds_device=False)
        return ours
    if ending in _OTHERS_MAY_FOLLOW:
        try:
            _defer_offline(slice_, lease)
        except LeaseLostError:
            return False
    with transaction.atomic():
        if not Slice.objects.finish(slice_.pk, lease=lease):
            return False
        change_number = MassCommand.objects.next_change(slice_.mass_command_id)
        rows = Command.objects.filter(slice=slice_)
        moves: Counter[tuple[str, str]] = Counter()
        if change:
            _follow_left_over(rows, change)
        asked = rows.filter(cancel_requested__isnull=False)
        by_hand = _CANCELLED_RUNNING if ending in _UNSURE else CANCELLED_WAITING, _CANCELLED_RUNNING
        for which, verdicts in ((asked, by_hand), (rows, _LEFT_OVER[ending])):
            for source, (status, code, reason) in zip((_C.QUEUED, _C.RUNNING), verdicts, strict=True):
                said = reason.format(detail=detail).strip()
                moves[source, status] += which.end(
                    source=source, target=status, code=code, reason=said, change=change_number
                )
        MassCommand.objects.count_moves(slice_.mass_command_id, moves)
        MassCommand.objects.spend_budget(slice_.mass_command_id)
    journal.remove(slice_.pk, slice_.attempt)
    MassCommand.objects.finish_if_done(slice_.mass_command_id)
    log.info("Slice %s ended: %s", slice_.pk, ending, extra={"slice": str(slice_.pk), "moved": dict(moves)})
    return True


def _follow_left_over(rows: CommandQuerySet, change: PasswordChange) -> None:
    open_rows = rows.filter(status=_C.RUNNING, device__isnull=False)
    pairs = open_rows.values_list("device_id", "device__device_credentials__credential__username")
    if logins := dict(pairs):
        follow(change, logins=logins, certain=False)
