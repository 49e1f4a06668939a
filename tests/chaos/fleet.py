"""Devices that count what they carry out, the service, and its processes."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.client import Lab
from lab.fleet import DEFAULT_PASSWORD
from lab.requirements import missing_requirements
from orchestrator.stack import Stack
from orchestrator.supervisor import descendants
from tests.acceptance.service import Service, lab_directory, running

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "1"))
DEVICES = int(os.environ.get("CHAOS_DEVICES", "8"))
RECOVERED = 60.0  # seconds after the kill in which every device must have ended


@dataclass
class Fleet:
    """The service, and devices that count."""

    service: Service
    lab: Lab
    ids: list[str]
    rounds: int = 0

    def launch(self, *, work: str = "sleep 2", **controls: Any) -> str:
        """Start a run in which each device counts and then takes its time; the run's id."""
        self.rounds += 1
        command = f"echo x >> /root/count.{self.rounds}; {work}"
        run = self.service.launch(devices=self.ids, type="custom", input={"command": command}, **controls)
        return str(run["id"])

    def executions(self) -> dict[str, int]:
        """Device → how often it has carried the command of this round out, read past SSH."""
        found = {}
        for name in self.lab.devices():
            rc, text = self.lab.exec(name, "cat", f"/root/count.{self.rounds}")
            found[name] = text.count("x") if rc == 0 else 0
        return found


@contextmanager
def counting(folder: Path, *, workers: int = 2, **environment: str) -> Iterator[Fleet]:
    """Devices, and a service that notices death soon; skips the test where there can be no lab."""
    if missing := missing_requirements():
        pytest.skip("no lab here; missing: " + ", ".join(missing))
    settings = {"ORCHESTRATOR_LEASE_SECONDS": "6", "ORCHESTRATOR_SLICE_SIZE": "4", "ORCHESTRATOR_FORKS": "3"}
    with (
        Lab.start(directory=lab_directory(folder), openwrt=DEVICES, linux=0) as lab,
        running(folder / "service", workers=workers, **settings | environment) as service,
    ):
        organization = service.post("controller/organization/", {"name": "Chaos"})["id"]
        made = service.register(lab.devices(), organization=organization, password=DEFAULT_PASSWORD)
        yield Fleet(service=service, lab=lab, ids=[device["id"] for device in made.values()])


def words(pid: int) -> str:
    """The command line of a process; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def parent(pid: int) -> int:
    """The parent of a process; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def victims(stack: Stack, what: str) -> list[int]:
    """The processes of the stack that are meant by a name."""
    everything = descendants(stack.pid)
    lines = {pid: words(pid) for pid in everything}
    workers = [pid for pid, line in lines.items() if "rqworker" in line and parent(pid) == stack.pid]
    if what == "worker":
        return workers
    if what == "horse":
        return [pid for pid in everything if parent(pid) in workers]
    patterns = {
        "ansible": "ansible-playbook",
        "queue": "unixsocket",
        "web": "uvicorn",
        "recovery": "recover --forever",
    }
    return [pid for pid, line in lines.items() if patterns[what] in line]


def kill(*pids: int) -> None:
    """Kill -9; one of them may have gone with another."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def check(fleet: Fleet, run: Any) -> None:
    """What must hold after each round."""
    executions = fleet.executions()
    for name, row in run["rows"].items():
        assert executions[name] <= 1, (name, executions[name], row)
        if row["status"] == "success":
            assert executions[name] == 1, row
        if executions[name]:
            assert row["status"] in {"success", "failed", "lost", "cancelled"}, row
        assert row["reason"] or row["status"] == "success", row


def settle(fleet: Fleet, launched: str) -> Any:
    """The run's end, however often the web server has to be asked again."""
    until = time.monotonic() + RECOVERED
    while True:
        try:
            return fleet.service.wait(launched, within=max(until - time.monotonic(), 1.0))
        except fleet.service.broken:
            assert time.monotonic() < until
            time.sleep(0.5)
