"""Host keys: asking a device for the one it shows, remembering it, and pinning it.

A scan believes the network at that moment; so pinning is an explicit act of a person who can compare the fingerprint,
unless ORCHESTRATOR_TRUST_ON_FIRST_USE says that the first key seen may be pinned.
"""

import enum
import logging
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from orchestrator import audit
from orchestrator.exceptions import DeviceUnreachableError
from orchestrator.models import AuditAction, Command, Device, Slice, fingerprints

log = logging.getLogger(__name__)

_AT_ONCE: Final = 20  # scans
# Best first; one key is pinned, and only its type is negotiated when logging in.
_PREFERENCE: Final = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")


class Outcome(enum.StrEnum):
    """What became of a device whose key was looked at."""

    PINNED = "pinned"  # now
    UNCHANGED = "unchanged"  # it is the pinned one
    SHOWN = "shown"  # none is pinned yet: to be compared and accepted
    CHANGED = "changed"  # another one is pinned, or was looked at before
    SILENT = "silent"  # no answer


def scan(host: str, port: int) -> str:
    """The best host key that is shown at this address, as ``type base64`` (ssh-keyscan(1)).

    Raises:
        DeviceUnreachableError: nothing that speaks SSH answered within the connect timeout.
    """
    timeout = max(1, round(settings.CONNECT_TIMEOUT))
    command = ["ssh-keyscan", "-T", str(timeout), "-t", "ed25519,ecdsa,rsa", "-p", str(port), host]
    try:
        # host is validated by the model: a name or an address, never an option
        done = subprocess.run(command, capture_output=True, text=True, timeout=4 * timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise DeviceUnreachableError from error
    lines = (line.split() for line in done.stdout.splitlines() if line and not line.startswith("#"))
    shown = {parts[1]: parts[2] for parts in lines if len(parts) == 3}
    for key_type in _PREFERENCE:
        if key_type in shown:
            return f"{key_type} {shown[key_type]}"
    raise DeviceUnreachableError


def scan_all(devices: Sequence[Device]) -> list[str]:
    """The host key of each device, several asked at a time; empty for one that doesn't answer."""
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        return list(pool.map(_scan_or_nothing, devices))


def consider(
    device: Device, key: str, *, actor: Any = None, expected: str = "", accept: bool = False, replace: bool = False
) -> Outcome:
    """Decide about a key that a device has shown: pin it, or remember it for a person to look at.

    ``expected`` is the fingerprint that a person has compared: that key is pinned, be another one pinned or not.
    ``accept`` pins where none is pinned yet, but not another one than was shown before; ``replace`` pins in any case.
    """
    pinned = device.host_key.splitlines()
    if not key:
        return Outcome.SILENT
    if key in pinned:
        Device.objects.filter(pk=device.pk, host_key=device.host_key).update(shown_key="", key_changed=None)
        return Outcome.UNCHANGED
    if expected:
        wanted = fingerprints(key) == expected
    else:
        wanted = replace or (accept and not pinned and device.shown_key in ("", key))
    if wanted:
        return Outcome.PINNED if pin(device, [key], actor=actor) else Outcome.CHANGED
    another = bool(pinned) or bool(expected) or device.shown_key not in ("", key)
    _note(device, key, actor=actor)
    return Outcome.CHANGED if another else Outcome.SHOWN


def pin(device: Device, keys: Sequence[str], *, actor: Any = None, because: str = "") -> bool:
    """Pin these keys; False when somebody else has pinned another one meanwhile."""
    text = "\n".join(sorted(keys, key=lambda key: _PREFERENCE.index(key.split()[0])))
    with transaction.atomic():
        # guarded by what was compared: of two people who enrol at once the second one has to look again
        rows = Device.objects.filter(pk=device.pk, host_key=device.host_key)
        if not rows.update(host_key=text, shown_key="", key_changed=None, modified=timezone.now()):
            return False
        details = {"pinned": fingerprints(text), "replaced": device.fingerprint} | ({"by": because} if because else {})
        audit.record(AuditAction.DEVICE_ENROL, actor=actor, about=device, details=details)
    device.host_key, device.shown_key, device.key_changed = text, "", None
    return True


def pin_unknown(devices: Sequence[Device]) -> None:
    """Scan and pin the keys of devices that have none; those that don't answer stay without."""
    for device, key in zip(devices, scan_all(devices), strict=True):
        if key and pin(device, [key], because="first key seen"):
            log.info("Pinned the first host key seen of device %s: %s", device.pk, device.fingerprint)


def look_again(slice_: Slice) -> None:
    """Mark devices that did not show their pinned key in a run, with the key that they show now."""
    rows = Command.objects.filter(slice=slice_, reason_code="host_key", device__isnull=False)
    devices = list(Device.objects.filter(commands__in=rows).exclude(host_key="").select_related("organization"))
    for device, key in zip(devices, scan_all(devices) if devices else (), strict=True):
        if key not in device.host_key.splitlines():
            _note(device, key, run=str(slice_.mass_command_id))


def _note(device: Device, key: str, *, actor: Any = None, **details: str) -> None:
    """Remember another key than the pinned one; empty: it could not be asked which."""
    known = device.shown_key == key and bool(device.key_changed) == bool(device.host_key)
    with transaction.atomic():
        now = timezone.now() if device.host_key else None
        rows = Device.objects.filter(pk=device.pk, host_key=device.host_key)
        if not rows.update(shown_key=key, key_changed=device.key_changed or now):
            return
        if device.host_key and (not known or details):
            details |= {"pinned": device.fingerprint, "shown": fingerprints(key)}
            audit.record(AuditAction.DEVICE_KEY_CHANGED, actor=actor, about=device, details=details)
    device.shown_key, device.key_changed = key, device.key_changed or now


def _scan_or_nothing(device: Device) -> str:
    try:
        return scan(device.host, device.port)
    except DeviceUnreachableError:
        return ""
