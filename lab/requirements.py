"""What a machine needs for a lab."""

import os
import platform
import pwd
import shutil
import subprocess
from pathlib import Path

from lab.namespaces import subordinate_ids
from lab.recipe import SYSTEM_PATH

PROGRAMS = {  # Debian's and Ubuntu's package: a program of it
    "busybox-static": "busybox",
    "dropbear-bin": "dropbear",
    "openssh-client": "ssh-keygen",
    "util-linux": "nsenter",
    "mmdebstrap": "mmdebstrap",
}


def missing_packages() -> list[str]:
    """Name the packages to install, as apt-get install takes them."""
    needed = dict(PROGRAMS)
    if os.geteuid() != 0:
        needed["uidmap"] = "newuidmap"
    return [package for package, program in needed.items() if shutil.which(program, path=SYSTEM_PATH) is None]


def missing_requirements() -> list[str]:
    """Name all that keeps a lab from running here: packages, and in words what no package gives.  Empty: none."""
    if platform.system() != "Linux":
        return ["Linux"]
    return missing_packages() + _missing_rights()


def _missing_rights() -> list[str]:
    """Say what this user may not do."""
    if not _may_unshare():
        return ["root" if os.geteuid() else "the right to make user namespaces", *_apparmor()]
    if os.geteuid() == 0:
        return []
    user = pwd.getpwuid(os.getuid()).pw_name
    tables = [Path("/etc/subuid"), Path("/etc/subgid")]
    if all(table.exists() and subordinate_ids(user, table) is not None for table in tables):
        return []
    return [f"root, or ranges of 65536 ids for {user} in /etc/subuid and /etc/subgid"]


def _may_unshare() -> bool:
    """Try to make the namespaces of a lab, and to mount in them."""
    command = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc", "true"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return True  # util-linux is missing, which is named already


def _apparmor() -> list[str]:
    """Name Ubuntu's restriction, if it is the one in the way."""
    switch = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
    if os.geteuid() == 0 or not switch.exists() or switch.read_text().strip() == "0":
        return []
    return ["(or kernel.apparmor_restrict_unprivileged_userns=0)"]
