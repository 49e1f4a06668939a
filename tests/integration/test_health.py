"""What monitors ask."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError
from redis.exceptions import ConnectionError as RedisConnectionError

pytestmark = pytest.mark.django_db


def test_the_process_is_alive(client: Any) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}


def test_without_a_queue_the_service_is_not_ready(client: Any) -> None:
    reply = client.get("/readyz")  # the tests have no queue server
    assert reply.status_code == 503
    assert (reply.json()["queue"], reply.json()["database"]) == ("down", "ok")


@pytest.mark.parametrize(
    ("workers", "draining", "status", "says"),
    [(2, False, 200, "ok"), (0, False, 503, "none"), (2, True, 503, "draining")],
)
def test_readiness_follows_the_workers(
    client: Any, monkeypatch: pytest.MonkeyPatch, workers: int, draining: bool, status: int, says: str
) -> None:
    monkeypatch.setattr("orchestrator.dispatch.reachable", lambda: True)
    monkeypatch.setattr("orchestrator.dispatch.worker_count", lambda: workers)
    monkeypatch.setattr("orchestrator.dispatch.draining", lambda: draining)
    reply = client.get("/readyz")
    assert (reply.status_code, reply.json()["workers"]) == (status, says)


def test_a_queue_that_dies_in_between_is_unknown(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def dead() -> bool:
        raise RedisConnectionError

    monkeypatch.setattr("orchestrator.dispatch.draining", dead)
    assert client.get("/readyz").json()["workers"] == "unknown"


def test_a_dead_database_is_told(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def dead() -> None:
        raise OperationalError

    monkeypatch.setattr("orchestrator.health.connection.cursor", dead)
    assert client.get("/readyz").json()["database"] == "down"


def test_without_a_sandbox_it_is_said(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator.checks import check_isolation

    monkeypatch.setattr("orchestrator.health.isolated", lambda: False)
    monkeypatch.setattr("orchestrator.checks.isolated", lambda: False)
    assert client.get("/readyz").json()["isolation"] == "none"
    assert [message.id for message in check_isolation(None)] == ["orchestrator.W001"]


def test_a_busy_machine_makes_no_run_less_confined(monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator import sandbox

    def slow(*_: Any, **options: Any) -> None:
        raise subprocess.TimeoutExpired("bwrap", options["timeout"])

    monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/bwrap")
    monkeypatch.setattr("orchestrator.sandbox.subprocess.run", slow)
    assert sandbox.isolated.__wrapped__() is True


@pytest.mark.parametrize(("mode", "said"), [(0o700, []), (0o750, ["orchestrator.W002"])])
def test_a_data_directory_that_others_may_enter_is_told(tmp_path: Path, settings: Any, mode: int, said: Any) -> None:
    from orchestrator.checks import check_data_directory

    settings.DATA_DIR = tmp_path
    tmp_path.chmod(mode)
    assert [message.id for message in check_data_directory(None)] == said


def test_the_root_leads_to_the_admin(client: Any) -> None:
    assert client.get("/").headers["Location"] == "/admin/"
