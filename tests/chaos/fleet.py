"""Devices that count what they carry out, the service, and its processes."""

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
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
CANCELS = int(os.environ.get("CHAOS_CANCELS", str(ROUNDS)))
DEVICES = int(os.environ.get("CHAOS_DEVICES", "8"))
REPORT = os.environ.get("CHAOS_REPORT", "")  # a file, for `python -m tests.chaos`: a line for each round
RECOVERED = 60.0  # seconds after the kill in which every device must have ended
EXECUTED = frozenset({"success", "failed", "lost"})  # what a device that has carried out its command may be
SLICE, FORKS = (4, 3) if DEVICES <= 10 else (10, 8)  # devices wait for a fork in each slice


@dataclass
class Fleet:
    """The service, and devices that count."""

    service: Service
    lab: Lab
    ids: list[str]
    counted: dict[int, dict[str, int]] = field(default_factory=dict)  # what was found after each round
    rounds: int = 0
    lasts: float = 6.0  # seconds that a run takes which nobody disturbs

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
        self.counted[self.rounds] = found
        return found

    def wait_for_a_moment(self) -> float:
        """Let a part of a run's usual time pass; how many seconds it was."""
        seconds = random.uniform(0.0, self.lasts)
        time.sleep(seconds)
        return seconds


@contextmanager
def counting(folder: Path, *, workers: int = 2, **environment: str) -> Iterator[Fleet]:
    """Devices, and a service that notices death soon; skips the test where there can be no lab.

    In the end each device is looked at once more: nothing of any round may have started later.
    """
    if missing := missing_requirements():
        pytest.skip("no lab here; missing: " + ", ".join(missing))
    settings = {
        "ORCHESTRATOR_LEASE_SECONDS": "6", "ORCHESTRATOR_SLICE_SIZE": str(SLICE), "ORCHESTRATOR_FORKS": str(FORKS),
        "ORCHESTRATOR_LAUNCH_RATE": "10000/min", "ORCHESTRATOR_SIGN_IN_RATE": "10000/min",
    }  # fmt: skip
    with (
        Lab.start(directory=lab_directory(folder), openwrt=DEVICES, linux=0) as lab,
        running(folder / "service", workers=workers, **settings | environment) as service,
    ):
        organization = service.post("controller/organization/", {"name": "Chaos"})["id"]
        made = service.register(lab.devices(), organization=organization, password=DEFAULT_PASSWORD)
        fleet = Fleet(service=service, lab=lab, ids=[device["id"] for device in made.values()])
        if ROUNDS > 1:
            began = time.monotonic()
            service.wait(fleet.launch())
            fleet.lasts = time.monotonic() - began
        yield fleet
        check_once_more(fleet)


def check_once_more(fleet: Fleet) -> None:
    """What each device has counted in each round is still what it was after the round."""
    for name in fleet.lab.devices():
        _, text = fleet.lab.exec(name, "sh", "-c", "cd /root; for f in count.*; do echo $f $(grep -c x $f); done")
        now = {int(file.removeprefix("count.")): int(number) for file, number in map(str.split, text.splitlines())}
        for number, found in fleet.counted.items():
            assert now.get(number, 0) == found[name], (name, number)


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


def check(fleet: Fleet, run: Any, *, executed: frozenset[str] = EXECUTED) -> None:
    """What must hold after each round."""
    executions = fleet.executions()
    assert len(run["rows"]) == len(executions)
    for name, row in run["rows"].items():
        assert executions[name] <= 1, (name, executions[name], row)
        if row["status"] == "success":
            assert executions[name] == 1, row
        if executions[name]:
            assert row["status"] in executed, row
            assert "before" not in row["reason"], row  # the device was contacted
        assert row["reason"] or row["status"] == "success", row


def settle(fleet: Fleet, launched: str, *, within: float = RECOVERED) -> Any:
    """The run's end, however often the web server has to be asked again.  ``within``: seconds."""
    until = time.monotonic() + within
    while True:
        try:
            return fleet.service.wait(launched, within=max(until - time.monotonic(), 1.0))
        except fleet.service.broken:
            assert time.monotonic() < until
            time.sleep(0.5)


def report(kind: str, *, seconds: float, run: Any, hit: bool = True) -> None:
    """Write down a round that held: how long after the fault all had ended, and whether there was anything to hit."""
    counts = {status: number for status, number in run["counts"].items() if number}
    note({"kind": kind, "seconds": round(seconds, 2), "hit": hit, "counts": counts, "devices": DEVICES})


def note(line: dict[str, Any]) -> None:
    """Add a line to the report."""
    if REPORT:
        with Path(REPORT).open("a") as file:
            file.write(json.dumps(line) + "\n")
