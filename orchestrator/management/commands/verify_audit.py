"""manage.py verify_audit: whether the audit log is as it was written."""

from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError
from django.db import connection

from orchestrator.models import AuditEntry

_NAMED: Final = 20  # altered entries named
_CHUNK: Final = 1_000  # entries read at a time
_TRIGGERS: Final = {
    "postgresql": "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'orchestrator_auditentry'::regclass "
    "AND NOT tgisinternal AND tgenabled <> 'D'",
    "sqlite": "SELECT count(*) FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'orchestrator_auditentry'",
}


class Command(BaseCommand):
    """Check each entry against its keyed hash, and that the database still refuses changes."""

    help = "Checks that no audit entry was altered, and that the triggers that refuse changes are in place."

    def handle(self, *args: Any, **options: Any) -> None:
        """Run; fails when something is not as it should be."""
        counts = {True: 0, False: 0, None: 0}
        for entry in AuditEntry.objects.order_by("at", "pk").iterator(chunk_size=_CHUNK):
            state = entry.is_genuine()
            counts[state] += 1
            if state is False and counts[False] <= _NAMED:
                self.stdout.write(self.style.ERROR(f"Altered, or not written by this service: {entry.pk}, {entry.at}"))
        self.stdout.write(f"{counts[True]} entries are as they were written.")
        if counts[None]:
            self.stdout.write(f"{counts[None]} were written with a key that is no longer in ORCHESTRATOR_SECRET_KEYS.")
        faults = [f"altered entries: {counts[False]}"] if counts[False] else []
        with connection.cursor() as cursor:
            cursor.execute(_TRIGGERS[connection.vendor])
            if cursor.fetchone()[0] != 2:
                faults.append("the triggers that refuse changes are missing")
        if faults:
            raise CommandError(" and ".join(faults).capitalize() + ".")
