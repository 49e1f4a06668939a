"""Running playbooks on lab devices: what the tests of the run engine share.

`python -m tests.integration.engine` is a worker that carries out the pickled Job on its stdin, to be killed.
"""

import os
import pickle
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab import DeviceInfo, Lab
from lab.fleet import DEFAULT_PASSWORD

if TYPE_CHECKING:  # both need Django's settings
    from orchestrator.events import HostEvent
    from orchestrator.inventory import Target
    from orchestrator.plays import TaskEvent
    from orchestrator.runner import Orders, RunOutcome, RunRequest

PLAYBOOKS = Path(__file__).resolve().parent.parent.parent / "playbooks"


def shared_memory() -> str | None:
    """A tmpfs, where there is one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def until[T](look: Callable[[], T], seconds: float = 30.0) -> T:
    """What `look` returns once it is true."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, f"not so after {seconds:g} s"
        time.sleep(0.05)
    return found


def ssh_clients(device: DeviceInfo) -> list[int]:
    """The processes that have the device's address and port in their command line; other labs use the address, too."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if device.address.encode() in line and str(device.port).encode() in line:
                found.append(int(entry.name))
    return found


@dataclass
class Result:
    """What a run gave."""

    outcome: "RunOutcome"
    started: list[str]
    finished: "dict[str, HostEvent]"
    seconds: float
    tasks: "list[TaskEvent]" = field(default_factory=list)  # of a user's own playbook


@dataclass(frozen=True)
class Job:
    """A request for another process."""

    request: "RunRequest"
    isolated: bool


@dataclass(frozen=True)
class Engine:
    """A lab, and runs over its devices."""

    lab: Lab
    keys: Path  # a folder with the pair `key`, which always logs in
    limits: dict[str, float] = field(default_factory=lambda: {"connect": 4.0, "execution": 10.0, "deadline": 60.0})

    def target(
        self, name: str, *, by_key: bool = False, host_key: str = "", address: str = "", **login: str
    ) -> "Target":
        """A device as the engine is told of it."""
        from orchestrator.inventory import Login, Target

        device = self.device(name)
        if by_key:
            login = {"private_key": (self.keys / "key").read_text(), **login}
        elif not login.keys() & {"password", "private_key"}:
            login = {"password": DEFAULT_PASSWORD, **login}
        return Target(
            host_name=name,
            address=address or device.address,
            port=device.port,
            platform=device.kind,
            host_key=host_key or device.hostkey,
            login=Login(**{"username": "root", **login}),
        )

    def device(self, name: str) -> DeviceInfo:
        """What the lab tells about a device."""
        return self.lab.devices()[name]

    def request(
        self,
        targets: "Sequence[Target]",
        playbook: str | Path = "custom",
        *,
        limits: dict[str, float] | None = None,
        secrets: frozenset[str] = frozenset(),
        check: bool = False,
        forks: int = 10,
        **variables: Any,
    ) -> "RunRequest":
        """A request; `limits` in seconds: connect, execution, deadline."""
        from orchestrator.runner import RunRequest

        chosen = self.limits | (limits or {})
        return RunRequest(
            ident=uuid.uuid4().hex,
            playbook=playbook if isinstance(playbook, Path) else PLAYBOOKS / f"{playbook}.yml",
            targets=targets,
            variables=variables,
            forks=forks,
            connect_timeout=chosen["connect"],
            execution_timeout=chosen["execution"],
            deadline=chosen["deadline"],
            secrets=secrets,
            check=check,
        )

    def run(
        self,
        request: "RunRequest",
        *,
        orders: "Orders | None" = None,
        hear: "Callable[[HostEvent], None]" = lambda event: None,
    ) -> Result:
        """Carry it out."""
        from orchestrator import runner
        from orchestrator.plays import TaskEvent

        started: list[str] = []
        finished: dict[str, HostEvent] = {}
        tasks: list[TaskEvent] = []

        def on_event(event: Any) -> None:
            if isinstance(event, TaskEvent):
                tasks.append(event)
                return
            if event.kind == "started":
                started.append(event.host_name)
            else:
                assert event.host_name not in finished
                finished[event.host_name] = event
            hear(event)

        began = time.monotonic()
        outcome = runner.run(request, on_event=on_event, orders=orders or runner.Orders())
        return Result(outcome, started, finished, time.monotonic() - began, tasks)

    def custom(self, command: str, *names: str, **controls: Any) -> Result:
        """Run a command line on devices."""
        return self.run(self.request([self.target(name) for name in names], command=command, **controls))

    def worker(self, request: "RunRequest", *, isolated: bool) -> "subprocess.Popen[bytes]":
        """A process that carries the request out, to be killed."""
        from django.conf import settings

        worker = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.engine"],
            env=os.environ
            | {"DJANGO_SETTINGS_MODULE": "orchestrator.settings", "ORCHESTRATOR_RUN_DIR": settings.RUN_DIR},
            stdin=subprocess.PIPE,
        )
        assert worker.stdin
        with worker.stdin as pipe:
            pickle.dump(Job(request, isolated), pipe)
        return worker

    def exists(self, name: str, path: str) -> bool:
        """Whether there is such a file on the device."""
        return self.lab.exec(name, "ls", path)[0] == 0

    def login(self, name: str, password: str, *, user: str = "root") -> bool:
        """Whether plain ssh logs in with this password."""
        device = self.device(name)
        askpass = self.keys / "askpass"
        if not askpass.exists():
            askpass.write_text('#!/bin/sh\nprintf "%s\\n" "$ENGINE_PASSWORD"\n')
            askpass.chmod(0o700)
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "PubkeyAuthentication=no"]
        options += ["NumberOfPasswordPrompts=1", "KexAlgorithms=curve25519-sha256"]
        command = ["ssh", "-F/dev/null", *(f"-o{x}" for x in options), f"-p{device.port}", f"{user}@{device.address}"]
        says = {"SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force", "ENGINE_PASSWORD": password}
        done = subprocess.run(
            [*command, "echo in"], env=os.environ | says, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        return done.stdout == b"in\n"

    def heal(self) -> None:
        """All devices up, without faults."""
        if any(device.faults or device.state != "up" for device in self.lab.devices().values()):
            self.lab.fault("all", "none")
            self.lab.power("all", "on")
            for name in self.lab.devices():
                self.lab.wait_until(name, "up")


def main() -> None:
    """Be a worker."""
    import django

    django.setup()
    from orchestrator import runner, sandbox

    job = pickle.load(sys.stdin.buffer)  # noqa: S301 - ours
    if not job.isolated:
        sandbox.isolated = lambda: False  # type: ignore[assignment]
    runner.run(job.request, on_event=lambda event: None, orders=runner.Orders())


if __name__ == "__main__":
    # Under its real name, by which the job was pickled.
    from tests.integration import engine  # noqa: PLW0406

    engine.main()
