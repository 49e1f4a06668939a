"""Keeps programs running: starts them in stages, restarts what dies, stops them in order and leaves nothing behind.

Knows nothing of what it runs; `orchestrator.stack` says that.  Linux only.  Must be the only thread of its process: it
takes signals by waiting for them, and prepares its children between fork and exec.
"""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

FIRST_DELAY = 0.5  # seconds before a program that died is started again; doubles with each further death
LONGEST_DELAY = 30.0  # seconds
STEADY = 60.0  # seconds of life after which a death counts as the first again
SWEEP = 5.0  # seconds to wait for processes that were sent SIGKILL
LOG_SIZE = 10 * 1024 * 1024  # bytes; a larger log is put aside when its program starts

_SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_libc = ctypes.CDLL(None, use_errno=True)


class Stopped(Exception):
    """A signal asked the supervisor to stop while it was starting."""


class ProgramFailed(Exception):
    """A program ended, or did not answer, while the supervisor was starting."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """One program to keep running."""

    name: str  # also the name of its log
    argv: tuple[str, ...]
    grace: float  # seconds between SIGTERM and SIGKILL when it is stopped
    pass_fds: tuple[int, ...] = ()


@dataclass(kw_only=True)
class _Child:
    """A program's current process, or the wait for its next one."""

    program: Program
    process: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0  # monotonic seconds
    delay: float = FIRST_DELAY  # seconds before the next start
    due: float = 0.0  # monotonic seconds of the next start, while there is no process


def die_with_parent(parent: int, signum: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel send `signum` to this process when the parent's thread that started it ends.

    `parent` is the process id that is expected there: if it died before this call, it is too late for the kernel.
    """
    _libc.prctl(PR_SET_PDEATHSIG, signum, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signum)


class Supervisor:
    """Runs stages of programs.  `start` each stage, then `supervise` until a signal asks to stop, then `stop`."""

    def __init__(self, *, environment: Mapping[str, str], directory: Path, logs: Path, say: Callable[[str], None]):
        """`directory`: where the programs run.  `logs`: where each gets a file.  `say`: takes one line for a person."""
        self._environment = dict(environment)
        self._directory = directory
        self._logs = logs
        self._say = say
        self._stages: list[list[_Child]] = []
        self._stop_requests = 0
        self._once: dict[int, int | None] = {}  # exit status of each process that runs once, by process id
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        # Whatever a child leaves behind becomes our child, however often it forked and changed its session: without
        # this, a run's ssh clients would outlive the stack.
        _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def start(self, *programs: Program) -> None:
        """Start the programs of the next stage, side by side."""
        stage = [_Child(program=program) for program in programs]
        self._stages.append(stage)
        for child in stage:
            self._launch(child)

    def run(self, name: str, argv: Sequence[str], *, limit: float) -> None:
        """Run a program to its end, within `limit` seconds; `ProgramFailed` unless it succeeds."""
        process = self._spawn(name, argv, ())
        self._once[process.pid] = None
        self.wait_for(lambda: self._once[process.pid] is not None, what=f"{name} to end", limit=limit)
        process.returncode = self._once.pop(process.pid)  # Popen did not wait itself
        if process.returncode:
            raise ProgramFailed(f"{name} {_outcome(process.returncode)}.{self._tail(name)}")

    def wait_for(self, condition: Callable[[], bool], *, what: str, limit: float) -> None:
        """Wait up to `limit` seconds for a condition; raises if a program dies meanwhile, or a signal asks to stop."""
        deadline = time.monotonic() + limit
        while not condition():
            self._wait(0.02)
            if self._stop_requests:
                raise Stopped
            for child in self._children():
                if child.process is None:
                    name = child.program.name
                    raise ProgramFailed(f"{name} ended while it was starting.{self._tail(name)}")
            if time.monotonic() > deadline:
                raise ProgramFailed(f"Waited {limit:g} seconds in vain for {what}; the logs are in {self._logs}.")

    def supervise(self) -> None:
        """Restart what dies, until SIGTERM, SIGINT or SIGHUP arrives."""
        while not self._stop_requests:
            now = time.monotonic()
            waiting = [child for child in self._children() if child.process is None]
            for child in waiting:
                if child.due <= now:
                    self._launch(child)
            self._wait(min([child.due - now for child in waiting if child.process is None], default=60.0))

    def stop(self) -> None:
        """Stop the stages, last first, each within its programs' grace; a second signal cuts the grace short."""
        for stage in reversed(self._stages):
            self._stop_stage(stage)
        self._sweep()
        self._stages.clear()

    # ---------------------------------------------------------------- one process

    def _spawn(self, name: str, argv: Sequence[str], pass_fds: Sequence[int]) -> "subprocess.Popen[bytes]":
        parent = os.getpid()

        def prepare() -> None:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            die_with_parent(parent)

        log = self._logs / f"{name}.log"
        if log.exists() and log.stat().st_size > LOG_SIZE:
            log.replace(log.with_suffix(".log.1"))
        with log.open("ab") as output:
            return subprocess.Popen(
                argv,
                cwd=self._directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=pass_fds,
                start_new_session=True,  # a terminal's Ctrl-C is for us alone: we stop the children in order
                preexec_fn=prepare,  # noqa: PLW1509 - safe: this process has one thread
            )

    def _launch(self, child: _Child) -> None:
        child.started = time.monotonic()
        child.process = self._spawn(child.program.name, child.program.argv, child.program.pass_fds)

    def _wait(self, seconds: float) -> None:
        """Let time pass, until a signal arrives; then account for the processes that ended."""
        received = signal.sigtimedwait(_SIGNALS, max(seconds, 0.0))
        if received is not None and received.si_signo != signal.SIGCHLD:
            self._stop_requests += 1
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._ended(pid, os.waitstatus_to_exitcode(status))

    def _ended(self, pid: int, returncode: int) -> None:
        for child in self._children():
            if child.process is not None and child.process.pid == pid:
                child.process.returncode = returncode  # Popen did not wait itself
                child.process = None
                self._plan_restart(child, pid, returncode)
                return
        if pid in self._once:
            self._once[pid] = returncode

    def _plan_restart(self, child: _Child, pid: int, returncode: int) -> None:
        now = time.monotonic()
        if now - child.started > STEADY:
            child.delay = FIRST_DELAY
        child.due = now + child.delay
        if not self._stop_requests:
            name = child.program.name
            self._say(
                f"{name} (process {pid}) {_outcome(returncode)}; starting it again in {child.delay:g} s, "
                f"its log is {self._logs / name}.log"
            )
        child.delay = min(child.delay * 2, LONGEST_DELAY)

    # ---------------------------------------------------------------- stopping

    def _stop_stage(self, stage: list[_Child]) -> None:
        def alive() -> "list[tuple[Program, subprocess.Popen[bytes]]]":
            return [(child.program, child.process) for child in stage if child.process is not None]

        self._stop_requests = max(self._stop_requests, 1)  # also after a failed start: nothing is restarted any more
        for _, process in alive():
            os.kill(process.pid, signal.SIGTERM)
        begun = time.monotonic()
        while waiting := [program for program, _ in alive() if time.monotonic() - begun < program.grace]:
            if self._stop_requests > 1:
                break
            self._wait(min(program.grace for program in waiting) - (time.monotonic() - begun))
        for program, process in alive():
            self._say(f"{program.name} (process {process.pid}) did not stop within {program.grace:g} s: killing it")
            os.kill(process.pid, signal.SIGKILL)
        deadline = time.monotonic() + SWEEP
        while alive() and time.monotonic() < deadline:
            self._wait(0.1)

    def _sweep(self) -> None:
        """Kill every descendant that is left, also those that appear meanwhile."""
        deadline = time.monotonic() + SWEEP
        while (left := descendants(os.getpid())) and time.monotonic() < deadline:
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            self._wait(0.05)

    def _children(self) -> Iterator[_Child]:
        for stage in self._stages:
            yield from stage

    def _tail(self, name: str) -> str:
        """The last lines of a program's log, to be put after a message."""
        lines = (self._logs / f"{name}.log").read_text(errors="replace").splitlines()[-15:]
        return "".join(f"\n  {line}" for line in lines)


def descendants(ancestor: int) -> list[int]:
    """The process ids of all children of `ancestor`, their children, and so on."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue  # it ended meanwhile
            parent = int(stat.rpartition(")")[2].split()[1])  # the name, in parentheses, may hold anything
            children.setdefault(parent, []).append(int(entry.name))
    found: list[int] = []
    generation = children.get(ancestor, [])
    while generation:
        found += generation
        generation = [pid for parent in generation for pid in children.get(parent, [])]
    return found


def _outcome(returncode: int) -> str:
    if returncode < 0:
        return f"was killed by {signal.Signals(-returncode).name}"
    return f"ended with exit status {returncode}"
