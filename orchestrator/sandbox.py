"""Bubblewrap around a run: a PID namespace of its own, and in sight only what Ansible needs."""

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parent.parent
PLUGINS: Final = PROJECT / "ansible_plugins"
INVENTORY_PLUGINS: Final = PROJECT / "inventory_plugins"
PROBE_TIMEOUT: Final = 10.0  # seconds

# What programs need of /etc: names and addresses, the loader, certificates.  No configuration of services.
ETC: Final = (
    "passwd", "group", "hosts", "host.conf", "resolv.conf", "nsswitch.conf", "gai.conf", "services", "protocols",
    "localtime", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "ssl", "pki", "ca-certificates",
    "crypto-policies",
)  # fmt: skip
# --die-with-parent: also when the worker is killed.  --new-session: no ioctl(TIOCSTI) into the worker's terminal.
NAMESPACES: Final = (
    "--die-with-parent", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--new-session", "--cap-drop", "ALL",
)  # fmt: skip
FILE_SYSTEMS: Final = ("--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--ro-bind", "/usr", "/usr")  # noqa: S108


def sandbox(directory: Path, playbooks: Path, *, files: Sequence[Path] = ()) -> list[str]:
    """The words before the command that put it into a PID namespace of its own; none where bubblewrap cannot.

    ``playbooks`` is the directory that the playbook and what it includes are in, ``files`` what else it may read.
    """
    return _bubblewrap(directory, playbooks.resolve(), files) if isolated() else []


@functools.cache
def isolated() -> bool:
    """True when bubblewrap works here: it may be missing, or forbidden in a container."""
    if not shutil.which("bwrap"):
        return False
    try:
        with tempfile.TemporaryDirectory() as directory:
            probe = [*_bubblewrap(Path(directory), PLUGINS), "true"]  # as for a run: not all of the project
            return subprocess.run(probe, capture_output=True, check=False, timeout=PROBE_TIMEOUT).returncode == 0
    except subprocess.TimeoutExpired:
        return True  # a busy machine must not make runs less confined: if it does not work, they fail
    except OSError:
        return False


def _bubblewrap(directory: Path, playbooks: Path, files: Sequence[Path] = ()) -> list[str]:
    """Read-only system and Python, no other /etc, /home, /run or /tmp; own /proc; the run directory to write to."""
    words = ["bwrap", *NAMESPACES, *FILE_SYSTEMS]
    for name in ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"):
        if Path(name).is_symlink():
            words += ["--symlink", os.readlink(name), name]
        else:
            words += ["--ro-bind-try", name, name]
    for name in ETC:
        words += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    python = {sys.base_prefix, sys.prefix, *_site_packages("ansible"), *_site_packages("ansible_runner")}
    python |= {os.path.realpath(path) for path in python}  # the scripts of a venv behind a link name the place itself
    for path in sorted(python | {str(playbooks), str(PLUGINS), str(INVENTORY_PLUGINS)}):
        if not path.startswith("/usr/"):
            words += ["--ro-bind", path, path]
    for file in files:
        words += ["--ro-bind", str(file), str(file)]
    words += ["--bind", str(directory), str(directory), "--remount-ro", "/"]  # what the words above did not mount
    return [*words, "--chdir", str(directory), "--"]


def _site_packages(package: str) -> list[str]:
    spec = importlib.util.find_spec(package)
    return [str(Path(spec.origin).parent.parent)] if spec and spec.origin else []
