"""Pin the host keys of devices: shown by the devices and accepted by a person, or from a known_hosts file."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from orchestrator import host_keys
from orchestrator.access import Access, Right
from orchestrator.exceptions import HostKeyChangedError, InvalidFieldError, NotPermittedError
from orchestrator.host_keys import Outcome
from orchestrator.known_hosts import Ignored, KnownHosts
from orchestrator.models import Device, Organization, User, fingerprints

_MOST_COMPARISONS: Final = 5_000_000  # hashed names, each with each device: some seconds


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What became of one device: the key that it showed, or that the file has for it."""

    device: Device
    outcome: Outcome
    key: str = ""

    @property
    def fingerprint(self) -> str:
        """Of that key, as ``ssh-keygen -l`` shows it."""
        return fingerprints(self.key)


def enrol(*, actor: User, device: Device, fingerprint: str = "", accept: bool = False, replace: bool = False) -> Device:
    """Ask the device for its host key; it is pinned if it was accepted, and else remembered to be looked at.

    Accepted is a key of this ``fingerprint``; with ``accept`` any, where none is pinned; with ``replace`` any.

    Raises:
        NotPermittedError: the user is no administrator of its organization.
        DeviceUnreachableError: it shows no host key.
        HostKeyChangedError: it shows another key than the pinned or the accepted one.
    """
    _permit(actor, [device])
    shown = host_keys.scan(device.host, device.port)
    pinned = device.fingerprint
    outcome = host_keys.consider(device, shown, actor=actor, expected=fingerprint, accept=accept, replace=replace)
    if outcome is Outcome.CHANGED:
        extra = {"pinned": pinned, "shown": fingerprints(shown)}
        raise HostKeyChangedError(**extra | ({"expected": fingerprint} if fingerprint else {}))
    device.refresh_from_db()
    return device


def enrol_all(
    *, actor: User, devices: Sequence[Device], accept: bool = False, replace: bool = False
) -> list[Enrolment]:
    """The same for several devices, asked at the same time; one that doesn't answer hinders no other.

    Raises:
        NotPermittedError: the user is not the administrator of each.
    """
    _permit(actor, devices)
    return [
        Enrolment(device, host_keys.consider(device, key, actor=actor, accept=accept, replace=replace), key)
        for device, key in zip(devices, host_keys.scan_all(devices), strict=True)
    ]


def accept_shown(*, actor: User, devices: Sequence[Device]) -> list[Enrolment]:
    """Pin the keys that these devices have shown before, where none is pinned yet; nobody is asked again.

    Raises:
        NotPermittedError: the user is not the administrator of each.
    """
    _permit(actor, devices)
    found = []
    for device in devices:
        shown = device.shown_key
        if device.host_key or not shown:
            found.append(Enrolment(device, Outcome.CHANGED if shown else Outcome.UNCHANGED, shown))
        else:
            pinned = host_keys.pin(device, [shown], actor=actor)
            found.append(Enrolment(device, Outcome.PINNED if pinned else Outcome.CHANGED, shown))
    return found


def import_known_hosts(
    *, actor: User, organization: Organization, text: str, accept: bool = False, replace: bool = False
) -> tuple[list[Enrolment], list[Ignored]]:
    """Pin the keys that a known_hosts file has for the devices of an organization, and which lines were ignored.

    Devices that the file doesn't know are not told.  Without ``accept`` nothing is changed.

    Raises:
        NotPermittedError: the user is no administrator of the organization.
        InvalidFieldError: there are too many hashed names for so many devices.
    """
    if not Access.of(actor).can(Right.MANAGE, organization.pk):
        raise NotPermittedError("Only administrators of its organization may enrol a device.")
    known = KnownHosts.parse(text)
    devices = Device.objects.filter(organization=organization).select_related("organization").order_by("name", "pk")
    if len(known.hashed) * devices.count() > _MOST_COMPARISONS:
        raise InvalidFieldError(
            "known_hosts", "Too many hashed names for so many devices. Send it in parts, or use manage.py enrol."
        )
    return list(
        compare_known_hosts(known, devices.iterator(), actor=actor, accept=accept, replace=replace)
    ), known.ignored


def compare_known_hosts(
    known: KnownHosts, devices: Iterable[Device], *, actor: User | None, accept: bool, replace: bool
) -> Iterable[Enrolment]:
    """What becomes of each device that the file knows; rights are the caller's business."""
    for device in devices:
        if keys := known.keys_of(device.host, device.port):
            pinned = device.host_key.splitlines()
            if set(pinned) & set(keys):
                outcome = Outcome.UNCHANGED
            elif pinned and not replace:
                outcome = Outcome.CHANGED
            elif not accept:
                outcome = Outcome.SHOWN
            else:
                done = host_keys.pin(device, keys, actor=actor, because="known_hosts")
                outcome = Outcome.PINNED if done else Outcome.CHANGED
            yield Enrolment(device, outcome, "\n".join(keys))


def _permit(actor: User, devices: Iterable[Device]) -> None:
    access = Access.of(actor)
    if not all(access.can(Right.MANAGE, device.organization_id) for device in devices):
        raise NotPermittedError("Only administrators of its organization may enrol a device.")
