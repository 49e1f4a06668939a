"""``manage.py refresh_playbooks``: bring the catalogue of playbooks up to date."""

from typing import Any

from django.core.management.base import BaseCommand

from orchestrator.cataloguing import refresh
from orchestrator.models import Playbook


class Command(BaseCommand):
    """One refresh, and what it found."""

    help = "Looks for playbooks in the configured directories, lets Ansible read each, and tells which are broken."

    def handle(self, *args: Any, **options: Any) -> None:
        """Run."""
        report = refresh(again=True)
        for problem in report.problems:
            self.stderr.write(problem)
        for row in Playbook.objects.all():
            self.stdout.write(f"{row.status:8}{row.name}")
            if row.broken:
                self.stdout.write("        " + row.message.replace("\n", "\n        "))
        self.stdout.write(
            f"{report.total} playbooks: {len(report.added)} new, {len(report.changed)} changed, "
            f"{len(report.removed)} gone, {len(report.broken)} broken."
        )
