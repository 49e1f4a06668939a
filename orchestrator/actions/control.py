"""Cancel, pause, resume."""

import uuid
from collections.abc import Sequence
from typing import Any, Final

from django.db import transaction
from django.utils import timezone

from orchestrator import audit
from orchestrator.actions.permission import permit_control
from orchestrator.exceptions import InvalidFieldError, NotActiveError
from orchestrator.models import AuditAction, Command, MassCommand, Slice, User
from orchestrator.pacing import advance, open_wave, wave_is_over
from orchestrator.states import RunStatus

_NAMED: Final = 100  # devices named in an audit entry


def cancel(*, actor: User, run: MassCommand, devices: Sequence[uuid.UUID] | None = None) -> None:
    """Stop a run: what waits is ended at once, what runs is ended by its worker within seconds.

    With ``devices`` only those are stopped, and the others go on.

    Raises:
        NotPermittedError: the user may not run commands in its organization.
        InvalidFieldError: a device is none of the run's.
    """
    permit_control(actor, run)
    if devices is not None:
        _refuse_strangers(run, devices)
        _ask_to_cancel(actor, run, devices)
        advance(run.pk)
        MassCommand.objects.finish_if_done(run.pk)
        return
    with transaction.atomic(durable=True):
        going_on = MassCommand.objects.active().filter(pk=run.pk, cancel_requested=None)
        if going_on.update(cancel_requested=timezone.now(), status=RunStatus.CANCELLING):
            audit.record(AuditAction.RUN_CANCEL, actor=actor, about=run)
    advance(run.pk)


def _refuse_strangers(run: MassCommand, devices: Sequence[uuid.UUID]) -> None:
    own = set(Command.objects.filter(mass_command=run, device__in=devices).values_list("device_id", flat=True))
    if strange := [str(pk) for pk in devices if pk not in own]:
        raise InvalidFieldError("devices", f"This run has no such device: {', '.join(strange[:5])}.")


def _ask_to_cancel(actor: User, run: MassCommand, devices: Sequence[uuid.UUID]) -> None:
    """Mark the devices' rows: pacing ends those that wait, and the workers those that run."""
    with transaction.atomic(durable=True):
        # The slices before their rows, as workers do: another order could end in a deadlock.
        unfinished = Slice.objects.filter(mass_command=run).exclude(status="finished")
        list(unfinished.select_for_update().order_by("pk").values_list("pk"))
        rows = Command.objects.open().filter(mass_command=run, device__in=devices, cancel_requested=None)
        names = sorted(rows.values_list("device_name", flat=True))
        if rows.update(cancel_requested=timezone.now()):
            audit.record(AuditAction.RUN_CANCEL, actor=actor, about=run, details=_listed(names))


def _listed(names: list[str]) -> dict[str, Any]:
    """Devices as an audit entry has them: all counted, some named."""
    return {"device_count": len(names), "devices": names[:_NAMED]}


def pause(*, actor: User, run: MassCommand) -> None:
    """Start nothing more; devices that run go on to their end.

    Raises:
        NotPermittedError: the user may not run commands in its organization.
        NotActiveError: the run has ended.
    """
    permit_control(actor, run)
    with transaction.atomic(durable=True):
        active = MassCommand.objects.active().filter(pk=run.pk, cancel_requested=None)
        if active.filter(paused=None).update(paused=timezone.now()):
            audit.record(AuditAction.RUN_PAUSE, actor=actor, about=run)
        elif not active.exists():
            raise NotActiveError
        Slice.objects.hold(run.pk)


def resume(*, actor: User, run: MassCommand) -> None:
    """Go on after a pause; where a run waits between two waves, let the next one begin.

    Raises:
        NotPermittedError: the user may not run commands in its organization.
        NotActiveError: the run has ended.
    """
    permit_control(actor, run)
    with transaction.atomic(durable=True):
        locked = MassCommand.objects.select_for_update().active().filter(pk=run.pk, cancel_requested=None).first()
        if locked is None:
            raise NotActiveError
        if locked.paused:
            MassCommand.objects.filter(pk=run.pk).update(paused=None)
            audit.record(AuditAction.RUN_RESUME, actor=actor, about=run)
        elif wave_is_over(locked):
            open_wave(locked)
            audit.record(AuditAction.RUN_RESUME, actor=actor, about=run, details={"after_wave": locked.wave})
    advance(run.pk)
