"""How Ansible and ssh are set so that a run is fast on this machine, and means the same."""

import functools
import subprocess
from importlib.metadata import version
from typing import Final

from django.conf import settings

from orchestrator.sandbox import isolated

TESTED_CORE: Final = "2.21."  # ansible-core's releases that the tests cover: device_linear uses private parts of it


def prepare() -> None:
    """Ask this machine what doesn't change: a tenth of a second.  A "no" of the sandbox is not kept, as it may pass."""
    key_exchange()
    if not isolated():
        isolated.cache_clear()


def devices_at_once(devices: int) -> int:
    """How many of a slice's devices one of our own playbooks is to contact at once."""
    return max(int(settings.FORKS), int(settings.CONNECTIONS) if connections_inside(devices) else 0)


def connections_inside(devices: int) -> bool:
    """Whether connections are made inside of Ansible's process: to load what they need costs as much as some of ssh."""
    return strategy() == "device_linear" and 0 < settings.SSH_LIBRARY_FROM <= devices


def strategy() -> str:
    """The strategy of plays that name none: ours without a fork for each task, where it is known to work."""
    return "device_linear" if settings.FAST_PATH and _core().startswith(TESTED_CORE) else "linear"


@functools.cache
def _core() -> str:
    return version("ansible-core")


@functools.cache
def key_exchange() -> str:
    """ssh's KexAlgorithms: the cheap ones first, all others still on offer.

    Of OpenSSH's post-quantum hybrids ML-KEM is cheap, sntrup761 costs 77 ms of CPU for each login (see docs).
    """
    known = subprocess.run(["ssh", "-Q", "kex"], capture_output=True, text=True, check=False, timeout=10).stdout.split()
    first = [x for x in ("mlkem768x25519-sha256", "curve25519-sha256") if x in known]
    return "^" + ",".join(first) if first else "+curve25519-sha256"
