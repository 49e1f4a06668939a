"""manage.py import_inventory: devices from an inventory of plain Ansible."""

import getpass
from pathlib import Path
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError, CommandParser

from orchestrator import actions, inventory_source
from orchestrator.adoption import Findings, Rules, adopt
from orchestrator.exceptions import OrchestratorError
from orchestrator.models import Credential, Organization, Platform

_NAMED: Final = 5  # hosts that are named where something could not be mapped
_SIGNS: Final = {"create": "+", "update": "~", "deactivate": "-", "delete": "-"}


class Command(BaseCommand):
    """Read, show what would change, and with --apply change it."""

    help = (
        "Imports the hosts of any inventory that ansible-inventory can read (INI, YAML, folders, scripts, plugins) as "
        "devices of an organization, with their groups, locations, tags and credentials. Shows what would change; "
        "--apply changes it. A second import of the same changes nothing."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """The source, what its groups mean, and what to do."""
        parser.add_argument("source", help="what follows ansible-inventory -i")
        parser.add_argument("--organization", required=True, help="the name of the organization, which exists")
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--dry-run", action="store_true", help="only show what would change (the default)")
        what.add_argument("--apply", action="store_true", help="change it")
        groups = parser.add_argument_group("what groups mean (patterns such as 'site_*'; may be given more than once)")
        groups.add_argument("--location-groups", action="append", default=[], metavar="PATTERN", help="locations")
        groups.add_argument(
            "--device-groups", action="append", default=[], metavar="PATTERN",
            help="device groups (default: all others); a device has one, the deepest, and the rest become tags",
        )  # fmt: skip
        groups.add_argument(
            "--openwrt-groups", action="append", default=[], metavar="PATTERN", help="their hosts run OpenWrt"
        )
        groups.add_argument("--platform-variable", default="orchestrator_platform", help="default: %(default)s")
        groups.add_argument("--platform", default=Platform.LINUX, choices=Platform.values, help="of new devices else")
        logins = parser.add_argument_group("how to log in")
        logins.add_argument("--vault-password-file", action="append", default=[], metavar="FILE", help="as Ansible's")
        logins.add_argument("--ask-vault-password", action="store_true", help="ask for the password of the vaults")
        logins.add_argument("--username", default="root", help="where a host names none (default: %(default)s)")
        logins.add_argument(
            "--private-key-file", metavar="FILE", help="for hosts without a password or key of their own"
        )
        logins.add_argument("--credential", metavar="NAME", help="one that exists, for devices that would have none")
        logins.add_argument(
            "--keep-credentials", action="store_true", help="leave those of devices that have some as they are"
        )
        parser.add_argument(
            "--missing", default=actions.Missing.KEEP, choices=[each.value for each in actions.Missing],
            help="what to do with the organization's devices that the inventory does not have (default: %(default)s)",
        )  # fmt: skip

    def handle(self, *args: Any, **options: Any) -> None:
        """Run."""
        organization = self._named(Organization, "organization", options["organization"])
        credential = None
        if name := options["credential"]:
            credential = self._named(Credential, "credential", name, organization=organization)
        try:
            rules = _rules(options)
            password = getpass.getpass("Vault password: ") if options["ask_vault_password"] else ""
            hosts = inventory_source.read(
                options["source"],
                variables=rules.variables,
                vault_password_files=options["vault_password_file"],
                vault_password=password,
            )
            drafts, findings = adopt(hosts, rules)
            report = actions.import_devices(
                organization=organization,
                drafts=drafts,
                apply=options["apply"],
                missing=actions.Missing(options["missing"]),
                platform=options["platform"],
                credential=credential,
                keep_credentials=options["keep_credentials"],
            )
        except OrchestratorError as error:
            raise CommandError(error.detail) from error
        except OSError as error:
            raise CommandError(f"{error.filename}: {error.strerror}") from error
        self._show(report, findings)

    def _named(self, model: Any, kind: str, name: str, **fields: Any) -> Any:
        row = model.objects.filter(name=name, **fields).first()
        if row is None:
            raise CommandError(f'There is no {kind} "{name}".')
        return row

    def _show(self, report: actions.ImportReport, findings: Findings) -> None:
        for change in report.changes:
            details = f": {'; '.join(change.details)}" if change.details else ""
            self.stdout.write(f'{_SIGNS[change.verb]} {change.kind} "{change.name}"{details}')
        for sentence, hosts in findings.hosts.items():
            self._notice(f"{sentence}.", hosts)
        if report.dropped_tags:
            self._notice(
                "Tags of more than 64 characters, or more than 64 of them, were left out.", report.dropped_tags
            )
        if report.not_imported:
            self._notice("Devices that the inventory does not have.", report.not_imported)
        if report.not_enrolled:
            self._notice(
                f"{report.not_enrolled} devices have no pinned host key: nothing runs on them until they are enrolled "
                "(manage.py enrol)."
            )
        counted = ", ".join(f"{what}: {number}" for what, number in report.counts().items()) or "nothing to change"
        self.stdout.write(f"{counted}; unchanged devices: {report.unchanged}.")
        if report.changes and not report.applied:
            self.stdout.write("Nothing was changed. Repeat it with --apply to do so.")

    def _notice(self, sentence: str, hosts: list[str] | None = None) -> None:
        named = ""
        if hosts:
            more = f" and {len(hosts) - _NAMED} more" if len(hosts) > _NAMED else ""
            named = f" [{', '.join(hosts[:_NAMED])}{more}]"
        self.stdout.write(self.style.WARNING(f"! {sentence}{named}"))


def _rules(options: dict[str, Any]) -> Rules:
    key = options["private_key_file"]
    return Rules(
        location_groups=tuple(options["location_groups"]),
        device_groups=tuple(options["device_groups"]) or ("*",),
        openwrt_groups=tuple(options["openwrt_groups"]),
        platform_variable=options["platform_variable"],
        username=options["username"],
        private_key=Path(key).expanduser().read_text(encoding="ascii") if key else "",
    )
