"""What is measured of one go, and how a program is measured that tells each result on its stdout."""

import ctypes
import os
import re
import signal
import subprocess
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.processes import Watch, cpu

SUBREAPER: Final = 36  # PR_SET_CHILD_SUBREAPER of prctl(2)
TOLD: Final = 8  # last lines shown of a program that failed somewhere
SETTLE: Final = 0.3  # seconds for the server to reap the last sessions


@dataclass(frozen=True, slots=True)
class Measurement:
    """One go over some devices."""

    devices: int
    succeeded: int
    seconds: float  # from the start of the program, or the request, to the last result
    first: float  # seconds to the first result
    cpu: Mapping[str, float]  # seconds, by what used it
    memory: float  # MiB, the peak of all processes together

    @property
    def rate(self) -> float:
        """Devices in a second."""
        return self.devices / self.seconds

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"rate": self.rate}


def adopt_orphans() -> None:
    """What children leave behind (ssh's ControlPersist) becomes ours, so that its CPU is seen."""
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)


def measure(
    command: Sequence[str | Path],
    *,
    devices: int,
    result: str,
    environment: Mapping[str, str],
    folder: Path,
    server: int | None,
    spared: Sequence[int] = (),
) -> Measurement:
    """Run the program once; each line that matches ``result`` is one device's success.

    ``spared`` are children of this process that are no part of it.
    """
    pattern = re.compile(result)
    server_before = cpu([server]) if server else 0.0
    before = _children_cpu()
    started = time.perf_counter()
    first, last, succeeded = 0.0, 0.0, 0
    told: deque[str] = deque(maxlen=TOLD)
    process = subprocess.Popen(
        command, env=dict(environment), cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace",
    )  # fmt: skip
    with Watch((process.pid,)) as watch:
        for line in process.stdout or ():
            if pattern.search(line):
                last = time.perf_counter() - started
                first, succeeded = first or last, succeeded + 1
            else:
                told.append(line)
        process.wait()
    seconds = last or time.perf_counter() - started
    _end_orphans({*spared, *([server] if server else [])})
    client = _children_cpu() - before
    time.sleep(SETTLE)
    used = {"client": client} | ({"server": cpu([server]) - server_before} if server else {})
    if succeeded != devices:
        print(f"    {succeeded} of {devices}: {''.join(told)}")
    return Measurement(devices, succeeded, seconds, first, used, watch.peak)


def _children_cpu() -> float:
    times = os.times()
    return times.children_user + times.children_system


def _end_orphans(spared: set[int]) -> None:
    """End what the program has left, and wait for it: then its CPU is counted."""
    children = {
        int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()
    }
    for pid in children - spared:
        try:
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
