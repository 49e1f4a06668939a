"""`device_password: {username: …, password: …}`: set an account's password; "" as the user name is the login's user.

The password goes from our memory through ssh to the standard input of `passwd` or `chpasswd`.  No shell reads it, it
is in no argument and no environment, here or there, and in no result.
"""

from __future__ import annotations

import re
from typing import Any

from ansible_plugins.device_action import DeviceAction, fail, last_line

DOCUMENTATION = r"""
name: device_password
short_description: Set the password of one account of a device
description:
  - Uses C(chpasswd) or C(passwd), whichever there is; as root, by sudo where the login's user is another one.
  - The password goes through ssh to their standard input. It is in no argument, no environment and no result.
  - In check mode the device is logged in to, and nothing is changed.
author: the orchestrator's authors
options:
  username:
    description: The account; an empty text is the user who logs in.
    type: str
    required: true
  password:
    description: The new password, printable. dropbear lets nobody in with more than 100 bytes, and so they are refused.
    type: str
    required: true
notes:
  - Needs the connection C(device_ssh).
"""

EXAMPLES = r"""
- name: A new password for root
  device_password:
    username: root
    password: "{{ new_password }}"
"""

RETURN = r"""
rc:
  description: 0; absent of a failure.
  returned: on success
  type: int
stderr:
  description: What the program said of a password that it did not take.
  returned: always
  type: str
orchestrator:
  description:
    - What only the service reads. C(code) says why nothing was changed, such as C(no_account), C(no_tool), C(not_root)
      or C(not_changed).
  returned: always
  type: dict
"""

ACCOUNT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,62}\$?")
DROPBEAR_LIMIT = 100  # bytes; DROPBEAR_MAX_PASSWORD_LEN: it lets nobody in with a longer one
EXITS = {91: "no_account", 92: "no_tool", 93: "not_changed"}

# stdin: "account:password", then the password twice.  chpasswd takes the first line, passwd the other two.
# busybox may be built to make DES hashes, which hold 8 characters, and says so in its help.
SCRIPT = """
PATH=$PATH:/usr/sbin:/usr/bin:/sbin:/bin
account={account}
entry() {{ grep '^{pattern}:' /etc/shadow || grep '^{pattern}:' /etc/passwd; }} 2>/dev/null
has() {{ command -v "$1" >/dev/null; }}
by_chpasswd() {{ head -n 1 | chpasswd; }}
by_passwd() {{
  IFS= read -r l
  case $(passwd --help 2>&1) in
    *'-a ALG'*sha*) passwd -a sha512 "$account" ;;
    *'-a ALG'*) passwd -a md5 "$account" ;;
    *) passwd "$account" ;;
  esac
}}
before=$(entry)
[ -n "$before" ] || exit 91
for way in {ways}; do
  has $way || continue
  by_$way >&2 || exit 93
  [ "$(entry)" != "$before" ] || exit 93
  exit 0
done
exit 92
"""


class ActionModule(DeviceAction):
    """Sets the password and looks whether the account's entry has changed."""

    def act(self, arguments: dict[str, str]) -> dict[str, Any]:
        password, account = arguments["password"], self._account(arguments)
        if not password or not password.isprintable():
            return fail({"changed": False}, "bad_password")
        if not ACCOUNT.fullmatch(account):
            return fail({"changed": False}, "no_account")
        if len(password.encode()) > DROPBEAR_LIMIT:
            probe: dict[str, Any] = self._connection.attempt("exit 0")
            if "rc" not in probe:
                return probe
            if "dropbear" in probe["orchestrator"]["server"]:
                return fail({"changed": False}, "password_too_long", seconds=DROPBEAR_LIMIT)
        ways = "passwd chpasswd" if self._task_vars.get("orchestrator_platform") == "openwrt" else "chpasswd passwd"
        script = SCRIPT.format(account=f"'{account}'", pattern=re.escape(account), ways=ways)
        result = self.as_root(script, f"{account}:{password}\n{password}\n{password}\n".encode())
        said = result.get("stderr", "").replace(password, "********")
        result.update(stdout="", stderr=said if result.get("failed") else "")
        result["orchestrator"].update(bytes_total=len(result["stderr"].encode()), truncated=False)
        if result.get("rc"):
            fail(result, EXITS.get(result["rc"], "not_changed"), last_line(said))
        return result

    def would(self, arguments: dict[str, str]) -> str:
        return f"set the password of {self._account(arguments)}"

    def _account(self, arguments: dict[str, str]) -> str:
        return arguments["username"] or str(self._connection.get_option("remote_user"))
