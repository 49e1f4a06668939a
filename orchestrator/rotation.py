"""After a password change the stored credential follows, or the device would be locked out.

A credential of the device alone is changed in place.  One that other devices share is cloned, once per run and
credential, and the link of each changed device is moved to the clone: the others still have the old password.
Beside one whose secrets are in an external store a new one is put, which is tried first.
"""

import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from django.db.models import F
from django.utils import timezone

from orchestrator import audit
from orchestrator.exceptions import SecretUnreadableError
from orchestrator.models import AuditAction, Credential, Device, DeviceCredential, Source
from orchestrator.secrets import MASK

log = logging.getLogger(__name__)

_NAME_LENGTH: Final = 128  # characters, of a credential's name


@dataclass(frozen=True, slots=True)
class PasswordChange:
    """The password that a run sets, for whom; ``username`` empty means the user of each device's login."""

    run: uuid.UUID
    password: str
    username: str = ""

    def __repr__(self) -> str:
        return f"PasswordChange(run={self.run})"


def follow(change: PasswordChange, *, logins: Mapping[uuid.UUID, str], certain: bool) -> None:
    """Let the credentials of these devices (device id → user name of the login) follow the change.

    With ``certain=False`` (a run that was cut: the device may have either password) the new credential is put
    behind the old one, and both are tried.  Call it in the transaction that records the results.
    """
    moved: dict[uuid.UUID, Device] = {}
    links = DeviceCredential.objects.select_related("credential__organization", "device__organization").filter(
        device__in=logins, credential__has_password=True
    )
    for link in links.order_by("-position"):  # last first: what is put in moves only what was looked at already
        if link.credential.username != (change.username or logins[link.device_id]):
            continue
        try:
            if _follow(link, change, certain=certain):
                moved[link.device_id] = link.device
        except SecretUnreadableError:  # nobody has logged in with it, and the results of the others must be kept
            log.exception("Credential %s can't follow a password change", link.credential_id)
    details = _why(change) | {"credentials": "follow the new password" if certain else "old and new password are tried"}
    audit.record_each(AuditAction.DEVICE_CHANGE, actor=None, rows=moved.values(), details=details)


def _why(change: PasswordChange) -> dict[str, Any]:
    return {"run": str(change.run)}


def _follow(link: DeviceCredential, change: PasswordChange, *, certain: bool) -> bool:
    """Whether the device has another credential row from now on."""
    if link.credential.source != Source.STORED:  # nobody writes into an external store: the new one goes beside it
        _put_beside(link, _clone(link.credential, change), before=certain)
        return True
    if certain and not _is_shared(link, change):
        _set_password(link.credential, change.password)
        link.credential.save(update_fields=("sealed", "has_password", "modified"))
        changes = {"changes": {"password": [MASK, MASK]}}
        audit.record(AuditAction.CREDENTIAL_CHANGE, about=link.credential, details=_why(change) | changes)
        return False
    clone = _clone(link.credential, change)
    if certain:
        DeviceCredential.objects.filter(pk=link.pk).update(credential=clone)
        return True
    _put_beside(link, clone, before=False)
    return True


def _put_beside(link: DeviceCredential, clone: Credential, *, before: bool) -> None:
    position = link.position if before else link.position + 1
    DeviceCredential.objects.filter(device=link.device, position__gte=position).update(position=F("position") + 1)
    DeviceCredential.objects.get_or_create(device=link.device, credential=clone, defaults={"position": position})


def _clone_id(credential: Credential, change: PasswordChange) -> uuid.UUID:
    return uuid.uuid5(change.run, str(credential.pk))


def _is_shared(link: DeviceCredential, change: PasswordChange) -> bool:
    # The last device left with an old credential follows the others to their clone.
    others = DeviceCredential.objects.filter(credential=link.credential).exclude(pk=link.pk)
    return others.exists() or Credential.objects.filter(pk=_clone_id(link.credential, change)).exists()


def _set_password(credential: Credential, password: str) -> None:
    old = credential.secrets()
    become = password if old.become_password == old.password else old.become_password
    credential.set_secrets(replace(old, password=password, become_password=become))


def _clone(credential: Credential, change: PasswordChange) -> Credential:
    pk = _clone_id(credential, change)
    if existing := Credential.objects.filter(pk=pk).first():
        return existing
    suffix = f" ({timezone.now():%Y-%m-%d} {str(change.run)[:8]})"
    name = credential.name[: _NAME_LENGTH - len(suffix)] + suffix
    clone = Credential(pk=pk, name=name, organization=credential.organization, username=credential.username)
    clone.set_secrets(credential.secrets())
    _set_password(clone, change.password)
    clone.save(force_insert=True)
    audit.record(AuditAction.CREDENTIAL_CREATE, about=clone, details=_why(change) | {"instead_of": credential.name})
    return clone
