"""How a lab is spoken to: one line of JSON each way over a socket in the lab's folder."""

import json
import os
import socket
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from lab.exceptions import LabError
from lab.fleet import DeviceInfo

SOCKET = "control"
ALL = "all"
EXEC_SECONDS = 60.0  # a command given to `exec` is killed after that
REPLY_SLACK = 60.0  # seconds a supervisor may take beyond that


class Verb(StrEnum):
    """What can be asked of a lab."""

    STATUS = "status"
    FAULT = "fault"
    POWER = "power"
    EXEC = "exec"
    DOWN = "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A question to the supervisor."""

    verb: Verb
    names: tuple[str, ...] = ()  # of devices; none means all
    arguments: tuple[str, ...] = ()
    seconds: float = EXEC_SECONDS  # for EXEC

    @classmethod
    def decode(cls, line: bytes) -> Self:
        """Read what encode() wrote."""
        row = json.loads(line)
        return cls(
            verb=Verb(row["verb"]),
            names=tuple(row["names"]),
            arguments=tuple(row["arguments"]),
            seconds=row["seconds"],
        )

    def encode(self) -> bytes:
        """Write the request as one line."""
        return json.dumps(asdict(self)).encode() + b"\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The supervisor's answer."""

    started_seconds: float = 0.0  # from the start of the supervisor until all devices were up
    devices: tuple[DeviceInfo, ...] = ()
    rc: int = 0  # of EXEC
    output: str = ""  # of EXEC, stdout and stderr as they came
    error: str = ""  # if any, nothing else counts

    @classmethod
    def decode(cls, line: bytes) -> Self:
        """Read what encode() wrote."""
        row: dict[str, Any] = json.loads(line)
        return cls(**row | {"devices": tuple(DeviceInfo.from_json(device) for device in row["devices"])})

    def encode(self) -> bytes:
        """Write the reply as one line."""
        return json.dumps(asdict(self)).encode() + b"\n"


def split_names(text: str) -> tuple[str, ...]:
    """Read `a,b,c` or `all`."""
    return () if text == ALL else tuple(name for name in text.split(",") if name)


def ask(directory: Path, request: Request) -> Reply:
    """Ask the lab in this folder.

    Raises:
        LabError: no lab is up there, or it cannot do this.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(request.seconds + REPLY_SLACK)
        _connect(connection, directory)
        try:
            connection.sendall(request.encode())
            with connection.makefile("rb") as answer:
                line = answer.readline()
        except OSError as error:
            raise LabError(f"the lab in {directory} does not answer: {error}") from error
    if not line:
        raise LabError(f"the lab in {directory} went down")
    reply = Reply.decode(line)
    if reply.error:
        raise LabError(reply.error)
    return reply


def _connect(connection: socket.socket, directory: Path) -> None:
    """Connect by way of a descriptor: a socket's path may have no more than 107 bytes."""
    try:
        folder = os.open(directory, os.O_PATH | os.O_DIRECTORY)
        try:
            connection.connect(f"/proc/self/fd/{folder}/{SOCKET}")
        finally:
            os.close(folder)
    except OSError as error:
        raise LabError(f"the lab in {directory} is down") from error
