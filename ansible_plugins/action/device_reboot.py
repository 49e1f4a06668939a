"""`device_reboot: {timeout: …}`: reboot, and wait until the device answers with another boot id.

A reboot's exit status says nothing (busybox gives 0 or 255 by chance), so success is only ever a new boot id.
"""

from __future__ import annotations

import math
import time
from typing import Any

from ansible_plugins.cooperation import sleep
from ansible_plugins.device_action import DeviceAction, fail, last_line

DOCUMENTATION = r"""
name: device_reboot
short_description: Reboot a device, and wait until it has
description:
  - Orders one reboot, as root or by sudo, and logs in again and again until the boot id is another one.
  - Needs no Python on the device. In check mode the device is logged in to, and nothing is ordered.
author: the orchestrator's authors
options:
  timeout:
    description: Seconds from the order until the device must be back.
    type: float
    required: true
notes:
  - Needs the connection C(device_ssh).
"""

EXAMPLES = r"""
- name: Reboot
  device_reboot:
    timeout: 300
"""

RETURN = r"""
rc:
  description: 0; absent of a failure.
  returned: on success
  type: int
stdout:
  description: How long it took, and both boot ids.
  returned: when the order was given
  type: str
orchestrator:
  description: What only the service reads. C(code) is C(no_return) or C(not_rebooted) where it did not come back anew.
  returned: always
  type: dict
"""

BOOT_ID = "/proc/sys/kernel/random/boot_id"
FIRST_LOOK = 2.0  # seconds after the order; the device waits one before it obeys, so that our session can end
PAUSE = 1.0, 5.0  # seconds between two looks: at first, at most
LOOK = 10.0  # seconds, for one look at a device that is half up
EXITS = {91: "no_tool", 92: "no_tool"}
SCRIPT = f"""
PATH=$PATH:/usr/sbin:/usr/bin:/sbin:/bin
command -v reboot >/dev/null || {{ echo 'reboot: not found' >&2; exit 91; }}
cat {BOOT_ID} || exit 92
(trap '' HUP; sleep 1; reboot || reboot -f) </dev/null >/dev/null 2>&1 &
"""


class ActionModule(DeviceAction):
    """One order, then looks over new logins."""

    def act(self, arguments: dict[str, str]) -> dict[str, Any]:
        limit = float(arguments["timeout"])
        begin = time.monotonic()
        result = self.as_root(SCRIPT)
        old = result.get("stdout", "").strip()
        if result.get("rc"):
            return fail(result, EXITS.get(result["rc"], "internal"), last_line(result["stderr"]))
        if result.get("unreachable") or ("rc" not in result and not old):  # cancelled, not root, cut before the order
            return result
        return self._wait(old, begin, limit)

    def would(self, arguments: dict[str, str]) -> str:
        return f"reboot, and wait up to {float(arguments['timeout']):g} s for the device to come back"

    def _wait(self, old: str, begin: float, limit: float) -> dict[str, Any]:
        """Look until the boot id is another.  Nothing that fails meanwhile is final: the device is on its way."""
        deadline, pause, seen = begin + limit, PAUSE[0], ""
        last: dict[str, Any] = {}
        sleep(min(FIRST_LOOK, limit))
        while (left := deadline - time.monotonic()) > 0:
            connect = min(left, float(self._connection.get_option("timeout")))
            last = self._connection.attempt(
                f"cat {BOOT_ID}", connect_timeout=connect, execution_timeout=min(left, LOOK)
            )
            if last.get("orchestrator", {}).get("code") == "cancelled_running":
                return last
            seen = last.get("stdout", "").strip() if last.get("rc") == 0 else ""
            if seen and seen != old:
                seconds = time.monotonic() - begin
                said = f"Came back after {seconds:.1f} s.\nboot id before {old}\nboot id after  {seen}\n"
                return {"changed": True, "rc": 0, "stdout": said, "stderr": "", "orchestrator": {"code": ""}}
            sleep(max(0.0, min(pause, deadline - time.monotonic())))
            pause = min(pause * 1.5, PAUSE[1])
        about = {"last": last.get("orchestrator", {}).get("code", "")}
        result = {"changed": True, "stdout": f"boot id before {old}\n", "orchestrator": about}
        seconds = math.floor(limit) if limit >= 1 else limit
        return fail(result, "not_rebooted" if seen else "no_return", last.get("msg", ""), seconds)
