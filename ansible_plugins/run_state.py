"""What the service and the run tell each other about single hosts: empty files in the run's directory.

`waiting/<host>` becomes `begun/<host>` before anything is started for the host.  `results` has a line for each device
that a playbook of ours is done with.
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
import signal
import time
from collections.abc import Mapping
from typing import Any, NoReturn

WAITING, BEGUN, STOPPED, LOGGED_IN = "waiting", "begun", "stopped", "logged_in"
SECRETS = "secrets.json"  # written by orchestrator/runner.py for users' own playbooks
MATCHED = "matched"  # a file: the hosts that plays are for, see callback/silent.py
RESULTS = "results"  # a file: what became of devices, a line for each
LOOK = 0.2  # seconds between two looks at what was stopped
LINE_BYTES = 16_384  # of a result in it: what is longer would fill the memory until the run's end


def path(folder: str, host: str = "") -> str:
    """The host's file in that folder of the run directory, or the folder; "" when there is no run directory."""
    directory = os.environ.get("ORCHESTRATOR_RUN")
    return os.path.join(directory, folder, host) if directory else ""


def has(folder: str, host: str) -> bool:
    """Whether the host has that file."""
    return bool(host and (file := path(folder, host)) and os.path.exists(file))


_stopped: tuple[float, frozenset[str]] = 0.0, frozenset()  # when it was looked, and the hosts


def is_stopped(host: str) -> bool:
    """Whether the host was stopped, as of a moment ago: each connection asks twice a second."""
    global _stopped  # noqa: PLW0603  # one for all of them
    now = time.monotonic()
    if now - _stopped[0] > LOOK:
        try:
            _stopped = now, frozenset(os.listdir(path(STOPPED) or os.devnull))
        except OSError:
            _stopped = now, frozenset()
    return host in _stopped[1]


def begin(host: str) -> None:
    """Move the host's file.  It has none where the service has withdrawn it: then the connection refuses it.

    Otherwise somebody has taken the run from us, for whom we are dead; so this process ends.
    """
    try:
        os.rename(path(WAITING, host), path(BEGUN, host))
    except OSError:
        if not has(STOPPED, host):
            end()


def end() -> NoReturn:
    """End this process at once: an exception would be printed by Ansible, which would go on."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise SystemExit


class Results:
    """The file of results, to write to: an event of ansible-runner costs a millisecond on either side."""

    def __init__(self) -> None:
        file = path(RESULTS).rstrip("/")
        self._file = os.open(file, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600) if file else -1

    def add(self, kind: str, at: float, host: str, result: Mapping[str, Any]) -> bool:
        """Write down what became of the host; False where that has to be told as an event.

        `kind` is the event's name, `at` the time of Unix.
        """
        line = json.dumps([kind, at, host, result]).encode() + b"\n"
        if self._file < 0 or len(line) > LINE_BYTES:
            return False
        try:
            if os.write(self._file, line) == len(line):
                return True
        except OSError:
            pass
        self._file = -1  # what comes behind half a line could not be read
        return False


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
