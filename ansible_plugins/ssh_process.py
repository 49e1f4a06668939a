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
from typing import Any

from ansible_plugins.session import POLL_STOP, Capture, GaveUp, Heard, Limits

CHUNK = 1 << 16  # bytes, one read of a pipe
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
NOISE = ("debug", "Authenticated to", "Transferred:", "Bytes per second:", "Killed by signal")  # by us


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

    def heard(self) -> Heard:
        """What it tells, after ssh has ended."""
        self.read()
        return heard(self.text.decode(errors="replace"))

    def into(self, argv: list[Any]) -> list[Any]:
        return [argv[0], "-E", self.path, *(x for option in LOG_OPTIONS for x in ("-o", option)), *argv[1:]]


def heard(log: str) -> Heard:
    """What ssh's log tells.  The detail is ssh's own last word, without where in its source that was said."""
    lines = (re.sub(r"^\S+:\d+ \(pid=\d+\): ", "", line).strip() for line in log.splitlines())
    last = next((line for line in reversed([*lines]) if line and not line.startswith(NOISE)), "")
    server = re.search(r"remote software version (\S+)", log)
    return Heard(
        logged_in=LOGGED_IN.decode() in log,
        ended="exit" if EXITED.decode() in log else "signal" if SIGNALLED in log else "",
        words=log,
        detail=re.sub(r"(Permission denied) \(.*\)", r"\1", last)[:300],
        server=server[1] if server else "",
    )


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
    last = time.monotonic()
    logged_in, deadline, left = False, last + limits.connect, memoryview(in_data)
    captures: dict[Any, Capture] = dict(zip((process.stdout, process.stderr), outputs, strict=True))
    with selectors.DefaultSelector() as selector:
        for source in (*captures, log.read_fd):
            selector.register(source, selectors.EVENT_READ)
        if in_data and process.stdin:
            os.set_blocking(process.stdin.fileno(), False)
            selector.register(process.stdin, selectors.EVENT_WRITE)
        open_outputs = len(captures)
        while open_outputs and (now := time.monotonic()) < deadline:
            if early := limits.end_early(EXITED in log.text, now - last):
                return early
            for key, _ in selector.select(min(deadline - now, POLL_STOP)):
                if key.fileobj in captures:
                    chunk = os.read(key.fd, CHUNK)
                    captures[key.fileobj].feed(chunk)
                    last = time.monotonic()
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
