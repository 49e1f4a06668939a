"""manage.py enrol: ask devices for their SSH host keys and pin them."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction

from orchestrator import audit, host_keys
from orchestrator.models import AuditAction, Device


class Command(BaseCommand):
    """Scan, show the fingerprints, and pin the keys."""

    help = (
        "Asks devices for their SSH host keys, shows the fingerprints, and with --accept pins those of devices "
        "that have none. A scan believes the network: compare the fingerprints with the devices' own."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Which devices, and what to do with their keys."""
        parser.add_argument("devices", nargs="*", metavar="NAME", help="devices by name (default: all not enrolled)")
        parser.add_argument("--organization", help="only devices of the organization of this name")
        parser.add_argument("--accept", action="store_true", help="pin the keys shown; without it nothing is changed")
        parser.add_argument("--replace", action="store_true", help="with --accept: also where another key is pinned")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run; fails when some device did not answer, or shows another key than the pinned one."""
        devices = list(self._chosen(**options))
        if not devices:
            self.stdout.write("There is no such device to enrol.")
            return
        outcomes = [
            self._enrol(device, key, accept=options["accept"], replace=options["replace"])
            for device, key in zip(devices, host_keys.scan_all(devices), strict=True)
        ]
        if not all(outcomes):
            raise CommandError(f"{outcomes.count(False)} of {len(devices)} devices need a look.")

    def _chosen(self, *, devices: list[str], organization: str | None, **_: Any) -> Any:
        rows = Device.objects.order_by("name", "pk")
        if organization:
            rows = rows.filter(organization__name=organization)
        return rows.filter(name__in=devices) if devices else rows.filter(host_key="")

    def _enrol(self, device: Device, key: str, *, accept: bool, replace: bool) -> bool:
        """Show the device's key and pin it if that was asked for; False when a person must look."""
        where = f"{device.name} ({device.host}, port {device.port})"
        if not key:
            self.stdout.write(self.style.ERROR(f"{where}: no answer"))
            return False
        shown = Device(host_key=key).fingerprint
        if key in device.host_key.splitlines():
            self.stdout.write(f"{where}: {shown}, as pinned")
            return True
        if device.host_key and not replace:
            self.stdout.write(self.style.ERROR(f"{where}: {shown}, but {device.fingerprint} is pinned"))
            return False
        if accept:
            # guarded: a key that a person has pinned meanwhile is not replaced
            with transaction.atomic():
                accept = bool(Device.objects.filter(pk=device.pk, host_key=device.host_key).update(host_key=key))
                if accept:
                    details = {"pinned": shown, "replaced": device.fingerprint}
                    audit.record(AuditAction.DEVICE_ENROL, about=device, details=details)
        self.stdout.write(f"{where}: {shown}{', pinned now' if accept else ''}")
        return True
