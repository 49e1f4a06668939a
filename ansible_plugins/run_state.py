"""What the service and the run tell each other about single hosts: empty files in the run's directory.

`stopped/<host>` is the service's word that the host is to be contacted no more; `logged_in/<host>` is ours that it was
logged in to.  Without ORCHESTRATOR_RUN, in a playbook that is run by hand, nothing is ever stopped.
"""

from __future__ import annotations

import contextlib
import os

WAITING, STOPPED, LOGGED_IN = "waiting", "stopped", "logged_in"
MATCHED = "matched"  # a file: the hosts that plays are for, see callback/silent.py


def path(folder: str, host: str = "") -> str:
    """The host's file in that folder of the run directory, or the folder; "" when there is no run directory."""
    directory = os.environ.get("ORCHESTRATOR_RUN")
    return os.path.join(directory, folder, host) if directory else ""


def has(folder: str, host: str) -> bool:
    """Whether the host has that file."""
    return bool(host and (file := path(folder, host)) and os.path.exists(file))


def note_login(host: str) -> None:
    """Write down that the host was logged in to."""
    if host and (file := path(LOGGED_IN, host)):
        with contextlib.suppress(OSError):  # it only makes a sentence more precise
            os.close(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600))
