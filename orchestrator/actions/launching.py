"""Preview, launch, and launch again on what failed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import batched, chain, islice, repeat
from typing import Any, Final

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import F
from django.utils import timezone

from orchestrator import audit, catalogue
from orchestrator.access import Access
from orchestrator.actions.permission import permit_control
from orchestrator.digest import Digest, changes, unpack
from orchestrator.exceptions import (
    CountChangedError,
    InvalidFieldError,
    KeyReusedError,
    NoTargetsError,
    NotPermittedError,
    RunDeletedError,
    StillActiveError,
    TargetsChangedError,
)
from orchestrator.models import (
    AuditAction,
    Command,
    CommandType,
    IdempotencyKey,
    MassCommand,
    Preview,
    Schedule,
    Slice,
    User,
)
from orchestrator.models.idempotency import Once
from orchestrator.pacing import Controls, advance, amount, cut_waves
from orchestrator.playbooks import specification
from orchestrator.states import ERRORS, CommandStatus, RunStatus
from orchestrator.targeting import MAX_PICKED, REASONS, TargetFilter, TargetSet, resolve

_INSERT: Final = 1_000  # rows in one statement
_OWN: Final = (  # columns in which a new row differs from the others of its run
    "device_id", "device_name", "organization_id", "status", "reason_code", "reason", "finished", "slice_id",
)  # fmt: skip
_LISTED: Final = 1_000  # changed devices named in a conflict
_COUNT_THEM: Final = "A run on all devices must say how many it means; the preview tells how many there are."
_MOMENTS: Final = frozenset({"run_at", "wait_for_offline_until"})  # controls that a retry, later, does not take over
_OF_PLAYBOOKS: Final = ("diff", "job_tags", "skip_tags", "verbosity")


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchRequest:
    """A mass command as it was asked for; ``digest`` and ``expected_count`` are those of the preview, if given.

    ``must_count``: a run on all devices is refused without their number.  A schedule can't know it beforehand, and in
    the admin a person has typed it.
    """

    type: str
    input: Any
    targets: TargetFilter
    playbook: str = ""  # its name in the catalogue, of type "playbook"
    label: str = ""
    notes: str = ""
    digest: str = ""
    expected_count: int | None = None
    must_count: bool = False
    controls: Controls = field(default_factory=Controls)
    parent: MassCommand | None = None
    schedule: Schedule | None = None


def preview(
    *, actor: User, targets: TargetFilter, command_type: str = "", playbook: str = "", command_input: Any = None
) -> tuple[TargetSet, str]:
    """What a launch would run on, and the digest of that set; nothing is started.

    Raises:
        InvalidFieldError: see ``targeting.resolve`` and ``catalogue.check_input``.
        NotPermittedError: see ``targeting.resolve``.
    """
    access = Access.of(actor)
    if command_type and command_input is not None:
        catalogue.check_input(command_type, command_input, access=access, playbook=playbook)
    elif playbook or command_type == CommandType.PLAYBOOK:
        catalogue.launchable(playbook, access)
    found = resolve(targets, access=access, command_type=command_type, playbook=playbook)
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
    permit_control(actor, known.mass_command)
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
    access = Access.of(actor)
    checked = catalogue.check_input(request.type, request.input, access=access, playbook=request.playbook)
    playbook = checked.playbook
    if request.controls.check and not (playbook or specification(request.type)).check_mode:
        raise InvalidFieldError("check", f"The playbook of {request.playbook or request.type} has no check mode.")
    _refuse_controls(request)
    with transaction.atomic(durable=True):
        found = resolve(request.targets, access=Access.of(actor), command_type=request.type, playbook=request.playbook)
        if request.must_count and request.targets.everything and request.expected_count is None:
            raise InvalidFieldError("expected_count", _COUNT_THEM)
        owner = request.schedule and request.schedule.organization
        if owner and owner != found.organization:  # a picked device was moved, and its user may run there too
            raise NotPermittedError("The targets are no longer in the organization of the schedule.")
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
        if playbook:  # this very version, whatever becomes of its files
            run.playbook, run.playbook_digest = playbook.name, playbook.digest
            run.playbook_path, run.playbook_commit = playbook.path, playbook.commit
            run.playbook_directory, run.playbook_defaults = playbook.directory, playbook.defaults
        run.save(force_insert=True)
        if once:
            IdempotencyKey.objects.create(user=actor, key=once.key, fingerprint=once.fingerprint, mass_command=run)
        expected = found.totals()[1]
        eligible = _freeze(run, found, request, _cut(run, request.controls, expected))
        _pace(run, request.controls, eligible)
        if eligible != expected:  # a device was changed between the two reads, as a database may let it
            Slice.objects.filter(mass_command=run).delete()
            _slice(run, request.controls, eligible)
        if not eligible:
            MassCommand.objects.finish_if_done(run.pk)
        _tell(actor, run)
    return run


def _refuse_controls(request: LaunchRequest) -> None:
    for name in _OF_PLAYBOOKS:
        if request.type != CommandType.PLAYBOOK and getattr(request.controls, name):
            raise InvalidFieldError(name, 'This control is for commands of type "playbook".')


def _tell(actor: User, run: MassCommand) -> None:
    """The audit entry of a launch: what, on which targets, how paced; the input as it may be shown."""
    details = {
        "type": run.type, "input": run.input, "targets": run.targets, "device_count": run.device_count,
        "skipped_count": run.skipped_count, "digest": run.digest, "controls": run.controls,
    }  # fmt: skip
    if run.playbook:
        details |= {"playbook": run.playbook, "playbook_digest": run.playbook_digest}
        details |= {"playbook_commit": run.playbook_commit} if run.playbook_commit else {}
    if run.parent:
        details["retry_of"] = str(run.parent.pk)
    if run.schedule:
        details["schedule"] = run.schedule.name
    audit.record(
        AuditAction.RUN_RETRY if run.parent else AuditAction.RUN_LAUNCH, actor=actor, about=run, details=details
    )


def _pace(run: MassCommand, controls: Controls, eligible: int) -> None:
    """Write down how the run is to be paced."""
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


def _cut(run: MassCommand, controls: Controls, eligible: int) -> list[Slice]:
    """The held slices of so many devices."""
    waves = cut_waves(controls, eligible, whole=run.type == CommandType.PLAYBOOK) if eligible else ()
    slices = [
        Slice(mass_command=run, number=number, wave=wave, size=size) for number, (wave, size) in enumerate(waves, 1)
    ]
    return Slice.objects.bulk_create(slices, batch_size=_INSERT)


def _slice(run: MassCommand, controls: Controls, eligible: int) -> None:
    """Put the queued rows into slices, in the order of device ids."""
    waiting = Command.objects.filter(mass_command=run, status=CommandStatus.QUEUED).order_by("device_id")
    rows = waiting.only("pk").iterator(chunk_size=_INSERT)
    for slice_ in _cut(run, controls, eligible):
        for part in batched((row.pk for row in islice(rows, slice_.size)), _INSERT):
            Command.objects.filter(pk__in=part).update(slice=slice_)


def _freeze(run: MassCommand, found: TargetSet, request: LaunchRequest, slices: Sequence[Slice]) -> int:
    """Create the rows of a run, in these slices, in one pass over its targets; how many are eligible.

    The digest is summed over the very rows that are created: no second query could see another set.
    """
    digest = Digest()
    counts = {CommandStatus.QUEUED: 0, CommandStatus.SKIPPED: 0}
    now = timezone.now()
    like = Command(mass_command=run, type=run.type, playbook=run.playbook, created=now)
    place = chain.from_iterable(repeat(slice_.pk, slice_.size) for slice_ in slices)
    devices = found.rows.order_by("pk").values_list("pk", "name", "organization_id", "ineligible")
    for batch in batched(devices.iterator(chunk_size=_INSERT), _INSERT):
        rows = []
        for pk, name, organization, ineligible in batch:
            digest.add(pk, eligible=not ineligible)
            skipped = CommandStatus.SKIPPED.value, ineligible, REASONS.get(ineligible, ""), now, None
            queued = CommandStatus.QUEUED.value, "", "", None, next(place, None) if not ineligible else None
            counts[CommandStatus.SKIPPED if ineligible else CommandStatus.QUEUED] += 1
            rows.append((pk, name, organization, *(skipped if ineligible else queued)))
        Command.objects.insert_like(like, _OWN, rows)
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
    named: dict[bool, list[str]] = {True: [], False: []}
    counted = {True: 0, False: 0}
    for pk, added in changes(unpack(bytes(shown.members)), found.members()):
        counted[added] += 1
        if counted[added] <= _LISTED:
            named[added].append(str(pk))
    return TargetsChangedError(
        added=named[True], removed=named[False], added_count=counted[True], removed_count=counted[False]
    )


def retry(
    *,
    actor: User,
    run: MassCommand,
    statuses: Iterable[str] = ERRORS,
    command_input: Any = None,
    once: Once | None = None,
) -> MassCommand:
    """A new run on the devices of this one that ended in one of the statuses; its controls are the same.

    ``command_input`` must be given again where it holds secrets: those of a run are wiped when it ends.

    Raises:
        StillActiveError: the run has not ended.
        InvalidFieldError: no device ended so, or the input must be given.
        NotPermittedError: the user may not run commands in its organization.
        KeyReusedError, RunDeletedError: see ``launched``.
    """
    permit_control(actor, run)
    run.refresh_from_db()
    if run.is_active:
        raise StillActiveError
    ended = Command.objects.filter(mass_command=run, status__in=tuple(statuses))
    rows = ended.filter(device__organization=F("organization"))  # one that was moved is no longer this run's to touch
    devices = tuple(pk for pk in rows.values_list("device_id", flat=True) if pk)
    if not devices:
        raise InvalidFieldError("statuses", "No device of this run ended so.")
    if len(devices) > MAX_PICKED:
        many = f"{len(devices):,} devices ended so; {MAX_PICKED:,} can be retried at once."
        raise InvalidFieldError("statuses", f"{many} Name fewer statuses, or launch again with a filter.")
    if command_input is None and catalogue.secret_names(run.type, run.playbook) & _given(run):
        raise InvalidFieldError("input", "Give the input again: the secrets of a run are wiped when it ends.")
    request = LaunchRequest(
        type=run.type,
        playbook=run.playbook,
        input=run.input if command_input is None else command_input,
        targets=TargetFilter(devices=devices),
        label=run.label,
        notes=run.notes,
        controls=Controls(**{name: value for name, value in run.controls.items() if name not in _MOMENTS}),
        parent=run,
    )
    return launch(actor=actor, request=request, once=once)


def _given(run: MassCommand) -> frozenset[str]:
    """The inputs that the run was given; one that was left out needs not be given again."""
    return frozenset(run.input)
