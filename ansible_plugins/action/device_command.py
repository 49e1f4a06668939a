"""`device_command: {line: …}`: run a command line with the login user's shell; stdout, stderr and rc as they are."""

from __future__ import annotations

from typing import Any

from ansible_plugins.device_action import DeviceAction

DOCUMENTATION = r"""
name: device_command
short_description: Run one command line on a device
description:
  - The line goes to the login user's shell as it is, without quoting and without Python on the device.
  - It is run at most once. In check mode the device is logged in to, and nothing is run.
author: the orchestrator's authors
options:
  line:
    description: The command line.
    type: str
    required: true
notes:
  - Needs the connection C(device_ssh), which tells a command that ends with 255 from a device that was never
    reached.
"""

EXAMPLES = r"""
- name: How long it has been up
  device_command:
    line: uptime
"""

RETURN = r"""
rc:
  description: The exit status of the command; absent where its end is not known, and in check mode.
  returned: when the command ended by itself
  type: int
stdout:
  description: What it wrote, head and tail of it where it was too long.
  returned: when the device was logged in to
  type: str
stderr:
  description: The same of the other stream.
  returned: when the device was logged in to
  type: str
orchestrator:
  description: What only the service reads; C(code) says how the command failed, empty where it did not.
  returned: always
  type: dict
"""

SHOWN = 200  # characters of a command line that check mode shows


class ActionModule(DeviceAction):
    """Hands the line to the connection untouched: no quoting, no wrapping, no Python on the device."""

    def act(self, arguments: dict[str, str]) -> dict[str, Any]:
        return dict(self._connection.attempt(arguments["line"]))

    def would(self, arguments: dict[str, str]) -> str:
        line = arguments["line"]
        return "run: " + (line if len(line) <= SHOWN else line[:SHOWN] + "…")
