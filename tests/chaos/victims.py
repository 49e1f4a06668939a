"""The processes that are struck, which of them worked for a run at that moment, and what a run leaves behind."""

import os
import random
import signal
import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from environ import Env

from orchestrator.processes import MARKER
from orchestrator.stack import Stack
from orchestrator.supervisor import descendants

SLICES = "SELECT worker FROM orchestrator_slice WHERE mass_command_id = '{}' AND status IN ('queued', 'running')"


@dataclass(frozen=True)
class Work:
    """What went on for a run at a moment."""

    slices: int  # that waited for a worker, or had one
    horses: frozenset[int]  # processes that had taken one of them


def work(stack: Stack, run: str) -> Work:
    """What goes on for a run, out of the database: the web server may be the one to be killed."""
    config = Env.db_url_config(stack.environment["DATABASE_URL"])
    query = SLICES.format(run if "postgresql" in config["ENGINE"] else run.replace("-", ""))
    with closing(_connect(config)) as connection:
        workers = [worker for (worker,) in connection.execute(query)]
    return Work(len(workers), frozenset(int(worker.rpartition(":")[2]) for worker in workers if worker))


def _connect(config: Any) -> Any:
    if "postgresql" in config["ENGINE"]:
        return psycopg.connect(host=config["HOST"], user=config["USER"], dbname=config["NAME"])
    return sqlite3.connect(f"file:{config['NAME']}?mode=ro", uri=True, timeout=10.0)  # seconds


def words(pid: int) -> str:
    """The command line of a process; empty when it is gone."""
    return _read(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace")


def parent(pid: int) -> int:
    """The parent of a process; 0 when it is gone."""
    stat = _read(pid, "stat").decode(errors="replace")
    return int(stat.rpartition(")")[2].split()[1]) if stat else 0


def _read(pid: int, what: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes()
    except OSError:
        return b""


def of_runs(directory: Path) -> list[int]:
    """Every process of this machine that belongs to a run below the directory, whoever its parent is by now."""
    mark, place = f"{MARKER}={directory}/".encode(), f"{directory}/".encode()
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if mark in _read(pid, "environ") or place in _read(pid, "cmdline")]


def named(stack: Stack, what: str) -> list[int]:
    """The processes of the stack that are meant by a name."""
    everything = descendants(stack.pid)
    lines = {pid: words(pid) for pid in everything}
    workers = [pid for pid, line in lines.items() if "rqworker" in line and parent(pid) == stack.pid]
    if what == "worker":
        return workers
    if what == "horse":
        return [pid for pid in everything if parent(pid) in workers]
    patterns = {"queue": "unixsocket", "web": "uvicorn", "recovery": "recover --forever"}
    return [pid for pid, line in lines.items() if patterns[what] in line]


def victims(stack: Stack, runs: Path, what: str, at_work: Work) -> tuple[list[int], bool]:
    """The processes to kill, and whether they work for the run; of several workers and horses one that does."""
    if what == "ansible":
        found = [pid for pid in of_runs(runs) if "ansible-playbook" in words(pid)]
        return found, bool(found)
    found = named(stack, what)
    if what not in {"worker", "horse"}:
        return found, bool(found) and at_work.slices > 0
    # A horse lives for one job; so early that it has not taken its slice yet, it is at work, too.
    horses = named(stack, "horse") if at_work.slices else []
    horses = [pid for pid in horses if pid in at_work.horses] or horses
    busy = sorted({parent(pid) for pid in horses} & set(found)) if what == "worker" else horses
    idle = found if what == "worker" else []
    return [random.choice(busy or idle)] if busy or idle else [], bool(busy)


def kill(*pids: int) -> None:
    """Kill -9; one of them may have gone with another."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
