"""``manage.py pull_playbooks``: take the playbooks of one commit of a git repository into the catalogue."""

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from orchestrator import audit
from orchestrator.cataloguing import refresh
from orchestrator.git_sources import PullFailedError, pull, remove
from orchestrator.models import AuditAction, Playbook


class Command(BaseCommand):
    """Pull, or remove, a source; then refresh the catalogue."""

    help = "Pulls a git repository of playbooks at one commit, with its requirements.yml, into a directory of its own."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """The command line."""
        parser.add_argument("name", help="of the source: its playbooks are named NAME/…")
        parser.add_argument("--url", help="the repository")
        parser.add_argument("--commit", help="in full")
        parser.add_argument("--remove", action="store_true", help="forget the source")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run."""
        name = options["name"]
        if options["remove"]:
            if not remove(name):
                raise CommandError(f'There is no source "{name}".')
            audit.record(AuditAction.CATALOGUE_REMOVE, about=audit.Subject("repository", name=name))
        elif not (options["url"] and options["commit"]):
            raise CommandError("Give --url and --commit.")
        else:
            try:
                pull(name, url=options["url"], commit=options["commit"])
            except PullFailedError as error:
                raise CommandError(str(error)) from error
            details = {"url": options["url"], "commit": options["commit"]}
            audit.record(AuditAction.CATALOGUE_PULL, about=audit.Subject("repository", name=name), details=details)
        report = refresh()
        for row in Playbook.objects.filter(name__startswith=f"{name}/"):
            self.stdout.write(f"{row.status:8}{row.name}")
        for playbook, message in report.broken.items():
            self.stderr.write(f"{playbook} is broken: {message}")
