"""What our actions share: a script run as root on a device that has nothing but a POSIX shell."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Mapping
from typing import Any

from ansible.plugins.action import ActionBase

NOT_ROOT = 90  # exit status of a script that was not started by root
BEGIN = f"""while IFS= read -r l && [ "$l" != {{mark}} ]; do :; done
[ "$(id -u)" = 0 ] || exit {NOT_ROOT}
echo {{mark}}
"""


class DeviceAction(ActionBase):  # type: ignore[misc]  # Ansible has no types
    """An action over the connection `device_ssh`."""

    _requires_connection = True
    _supports_check_mode = True

    def as_root(self, script: str, in_data: bytes = b"") -> dict[str, Any]:
        """Run a script for /bin/sh once, as root, with `in_data` as its stdin.  The result of a task.

        A login user who isn't root uses sudo, with the become password or the login's; both go by stdin.  sudo may or
        may not take the password (NOPASSWD), so the script first drops what comes before a line made for this run,
        and then repeats that line: without it, the script was never begun.
        """
        mark = secrets.token_hex(8)
        command = f"/bin/sh -c {shlex.quote(BEGIN.format(mark=mark) + script)}"
        in_data = f"{mark}\n".encode() + in_data
        if self._connection.get_option("remote_user") != "root":
            password = str(self._become_password())
            command = f"sudo {"-k -S -p ''" if password else '-n'} -- {command}"
            in_data = f"{password}\n".encode() + in_data
        result: dict[str, Any] = self._connection.attempt(command, in_data)
        first, _, rest = result.get("stdout", "").partition("\n")
        if first == mark:
            result["stdout"] = rest
        elif "rc" in result:
            fail(result, "not_root", last_line(result["stderr"]))
        return result

    def _become_password(self) -> str:
        variables = self._task_vars
        return str(variables.get("ansible_become_password") or self._connection.get_option("password") or "")

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        return self.perform(task_vars or {})

    def perform(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Do what the task says, or in check mode rehearse it.  The variables are the device's."""
        self._task_vars = variables
        arguments = {name: str(value) for name, value in self._task.args.items()}
        return self.rehearse(arguments) if self._task.check_mode else self.act(arguments)

    def act(self, arguments: dict[str, str]) -> dict[str, Any]:
        """Do it, and say what came of it.  `arguments` are the task's, as text."""
        raise NotImplementedError

    def would(self, arguments: dict[str, str]) -> str:
        """What act() would do, as the end of "check mode: would"; holds no secret."""
        raise NotImplementedError

    def rehearse(self, arguments: dict[str, str]) -> dict[str, Any]:
        """Check mode: log in, and let the login user's shell end at once."""
        result: dict[str, Any] = self._connection.attempt("exit 0")
        if not result.get("failed") and not result.get("unreachable"):
            result["orchestrator"].update(code="check_mode", detail=self.would(arguments))
            result.pop("rc")  # of the login, not of the command
        return result


def fail(result: dict[str, Any], code: str, detail: str = "", seconds: float = 0) -> dict[str, Any]:
    """Make a result one of our own failures."""
    result.update(failed=True, msg=f"[orchestrator:{code}] {detail}".rstrip())
    result.pop("rc", None)
    about = result.setdefault("orchestrator", {})
    about.update(code=code, detail=detail, seconds=seconds)
    return result


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
