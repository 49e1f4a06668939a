"""What can be wrong with a device."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from lab.exceptions import LabError


class FaultKind(StrEnum):
    """The faults, and `none`, which heals all of them."""

    NONE = "none"
    """Heals everything, power excepted: a lost device stays down until it is powered on."""
    REFUSE = "refuse"
    """Connections are refused."""
    BLACKHOLE = "blackhole"
    """Packets vanish: connecting takes for ever, open connections freeze."""
    MUTE = "mute"
    """Connections are accepted, and no banner ever comes."""
    SLOW = "slow"
    """Everything takes S seconds longer, in each direction."""
    CUT = "cut"
    """Open connections are reset now; with S, every connection is reset after S seconds."""
    NORETURN = "noreturn"
    """It goes down to reboot and does not come back."""
    BOOTDELAY = "bootdelay"
    """A reboot takes S seconds longer."""
    HOSTKEY = "hostkey"
    """It has another SSH host key, as after a reflash; it restarts for that."""
    DISKFULL = "diskfull"
    """Its disk is full."""
    HANG = "hang"
    """Login works, every command hangs for ever."""


NEEDS_SECONDS = frozenset({FaultKind.SLOW, FaultKind.BOOTDELAY})
TAKES_SECONDS = NEEDS_SECONDS | {FaultKind.CUT}


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault as it was asked for."""

    kind: FaultKind
    seconds: float | None = None

    def __str__(self) -> str:
        """Give it back as it is written on the command line."""
        return self.kind if self.seconds is None else f"{self.kind} {self.seconds:g}"

    @classmethod
    def parse(cls, kind: str, arg: str | None = None) -> Self:
        """Read a fault as written on the command line.

        Raises:
            LabError: there is no such fault, or its argument is missing, not wanted or no number of seconds.
        """
        if kind not in set(FaultKind):
            raise LabError(f"unknown fault {kind!r}; there are: {', '.join(FaultKind)}")
        known = FaultKind(kind)
        if arg is None:
            if known in NEEDS_SECONDS:
                raise LabError(f"fault {kind} needs a number of seconds")
            return cls(known)
        if known not in TAKES_SECONDS:
            raise LabError(f"fault {kind} takes no argument")
        return cls(known, _seconds(arg))


def _seconds(text: str) -> float:
    """Read a number of seconds."""
    try:
        seconds = float(text)
    except ValueError:
        raise LabError(f"{text!r} is no number of seconds") from None
    if not (math.isfinite(seconds) and seconds >= 0):
        raise LabError(f"{text!r} is no number of seconds")
    return seconds
