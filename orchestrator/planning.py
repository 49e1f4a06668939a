"""From the rows of a slice to what a worker runs: who is still to be contacted, with which logins.

A set that shrank since the launch (a device deleted, moved or deactivated) shrinks the run, with the reason on
the row.  It never widens.
"""

import logging
import math
import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

from django.conf import settings
from django.db import transaction
from django.db.models import prefetch_related_objects
from django.utils import timezone

from orchestrator import catalogue, host_keys, playbooks, snapshots
from orchestrator.exceptions import SecretLookupError, SecretUnreadableError
from orchestrator.inventory import Login, Target, group_names, host_names
from orchestrator.journal import Assignment
from orchestrator.locking import defer, keep, lock_devices
from orchestrator.models import (
    Command,
    CommandType,
    Credential,
    Device,
    DeviceCredential,
    MassCommand,
    OnConflict,
    Slice,
)
from orchestrator.playbook_vaults import vaults
from orchestrator.rotation import PasswordChange
from orchestrator.runner import RunRequest
from orchestrator.secret_stores import Lookup
from orchestrator.settling import CANCELLED_WAITING, skip
from orchestrator.states import CommandStatus
from orchestrator.targeting import REASONS
from orchestrator.tuning import devices_at_once

log = logging.getLogger(__name__)

_TASK_TIMEOUT: Final = 3_600.0  # seconds that a task of a user's own playbook may take, unless the run says
_START_UP: Final = 60.0  # seconds that Ansible may take to start, on a busy machine
_NO_HOST_KEY: Final = "No host key is pinned for this device. Enrol it: scan its key, compare it, accept it."
_NOT_FOUND: Final = "A secret of the device's credentials could not be looked up, so it was not contacted. {}"
_LOOKUP_SHARE: Final = 0.5  # of the lease, which nobody renews while secrets are looked up
_UNREADABLE: Final = "The stored credential can't be opened with the keys of this service."

_BUSY_SECONDS: Final = 2.0  # before a device that another run holds is looked at again; doubles up to the next
_BUSY_SECONDS_MOST: Final = 30.0

type Verdict = tuple[CommandStatus, str, str]


_CONFLICTS: Final[dict[str, Verdict]] = {
    OnConflict.SKIP: (CommandStatus.SKIPPED, "busy", "Another run is on this device."),
    OnConflict.FAIL: (CommandStatus.FAILED, "busy", "Another run is on this device."),
}


@dataclass(slots=True)
class Plan:
    """What one slice runs.  ``logins`` are the credentials of each host name, in the order of trying."""

    run: MassCommand
    variables: dict[str, object] = field(repr=False)
    secrets: frozenset[str] = field(repr=False)  # of the input: what no output may show
    assignments: dict[str, Assignment]
    bare: dict[str, Target]
    logins: dict[str, list[Login]]
    connect_timeout: float  # seconds
    execution_timeout: float  # seconds, per device
    deadline: datetime | None
    check: bool  # Ansible's check mode
    _turn: dict[str, int] = field(default_factory=dict)

    @property
    def rounds(self) -> int:
        """How many times Ansible is started at most."""
        return max((len(logins) for logins in self.logins.values()), default=0)

    def targets(self, number: int) -> list[Target]:
        """The targets of round ``number``, from 0: all at first, then those with another login to try."""
        return [target for name, target in self.bare.items() if self._turn.get(name, 0) == number]

    def try_next_login(self, host_name: str) -> bool:
        """Put the host into the next round with its next credential; False when it has none left."""
        turn = self._turn.get(host_name, 0) + 1
        if turn >= len(self.logins[host_name]):
            return False
        login = self.logins[host_name][turn]
        self._turn[host_name] = turn
        self.bare[host_name] = replace(self.bare[host_name], login=login)
        self.assignments[host_name] = replace(self.assignments[host_name], username=login.username)
        return True

    def request(self, targets: Sequence[Target], *, ident: str) -> RunRequest:
        """The request to the runner for these targets."""
        connect, execution = self.connect_timeout, self.execution_timeout
        if self.run.type == CommandType.PLAYBOOK:
            return self._of_playbook(targets, ident=ident)
        spec = playbooks.specification(self.run.type)
        if self.run.type == CommandType.REBOOT:
            execution = max(execution, settings.REBOOT_TIMEOUT + 2 * connect)
        forks = devices_at_once(len(targets))
        turns = math.ceil(len(targets) / forks)
        limit = _START_UP + turns * (2 * connect + execution)
        if self.deadline:
            limit = min(limit, (self.deadline - timezone.now()).total_seconds())
        return RunRequest(
            ident=ident,
            playbook=spec.playbook,
            targets=targets,
            variables=self.variables,
            # A device may say any of its passwords, not only the one that is tried now.
            secrets=self.secrets.union(*(login.secrets for logins in self.logins.values() for login in logins)),
            forks=forks,
            connect_timeout=connect,
            execution_timeout=execution,
            check=self.check,
            deadline=max(limit, 0.1),
        )

    def _of_playbook(self, targets: Sequence[Target], *, ident: str) -> RunRequest:
        """One ansible-playbook, as its author knows it; the copy that was made when it was launched."""
        run, controls = self.run, self.run.controls
        project = snapshots.held(run.playbook_digest)
        limit = settings.PLAYBOOK_TIMEOUT
        if self.deadline:
            limit = (self.deadline - timezone.now()).total_seconds()
        return RunRequest(
            ident=ident, playbook=project / run.playbook_path, project=project, targets=targets,
            variables=self.variables,
            secrets=self.secrets.union(*(login.secrets for logins in self.logins.values() for login in logins)),
            forks=settings.FORKS, connect_timeout=self.connect_timeout,
            execution_timeout=run.execution_timeout or min(_TASK_TIMEOUT, settings.PLAYBOOK_TIMEOUT),
            check=self.check, diff=bool(controls.get("diff")), tags=controls.get("job_tags") or (),
            skip_tags=controls.get("skip_tags") or (), verbosity=controls.get("verbosity") or 0,
            deadline=max(limit, 0.1), vaults=vaults(run.playbook_directory),
        )  # fmt: skip


def round_ident(slice_: Slice, number: int) -> str:
    """The name of one start of Ansible: of a slice, its attempt, and the round of credentials, from 0."""
    return f"{slice_.pk}-{slice_.attempt}-{number}"


def password_change(run: MassCommand) -> PasswordChange | None:
    """The password that the run sets, if it is of that type; a check sets none, so no credential may follow."""
    if run.type != CommandType.CHANGE_PASSWORD or run.check_mode:
        return None
    secret = run.secret_input()
    return PasswordChange(run=run.pk, password=secret["password"], username=run.input.get("username", ""))


def plan(slice_: Slice) -> Plan:
    """The plan of a slice; its rows that are not to be contacted any more are ended here.

    Raises:
        LeaseLostError: the slice is no longer ours.
    """
    run = slice_.mass_command
    verdicts: dict[uuid.UUID, Verdict] = {}
    made = Plan(
        run=run,
        variables=catalogue.variables(run),
        secrets=catalogue.secrets(run),
        assignments={}, bare={}, logins={},
        connect_timeout=run.connect_timeout or settings.CONNECT_TIMEOUT,
        execution_timeout=run.execution_timeout or settings.EXECUTION_TIMEOUT,
        deadline=run.deadline,
        check=run.check_mode,
    )  # fmt: skip
    found = _queued_rows(slice_)
    if settings.TRUST_ON_FIRST_USE:
        host_keys.pin_unknown([row.device for row in found if row.device and not row.device.host_key])
    busy = lock_devices(slice_)
    lookup = Lookup(seconds=settings.LEASE_SECONDS * _LOOKUP_SHARE)
    for row in found:
        is_busy = row.device is not None and row.device.pk in busy
        verdict = _CONFLICTS.get(run.on_conflict) if is_busy else _add(made, row, lookup)
        if verdict:
            verdicts[row.pk] = verdict
    if run.type == CommandType.PLAYBOOK:
        _rename(made, [row.device for row in found if row.device])
    with transaction.atomic():
        keep(slice_.pk, slice_.lease)
        skip(run.pk, verdicts)
    if busy:
        later = timezone.now() + timedelta(seconds=min(_BUSY_SECONDS * 2**slice_.tries, _BUSY_SECONDS_MOST))
        rest = Command.objects.filter(slice=slice_, status=CommandStatus.QUEUED, device__in=busy)
        defer(slice_, rest, lease=slice_.lease, not_before=later)
    return made


@dataclass(frozen=True, slots=True)
class _Row:
    """A queued row with all that decides on it."""

    pk: uuid.UUID
    organization: uuid.UUID  # at the launch
    cancelled: bool
    device: Device | None  # None: it was deleted
    credentials: Sequence[Credential]  # of the device, in the order of trying


def _queued_rows(slice_: Slice) -> list[_Row]:
    """In the order of plain Ansible with the API's inventory: `serial` and `run_once` mean the order.

    What many devices share is read and made once: it was four fifths of what planning cost.
    """
    queued = Command.objects.filter(slice=slice_, status=CommandStatus.QUEUED)
    ids = queued.filter(device__isnull=False).values("device")
    devices = {device.pk: device for device in Device.objects.filter(pk__in=ids)}
    shared = "organization", "group", "location"
    for name in shared if slice_.mass_command.type == CommandType.PLAYBOOK else shared[:1]:
        prefetch_related_objects(list(devices.values()), name)
    links: defaultdict[uuid.UUID, list[uuid.UUID]] = defaultdict(list)
    held = DeviceCredential.objects.filter(device__in=ids).order_by("position")
    for device, credential in held.values_list("device_id", "credential_id"):
        links[device].append(credential)
    found = Credential.objects.select_related("organization").in_bulk({pk for each in links.values() for pk in each})
    values = queued.order_by("device_id").values_list("pk", "organization_id", "cancel_requested", "device_id")
    return [
        _Row(pk, organization, asked is not None, devices.get(device), [found[x] for x in links[device] if x in found])
        for pk, organization, asked, device in values
    ]


def _shrunk(run: MassCommand, row: _Row, device: Device) -> str:
    """Why the device is no longer to be contacted: a key of ``REASONS``, or empty."""
    checks = {
        "moved": device.organization_id != row.organization,
        "inactive": not device.is_active,
        "organization_inactive": not device.organization.is_active,
        "type_forbidden": not device.organization.allows(run.type),
        "playbook_forbidden": not device.organization.allows_playbook(run.playbook),
        "no_credential": not row.credentials,
    }
    return next((code for code, holds in checks.items() if holds), "")


def _add(made: Plan, row: _Row, lookup: Lookup) -> Verdict | None:
    """Add the row's device to the plan; a verdict when it can't be."""
    if row.cancelled:
        return CANCELLED_WAITING
    device = row.device
    if device is None or (code := _shrunk(made.run, row, device)):
        code = "deleted" if device is None else code
        return CommandStatus.SKIPPED, code, REASONS[code]
    if not device.host_key:
        return CommandStatus.UNREACHABLE, "host_key", _NO_HOST_KEY
    name = f"device-{device.pk.hex}"
    try:
        logins = [_login(credential, lookup) for credential in row.credentials]
    except SecretLookupError as error:
        return CommandStatus.FAILED, error.code, _NOT_FOUND.format(error.detail)
    except SecretUnreadableError:
        log.exception("A credential of device %s can't be opened", device.pk)
        return CommandStatus.FAILED, "secret_unreadable", _UNREADABLE
    made.logins[name] = logins
    made.assignments[name] = Assignment(command=row.pk, device=device.pk, username=logins[0].username)
    made.bare[name] = Target(
        host_name=name, address=device.host, port=device.port, platform=device.platform,
        host_key=device.host_key, login=logins[0],
    )  # fmt: skip
    return None


def _rename(made: Plan, devices: Iterable[Device]) -> None:
    """Call the devices of a user's own playbook what its author calls them, and put them into their groups."""
    by_name = {f"device-{device.pk.hex}": device for device in devices}
    own = {name: by_name[name] for name in made.bare}
    groups = {name: group_names(**_place(device)) for name, device in own.items()}
    names = host_names(
        {own[name].pk.hex: own[name].name for name in own}, {x for each in groups.values() for x in each}
    )
    for old, device in own.items():
        new = names[device.pk.hex]
        facts = {"id": str(device.pk), "name": device.name, **_place(device)}
        target = replace(made.bare.pop(old), host_name=new, groups=tuple(groups[old]), facts=facts)
        made.bare[new], made.logins[new] = target, made.logins.pop(old)
        made.assignments[new] = made.assignments.pop(old)


def _place(device: Device) -> dict[str, Any]:
    return {
        "platform": device.platform, "organization": device.organization.name,
        "group": device.group.name if device.group else "",
        "location": device.location.name if device.location else "", "tags": list(device.tags),
    }  # fmt: skip


def _login(credential: Credential, lookup: Lookup) -> Login:
    secrets = lookup.secrets(credential)
    return Login(
        username=credential.username, password=secrets.password, private_key=secrets.private_key,
        passphrase=secrets.passphrase, become_password=secrets.become_password,
    )  # fmt: skip
