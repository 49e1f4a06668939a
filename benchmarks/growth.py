"""python -m benchmarks.growth [--devices 1000,10000] [--workers 1,2,4]: does the pipeline stay as fast as fleets grow?

Devices that are simulated (benchmarks/simulated/) go the whole way: a launch over the API, slices, the queue, workers,
ansible-playbook, events, rows.  Only the SSH is missing, which grows with nothing.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.contenders import PROJECT
from benchmarks.processes import cpu, table, tree
from benchmarks.report import PAGE, machine, section
from benchmarks.service import FINISHED, LIMIT, Service, running
from orchestrator.supervisor import die_with_parent

RESULTS: Final = PROJECT / "benchmarks" / "results"
SIMULATED: Final = PROJECT / "benchmarks" / "simulated"
SECONDS: Final = 0.2  # that a simulated device takes
MARKS: Final = ("<!-- growth -->\n", "<!-- end of growth -->\n")
LOOK: Final = 0.5  # seconds between two looks at memory
FILL: Final = """
from orchestrator.models import Credential, Device, DeviceCredential, Organization
from orchestrator.models.fleet import CredentialSecrets
organization = Organization.objects.create(name="Growth {count}")
credential = Credential(organization=organization, name="all")
credential.set_secrets(CredentialSecrets(password="a-Bench-Password-1"))
credential.save()
key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
devices = [
    Device(organization=organization, name=f"d{{n:06}}", host=f"127.{{n >> 16 & 255}}.{{n >> 8 & 255}}.{{n & 255}}",
           host_key=key)
    for n in range({count})
]
Device.objects.bulk_create(devices, batch_size=5000)
DeviceCredential.objects.bulk_create(
    [DeviceCredential(device=device, credential=credential) for device in devices], batch_size=5000
)
print(organization.pk)
"""


@dataclass
class Growth:
    """One run over so many devices, by so many workers."""

    devices: int
    workers: int
    launch: float  # seconds until the launch was answered: all rows are there
    seconds: float  # from then to the last result
    cpu_ms: float  # of the service, a device; what runs in a sandbox is not reaped by anybody who is asked
    worker_mib: float  # the most that one worker and its horse came to, ansible-playbook apart
    playbook_mib: float  # the most that one ansible-playbook came to
    succeeded: int = 0
    rate: float = field(init=False)  # devices in a second

    def __post_init__(self) -> None:
        self.rate = self.devices / self.seconds


def main() -> int:
    """Measure, print, and unless told otherwise write it down."""
    options = _options()
    found = list(_measure(options.workers, options.devices))
    about = machine()
    told = {"about": about, "seconds_of_a_device": SECONDS, "results": [vars(growth) for growth in found]}
    print(text := _table(told))
    if options.publish:
        path = RESULTS / f"{about['at'][:10]}-growth.json"
        path.write_text(json.dumps(told, indent=1) + "\n")
        section(PAGE, MARKS, text)
    return 0 if all(growth.succeeded == growth.devices for growth in found) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.growth", description=(__doc__ or "").splitlines()[0])
    numbers: Callable[[str], list[int]] = lambda text: [int(each) for each in text.split(",")]  # noqa: E731
    parser.add_argument("--devices", type=numbers, default=[1_000, 10_000])
    parser.add_argument("--workers", type=numbers, default=[1, 2, 4])
    parser.add_argument("--publish", action="store_true", help="write docs/benchmarks.md and benchmarks/results/")
    return parser.parse_args()


def _measure(numbers: Sequence[int], sizes: Sequence[int]) -> Iterator[Growth]:
    with tempfile.TemporaryDirectory(prefix="orchestrator-growth-") as name, contextlib.ExitStack() as stack:
        service = stack.enter_context(running("growth", Path(name) / "data", workers=0))
        organizations = {devices: _fill(service, devices) for devices in sizes}
        for workers in numbers:
            with contextlib.ExitStack() as group:
                processes = [group.enter_context(_worker(service)).pid for _ in range(workers)]
                for devices, organization in organizations.items():
                    growth = _go(service, organization, devices, processes)
                    print(f"{time.strftime('%H:%M:%S')} {growth}", flush=True)
                    yield growth


def _fill(service: Service, devices: int) -> str:
    """The id of an organization with so many devices."""
    return subprocess.run(
        [sys.executable, "manage.py", "shell", "-v0", "-c", FILL.format(count=devices)], cwd=PROJECT,
        env=service.stack.environment, check=True, stdout=subprocess.PIPE, text=True,
    ).stdout.strip()  # fmt: skip


@contextlib.contextmanager
def _worker(service: Service) -> "Iterator[subprocess.Popen[bytes]]":
    """An RQ worker whose runs meet simulated devices."""
    parent = os.getpid()
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.growth", "worker"], cwd=PROJECT, env=service.stack.environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        preexec_fn=lambda: die_with_parent(parent, signal.SIGTERM),  # noqa: PLW1509 - no thread runs yet
    )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _go(service: Service, organization: str, devices: int, workers: Sequence[int]) -> Growth:
    body = {"organization": organization, "type": "custom", "input": {"command": "true"}}
    roots = (service.stack.pid, *workers)
    before = cpu(roots)
    with _Memory(workers) as memory:
        began = time.monotonic()
        run = service.call("controller/batch-command/", body)
        launched = time.monotonic()
        while run["status"] not in FINISHED:
            if time.monotonic() - launched > LIMIT:
                raise TimeoutError(f"the run is {run['status']}")
            time.sleep(1.0)
            run = service.call(f"controller/batch-command/{run['id']}/")
        ended = time.monotonic()
    return Growth(
        devices, len(workers), launched - began, ended - launched, 1000 * (cpu(roots) - before) / devices,
        memory.worker, memory.playbook, run["counts"].get("success", 0),
    )  # fmt: skip


class _Memory:
    """The most memory that a worker, and an ansible-playbook of it, came to, in MiB."""

    def __init__(self, workers: Sequence[int]) -> None:
        self._workers, self._stopped = workers, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.worker = self.playbook = 0.0

    def __enter__(self) -> "_Memory":
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._stopped.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stopped.wait(LOOK):
            processes = table()
            for worker in self._workers:
                most = {process.pid: _most(process.pid) for process in tree([worker], processes)}
                plays = [mib for pid, mib in most.items() if _line(pid).find("ansible-playbook") > 0]
                self.playbook = max(self.playbook, *plays, 0.0)
                self.worker = max(self.worker, *(most[pid] for pid in most if "benchmarks.growth" in _line(pid)), 0.0)


def _most(pid: int) -> float:
    """The most that the process has had in memory, in MiB."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


def _line(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def _table(told: Any) -> str:
    lines = [
        "| workers | devices | s to launch | devices/s | ms of CPU a device but Ansible's | MiB: worker | playbook |",
        "|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for each in told["results"]:
        missed = "" if each["succeeded"] == each["devices"] else f" ({each['succeeded']} succeeded)"
        lines.append(
            f"| {each['workers']} | {each['devices']}{missed} | {each['launch']:.1f} | {each['rate']:.1f} | "
            f"{each['cpu_ms']:.1f} | {each['worker_mib']:.0f} | {each['playbook_mib']:.0f} |"
        )
    about = told["about"]
    return (
        f"Measured {about['at']}: {about['cores']} cores, load average of the last quarter of an hour "
        f"{about['load']:.1f}; a device takes {told['seconds_of_a_device']} s.\n\n" + "\n".join(lines) + "\n"
    )


# ---------------------------------------------------------------- the worker's process
def work() -> None:
    """RQ's worker, with a runner that leads to the simulated connection."""
    import django  # noqa: PLC0415 - only here

    django.setup()
    from django.core.management import call_command  # noqa: PLC0415 - needs the settings

    from orchestrator import runner  # noqa: PLC0415
    from orchestrator.sandbox import sandbox  # noqa: PLC0415

    environment = runner._environment

    def simulated(*given: Any) -> dict[str, str]:
        return environment(*given) | {
            "ANSIBLE_CONNECTION_PLUGINS": str(SIMULATED), "SIMULATED_SECONDS": str(SECONDS),
        }  # fmt: skip

    def showing(directory: Path, playbooks: Path, **more: Any) -> list[str]:
        words = sandbox(directory, playbooks, **more)
        at = words.index("--remount-ro") if words else 0
        return [*words[:at], "--ro-bind", str(SIMULATED), str(SIMULATED), *words[at:]] if words else []

    vars(runner).update(_environment=simulated, sandbox=showing)
    call_command("rqworker", "commands")


if __name__ == "__main__":
    if sys.argv[1:] == ["worker"]:
        work()
    else:
        sys.exit(main())
