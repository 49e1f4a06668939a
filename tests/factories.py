"""Rows for tests.  Each factory makes a valid row and takes what matters to the test by keyword."""

import itertools
from typing import Any

from django.utils import timezone

from orchestrator.access import Role
from orchestrator.models import (
    Credential,
    CredentialSecrets,
    Device,
    DeviceCredential,
    DeviceGroup,
    Location,
    Membership,
    Organization,
    Playbook,
    SavedTargets,
    User,
    Webhook,
)
from orchestrator.webhooks import store

_numbers = itertools.count(1)


def organization(**fields: Any) -> Organization:
    """An organization."""
    return Organization.objects.create(**{"name": f"organization {next(_numbers)}"} | fields)


def location(**fields: Any) -> Location:
    """A location, in a new organization unless told."""
    return Location.objects.create(**{"name": f"location {next(_numbers)}"} | _owned(fields))


def group(**fields: Any) -> DeviceGroup:
    """A device group, in a new organization unless told."""
    return DeviceGroup.objects.create(**{"name": f"group {next(_numbers)}"} | _owned(fields))


def credential(*, password: str = "old-Secret1", private_key: str = "", **fields: Any) -> Credential:
    """A credential, in a new organization unless told."""
    row = Credential(**{"name": f"credential {next(_numbers)}"} | _owned(fields))
    row.set_secrets(CredentialSecrets(password=password, private_key=private_key))
    row.save()
    return row


def device(*, credentials: list[Credential] | None = None, **fields: Any) -> Device:
    """A device with one credential of its own unless told."""
    defaults = {"name": f"device {next(_numbers)}", "host": "127.0.0.1", "platform": "openwrt"}
    row = Device.objects.create(**defaults | _owned(fields))
    if credentials is None:
        credentials = [credential(organization=row.organization)]
    for position, entry in enumerate(credentials):
        DeviceCredential.objects.create(device=row, credential=entry, position=position)
    return row


def saved_targets(**fields: Any) -> SavedTargets:
    """A saved target set, in a new organization unless told."""
    return SavedTargets.objects.create(**{"name": f"set {next(_numbers)}"} | _owned(fields))


def playbook(*, properties: Any = None, required: tuple[str, ...] = (), **fields: Any) -> Playbook:
    """A playbook of the catalogue that takes no input unless told; its files are nowhere."""
    schema = {
        "type": "object", "additionalProperties": False, "properties": properties or {}, "required": list(required),
    }  # fmt: skip
    name = fields.get("name") or f"playbook-{next(_numbers)}"
    defaults = {
        "name": name, "schema": schema, "digest": "d" * 64, "path": f"{name}.yml", "directory": "/nowhere",
        "hosts": ["all"], "refreshed": timezone.now(),
    }  # fmt: skip
    return Playbook.objects.create(**defaults | fields)


def webhook(*, event: str = "run.finished", **fields: Any) -> Webhook:
    """A webhook for the end of runs unless told, in a new organization unless told."""
    defaults = {"name": f"webhook {next(_numbers)}", "url": "https://receiver.example/hook", "events": [event]}
    row = Webhook(**defaults | _owned(fields))
    store(row)
    return row


def user(*, organization: Organization | None = None, role: Role | str = Role.OPERATOR, **fields: Any) -> User:
    """A user; with an organization, a member of it."""
    row = User.objects.create_user(**{"username": f"user{next(_numbers)}", "password": "a-Password-1"} | fields)
    if organization is not None:
        Membership.objects.create(user=row, organization=organization, role=role)
    return row


def superuser(**fields: Any) -> User:
    """A superuser."""
    return user(is_superuser=True, is_staff=True, **fields)


def _owned(fields: dict[str, Any]) -> dict[str, Any]:
    return fields if "organization" in fields else fields | {"organization": organization()}
