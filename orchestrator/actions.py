"""What people do: preview, launch, cancel, delete, enrol.  The only writers outside a run.

Each is one durable transaction, and what leaves the process happens on commit.
"""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import batched, islice
from typing import Any, Final

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Exists, F, OuterRef
from django.utils import timezone

from orchestrator import host_keys
from orchestrator.access import Access, Right
from orchestrator.exceptions import (
    CountChangedError,
    HostKeyChangedError,
    InvalidFieldError,
    KeyReusedError,
    NotActiveError,
    NoTargetsError,
    NotPermittedError,
    RunDeletedError,
    StillActiveError,
    TargetsChangedError,
)
from orchestrator.models import (
    Command,
    Device,
    IdempotencyKey,
    MassCommand,
    Organization,
    Preview,
    Schedule,
    Slice,
    User,
)
from orchestrator.models.idempotency import Once
from orchestrator.pacing import Controls, advance, amount, cut_waves, open_wave, wave_is_over
from orchestrator.playbooks import check_input, specification
from orchestrator.recording import CANCELLED_WAITING, skip
from orchestrator.states import ERRORS, RUN_FINISHED, CommandStatus, RunStatus
from orchestrator.targeting import REASONS, Digest, TargetFilter, TargetSet, difference, resolve, unpack

_INSERT: Final = 1_000  # rows in one statement
_LISTED: Final = 1_000  # changed devices named in a conflict
_MOMENTS: Final = frozenset({"run_at", "wait_for_offline_until"})  # controls that a retry, later, does not take over


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchRequest:
    """A mass command as it was asked for; ``digest`` and ``expected_count`` are those of the preview, if given."""

    type: str
    input: Any
    targets: TargetFilter
    label: str = ""
    notes: str = ""
    digest: str = ""
    expected_count: int | None = None
    controls: Controls = field(default_factory=Controls)
    parent: MassCommand | None = None
    schedule: Schedule | None = None


def preview(
    *, actor: User, targets: TargetFilter, command_type: str = "", command_input: Any = None
) -> tuple[TargetSet, str]:
    """What a launch would run on, and the digest of that set; nothing is started.

    Raises:
        InvalidFieldError: see ``targeting.resolve`` and ``playbooks.check_input``.
        NotPermittedError: see ``targeting.resolve``.
    """
    if command_type and command_input is not None:
        check_input(command_type, command_input)
    found = resolve(targets, access=Access.of(actor), command_type=command_type)
    digest = Digest()
    for pk, eligible in found.members():
        digest.add(pk, eligible=eligible)
    shown = digest.hexdigest()
    with transaction.atomic(durable=True):
        Preview.objects.update_or_create(digest=shown, defaults={"members": digest.packed()})
    return found, shown


def launched(*, actor: User, once: Once) -> MassCommand | None:
    """The run that the user has started under this key, if there is one.

    Raises:
        KeyReusedError: the key was used for something else.
        RunDeletedError: its run was deleted.
        NotPermittedError: the user may no longer run commands there.
    """
    known = IdempotencyKey.objects.select_related("mass_command").filter(user=actor, key=once.key).first()
    if known is None:
        return None
    if known.fingerprint != once.fingerprint:
        raise KeyReusedError
    if known.mass_command is None:
        raise RunDeletedError
    _permit_control(actor, known.mass_command)
    return known.mass_command


def launch(*, actor: User, request: LaunchRequest, once: Once | None = None) -> MassCommand:
    """Freeze the targets and start the run: when this returns, every target has its row.

    Raises:
        InvalidFieldError: the filter or the input is not valid, or nothing matches.
        NotPermittedError: the user may not run commands on these targets.
        TargetsChangedError: the set is no longer the one of the digest; nothing was created.
        CountChangedError: there are more devices than expected, or less; nothing was created.
        KeyReusedError, RunDeletedError: see ``launched``.
    """
    try:
        run = _create(actor, request, once)
    except IntegrityError:
        # The same request at the same moment was faster: its key stands, and with it its run.
        run_of_the_other = launched(actor=actor, once=once) if once else None
        if run_of_the_other is None:
            raise
        return run_of_the_other
    advance(run.pk)
    run.refresh_from_db()
    return run


def _create(actor: User, request: LaunchRequest, once: Once | None) -> MassCommand:
    checked = check_input(request.type, request.input)
    if request.controls.check and not specification(request.type).check_mode:
        raise InvalidFieldError("check", f"The playbook of {request.type} has no check mode.")
    with transaction.atomic(durable=True):
        found = resolve(request.targets, access=Access.of(actor), command_type=request.type)
        run = MassCommand(
            type=request.type,
            input=checked.shown,
            label=request.label,
            notes=request.notes,
            organization=found.organization,
            group=found.group,
            location=found.location,
            targets=request.targets.as_json(),
            created_by=actor,
            parent=request.parent,
            schedule=request.schedule,
            occurrence=request.schedule.next_run if request.schedule else None,
        )
        run.set_secret_input(checked.secret)
        run.save(force_insert=True)
        if once:
            IdempotencyKey.objects.create(user=actor, key=once.key, fingerprint=once.fingerprint, mass_command=run)
        eligible = _freeze(run, found, request)
        _pace(run, request.controls, eligible)
        if not eligible:
            MassCommand.objects.finish_if_done(run.pk)
    return run


def _pace(run: MassCommand, controls: Controls, eligible: int) -> None:
    """Write down how the run is to be paced, and cut its rows into slices."""
    run.controls = controls.as_json()
    run.max_concurrency = amount(controls.max_concurrency, eligible)
    run.max_errors = amount(controls.max_errors, eligible)
    run.pause_manual = controls.pause == "manual"
    run.pause_seconds = 0.0 if controls.pause in (None, "manual") else float(controls.pause)
    run.connect_timeout, run.execution_timeout = controls.connect_timeout, controls.execution_timeout
    run.on_conflict, run.check_mode = controls.on_conflict, controls.check
    run.run_at, run.offline_until = controls.run_at, controls.wait_for_offline_until
    run.deadline_seconds = controls.deadline
    if eligible and controls.run_at and controls.run_at > timezone.now():
        run.status = RunStatus.SCHEDULED
    run.save()
    _slice(run, controls, eligible)


def _slice(run: MassCommand, controls: Controls, eligible: int) -> None:
    """Cut the queued rows into held slices, in the order of device ids."""
    if not eligible:
        return
    waiting = Command.objects.filter(mass_command=run, status=CommandStatus.QUEUED).order_by("device_id")
    rows = waiting.only("pk").iterator(chunk_size=_INSERT)
    for number, (wave, size) in enumerate(cut_waves(controls, eligible), start=1):
        slice_ = Slice.objects.create(mass_command=run, number=number, wave=wave, size=size)
        for part in batched((row.pk for row in islice(rows, size)), _INSERT):
            Command.objects.filter(pk__in=part).update(slice=slice_)


def _freeze(run: MassCommand, found: TargetSet, request: LaunchRequest) -> int:
    """Create the rows of a run in one pass over its targets; how many are eligible.

    The digest is summed over the very rows that are created: no second query could see another set.
    """
    digest = Digest()
    counts = {CommandStatus.QUEUED: 0, CommandStatus.SKIPPED: 0}
    devices = found.rows.order_by("pk").only("pk", "name", "organization_id")
    for batch in batched(devices.iterator(chunk_size=_INSERT), _INSERT):
        rows = []
        for device in batch:
            digest.add(device.pk, eligible=not device.ineligible)
            row = _row(run, device)
            counts[CommandStatus(row.status)] += 1
            rows.append(row)
        Command.objects.bulk_create(rows)
    run.device_count = sum(counts.values())
    _refuse_surprise(run.device_count, found, request, shown=digest.hexdigest())
    run.queued_count, run.skipped_count = counts[CommandStatus.QUEUED], counts[CommandStatus.SKIPPED]
    run.digest = digest.hexdigest()
    return counts[CommandStatus.QUEUED]


def _refuse_surprise(count: int, found: TargetSet, request: LaunchRequest, *, shown: str) -> None:
    if request.digest and count and request.digest != shown:
        raise _changed(found, request.digest)
    if request.expected_count not in (None, count):
        raise CountChangedError(count=count)
    if not count:
        raise NoTargetsError


def _row(run: MassCommand, device: Any) -> Command:
    row = Command(
        mass_command=run,
        device=device,
        device_name=device.name,
        organization_id=device.organization_id,
        type=run.type,
    )
    if device.ineligible:
        row.status, row.finished = CommandStatus.SKIPPED, timezone.now()
        row.reason_code, row.reason = device.ineligible, REASONS[device.ineligible]
    return row


def _changed(found: TargetSet, expected: str) -> TargetsChangedError:
    """What has changed since the preview, or that nobody knows: its record is kept for some hours only."""
    recent = timezone.now() - timedelta(hours=settings.PREVIEW_HOURS)
    shown = Preview.objects.filter(digest=expected, shown__gte=recent).first()
    if shown is None:
        return TargetsChangedError(
            "The digest is not that of the targets, and no preview with this digest is known. Preview again.",
            added=None,
            removed=None,
        )
    added, removed = difference(unpack(bytes(shown.members)), found.members())
    return TargetsChangedError(
        added=[str(pk) for pk in added[:_LISTED]],
        removed=[str(pk) for pk in removed[:_LISTED]],
        added_count=len(added),
        removed_count=len(removed),
    )


def cancel(*, actor: User, run: MassCommand, devices: Sequence[uuid.UUID] | None = None) -> None:
    """Stop a run: what waits is ended at once, what runs is ended by its worker within seconds.

    With ``devices`` only those are stopped, as far as they wait; one that runs already goes on to its end.

    Raises:
        NotPermittedError: the user may not run commands in its organization.
        InvalidFieldError: a device is none of the run's.
    """
    _permit_control(actor, run)
    if devices is not None:
        _refuse_strangers(run, devices)
        _cancel_waiting(run, devices)
        return
    with transaction.atomic(durable=True):
        MassCommand.objects.active().filter(pk=run.pk, cancel_requested=None).update(
            cancel_requested=timezone.now(), status=RunStatus.CANCELLING
        )
    advance(run.pk)


def _refuse_strangers(run: MassCommand, devices: Sequence[uuid.UUID]) -> None:
    own = set(Command.objects.filter(mass_command=run, device__in=devices).values_list("device_id", flat=True))
    if strange := [str(pk) for pk in devices if pk not in own]:
        raise InvalidFieldError("devices", f"This run has no such device: {', '.join(strange[:5])}.")


def _cancel_waiting(run: MassCommand, devices: Sequence[uuid.UUID]) -> None:
    with transaction.atomic(durable=True):
        # The run first, then its slices, as pacing does: the other order could end in a deadlock.  Both are locked,
        # so that no worker takes one of these slices and plans with a row that ends here.
        MassCommand.objects.select_for_update().filter(pk=run.pk).first()
        slices = Slice.objects.select_for_update().filter(mass_command=run, status__in=("held", "queued"))
        waiting = Command.objects.filter(slice__in=list(slices), device__in=devices)
        skip(run.pk, dict.fromkeys(waiting.values_list("pk", flat=True), CANCELLED_WAITING))
    MassCommand.objects.finish_if_done(run.pk)


def pause(*, actor: User, run: MassCommand) -> None:
    """Start nothing more; devices that run go on to their end.

    Raises:
        NotPermittedError: the user may not run commands in its organization.
        NotActiveError: the run has ended.
    """
    _permit_control(actor, run)
    with transaction.atomic(durable=True):
        active = MassCommand.objects.active().filter(pk=run.pk, cancel_requested=None)
        if not active.filter(paused=None).update(paused=timezone.now()) and not active.exists():
            raise NotActiveError
        Slice.objects.hold(run.pk)


def resume(*, actor: User, run: MassCommand) -> None:
    """Go on after a pause; where a run waits between two waves, let the next one begin.

    Raises:
        NotPermittedError: the user may not run commands in its organization.
        NotActiveError: the run has ended.
    """
    _permit_control(actor, run)
    with transaction.atomic(durable=True):
        locked = MassCommand.objects.select_for_update().active().filter(pk=run.pk, cancel_requested=None).first()
        if locked is None:
            raise NotActiveError
        if locked.paused:
            MassCommand.objects.filter(pk=run.pk).update(paused=None)
        elif wave_is_over(locked):
            open_wave(locked)
    advance(run.pk)


def retry(*, actor: User, run: MassCommand, statuses: Iterable[str] = ERRORS, command_input: Any = None) -> MassCommand:
    """A new run on the devices of this one that ended in one of the statuses; its controls are the same.

    ``command_input`` must be given again where it holds secrets: those of a run are wiped when it ends.

    Raises:
        StillActiveError: the run has not ended.
        InvalidFieldError: no device ended so, or the input must be given.
        NotPermittedError: the user may not run commands in its organization.
    """
    _permit_control(actor, run)
    run.refresh_from_db()
    if run.is_active:
        raise StillActiveError
    ended = Command.objects.filter(mass_command=run, status__in=tuple(statuses))
    rows = ended.filter(device__organization=F("organization"))  # one that was moved is no longer this run's to touch
    devices = tuple(pk for pk in rows.values_list("device_id", flat=True) if pk)
    if not devices:
        raise InvalidFieldError("statuses", "No device of this run ended so.")
    if command_input is None and specification(run.type).secret:
        raise InvalidFieldError("input", "Give the input again: the secrets of a run are wiped when it ends.")
    request = LaunchRequest(
        type=run.type,
        input=run.input if command_input is None else command_input,
        targets=TargetFilter(devices=devices),
        label=run.label,
        notes=run.notes,
        controls=Controls(**{name: value for name, value in run.controls.items() if name not in _MOMENTS}),
        parent=run,
    )
    return launch(actor=actor, request=request)


def _permit_control(actor: User, run: MassCommand) -> None:
    if not Access.of(actor).can(Right.RUN, run.organization_id):
        raise NotPermittedError


def delete(*, actor: User, run: MassCommand) -> None:
    """Delete a finished run; the rows stay as their devices' history, and keep what was run.

    Raises:
        NotPermittedError: the user is no administrator of its organization.
        StillActiveError: the run has not ended.
    """
    if not Access.of(actor).can(Right.MANAGE, run.organization_id):
        raise NotPermittedError("Only administrators of its organization may delete a mass command.")
    with transaction.atomic(durable=True):
        locked = MassCommand.objects.select_for_update().filter(pk=run.pk).first()
        if locked is None:
            return
        if locked.status not in RUN_FINISHED:
            raise StillActiveError
        Command.objects.filter(mass_command=locked).update(input=locked.input, mass_command=None, slice=None)
        locked.delete()


def busy_organizations(organizations: Iterable[Organization]) -> list[Organization]:
    """Those in which a run goes on, be it one over several organizations."""
    runs = MassCommand.objects.active().filter(organization=OuterRef("pk"))
    rows = Command.objects.open().filter(organization=OuterRef("pk"))
    ids = [organization.pk for organization in organizations]
    return list(Organization.objects.filter(Exists(runs) | Exists(rows), pk__in=ids))


def delete_organization(*, actor: User, organization: Organization) -> None:
    """Delete an organization with all that is its own.

    Raises:
        NotPermittedError: the user is no superuser.
        StillActiveError: a run goes on there.  Its devices may be carrying it out, and in a run over several
            organizations the rest would wait for rows that are gone.
    """
    if not Access.of(actor).everything:
        raise NotPermittedError("Only superusers may delete an organization.")
    with transaction.atomic():  # within the one of an admin page; nothing leaves the process here
        # Who launches meanwhile waits for this lock, and then finds the organization gone.
        locked = Organization.objects.select_for_update().filter(pk=organization.pk).first()
        if locked is None:
            return
        if busy_organizations([locked]):
            raise StillActiveError("A mass command goes on in this organization. Wait for its end, or cancel it first.")
        locked.delete()


def enrol(*, actor: User, device: Device, replace: bool = False) -> Device:
    """Ask the device for its host key and pin it; the key that was pinned already is confirmed.

    Raises:
        NotPermittedError: the user is no administrator of its organization.
        DeviceUnreachableError: it shows no host key.
        HostKeyChangedError: it shows another key than the pinned one, and ``replace`` is not set.
    """
    if not Access.of(actor).can(Right.MANAGE, device.organization_id):
        raise NotPermittedError("Only administrators of its organization may enrol a device.")
    shown = host_keys.scan(device.host, device.port)
    pinned = device.host_key.splitlines()
    if pinned and shown not in pinned and not replace:
        raise HostKeyChangedError(pinned=device.fingerprint, shown=Device(host_key=shown).fingerprint)
    if shown not in pinned:
        # guarded by what was compared: of two people who enrol at once the second one compares again
        changed = Device.objects.filter(pk=device.pk, host_key=device.host_key).update(host_key=shown)
        if not changed:
            raise HostKeyChangedError("Somebody else has changed the pinned key meanwhile. Look at it, then try again.")
    device.refresh_from_db()
    return device
