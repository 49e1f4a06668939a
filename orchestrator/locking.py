"""Two runs never touch one device at once: the lock of a device is its row in a unique index.

A row that holds its device has ``holds_device``; the database allows one for a device.  It lets go in the same
write that ends the row, so a lock can't outlive what it protects.
"""

import logging
import uuid
from datetime import datetime
from typing import Final

from django.db import IntegrityError, transaction
from django.db.models import F, Max

from orchestrator.models import Command, MassCommand, Slice
from orchestrator.querysets import CommandQuerySet
from orchestrator.states import CommandStatus

log = logging.getLogger(__name__)

_TRIES: Final = 10


class LeaseLostError(Exception):
    """The slice is no longer ours: somebody else ends it, and nothing more is written."""


def keep(slice_id: uuid.UUID, lease: uuid.UUID | None) -> None:
    """Hold a slice's row until the transaction ends, so that nobody takes it over meanwhile.

    Raises:
        LeaseLostError: it has another lease; whoever was frozen for long comes too late.
    """
    if not Slice.objects.select_for_update().filter(pk=slice_id, lease=lease).exists():
        raise LeaseLostError


def lock_devices(slice_: Slice) -> frozenset[uuid.UUID]:
    """Lock the devices of the slice's queued rows; the ids of those that another run holds.

    Raises:
        LeaseLostError: the slice is no longer ours.
    """
    rows = Command.objects.filter(slice=slice_, status=CommandStatus.QUEUED, device__isnull=False)
    for _ in range(_TRIES):
        holding = Command.objects.filter(holds_device=True, device__in=rows.values("device")).exclude(slice=slice_)
        busy = frozenset(holding.values_list("device_id", flat=True))
        try:
            with transaction.atomic():
                keep(slice_.pk, slice_.lease)
                rows.exclude(device__in=busy).update(holds_device=True)
        except IntegrityError:
            continue  # another run locked one of them between the two statements: look again
        return frozenset(device for device in busy if device)
    raise RuntimeError("the devices' locks could not be taken")


def defer(
    slice_: Slice, rows: CommandQuerySet, *, lease: uuid.UUID | None, not_before: datetime, again: bool = True
) -> None:
    """Move these queued rows of the slice to a new one that is held until then.

    ``again``: they had their turn, and another is not waited for by the next wave.

    Raises:
        LeaseLostError: the slice is no longer ours.
    """
    with transaction.atomic():
        MassCommand.objects.select_for_update().get(pk=slice_.mass_command_id)  # one at a time gives out numbers
        keep(slice_.pk, lease)  # before its rows, as everybody does
        moved = list(rows.filter(status=CommandStatus.QUEUED).values_list("pk", flat=True))
        if not moved:
            return
        slices = Slice.objects.filter(mass_command=slice_.mass_command_id)
        later = Slice.objects.create(
            mass_command_id=slice_.mass_command_id,
            number=(slices.aggregate(last=Max("number"))["last"] or 0) + 1,
            wave=slice_.wave,
            size=len(moved),
            tries=slice_.tries + again,
            not_before=not_before,
            status="held",
        )
        Command.objects.filter(pk__in=moved).update(slice=later, holds_device=False)
        Slice.objects.filter(pk=slice_.pk).update(size=F("size") - len(moved))
    log.info("%d devices of slice %s wait until %s", len(moved), slice_.pk, not_before)
