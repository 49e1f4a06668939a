"""This service: from the POST to the last row, the whole embedded stack measured."""

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.contenders import COMMAND, PROJECT
from benchmarks.devices import Fleet
from benchmarks.measurement import SETTLE, Measurement
from benchmarks.processes import Watch, cpu, table, tree
from orchestrator.stack import Stack
from tests.postgres import running as postgresql

LOGIN: Final = {"username": "bench", "password": "a-Bench-Password-1"}
FINISHED: Final = {"success", "partial", "failed", "cancelled"}
POLL: Final = 1.0  # seconds, as in the example of docs/api.md
LIMIT: Final = 1_800.0  # seconds for a run
# Told to `manage.py shell`: the keys that the devices really have, which a person would have enrolled.
ENROL: Final = """
import json
from orchestrator.models import Device
keys = json.load(open({path!r}))
rows = list(Device.objects.filter(name__in=list(keys)))
for row in rows: row.host_key = keys[row.name]
Device.objects.bulk_update(rows, ["host_key"], batch_size=500)
"""


@dataclass
class Service:
    """A running stack with fleets in it."""

    name: str
    about: str
    stack: Stack
    database: int | None  # the process of PostgreSQL
    folder: Path

    def __post_init__(self) -> None:
        self.headers = {"Content-Type": "application/json"}
        self.organizations: dict[tuple[str, int], str] = {}

    def call(self, path: str, body: Any = None) -> Any:
        """The reply of the API."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.stack.url}/api/v1/{path}", data, self.headers)  # noqa: S310
        with urllib.request.urlopen(request, timeout=120) as reply:  # noqa: S310
            return json.load(reply)

    def sign_in(self) -> None:
        """As a superuser."""
        environment = {f"DJANGO_SUPERUSER_{name.upper()}": value for name, value in LOGIN.items()}
        self.manage("createsuperuser", "--noinput", "--email", "bench@example.org", **environment)
        self.headers["Authorization"] = f"Bearer {self.call('users/token/', LOGIN)['token']}"

    def manage(self, *command: str | Path, **environment: str) -> None:
        """manage.py."""
        subprocess.run(
            [sys.executable, "manage.py", *command], cwd=PROJECT, env=self.stack.environment | environment,
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def organization(self, fleet: Fleet) -> str:
        """The id of an organization that has these devices, imported from their Ansible inventory."""
        known = (fleet.title, len(fleet.devices))
        if known not in self.organizations:
            name = f"{fleet.title} {len(fleet.devices)}"
            folder = self.folder / name.replace(" ", "-")
            folder.mkdir()
            files = fleet.write(folder)
            self.organizations[known] = self.call("controller/organization/", {"name": name})["id"]
            self.manage("import_inventory", files.inventory, "--organization", name, "--apply")
            keys = folder / "keys.json"
            keys.write_text(json.dumps({device.name: device.host_key for device in fleet.devices}))
            self.manage("shell", "-v0", "-c", ENROL.format(path=str(keys)))
        return self.organizations[known]

    def go(self, fleet: Fleet, folder: Path, spared: Sequence[int]) -> Measurement:
        """One run over the fleet."""
        organization = self.organization(fleet)
        body = {"organization": organization, "type": "custom", "input": {"command": COMMAND}}
        roots = (self.stack.pid, *((self.database,) if self.database else ()))
        server_before = cpu([fleet.server]) if fleet.server else 0.0
        before, stood = cpu([self.stack.pid]), self._database_cpu()
        with Watch(roots) as watch:
            alive = {process.pid: process.own for process in tree(roots, table())}
            started = time.time()  # as the service's own times are: nobody has to ask often
            run = self.call("controller/batch-command/", body)
            while run["status"] not in FINISHED:
                if time.time() - started > LIMIT:
                    raise TimeoutError(f"the run is {run['status']}")
                time.sleep(POLL)
                run = self.call(f"controller/batch-command/{run['id']}/")
        time.sleep(SETTLE)
        stack = cpu([self.stack.pid]) - before
        ours = sum(
            own - alive.get(pid, 0.0) for pid, (line, own) in watch.seen.items() if not _of_ansible(line)
        ) - self._seen_database(watch, alive)  # fmt: skip
        used = {"service": ours, "ansible and ssh": max(stack - ours, 0.0), "client": stack}
        if self.database:
            used["database"] = self._database_cpu() - stood
        if fleet.server:
            used["server"] = cpu([fleet.server]) - server_before
        ended = [datetime.fromisoformat(row["finished"]).timestamp() - started for row in self._rows(run["id"])]
        return Measurement(
            len(fleet.devices), run["counts"].get("success", 0), max(ended), min(ended), used, watch.peak
        )

    def _rows(self, run: str) -> list[Any]:
        request = urllib.request.Request(  # noqa: S310
            f"{self.stack.url}/api/v1/controller/batch-command/{run}/export/?format=ndjson", headers=self.headers
        )
        with urllib.request.urlopen(request, timeout=120) as reply:  # noqa: S310
            return [json.loads(line) for line in reply]

    def _database_cpu(self) -> float:
        return cpu([self.database]) if self.database else 0.0

    def _seen_database(self, watch: Watch, alive: dict[int, float]) -> float:
        return sum(own - alive.get(pid, 0.0) for pid, own in watch.own_cpu("postgres").items())


def _of_ansible(line: str) -> bool:
    """Whether the process belongs to a run: it is ansible-playbook, a worker of it, a sandbox, or ssh."""
    return any(word in line for word in ("ansible-playbook", "bwrap", "ssh ", "ssh-agent"))


@contextlib.contextmanager
def running(
    name: str, folder: Path, *, postgres: bool = False, workers: int = 2, **environment: str
) -> Iterator[Service]:
    """The service on SQLite, or on a private PostgreSQL."""
    with contextlib.ExitStack() as stack:
        folder.mkdir(parents=True)
        server = stack.enter_context(postgresql()) if postgres else None
        settings = {"REDIS_URL": "", "DATABASE_URL": server.url if server else f"sqlite:///{folder / 'db.sqlite3'}"}
        settings |= {"ORCHESTRATOR_LAUNCH_RATE": "10000/min", "PYTHONWARNINGS": os.environ.get("PYTHONWARNINGS", "")}
        about = f"POST to last row, {'PostgreSQL' if postgres else 'SQLite'}, defaults"
        started = stack.enter_context(
            Stack(data_dir=folder, port=0, workers=workers, quiet=True, environment=settings | environment)
        )
        service = Service(name, about, started, server.pid if server else None, folder)
        service.sign_in()
        yield service
