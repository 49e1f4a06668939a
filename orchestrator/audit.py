"""Writing the audit log.  Call ``record`` within the transaction of the change: both stand, or neither.

Where it comes from is known (origin.py).  No secret is ever written: of one that changed it is said that it did.
"""

import json
import logging
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Final

from django.contrib.auth.base_user import AbstractBaseUser
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models, transaction

from orchestrator import origin
from orchestrator.exceptions import SecretUnreadableError
from orchestrator.models import AuditAction, AuditEntry, Credential, Device, Organization, Schedule, Token, User
from orchestrator.models.audit import NAME_LENGTH
from orchestrator.secrets import MASK

log = logging.getLogger(__name__)

# models that people call by another name
_KINDS: Final = {
    "masscommand": "run",
    "devicegroup": "group",
    "savedtargets": "saved_targets",
}
_TEXT: Final = 1_000  # characters kept of a value
_BATCH: Final = 500  # entries in one statement
_SECRET_WORDS: Final = ("password", "passphrase", "secret", "token", "private_key")
# What the service itself keeps in rows, or what is told elsewhere in the entry.
_OWN_COLUMNS: Final = frozenset(
    {
        "id",
        "created",
        "modified",
        "last_login",
        "date_joined",
        "next_run",
        "last_run",
        "last_result",
        "host_key",
        "shown_key",
        "key_changed",
        "replaced",
        "told_since",
    }
)


@dataclass(frozen=True, slots=True)
class Subject:
    """What an entry is about, where that is no row, or one whose id must not be told."""

    kind: str
    id: str = ""
    name: str = ""
    organization: Organization | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The values of a row at one moment; secrets only to see whether they change."""

    values: dict[str, Any]
    secrets: dict[str, Any] = field(default_factory=dict, repr=False)

    def shown(self) -> dict[str, Any]:
        """What may be written down."""
        return {name: value for name, value in self.values.items() if value not in (None, "", [])} | {
            name: MASK for name, value in self.secrets.items() if value
        }

    def changes(self, after: "Snapshot") -> dict[str, list[Any]]:
        """Name → the value before and after, of what is another one there."""
        found = {
            name: [self.values.get(name), after.values.get(name)]
            for name in self.values | after.values
            if self.values.get(name) != after.values.get(name)
        }
        for name in self.secrets | after.secrets:
            old, new = self.secrets.get(name), after.secrets.get(name)
            if old != new:
                found[name] = [MASK if old else "", MASK if new else ""]
        return found


def snapshot(row: Any) -> Snapshot:
    """The columns of a row, related rows by name."""
    values: dict[str, Any] = {}
    secrets: dict[str, Any] = {}
    for column in row._meta.concrete_fields:
        if column.name in _OWN_COLUMNS or column.name.startswith("sealed"):
            continue
        value = getattr(row, column.name)
        if column.is_relation:
            values[column.name] = None if value is None else str(value)
        elif column.name.endswith(_SECRET_WORDS) and not isinstance(value, bool):
            secrets[column.name] = value
        else:
            values[column.name] = value
    try:
        if isinstance(row, Credential):
            secrets |= asdict(row.secrets())
        elif isinstance(row, Schedule):
            secrets |= row.secret_input()
    except SecretUnreadableError:
        secrets["secrets"] = "unreadable"
    if isinstance(row, Device):
        values["host_key"] = row.fingerprint
        links = row.device_credentials.select_related("credential").order_by("position")
        values["credentials"] = [link.credential.name for link in links]
    return Snapshot(values, secrets)


def record(
    action: str,
    *,
    actor: AbstractBaseUser | None = None,
    actor_name: str = "",
    about: models.Model | Subject | None = None,
    details: Mapping[str, Any] | None = None,
    removed_before: datetime | None = None,
) -> None:
    """Write one entry; ``actor_name`` alone for somebody who is no known user.

    The organization is that of ``about``; of a user, the only one in which the user has a role.  ``removed_before``
    lets the database let go older entries: for retention.py alone.
    """
    entry = _entry(action, actor, actor_name, about, details)
    entry.removed_before = removed_before
    _insert([entry])


def record_each(
    action: str, *, actor: AbstractBaseUser | None, rows: Iterable[models.Model], details: Mapping[str, Any]
) -> None:
    """An entry with the same details for each of many rows."""
    _insert([_entry(action, actor, "", row, details) for row in rows])


def record_all(
    entries: Iterable[tuple[str, models.Model, Mapping[str, Any]]], *, actor: AbstractBaseUser | None
) -> None:
    """An entry for each (action, row, details): for what changes many rows at once."""
    _insert([_entry(action, actor, "", row, details) for action, row, details in entries])


def created(row: Any, *, actor: AbstractBaseUser | None) -> None:
    """Write that a row was made, with its values."""
    record(f"{kind_of(row)}.create", actor=actor, about=row, details={"values": snapshot(row).shown()})


def changed(row: Any, *, actor: AbstractBaseUser | None, before: Snapshot) -> None:
    """Write what has changed of a row since the snapshot; nothing where nothing has."""
    if changes := before.changes(snapshot(row)):
        record(f"{kind_of(row)}.change", actor=actor, about=row, details={"changes": changes})


def deleted(row: Any, *, actor: AbstractBaseUser | None) -> None:
    """Write that a row is deleted, with its last values; call it before."""
    record(f"{kind_of(row)}.delete", actor=actor, about=row, details={"values": snapshot(row).shown()})


def signed_in(user: User, *, details: Mapping[str, Any] | None = None) -> None:
    """Write that a user has signed in."""
    record(AuditAction.SIGN_IN, actor=user, about=user, details=details)


def sign_in_failed(username: str) -> None:
    """Write that somebody tried to sign in under this name."""
    user = User.objects.filter(username=User.normalize_username(_line(username, 150))).first()
    about: Any = user or Subject("user", name=username)
    record(AuditAction.SIGN_IN_FAILED, actor_name=username, about=about, details={"known": user is not None})


def kind_of(row: models.Model) -> str:
    """What people call rows of this model."""
    name = row._meta.model_name or ""
    return _KINDS.get(name, name)


def _entry(
    action: str,
    actor: AbstractBaseUser | None,
    actor_name: str,
    about: models.Model | Subject | None,
    details: Mapping[str, Any] | None,
) -> AuditEntry:
    here = origin.current()
    if actor is not None:
        actor_name = actor.get_username()
    elif not actor_name and here.door == origin.Door.CLI:
        actor_name = f"{origin.system_user()} (at the machine)"
    subject = about if isinstance(about, Subject) or about is None else _subject(about)
    owner = subject.organization if subject else None
    entry = AuditEntry(
        action=action,
        organization_id=owner.pk if owner else None,
        organization_name=_line(owner.name if owner else "", NAME_LENGTH),
        actor_id=actor.pk if actor is not None else None,
        actor_name=_line(actor_name, NAME_LENGTH),
        door=here.door,
        address=here.address,
        user_agent=_line(here.user_agent, NAME_LENGTH),
        token=here.token,
        details=_plain(details or {}),
    )
    if subject:
        entry.object_type, entry.object_id = subject.kind, _line(subject.id, 64)
        entry.object_name = _line(subject.name, NAME_LENGTH)
    return entry


def _subject(row: models.Model) -> Subject:
    owner: Any = row if isinstance(row, Organization) else getattr(row, "organization", None)
    if isinstance(row, User):
        owner = home(row)
    if isinstance(row, Token) and owner is None:
        owner = home(row.user)
    return Subject(kind_of(row), str(row.pk), str(row), owner)


def home(user: User) -> Organization | None:
    """The only organization of a user: its administrators may know when their people sign in."""
    if user.is_superuser:
        return None
    own = Organization.objects.filter(memberships__user=user)[:2]
    return own[0] if len(own) == 1 else None


def _insert(entries: list[AuditEntry]) -> None:
    AuditEntry.objects.bulk_create([entry.signed() for entry in entries], batch_size=_BATCH)
    transaction.on_commit(lambda: _tell(entries))


def _tell(entries: Iterable[AuditEntry]) -> None:
    """A line in the process's log: what collects logs has a copy that nobody changes here."""
    for entry in entries:
        log.info(
            "%s %s %s %s by %s through %s from %s", entry.id, entry.action, entry.object_type,
            json.dumps(entry.object_name), json.dumps(entry.actor_name), entry.door, entry.address or "-",
        )  # fmt: skip


def _line(text: str, length: int) -> str:
    """One line that any database takes: no control characters, no lone surrogates."""
    kept = "".join(" " if unicodedata.category(each) in {"Cc", "Cs", "Zl", "Zp"} else each for each in text[:length])
    return kept.strip()


def _plain(value: Any) -> Any:
    """The same as JSON gives it back, long texts cut."""
    return _cut(json.loads(json.dumps(value, cls=DjangoJSONEncoder)))


def _cut(value: Any) -> Any:
    if isinstance(value, dict):
        return {_cut(name): _cut(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_cut(inner) for inner in value]
    if isinstance(value, float):
        return value if abs(value) < 1e15 else str(value)  # PostgreSQL writes large ones as integers
    if isinstance(value, str):
        text = value.replace("\x00", "\ufffd").encode(errors="replace").decode()
        return text if len(text) <= _TEXT else text[:_TEXT] + "…"
    return value
