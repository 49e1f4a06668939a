"""What became of one command on one device, whoever carried the connection: an ssh process or this one.

Imports nothing of Ansible.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

HELD_OPEN = 5.0  # seconds of silence after which outputs that outlive their command are given up
POLL_STOP = 0.5  # seconds between two looks whether the device was cancelled
ALIVE_SECONDS, ALIVE_MOST = 15, 3  # between two questions whether the device is still there; unanswered ones: it is not

# What is said of a login that did not come about → our code. The first that is found counts.
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

GaveUp = Literal["", "timeout", "execution_timeout", "held_open", "address", "user", "key", "cancelled"]


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


@dataclass(frozen=True, slots=True)
class Heard:
    """What the connection itself told."""

    logged_in: bool = False
    ended: Literal["", "exit", "signal"] = ""  # by what the device says that the command ended
    words: str = ""  # what was said of a login that did not come about
    detail: str = ""  # the last word
    server: str = ""  # the device's SSH software, e.g. dropbear_2022.83


@dataclass(frozen=True, slots=True)
class Session:
    """What one connection did."""

    rc: int
    stdout: Capture
    stderr: Capture
    heard: Heard
    gave_up: GaveUp = ""
    seconds: float = 0.0  # the limit of ours that was passed; else how long it took
    logged_in_before: bool = False  # by an earlier command of this run

    @property
    def code(self) -> str:
        """'' when the command ended by itself, with rc; else what happened instead."""
        if self.gave_up == "cancelled":
            return "cancelled_running" if self.logged_in or self.logged_in_before else "cancelled"
        if not self.logged_in:
            found = (code for code, signs in NOT_LOGGED_IN if any(sign in self.heard.words for sign in signs))
            return self.gave_up or next(found, "unknown")
        if self.gave_up in ("execution_timeout", "held_open"):
            return self.gave_up
        return {"exit": "", "signal": "signal", "": "connection_lost"}[self.heard.ended]

    @property
    def logged_in(self) -> bool:
        return self.heard.logged_in


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a connection may go on."""

    connect: float  # seconds, until the login
    execution: float  # seconds, from the login on
    stopped: Callable[[], bool]  # whether the device was cancelled

    def end_early(self, ended: bool, silence: float) -> tuple[GaveUp, float] | None:
        """Why to end before time is up: whether the command has ended, and for how many seconds nothing has come."""
        if ended and silence > HELD_OPEN:
            return "held_open", HELD_OPEN
        return ("cancelled", 0.0) if self.stopped() else None
