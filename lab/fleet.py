"""What a lab consists of: kinds of devices, the plan of a lab, addresses, and what is told about a device."""

import errno
import os
import random
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from lab.exceptions import LabError

MAX_DEVICES = 5_000  # of a kind: the third octet of OpenWrt's addresses must stay below that of Linux's
FIRST_OCTETS = "127.77"  # 127/8 cannot leave the machine, a private subnet can
PORTS = range(20_000, 30_000)  # for port 0: below the range of ports the kernel gives to outgoing connections
PORT_ATTEMPTS = 50
DEFAULT_PASSWORD = "old-Secret1"


class Kind(StrEnum):
    """What a device runs."""

    OPENWRT = "openwrt"
    """busybox and dropbear; no Python."""
    LINUX = "linux"
    """The host's distribution with OpenSSH, Python and sudo."""


class State(StrEnum):
    """What a device does now."""

    OFF = "off"
    """Without power: powered off from outside, or halted from inside."""
    BOOTING = "booting"
    """Its init runs, its SSH server does not answer yet."""
    UP = "up"
    """Its SSH server answers."""
    REBOOTING = "rebooting"
    """It went down to reboot, and waits for its turn to boot."""
    LOST = "lost"
    """It went down to reboot and will not come back by itself (fault noreturn)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceInfo:
    """What a lab tells about one of its devices."""

    name: str
    kind: Kind
    address: str
    port: int
    state: State
    boots: int  # how often it was booted since the lab came up; 1 at first
    boot_seconds: float  # from power on until SSH answered, of the last boot
    hostkey: str  # of its SSH server, as in known_hosts: "ssh-ed25519 AAAA…"
    faults: tuple[str, ...]  # those in effect, as they were given: ("slow 0.3",)

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Self:
        """Read a row of the supervisor's reply."""
        values = row | {"kind": Kind(row["kind"]), "state": State(row["state"]), "faults": tuple(row["faults"])}
        return cls(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What lab to start, and where."""

    directory: Path  # the lab's own files; one lab at a time in it
    images: Path  # shared by all labs
    openwrt: int
    linux: int
    port: int  # 0: any that is free
    password: str  # of root, and of operator on Linux
    user_key: str | None = None  # a line for authorized_keys

    def __post_init__(self) -> None:
        """Refuse what cannot be started."""
        if not (0 <= self.openwrt <= MAX_DEVICES and 0 <= self.linux <= MAX_DEVICES and self.openwrt + self.linux):
            raise LabError(f"a lab has 1 to {MAX_DEVICES} devices of a kind, not {self.openwrt} and {self.linux}")
        if not 0 <= self.port < 65_536:
            raise LabError(f"{self.port} is no port")

    def counts(self) -> dict[Kind, int]:
        """Say how many devices of each kind there will be; only kinds that have any."""
        return {kind: count for kind, count in ((Kind.OPENWRT, self.openwrt), (Kind.LINUX, self.linux)) if count}

    def members(self) -> Iterator[tuple[Kind, str, str]]:
        """Give kind, name and address of every device."""
        for kind, count in self.counts().items():
            for number in range(1, count + 1):
                yield kind, f"{kind}{number}", address_of(kind, number)


def address_of(kind: Kind, number: int) -> str:
    """Give the address of the device with this number, counted from 1."""
    third = (number >> 8) + (100 if kind is Kind.LINUX else 0)
    return f"{FIRST_OCTETS}.{third}.{number & 255}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """The addresses of a lab: bound from before its start until its last process is gone."""

    port: int
    claim: socket.socket
    sockets: dict[str, socket.socket]  # by device name; bound, not listening

    @classmethod
    def open(cls, plan: Plan) -> Self:
        """Bind all addresses of the plan, on its port or on one that is free for all of them.

        Raises:
            LabError: the port is in use, or none of many was free.
        """
        for port in [plan.port] if plan.port else random.sample(PORTS, PORT_ATTEMPTS):
            try:
                return cls(port=port, claim=_claim(port), sockets=_bind(plan, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise LabError(f"cannot bind {FIRST_OCTETS}.x.y:{port}: {error}") from error
        raise LabError(f"port {plan.port} is in use on {FIRST_OCTETS}.x.y" if plan.port else "found no free port")


def _claim(port: int) -> socket.socket:
    """Claim the port among labs.

    Two sockets with SO_REUSEADDR may be bound to one address until one of them listens, and a lab's sockets do not
    listen yet: without the claim two labs that start at once could both get the port.  An abstract name belongs to
    one network namespace, like the port, and goes with its last holder.
    """
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0device-lab:{FIRST_OCTETS}:{port}")
    except OSError:
        claim.close()
        raise
    return claim


def _bind(plan: Plan, port: int) -> dict[str, socket.socket]:
    """Bind one socket for each device; all or none."""
    bound: dict[str, socket.socket] = {}
    try:
        for _, name, address in plan.members():
            bound[name] = socket.socket()
            bound[name].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the TIME_WAITs of an earlier lab
            bound[name].setblocking(False)
            bound[name].bind((address, port))
    except OSError:
        for sock in bound.values():
            sock.close()
        raise
    return bound


def default_directory() -> Path:
    """Say where a lab keeps its files: LAB_DIR, or .lab/run under the current directory."""
    return Path(os.environ.get("LAB_DIR", ".lab/run")).absolute()


def default_images() -> Path:
    """Say where the images are kept: LAB_IMAGES, or .lab/images under the current directory."""
    return Path(os.environ.get("LAB_IMAGES", ".lab/images")).absolute()
