"""`device_command: {line: …}`: run a command line with the login user's shell; stdout, stderr and rc as they are."""

from __future__ import annotations

from typing import Any

from ansible_plugins.device_action import DeviceAction

SHOWN = 200  # characters of a command line that check mode shows


class ActionModule(DeviceAction):
    """Hands the line to the connection untouched: no quoting, no wrapping, no Python on the device."""

    def act(self, arguments: dict[str, str]) -> dict[str, Any]:
        return dict(self._connection.attempt(arguments["line"]))

    def would(self, arguments: dict[str, str]) -> str:
        line = arguments["line"]
        return "run: " + (line if len(line) <= SHOWN else line[:SHOWN] + "…")
