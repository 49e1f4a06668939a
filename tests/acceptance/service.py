"""The service as a client sees it: the embedded stack, and HTTP.  Nothing of Django is used."""

import functools
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from lab.fleet import DeviceInfo
from orchestrator.stack import BASE_DIR, Stack, child_environment, manage
from tests.settings import HOME

ADMIN = {"username": "admin", "password": "an-Admin-Password-1"}
FINISHED = {"success", "partial", "failed", "cancelled"}
DATABASE = "db.sqlite3"  # in the data directory


class Service:
    """A client of the API, signed in as superuser."""

    broken = httpx.TransportError
    """What a request raises while the web server is down."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        logging.getLogger("httpx").setLevel(logging.WARNING)  # a poll is no news
        self.http = httpx.Client()
        self.connect()

    def connect(self) -> None:
        """Sign in, at the address that the stack has now."""
        self.http.close()
        self.http = httpx.Client(base_url=self.stack.url + "/api/v1/", timeout=30.0)
        token = self.post("users/token/", ADMIN)["token"]
        self.http.headers["Authorization"] = f"Bearer {token}"

    def post(self, path: str, body: Any, *, expect: int | None = None) -> Any:
        """POST; the reply's JSON."""
        reply = self.http.post(path, json=body)
        assert reply.status_code == expect if expect else reply.is_success, reply.text
        return reply.json()

    def get(self, path: str, **query: Any) -> Any:
        """GET; the reply's JSON."""
        reply = self.http.get(path, params=query)
        if reply.status_code == 503:
            raise httpx.ReadError("the service says that it is unavailable")
        assert reply.is_success, reply.text
        return reply.json()

    def launch(self, **body: Any) -> Any:
        """Start a mass command; the reply."""
        return self.post("controller/batch-command/", body, expect=201)

    def run(self, *, within: float = 90.0, **body: Any) -> Any:
        """Start a mass command and wait for its end; its detail, with ``rows`` by device name."""
        return self.wait(self.launch(**body)["id"], within=within)

    def wait(self, run_id: str, *, within: float = 90.0) -> Any:
        """Wait for the end of a run; its detail, with ``rows`` by device name.  ``within``: seconds."""
        until = time.monotonic() + within
        while (run := self.get(f"controller/batch-command/{run_id}/"))["status"] not in FINISHED:
            assert time.monotonic() < until, run
            assert sum(run["counts"].values()) == run["device_count"]
            time.sleep(0.2)
        run["rows"] = {row["device_name"]: row for row in self.rows(run_id)}
        assert sum(run["counts"].values()) == run["device_count"] == len(run["rows"])
        return run

    def rows(self, run_id: str) -> list[Any]:
        """All the per-device rows of a run."""
        found, page = [], 1
        while True:
            reply = self.get(f"controller/batch-command/{run_id}/commands/", page=page, page_size=100)
            found += reply["results"]
            if not reply["next"]:
                return found
            page += 1

    def register(self, devices: dict[str, DeviceInfo], *, organization: str, password: str) -> dict[str, Any]:
        """Register lab devices, each with a credential of its own and its host key; device by name."""
        made = {}
        for name, device in devices.items():
            credential = self.post(
                "controller/credential/",
                {"organization": organization, "name": f"root of {name}", "username": "root", "password": password},
            )
            body = {
                "organization": organization,
                "name": name,
                "host": device.address,
                "port": device.port,
                "platform": device.kind,
                "credentials": [credential["id"]],
                "host_key": device.hostkey,
            }
            made[name] = self.post("controller/device/", body)
        return made


@contextmanager
def running(data_dir: Path, *, workers: int = 2, **environment: str) -> Iterator[Service]:
    """The embedded stack with a superuser; on SQLite unless there is a ``DATABASE_URL``."""
    settings = _own_servers(data_dir) | environment
    stack = Stack(data_dir=data_dir, port=0, workers=workers, quiet=True, environment=settings)
    if "DATABASE_URL" not in environment:
        prepare(data_dir)
    with stack:
        if "DATABASE_URL" in environment:
            _add_superuser(stack.environment)
        service = Service(stack)
        try:
            yield service
        finally:
            service.http.close()


def _own_servers(data_dir: Path) -> dict[str, str]:
    """Nothing of the tests' own."""
    return {"REDIS_URL": "", "DATABASE_URL": f"sqlite:///{data_dir / DATABASE}"}


def prepare(data_dir: Path) -> None:
    """Give a data directory the database of a first start, with the superuser, so that its start has less to do."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.copy(_fresh_database(), data_dir / DATABASE)


@functools.cache
def _fresh_database() -> Path:
    """Made once: the migrations and a process for the superuser take seconds, in which two cores do nothing else."""
    folder = HOME / "first-start"
    environment = child_environment(folder, os.environ | _own_servers(folder))
    run_command("migrate", environment=environment)
    _add_superuser(environment)
    return folder / DATABASE


def _add_superuser(environment: dict[str, str]) -> None:
    given = {f"DJANGO_SUPERUSER_{name.upper()}": value for name, value in ADMIN.items()}
    run_command("createsuperuser", "--noinput", "--email", "admin@example.org", environment=environment | given)


def run_command(*words: str, environment: Mapping[str, str]) -> None:
    """Run a command of the service's in its environment."""
    subprocess.run(manage(*words), cwd=BASE_DIR, env=environment, check=True, capture_output=True)


def lab_directory(base: Path) -> Path:
    """Where a test's lab keeps its files; images are shared between runs."""
    os.environ.setdefault("LAB_IMAGES", str(BASE_DIR / ".lab" / "images"))
    return base / "lab"
