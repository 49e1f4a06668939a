"""manage.py rotate_keys: seal all stored secrets anew with the first key, so that an old one can go."""

from collections import Counter
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from orchestrator import audit
from orchestrator.models import AuditAction
from orchestrator.resealing import keys_in_use, old_keys, reseal
from orchestrator.secrets import current_key


class Command(BaseCommand):
    """Seal anew, and say which keys are needed no longer."""

    help = (
        "Seals all stored secrets anew with the first key of ORCHESTRATOR_SECRET_KEYS, while the service runs, and "
        "says which keys are no longer needed. It may be cut and started again at any time."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """``--check``."""
        parser.add_argument("--check", action="store_true", help="only say which keys are in use")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run; fails when a secret can't be opened, or is still sealed with an old key."""
        unreadable, resealed = 0, {}
        if not options["check"]:
            for done in reseal():
                more = f", {done.overtaken} were changed by others meanwhile" if done.overtaken else ""
                self.stdout.write(f"{done.column}: {done.resealed} sealed anew{more}")
                for pk in done.unreadable:
                    self.stdout.write(self.style.ERROR(f"{done.column}: that of {pk} can't be opened"))
                unreadable += len(done.unreadable)
                resealed[str(done.column)] = done.resealed
            about = audit.Subject(kind="keys", name=current_key())
            details = {"resealed": resealed, "unreadable": unreadable}
            audit.record(AuditAction.KEYS_ROTATE, about=about, details=details)
        left = self._tell_keys()
        if unreadable:
            raise CommandError(
                f"{unreadable} secrets can't be opened with ORCHESTRATOR_SECRET_KEYS: "
                "add the keys that have sealed them, or give these secrets anew."
            )
        if left and not options["check"]:
            raise CommandError(
                "A process of the service still seals with an old key: restart all of them, then rotate again."
            )

    def _tell_keys(self) -> int:
        """Each key, and how many secrets it holds; returns how many another than the first one does."""
        used: Counter[str] = sum(keys_in_use().values(), Counter())
        current, old = current_key(), old_keys()
        self.stdout.write(f"Key {current} seals: {used[current]} secrets.")
        for key in old:
            what = f"{used[key]} secrets need it." if used[key] else "no longer needed."
            self.stdout.write(f"Key {key} only opens: {what}")
        for key in sorted(set(used) - {current, *old}):
            self.stdout.write(self.style.ERROR(f"Key {key} is not in the ring: {used[key]} secrets need it."))
        return used.total() - used[current]
