"""What processes cost: CPU by what they are, and memory."""

import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

TICK: Final = 1.0 / os.sysconf("SC_CLK_TCK")  # seconds
LOOK: Final = 0.2  # seconds between two looks at CPU
WEIGH: Final = 5  # looks between two of memory: reading it costs the kernel a walk


@dataclass(frozen=True, slots=True)
class Process:
    """A line of /proc: CPU of its own and of the children that it has waited for, in seconds."""

    pid: int
    parent: int
    own: float
    waited: float


def table() -> dict[int, Process]:
    """All processes that there are."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            text = Path("/proc", entry, "stat").read_text()
        except OSError:
            continue
        fields = text[text.rindex(")") + 2 :].split()
        user, system, child_user, child_system = (int(each) for each in fields[11:15])
        found[int(entry)] = Process(
            int(entry), int(fields[1]), (user + system) * TICK, (child_user + child_system) * TICK
        )
    return found


def tree(roots: Iterable[int], processes: Mapping[int, Process], without: Iterable[int] = ()) -> list[Process]:
    """The roots and all that descends from them, but for what is left out with its descendants."""
    children: dict[int, list[int]] = {}
    for process in processes.values():
        children.setdefault(process.parent, []).append(process.pid)
    found, rest, left_out = [], list(roots), set(without)
    while rest:
        pid = rest.pop()
        if pid in left_out or pid not in processes:
            continue
        found.append(processes[pid])
        rest += children.get(pid, [])
    return found


def cpu(roots: Iterable[int], without: Iterable[int] = ()) -> float:
    """Seconds of CPU of what lives below the roots, and of what has died there."""
    return sum(process.own + process.waited for process in tree(roots, table(), without))


def memory(processes: Iterable[Process]) -> float:
    """MiB; a page that several share is counted once among them."""
    total = 0
    for process in processes:
        try:
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
    return total / 1024


@dataclass
class Watch:
    """Looks at process trees from a thread: the peak of memory, and the CPU of each process by what it is."""

    roots: tuple[int, ...]
    without: tuple[int, ...] = ()
    peak: float = 0.0  # MiB
    seen: dict[int, tuple[str, float]] = field(default_factory=dict)  # pid → command line, CPU of its own
    _stopped: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> "Watch":
        """Begin."""
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._stopped.set()
        if self._thread:
            self._thread.join()

    def own_cpu(self, *words: str) -> dict[int, float]:
        """Pid → seconds of its own, as last seen, of processes whose command line has all of the words."""
        return {pid: own for pid, (line, own) in self.seen.items() if all(word in line for word in words)}

    def _look(self) -> None:
        number = 0
        while True:
            processes = tree(self.roots, table(), self.without)
            for process in processes:
                line = self.seen[process.pid][0] if process.pid in self.seen else _command(process.pid)
                self.seen[process.pid] = (line, process.own)
            if number < WEIGH or number % WEIGH == 0:  # a short run is seen, too
                self.peak = max(self.peak, memory(processes))
            number += 1
            if self._stopped.wait(LOOK):
                return


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
