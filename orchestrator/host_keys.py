"""Host keys: asking a device for the one it shows, and pinning it.

A scan believes the network at that moment; so it is an explicit act of a person who can compare the fingerprint,
unless ORCHESTRATOR_TRUST_ON_FIRST_USE says that the first key seen may be pinned.
"""

import logging
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from django.conf import settings
from django.db import transaction

from orchestrator import audit
from orchestrator.exceptions import DeviceUnreachableError
from orchestrator.models import AuditAction, Device

log = logging.getLogger(__name__)

_AT_ONCE: Final = 20  # scans
# Best first; one key is pinned, and only its type is negotiated when logging in.
_PREFERENCE: Final = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")


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


def pin_unknown(devices: Sequence[Device]) -> None:
    """Scan and pin the keys of devices that have none; those that don't answer stay without."""
    for device, key in zip(devices, scan_all(devices), strict=True):
        # guarded: a key that a person has pinned meanwhile is not replaced
        with transaction.atomic():
            if not key or not Device.objects.filter(pk=device.pk, host_key="").update(host_key=key):
                continue
            device.host_key = key
            details = {"pinned": device.fingerprint, "because": "first key seen"}
            audit.record(AuditAction.DEVICE_ENROL, about=device, details=details)
        log.info("Pinned the first host key seen of device %s: %s", device.pk, device.fingerprint)


def _scan_or_nothing(device: Device) -> str:
    try:
        return scan(device.host, device.port)
    except DeviceUnreachableError:
        return ""
