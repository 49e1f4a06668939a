"""Stands in for the connection `device_ssh` in benchmarks/growth.py: no SSH, an answer after a set delay.

No setting of the service leads here: only workers that the benchmark starts look into this folder.
"""

from __future__ import annotations

import os
from typing import Any

from ansible_plugins.connection import device_ssh
from ansible_plugins.cooperation import sleep
from ansible_plugins.run_state import note_login
from ansible_plugins.session import Capture, Heard, Session

DOCUMENTATION = device_ssh.DOCUMENTATION


class Connection(device_ssh.Connection):
    """All of it but the SSH."""

    def converse(self, command: str, in_data: bytes = b"", *, limit: int, **_: Any) -> Session:
        """As of a device that does what it is told."""
        seconds = float(os.environ["SIMULATED_SECONDS"])
        sleep(seconds)
        note_login(str(self.get_option("host_key_alias")))
        stdout = Capture(limit)
        stdout.feed(b"done\n")
        return Session(0, stdout, Capture(limit), Heard(logged_in=True, ended="exit"), seconds=seconds)
