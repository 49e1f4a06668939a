"""Pin a device's host key."""

from django.db import transaction

from orchestrator import audit, host_keys
from orchestrator.access import Access, Right
from orchestrator.exceptions import HostKeyChangedError, NotPermittedError
from orchestrator.models import AuditAction, Device, User


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
        details = {"pinned": device.fingerprint, "shown": Device(host_key=shown).fingerprint}
        audit.record(AuditAction.DEVICE_KEY_CHANGED, actor=actor, about=device, details=details)
        raise HostKeyChangedError(pinned=device.fingerprint, shown=Device(host_key=shown).fingerprint)
    if shown not in pinned:
        # guarded by what was compared: of two people who enrol at once the second one compares again
        with transaction.atomic():
            changed = Device.objects.filter(pk=device.pk, host_key=device.host_key).update(host_key=shown)
            if not changed:
                raise HostKeyChangedError(
                    "Somebody else has changed the pinned key meanwhile. Look at it, then try again."
                )
            details = {"pinned": Device(host_key=shown).fingerprint, "replaced": device.fingerprint}
            audit.record(AuditAction.DEVICE_ENROL, actor=actor, about=device, details=details)
    device.refresh_from_db()
    return device
