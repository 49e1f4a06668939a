"""The processes of a run: found wherever they went, and ended for certain.

Each carries the run's directory in its environment.  Process groups and sessions say nothing: ssh and Ansible's
workers leave theirs.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

KILL_TIMEOUT: Final = 5.0  # seconds in which SIGKILL must have done its work
POLL: Final = 0.02  # seconds between two looks
MARKER: Final = "ORCHESTRATOR_RUN"  # in the environment of each process of a run: its run directory


def kill_processes(directory: Path) -> None:
    """SIGKILL every process of the run, until none is left.

    All are stopped first, or Ansible would still tell of the connections that break because we end them.  Our own
    child is killed last: bubblewrap then buries its dead itself, which the init of a container may not do.

    Raises:
        TimeoutError: after KILL_TIMEOUT one is still there.
    """
    begin = time.monotonic()
    for pid in sorted(processes(directory)):  # parents before children
        _signal(pid, directory, signal.SIGSTOP)
    while pids := processes(directory):
        if (passed := time.monotonic() - begin) > KILL_TIMEOUT:
            raise TimeoutError(f"Processes of a run do not die: {pids}")
        children = [pid for pid in pids if _parent(pid) == os.getpid()]
        for pid in pids if passed > KILL_TIMEOUT / 5 else set(pids) - set(children) or children:
            _signal(pid, directory, signal.SIGKILL)
        time.sleep(POLL)


def processes(directory: Path) -> list[int]:
    """The ids of the run's processes that are alive."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and _belongs(int(name), directory)]


def _signal(pid: int, directory: Path, number: signal.Signals) -> None:
    """By a pidfd that is checked after it was opened: the number may meanwhile be another process's."""
    with contextlib.suppress(ProcessLookupError), _pidfd(pid) as fd:
        if _belongs(pid, directory):
            signal.pidfd_send_signal(fd, number)


def _belongs(pid: int, directory: Path) -> bool:
    """By the environment; an ssh-agent hides its own from its user, but has a socket in the run directory."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        if b"ssh-agent" in command.split(b"\0")[0] and os.fsencode(directory) + b"/" in command:
            return True
        return os.fsencode(f"{MARKER}={directory}") in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # gone, or another user's
        return False


def _parent(pid: int) -> int:
    """0 when it is gone."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


@contextlib.contextmanager
def _pidfd(pid: int) -> Iterator[int]:
    fd = os.pidfd_open(pid)
    try:
        yield fd
    finally:
        os.close(fd)
