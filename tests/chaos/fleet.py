"""Devices that count what they carry out, the service, and what must hold after each round."""

import json
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lab.client import Lab
from lab.fleet import DEFAULT_PASSWORD
from lab.requirements import missing_requirements
from tests.acceptance.service import Service, lab_directory, run_command, running
from tests.chaos.victims import Work, of_runs, words, work
from tests.integration.engine import until

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "1"))
CANCELS = int(os.environ.get("CHAOS_CANCELS", str(ROUNDS)))
DEVICES = int(os.environ.get("CHAOS_DEVICES", "8"))
REPORT = os.environ.get("CHAOS_REPORT", "")  # a file, for `python -m tests.chaos`: a line for each round
RECOVERED = 60.0  # seconds after the kill in which every device must have ended
EXECUTED = frozenset({"success", "failed", "lost"})  # what a device that has carried out its command may be
SLICE, FORKS = (4, 3) if DEVICES <= 10 else (10, 8)  # devices wait for a fork in each slice
PLAYBOOKS = Path(__file__).parent / "playbooks"
COMMAND = "command"  # a run of the service's own; the others are users' playbooks
COUNTED = {  # what counts in each kind of run
    COMMAND: ("command",),
    "with_a_handler": ("first", "second", "third", "handler"),
    "in_batches": ("first", "second", "handler"),
}
KINDS = tuple(COUNTED)


@dataclass
class Fleet:
    """The service, and devices that count."""

    service: Service
    lab: Lab
    ids: list[str]
    runs: Path  # the directory of the runs' directories
    counted: dict[int, dict[str, Counter[str]]] = field(default_factory=dict)  # what was found after each round
    rounds: int = 0
    kind: str = COMMAND  # of the run of this round
    lasts: dict[str, float] = field(default_factory=dict)  # seconds that a run takes which nobody disturbs

    def launch(self, *, kind: str = COMMAND, work: str = "sleep 2", **controls: Any) -> str:
        """Start a run in which each device counts and then takes its time; the run's id."""
        self.rounds, self.kind = self.rounds + 1, kind
        body: dict[str, Any] = {"type": "playbook", "playbook": kind, "input": {"counted": str(self.rounds)}}
        if kind == COMMAND:
            command = f"echo x >> /root/count.{self.rounds}.command; {work}"
            body = {"type": "custom", "input": {"command": command}}
        return str(self.service.launch(devices=self.ids, **body, **controls)["id"])

    def launch_next(self) -> str:
        """Start a run of the next kind, so that all kinds take their turns."""
        return self.launch(kind=KINDS[self.rounds % len(KINDS)])

    def executions(self) -> dict[str, Counter[str]]:
        """Device → how often it has carried out each part of this round, read past SSH."""
        everything = {name: self._count(name, f"count.{self.rounds}.*") for name in self.lab.devices()}
        found = {name: counts.get(self.rounds, Counter()) for name, counts in everything.items()}
        self.counted[self.rounds] = found
        return found

    def _count(self, name: str, files: str) -> dict[int, Counter[str]]:
        script = f"cd /root; for f in {files}; do [ ! -e $f ] || echo $f $(grep -c x $f); done"
        rc, text = self.lab.exec(name, "sh", "-c", script)
        assert rc == 0, text
        found: dict[int, Counter[str]] = {}
        for file, number in map(str.split, text.splitlines()):
            _, of, part = file.split(".")
            found.setdefault(int(of), Counter())[part] = int(number)
        return found

    def check_once_more(self) -> None:
        """What each device has counted in each round is still what it was after the round."""
        for name in self.lab.devices():
            now = self._count(name, "count.*")
            for number, found in self.counted.items():
                assert now.get(number, Counter()) == found[name], (name, number)

    def wait_for_a_moment(self, launched: str) -> Work:
        """Let a part of the run's usual time pass, on a busy machine seldom all of it; what goes on for it then."""
        time.sleep(random.uniform(0.0, 0.8 * self.lasts.get(self.kind, 7.5)))
        return work(self.service.stack, launched)

    def processes_of_runs(self) -> list[str]:
        """What runs have started and is alive, wherever it went."""
        return list(filter(None, map(words, of_runs(self.runs))))


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
        "ORCHESTRATOR_PLAYBOOK_DIRS": str(PLAYBOOKS),
    }  # fmt: skip
    with (
        tempfile.TemporaryDirectory(prefix="run-", dir=_short()) as runs,
        Lab.start(directory=lab_directory(folder), openwrt=DEVICES, linux=0) as lab,
        running(
            folder / "service", workers=workers, ORCHESTRATOR_RUN_DIR=runs, **settings | environment
        ) as service,
    ):  # fmt: skip
        run_command("refresh_playbooks", environment=service.stack.environment)
        organization = service.post("controller/organization/", {"name": "Chaos"})["id"]
        made = service.register(lab.devices(), organization=organization, password=DEFAULT_PASSWORD)
        fleet = Fleet(service, lab, [device["id"] for device in made.values()], Path(runs))
        yield fleet
        fleet.check_once_more()
        until(lambda: not fleet.processes_of_runs(), RECOVERED)  # a run has ended before its last process has


def _short() -> str | None:
    """Ansible's sockets need short paths."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def measure(fleet: Fleet) -> None:
    """How long each kind of run takes, so that the moments of many rounds are spread over all of it."""
    for kind in KINDS if ROUNDS > 1 else ():
        began = time.monotonic()
        run = fleet.service.wait(fleet.launch(kind=kind))
        fleet.lasts[kind] = time.monotonic() - began
        check(fleet, run)
        assert run["status"] == "success", run["rows"]


def check(fleet: Fleet, run: Any, *, executed: frozenset[str] = EXECUTED) -> None:
    """What must hold after each round."""
    executions, parts = fleet.executions(), COUNTED[fleet.kind]
    statuses = Counter(row["status"] for row in run["rows"].values())
    assert statuses == {status: number for status, number in run["counts"].items() if number}
    assert len(run["rows"]) == len(executions)
    for name, row in run["rows"].items():
        counts = executions[name]
        assert all(number == 1 for number in counts.values()), (name, counts, row)
        if row["status"] == "success":
            assert set(counts) == set(parts), (counts, row)
        if counts:
            assert row["status"] in executed, row
            assert "before" not in row["reason"], row  # the device was contacted
        assert row["reason"] or row["status"] == "success", row


def settle(fleet: Fleet, launched: str, *, began: float, within: float = RECOVERED) -> Any:
    """The run's end, however often the web server has to be asked again; it must come in time.

    ``began``: since when, by the monotonic clock.  ``within``: seconds.
    """
    while True:
        try:
            return fleet.service.wait(launched, within=began + within - time.monotonic())
        except fleet.service.broken:
            assert time.monotonic() - began < within
            time.sleep(0.2)


def report(fleet: Fleet, what: str, *, seconds: float, run: Any, hit: bool) -> None:
    """Write down a round that held: after how long all had ended, and whether what was struck worked for the run."""
    counts = {status: number for status, number in run["counts"].items() if number}
    shown = {"kind": what, "of": fleet.kind, "seconds": round(seconds, 2), "hit": hit, "counts": counts}
    note(shown | {"devices": DEVICES})


def note(line: dict[str, Any]) -> None:
    """Add a line to the report."""
    if REPORT:
        with Path(REPORT).open("a") as file:
            file.write(json.dumps(line) + "\n")
