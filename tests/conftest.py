"""What all tests share: clients, a private Redis, a lab of real devices; and that nothing is skipped in CI."""

import os
import shutil
from collections.abc import Callable, Generator, Iterable
from typing import Any

import pytest

from tests import settings


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Leave nothing behind."""
    shutil.rmtree(settings.HOME, ignore_errors=True)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The modules with real devices, browsers and processes first, each part in its random order.

    They are the long ones: begun last, one of them would keep a process of xdist busy while the others are done.
    """
    long = {item.path for item in items if any(map(item.get_closest_marker, ("lab", "browser", "slow")))}
    items.sort(key=lambda item: item.path not in long)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """In CI a skipped lab or browser test is a failure: its machine has what they need."""
    report = yield
    needed = item.get_closest_marker("lab") or item.get_closest_marker("browser")
    if report.skipped and needed and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> None:
    """Tests empty all tables, which must let them, but those of the content types and permissions.

    These are the same for all tests: to make them anew takes longer than to empty all others; and PostgreSQL
    truncates many tables more slowly than it deletes the few rows of a test.

    Without the triggers that guard the audit log (its own tests put them back), and without the empty table of knox's
    tokens: Django doesn't know it, as they are in ours, and PostgreSQL truncates nothing that others refer to.
    """
    from django.contrib.contenttypes.management import create_contenttypes
    from django.db import connection
    from django.db.models.signals import post_migrate  # noqa: TID251 - Django's own

    from tests import audit_triggers

    with django_db_blocker.unblock():
        audit_triggers.take_away()
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE IF EXISTS knox_authtoken")
    flush, kept = connection.ops.sql_flush, {"django_content_type", "auth_permission"}

    def keeping(style: Any, tables: Iterable[str], **options: Any) -> list[str]:
        emptied = [table for table in tables if table not in kept]
        if connection.vendor == "postgresql":
            return [f"DELETE FROM {connection.ops.quote_name(table)}" for table in emptied]  # noqa: S608
        return flush(style, emptied, **options)

    connection.ops.sql_flush = keeping  # type: ignore[method-assign]
    post_migrate.disconnect(dispatch_uid="django.contrib.auth.management.create_permissions")
    post_migrate.disconnect(create_contenttypes)


@pytest.fixture
def api(client: Any) -> Callable[..., Any]:
    """``api(user)`` is a client of DRF's that acts as this user; ``api()`` is anonymous."""
    from rest_framework.test import APIClient

    def make(user: Any = None) -> APIClient:
        made = APIClient()
        if user is not None:
            made.force_authenticate(user)
        return made

    return make


@pytest.fixture
def outbox(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, int]]:
    """What would have gone to the queue: (slice id, attempt) pairs; nothing is run."""
    sent: list[tuple[Any, int]] = []

    def enqueue(slices: Iterable[tuple[Any, int]]) -> bool:
        sent.extend(slices)
        return True

    monkeypatch.setattr("orchestrator.dispatch.enqueue", enqueue)
    return sent
