"""One ssh process: its output within bounds, its end within a time, and from its log what became of the command.

Imports nothing of Ansible, so that it can be read and tested by itself.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

CHUNK = 1 << 16  # bytes, one read of a pipe
HELD_OPEN = 5.0  # seconds of silence after which outputs that outlive their command are given up
POLL_STOP = 0.5  # seconds between two looks whether the device was cancelled
KILL_AFTER = 1.0  # seconds between SIGTERM and SIGKILL to an ssh that was given up

# The log holds what these functions say, and errors. Not the function that logs the command: its text is the user's.
# LogLevel ERROR keeps a device's login banner out of the command's stderr.
LOG_OPTIONS = (
    "LogLevel=ERROR",
    (
        "LogVerbose=kex.c:*:*,sshconnect.c:*:*,sshconnect2.c:*:*,packet.c:*fatal*:*,"
        "clientloop.c:client_input_channel_req():*,clientloop.c:client_loop():*"
    ),
)
LOGGED_IN = b"Authenticated to "
EXITED = b"rtype exit-status"
SIGNALLED = "rtype exit-signal"

# What ssh's log says of a login that did not come about → our code. The first that is found counts.
NOT_LOGGED_IN = (
    ("host_key", ("Host key verification failed", "HOST IDENTIFICATION HAS CHANGED", "host key algorithm: (no match)")),
    ("auth", ("Permission denied (", "Too many authentication failures", "No more authentication methods")),
    ("name", ("Could not resolve hostname",)),
    ("refused", ("Connection refused",)),
    ("no_route", ("No route to host", "Network is unreachable", "Host is unreachable")),
    ("timeout", ("timed out", "Timeout, server")),
    (
        "protocol",
        ("(no match)", "Unable to negotiate", "Bad remote protocol version", "invalid characters", "banner line"),
    ),
    (
        "closed",
        ("Connection closed", "Connection reset", "closed by remote host", "Received disconnect", "Broken pipe"),
    ),
)


class Capture:
    """Output as it comes: all of it, or (limit > 0, in bytes) its head and its tail."""

    def __init__(self, limit: int) -> None:
        self.half, self.total, self.head, self.tail = limit // 2, 0, bytearray(), bytearray()

    def feed(self, chunk: bytes) -> None:
        self.total += len(chunk)
        room = self.half - len(self.head) if self.half else len(chunk)
        self.head += chunk[:room]
        self.tail += chunk[room:]
        if len(self.tail) > 4 * self.half:  # not at each chunk: that would copy the tail each time
            del self.tail[: -self.half]

    @property
    def truncated(self) -> bool:
        return bool(self.half) and self.total > 2 * self.half

    def value(self) -> bytes:
        if not self.truncated:
            return bytes(self.head + self.tail)
        left_out = self.total - 2 * self.half
        return b"%b\n[... %d bytes left out ...]\n%b" % (bytes(self.head), left_out, bytes(self.tail[-self.half :]))


class Log:
    """A pipe that ssh writes its log into.  It has no file; ssh opens it by way of /proc."""

    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe()
        os.set_blocking(self.read_fd, False)
        self.path = f"/proc/{os.getpid()}/fd/{self.write_fd}"
        self.text = bytearray()

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.read_fd)
        os.close(self.write_fd)

    def read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self.read_fd, CHUNK):
                self.text += chunk

    def into(self, argv: list[Any]) -> list[Any]:
        return [argv[0], "-E", self.path, *(x for option in LOG_OPTIONS for x in ("-o", option)), *argv[1:]]


GaveUp = Literal["", "timeout", "execution_timeout", "held_open", "address", "user", "key", "cancelled"]


@dataclass(frozen=True, slots=True)
class Session:
    """What one ssh process did."""

    rc: int
    stdout: Capture
    stderr: Capture
    log: str
    gave_up: GaveUp = ""
    seconds: float = 0.0  # the limit of ours that was passed; else how long it took
    logged_in_before: bool = False  # by an earlier command of this run

    @property
    def code(self) -> str:
        """'' when the command ended by itself, with rc; else what happened instead."""
        if self.gave_up == "cancelled":
            return "cancelled_running" if self.logged_in or self.logged_in_before else "cancelled"
        if not self.logged_in:
            found = (code for code, signs in NOT_LOGGED_IN if any(sign in self.log for sign in signs))
            return self.gave_up or next(found, "unknown")
        if self.gave_up in ("execution_timeout", "held_open"):
            return self.gave_up
        return "" if EXITED.decode() in self.log else "signal" if SIGNALLED in self.log else "connection_lost"

    @property
    def logged_in(self) -> bool:
        return LOGGED_IN.decode() in self.log

    @property
    def detail(self) -> str:
        """ssh's own last word, without where in its source that was said."""
        lines = [x for x in self.log.splitlines() if x.strip() and not x.startswith("debug")]
        return re.sub(r"^\S+:\d+ \(pid=\d+\): ", "", lines[-1]).strip()[:300] if lines else ""

    @property
    def server(self) -> str:
        """The device's SSH software, e.g. dropbear_2022.83."""
        found = re.search(r"remote software version (\S+)", self.log)
        return found[1] if found else ""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long an ssh process may go on."""

    connect: float  # seconds, until the login
    execution: float  # seconds, from the login on
    stopped: Callable[[], bool]  # whether the device was cancelled

    def end_early(self, log: Log, silence: float) -> tuple[GaveUp, float] | None:
        """Why to end before time is up, after so many seconds without output."""
        if EXITED in log.text and silence > HELD_OPEN:
            return "held_open", HELD_OPEN
        return ("cancelled", 0.0) if self.stopped() else None


def carry_out(
    argv: list[Any], options: dict[str, Any], follow_up: Callable[[subprocess.Popen[bytes]], tuple[GaveUp, float]]
) -> tuple[int, GaveUp, float]:
    """From the start of ssh to its end: its status, which limit passed, and the seconds.  May be a thread's work.

    Raises OSError when it can't be started.
    """
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, **options)
    begin = time.monotonic()
    try:
        gave_up, seconds = follow_up(process)
        seconds = seconds or time.monotonic() - begin
    finally:
        end(process)
    return process.returncode, gave_up, seconds


def follow(
    process: subprocess.Popen[bytes], in_data: bytes, outputs: tuple[Capture, Capture], log: Log, limits: Limits
) -> tuple[GaveUp, float]:
    """Carry bytes until ssh has closed both outputs, or a limit has passed: which one, and its seconds.

    What a command leaves running in the background may hold its outputs open for ever, though the command has ended.
    """
    heard = time.monotonic()
    logged_in, deadline, left = False, heard + limits.connect, memoryview(in_data)
    captures: dict[Any, Capture] = dict(zip((process.stdout, process.stderr), outputs, strict=True))
    with selectors.DefaultSelector() as selector:
        for source in (*captures, log.read_fd):
            selector.register(source, selectors.EVENT_READ)
        if in_data and process.stdin:
            os.set_blocking(process.stdin.fileno(), False)
            selector.register(process.stdin, selectors.EVENT_WRITE)
        open_outputs = len(captures)
        while open_outputs and (now := time.monotonic()) < deadline:
            if early := limits.end_early(log, now - heard):
                return early
            for key, _ in selector.select(min(deadline - now, POLL_STOP)):
                if key.fileobj in captures:
                    chunk = os.read(key.fd, CHUNK)
                    captures[key.fileobj].feed(chunk)
                    heard = time.monotonic()
                    if not chunk:
                        selector.unregister(key.fileobj)
                        open_outputs -= 1
                elif key.fd == log.read_fd:
                    log.read()
                    if not logged_in and LOGGED_IN in log.text:
                        logged_in, deadline = True, time.monotonic() + limits.execution
                elif not (left := send(process, left)):
                    selector.unregister(key.fileobj)
    if open_outputs:
        return ("execution_timeout", limits.execution) if logged_in else ("timeout", limits.connect)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(KILL_AFTER)
    return "", 0.0


def send(process: subprocess.Popen[bytes], left: memoryview) -> memoryview:
    """Write some of what is left of the command's stdin, and close it behind the last byte; what is left then."""
    assert process.stdin  # noqa: S101  # for mypy: only called with something to send
    try:
        left = left[os.write(process.stdin.fileno(), left[:CHUNK]) :]
    except BrokenPipeError:  # ssh is gone; its log says why
        left = left[:0]
    if not left:
        process.stdin.close()
    return left


def end(process: subprocess.Popen[bytes]) -> None:
    """No process of this ssh is left.  It leads a session of its own, with the askpass program in it."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, sign)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(KILL_AFTER)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream:
            stream.close()
