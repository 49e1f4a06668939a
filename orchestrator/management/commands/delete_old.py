"""manage.py delete_old: end of the time that results are kept."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from orchestrator.retention import delete_old, delete_old_entries


class Command(BaseCommand):
    """Delete mass commands and results older than their organization keeps them."""

    help = (
        "Deletes finished mass commands and results older than the keep_days of their organization, "
        "in batches, and audit entries older than ORCHESTRATOR_AUDIT_DAYS."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """``--system-days`` for runs over several organizations."""
        parser.add_argument("--system-days", type=int, help="days that runs over several organizations are kept")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run."""
        number = delete_old(system_days=options["system_days"])
        if settings.AUDIT_DAYS:
            number += delete_old_entries(days=settings.AUDIT_DAYS)
        self.stdout.write(f"{number} rows were deleted.")
