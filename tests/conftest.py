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
    """The modules with real devices and browsers first, each part in its random order.

    They are the long ones: begun last, one of them would keep a process of xdist busy while the others are done.
    """
    items.sort(key=lambda item: not item.path.parent.name.startswith(("acceptance", "browser", "chaos")))


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
    """Tests empty all tables, which must let them.

    Without the triggers that guard the audit log (its own tests put them back), and without the empty table of knox's
    tokens: Django doesn't know it, as they are in ours, and PostgreSQL truncates nothing that others refer to.
    """
    from django.db import connection

    from tests import audit_triggers

    with django_db_blocker.unblock():
        audit_triggers.take_away()
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE IF EXISTS knox_authtoken")


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
