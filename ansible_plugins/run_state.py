"""What the service and the run tell each other about single hosts: empty files in the run's directory.

`waiting/<host>` becomes `begun/<host>` before anything is started for the host (callback/silent.py).
`stopped/<host>` is the service's word that the host is to be contacted no more; `logged_in/<host>` is ours that it was
logged in to.  `secrets.json` lists the texts that must be on no command line.  Without ORCHESTRATOR_RUN, in a playbook
that is run by hand, nothing is ever stopped, and nothing is secret.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shlex

WAITING, BEGUN, STOPPED, LOGGED_IN = "waiting", "begun", "stopped", "logged_in"
SECRETS = "secrets.json"  # written by orchestrator/runner.py for users' own playbooks
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


def tells_secret(command: str) -> bool:
    """Whether a command line holds a secret of the run, as it is or quoted for a shell."""
    return any(form in command for form in _secret_forms())


@functools.cache
def _secret_forms() -> frozenset[str]:
    directory = os.environ.get("ORCHESTRATOR_RUN")
    try:
        with open(os.path.join(directory or os.devnull, SECRETS), encoding="utf-8") as file:
            secrets = json.load(file)
    except OSError:
        return frozenset()
    return frozenset(form for secret in secrets for form in (secret, shlex.quote(secret), json.dumps(secret)[1:-1]))
