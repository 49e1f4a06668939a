"""Take devices over from elsewhere: what would change, and the change."""

import contextlib
import enum
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import F
from django.utils import timezone

from orchestrator import audit
from orchestrator.access import Access, Right
from orchestrator.adoption import Draft, Login
from orchestrator.exceptions import InvalidFieldError, NotPermittedError, SecretUnreadableError
from orchestrator.models import (
    Credential,
    Device,
    DeviceCredential,
    DeviceGroup,
    Location,
    Organization,
    Platform,
    Source,
    User,
)
from orchestrator.models.addresses import validate_tags

_BATCH: Final = 500  # rows in one statement
_COMPARED: Final = ("host", "port", "platform", "group", "location", "tags")


class Missing(enum.StrEnum):
    """What becomes of the organization's devices that are not among those that are imported."""

    KEEP = "keep"
    DEACTIVATE = "deactivate"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Change:
    """A row that is made, changed or removed; ``details`` say how, without a secret."""

    verb: str  # "create" | "update" | "deactivate" | "delete"
    kind: str  # "location" | "group" | "credential" | "device"
    name: str
    details: tuple[str, ...] = ()


@dataclass(slots=True)
class ImportReport:
    """What an import changes, or would change."""

    changes: list[Change] = field(default_factory=list)
    unchanged: int = 0  # devices that are as they should be
    not_imported: list[str] = field(default_factory=list)  # devices of the organization that the source doesn't have
    dropped_tags: list[str] = field(default_factory=list)  # "device: tag" that are not valid here
    not_enrolled: int = 0  # imported devices without a pinned host key
    applied: bool = False

    def counts(self) -> dict[str, int]:
        """How many changes there are of each sort: "create device" → 3."""
        return dict(Counter(f"{change.verb} {change.kind}" for change in self.changes))


def import_devices(
    *,
    organization: Organization,
    drafts: Sequence[Draft],
    apply: bool,
    actor: User | None = None,
    missing: Missing = Missing.KEEP,
    platform: str = Platform.LINUX,
    credential: Credential | None = None,
    keep_credentials: bool = False,
) -> ImportReport:
    """Make the organization's fleet what the drafts say; without ``apply`` only tell what would change.

    What a draft does not say of a device that exists stays as it is, and no tag or credential is taken from it.  A
    second import of the same changes nothing.  ``actor`` None is the operator of the machine.  ``platform`` is for new
    devices whose draft names none, ``credential`` for devices whose draft has no login; ``keep_credentials`` leaves
    those of devices that have some.

    Raises:
        NotPermittedError: the actor is no administrator of the organization.
        InvalidFieldError: the credential is another organization's, or somebody changed the fleet at the same moment.
    """
    if actor is not None and not Access.of(actor).can(Right.MANAGE, organization.pk):
        raise NotPermittedError("Only administrators of the organization may import devices into it.")
    if credential and credential.organization_id != organization.pk:
        raise InvalidFieldError("credential", "This credential belongs to another organization.")
    plan = _Plan(organization, platform=platform, credential=credential, keep_credentials=keep_credentials)
    try:
        with transaction.atomic(durable=True):
            plan.read(drafts)
            for draft in drafts:
                plan.add(draft)
            plan.leave(missing, {draft.name for draft in drafts})
            if apply:
                plan.write()
                audit.record_all(plan.entries, actor=actor)
    except IntegrityError as error:
        raise InvalidFieldError("organization", "Somebody changed its fleet at the same moment. Try again.") from error
    plan.report.applied = apply
    return plan.report


class _Plan:
    """The rows as they are and as they shall be."""

    def __init__(
        self, organization: Organization, *, platform: str, credential: Credential | None, keep_credentials: bool
    ) -> None:
        self.organization, self.platform = organization, platform
        self.default, self.keep_credentials = credential, keep_credentials
        self.report = ImportReport()
        self.created: dict[type, list[Any]] = {model: [] for model in (Location, DeviceGroup, Credential, Device)}
        self.updated: list[Device] = []
        self.links: list[DeviceCredential] = []
        self.entries: list[tuple[str, Any, dict[str, Any]]] = []  # of the audit log
        self.gone: dict[Missing, list[Device]] = {Missing.DEACTIVATE: [], Missing.DELETE: []}

    def read(self, drafts: Sequence[Draft]) -> None:
        """What there is, in a fixed number of queries."""
        own = {"organization": self.organization}
        self.places: dict[type, dict[str, Any]] = {
            model: {row.name: row for row in model._default_manager.filter(**own)} for model in (Location, DeviceGroup)
        }
        credentials = list(Credential.objects.filter(**own))
        self.taken = {row.name for row in credentials}
        self.credentials: dict[Login, Credential] = {}
        if any(draft.login for draft in drafts):
            for row in (row for row in credentials if row.source == Source.STORED):
                with contextlib.suppress(SecretUnreadableError):  # can't be compared, and so is not used
                    self.credentials.setdefault(Login(row.username, row.secrets()), row)
        rows = Device.objects.filter(**own).select_related("organization", "group", "location")
        self.devices = {row.name: row for row in rows}
        self.linked: dict[Any, set[Any]] = {}
        links = DeviceCredential.objects.filter(device__organization=self.organization)
        for device, linked in links.values_list("device", "credential"):
            self.linked.setdefault(device, set()).add(linked)

    def add(self, draft: Draft) -> None:
        """One device."""
        existing = self.devices.get(draft.name)
        row = existing or Device(organization=self.organization, name=draft.name, platform=self.platform)
        before = {name: getattr(row, name) for name in _COMPARED}
        row.host, row.port = draft.host, draft.port or row.port
        row.platform = draft.platform or row.platform
        row.group = self._place(DeviceGroup, draft.group) or row.group
        row.location = self._place(Location, draft.location) or row.location
        row.tags = self._tags(row, draft)
        details = [
            _difference(name, before[name] if existing else None, getattr(row, name))
            for name in _COMPARED
            if (before[name] != getattr(row, name) if existing else getattr(row, name))
        ]
        login = self._link(row, draft)
        self.report.not_enrolled += not row.host_key
        if not existing:
            self.created[Device].append(row)
            values = {name: _plain(getattr(row, name)) for name in _COMPARED if getattr(row, name)}
            self._tell("create", "device", row, [*details, *login], {"values": values})
        elif details or login:
            self.updated += [row] if details else []
            changes = {
                name: [_plain(before[name]), _plain(getattr(row, name))]
                for name in _COMPARED
                if before[name] != getattr(row, name)
            }
            self._tell("update", "device", row, [*details, *login], {"changes": changes, "credentials": login})
        else:
            self.report.unchanged += 1

    def leave(self, missing: Missing, imported: set[str]) -> None:
        """The other devices of the organization."""
        for name, row in sorted(self.devices.items()):
            if name in imported:
                continue
            self.report.not_imported.append(name)
            if missing is Missing.DELETE or (missing is Missing.DEACTIVATE and row.is_active):
                self.gone[missing].append(row)
                gone = {} if missing is Missing.DELETE else {"changes": {"is_active": [True, False]}}
                self._tell(missing, "device", row, [], gone)

    def write(self) -> None:
        """Change the database."""
        for model, rows in self.created.items():
            model._default_manager.bulk_create(rows, batch_size=_BATCH)  # type: ignore[attr-defined]
        now = timezone.now()
        for row in self.updated:
            row.modified = now
        Device.objects.bulk_update(self.updated, [*_COMPARED, "modified"], batch_size=_BATCH)
        self._put_first()
        for batch in itertools.batched(self.gone[Missing.DEACTIVATE], _BATCH):
            Device.objects.filter(pk__in=[row.pk for row in batch]).update(is_active=False, modified=now)
        for batch in itertools.batched(self.gone[Missing.DELETE], _BATCH):
            Device.objects.filter(pk__in=[row.pk for row in batch]).delete()

    def _place(self, model: type, name: str) -> Any:
        if not name:
            return None
        known = self.places[model]
        if name not in known:
            known[name] = model(organization=self.organization, name=name)
            self.created[model].append(known[name])
            self._tell("create", "location" if model is Location else "group", known[name], [], {})
        return known[name]

    def _tags(self, row: Device, draft: Draft) -> list[str]:
        tags = list(row.tags)
        for tag in draft.tags:
            if tag in tags:
                continue
            try:
                validate_tags([*tags, tag])
            except ValidationError:
                self.report.dropped_tags.append(f"{draft.name}: {tag}")
            else:
                tags.append(tag)
        return tags

    def _link(self, row: Device, draft: Draft) -> list[str]:
        """Let the device be tried with the draft's login first; what to tell of it."""
        linked = self.linked.get(row.pk, set())
        credential = self._credential(draft.login) if draft.login else (None if linked else self.default)
        if credential is None or credential.pk in linked or (linked and self.keep_credentials):
            return []
        self.links.append(DeviceCredential(device=row, credential=credential, position=0))
        return [f'credential: "{credential.name}"' + (" is tried first" if linked else "")]

    def _credential(self, login: Login) -> Credential:
        if login not in self.credentials:
            row = Credential(organization=self.organization, name=self._free_name(login), username=login.username)
            row.set_secrets(login.secrets)
            self.credentials[login] = row
            self.created[Credential].append(row)
            kinds = [kind for kind in ("password", "private_key", "become_password") if getattr(login.secrets, kind)]
            told = [f"user {login.username}, {', '.join(kinds)}"]
            self._tell("create", "credential", row, told, {"values": {"username": login.username, "secrets": kinds}})
        return self.credentials[login]

    def _free_name(self, login: Login) -> str:
        names: Iterator[str] = itertools.chain(
            [f"{login.username} (imported)"], (f"{login.username} (imported {n})" for n in itertools.count(2))
        )
        name = next(name for name in names if name not in self.taken)
        self.taken.add(name)
        return name

    def _put_first(self) -> None:
        """Link the credentials, before those that the devices have."""
        devices = [link.device_id for link in self.links if self.linked.get(link.device_id)]
        for batch in itertools.batched(devices, _BATCH):
            DeviceCredential.objects.filter(device__in=batch).update(position=F("position") + 1)
        DeviceCredential.objects.bulk_create(self.links, batch_size=_BATCH)

    def _tell(self, verb: str, kind: str, row: Any, details: Sequence[str], audited: dict[str, Any]) -> None:
        self.report.changes.append(Change(verb, kind, row.name, tuple(details)))
        word = {"update": "change", "deactivate": "change"}.get(verb, verb)
        self.entries.append((f"{kind}.{word}", row, {"by": "import", **audited}))


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, list | int) else str(value)


def _difference(name: str, before: Any, after: Any) -> str:
    return f"{name}: {_shown(after)}" if before in (None, []) else f"{name}: {_shown(before)} → {_shown(after)}"


def _shown(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)
