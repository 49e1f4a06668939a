"""The triggers that guard the audit log, put in and taken away.  Tests run without them: they empty all tables."""

from importlib import import_module
from typing import Any

from django.db import connection

from orchestrator.settings import BASE_DIR


class _Editor:
    """What the migration asks of a schema editor; Django's own wants to be outside of a test's transaction."""

    connection = connection

    def execute(self, statement: str) -> None:
        """Run it."""
        with connection.cursor() as cursor:
            cursor.execute(statement)


def _migration() -> Any:
    [path] = (BASE_DIR / "orchestrator" / "migrations").glob("*_audit.py")
    return import_module(f"orchestrator.migrations.{path.stem}")


def put_in() -> None:
    """As a migrated database has them."""
    _migration().guard(None, _Editor())


def take_away() -> None:
    """Let everything be changed."""
    _migration().free(None, _Editor())
