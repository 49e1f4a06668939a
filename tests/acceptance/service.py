"""The service as a client sees it: the embedded stack, and HTTP.  Nothing of Django is used."""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from lab.fleet import DeviceInfo
from orchestrator.stack import BASE_DIR, Stack

ADMIN = {"username": "admin", "password": "an-Admin-Password-1"}
FINISHED = {"success", "partial", "failed", "cancelled"}


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
    """The embedded stack with a superuser."""
    alone = {"REDIS_URL": "", "DATABASE_URL": f"sqlite:///{data_dir / 'db.sqlite3'}"}  # nothing of the tests' own
    stack = Stack(data_dir=data_dir, port=0, workers=workers, quiet=True, environment=alone | environment)
    with stack:
        subprocess.run(
            [sys.executable, "manage.py", "createsuperuser", "--noinput", "--email", "admin@example.org"],
            cwd=BASE_DIR,
            env=stack.environment
            | {"DJANGO_SUPERUSER_USERNAME": ADMIN["username"], "DJANGO_SUPERUSER_PASSWORD": ADMIN["password"]},
            check=True,
            capture_output=True,
        )
        service = Service(stack)
        try:
            yield service
        finally:
            service.http.close()


def lab_directory(base: Path) -> Path:
    """Where a test's lab keeps its files; images are shared between runs."""
    os.environ.setdefault("LAB_IMAGES", str(BASE_DIR / ".lab" / "images"))
    return base / "lab"
