"""manage.py enrol: ask devices for their SSH host keys, or read a known_hosts file, and pin them."""

import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from orchestrator import host_keys
from orchestrator.actions import compare_known_hosts
from orchestrator.host_keys import Outcome
from orchestrator.known_hosts import KnownHosts
from orchestrator.models import Device, fingerprints

_WORDS = {
    Outcome.PINNED: ", pinned now",
    Outcome.UNCHANGED: ", as pinned",
    Outcome.SHOWN: "",
    Outcome.SILENT: "no answer",
}


class Command(BaseCommand):
    """Scan, show the fingerprints, and pin the keys."""

    help = (
        "Asks devices for their SSH host keys, or takes them from a known_hosts file, shows the fingerprints, and "
        "with --accept pins them for devices that have none. A scan believes the network: compare the fingerprints "
        "with the devices' own."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Which devices, and what to do with their keys."""
        parser.add_argument("devices", nargs="*", metavar="NAME", help="devices by name (default: all not enrolled)")
        parser.add_argument("--organization", help="only devices of the organization of this name")
        parser.add_argument("--accept", action="store_true", help="pin the keys shown; without it nothing is pinned")
        parser.add_argument("--replace", action="store_true", help="with --accept: also where another key is pinned")
        parser.add_argument("--known-hosts", metavar="FILE", help="do not ask the devices, read this file; - is stdin")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run; fails when some device did not answer, or shows another key than the pinned one."""
        accept, replace = options["accept"], options["replace"] and options["accept"]
        rows = self._chosen(everybody=bool(options["known_hosts"]), **options)
        if options["known_hosts"]:
            outcomes = self._read(options["known_hosts"], rows, accept=accept, replace=replace)
        else:
            outcomes = self._ask(list(rows), accept=accept, replace=replace)
        if not outcomes:
            self.stdout.write("There is no such device to enrol.")
        if needy := sum(outcome in (Outcome.CHANGED, Outcome.SILENT) for outcome in outcomes):
            raise CommandError(f"{needy} of {len(outcomes)} devices need a look.")

    def _chosen(self, *, devices: list[str], organization: str | None, everybody: bool, **_: Any) -> Any:
        rows = Device.objects.order_by("name", "pk").select_related("organization")
        if organization:
            rows = rows.filter(organization__name=organization)
        if devices:
            return rows.filter(name__in=devices)
        return rows if everybody else rows.filter(host_key="")

    def _ask(self, devices: list[Device], *, accept: bool, replace: bool) -> list[Outcome]:
        outcomes = []
        for device, key in zip(devices, host_keys.scan_all(devices), strict=True):
            before = device.fingerprint
            outcome = host_keys.consider(device, key, accept=accept, replace=replace)
            self._tell(device, outcome, fingerprints(key), before)
            outcomes.append(outcome)
        return outcomes

    def _read(self, name: str, rows: Any, *, accept: bool, replace: bool) -> list[Outcome]:
        try:
            text = sys.stdin.read() if name == "-" else Path(name).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"{name} can't be read: {error}") from error
        known = KnownHosts.parse(text)
        for ignored in known.ignored:
            self.stdout.write(self.style.WARNING(f"line {ignored.line}: {ignored.reason}"))
        outcomes = []
        for found in compare_known_hosts(known, rows.iterator(), actor=None, accept=accept, replace=replace):
            self._tell(found.device, found.outcome, found.fingerprint, found.device.fingerprint)
            outcomes.append(found.outcome)
        return outcomes

    def _tell(self, device: Device, outcome: Outcome, shown: str, before: str) -> None:
        where = f"{device.name} ({device.host}, port {device.port})"
        shown, before = shown.replace("\n", ", "), before.replace("\n", ", ")
        if outcome is Outcome.CHANGED:
            said = f"{before} is pinned" if before else "another one was shown before: look at it, or use --replace"
            self.stdout.write(self.style.ERROR(f"{where}: {shown}, but {said}"))
        else:
            text = f"{where}: {shown}{_WORDS[outcome]}"
            self.stdout.write(self.style.ERROR(text) if outcome is Outcome.SILENT else text)
