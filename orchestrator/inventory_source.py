"""Inventories of plain Ansible: read by Ansible itself, in a process of its own."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from django.conf import settings

from orchestrator.adoption import SourceHost
from orchestrator.exceptions import InventoryUnreadableError
from orchestrator.sandbox import sandbox

READ_SECONDS: Final = 600.0  # inventory scripts may ask slow services
STATIC_SECONDS: Final = 30.0  # a file of a stranger, for which somebody's browser waits
TOLD: Final = 2_000  # characters of what Ansible said
SHUT: Final = "A whole file is encrypted: give the vault's password, or its hosts have no variables at all."
PROJECT: Final = Path(__file__).resolve().parent.parent
# What is ours alone: an inventory script runs with the rest of the environment, as under ansible-inventory.
OWN: Final = ("ORCHESTRATOR_SECRET_KEYS", "ORCHESTRATOR_VAULT_", "DJANGO_SECRET_KEY", "DATABASE_URL", "REDIS_URL")


def read(
    source: str,
    *,
    variables: Sequence[str],
    vault_password_files: Sequence[str] = (),
    vault_password: str = "",
    static: bool = False,
) -> list[SourceHost]:
    """The hosts of whatever `ansible-inventory -i SOURCE` can read: INI, YAML, folders, scripts, plugins.

    `static` is for files of strangers: INI and YAML only, no template is evaluated, no ansible.cfg read, no other file
    in sight, and as much memory and time as a file of honest size takes.

    Raises:
        InventoryUnreadableError: Ansible can't read it, or not all of it, or it has no hosts.
    """
    command = [sys.executable, "-m", "ansible_plugins.inventory_reader", "-i", source, "--list"]
    for path in vault_password_files:
        command += ["--vault-password-file", path]
    with tempfile.TemporaryDirectory(dir=settings.RUN_DIR or None) as folder:
        if vault_password:
            command += ["--vault-password-file", _file(folder, "vault", vault_password)]
        environment, seconds, place = _environment(variables), READ_SECONDS, None
        if static:
            command = [*sandbox(Path(folder), Path(source).parent), *command]
            environment, seconds, place = _bare(folder, environment), STATIC_SECONDS, folder
        try:
            done = subprocess.run(
                command, env=environment, cwd=place, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                errors="replace", timeout=seconds, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise InventoryUnreadableError(f"Reading it took longer than {seconds:g} seconds.") from error
    if done.returncode:
        raise InventoryUnreadableError(_told(done.stderr) or "ansible-inventory can't read it.")
    hosts = json.loads(done.stdout)["hosts"]
    if not hosts:
        raise InventoryUnreadableError("It has no hosts.")
    return [
        SourceHost(name, host["values"], host["unread"], tuple(host["others"]), host["groups"])
        for name, host in sorted(hosts.items())
    ]


def _environment(variables: Sequence[str]) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(OWN)} | {
        "ORCHESTRATOR_VARIABLES": ",".join(variables),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH")))),
        "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "1",  # half of an inventory looks as if devices were gone
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_DEPRECATION_WARNINGS": "0",
    }


def _bare(folder: str, environment: Mapping[str, str]) -> dict[str, str]:
    """What Ansible needs, without what could let it run or find something: settings, other kinds of sources, templates.

    It also looks for group_vars and host_vars in the folder that it is started in, by names that the file makes up.
    """
    return {name: environment[name] for name in ("PATH", "PYTHONPATH", "ORCHESTRATOR_VARIABLES")} | {
        "HOME": folder,
        "TMPDIR": folder,
        "LC_ALL": "C.UTF-8",
        "ANSIBLE_HOME": folder,
        "ANSIBLE_LOCAL_TEMP": str(Path(folder) / "tmp"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_DEPRECATION_WARNINGS": "0",
        "ANSIBLE_CONFIG": _file(folder, "ansible.cfg", ""),
        "ANSIBLE_INVENTORY_ENABLED": "ini,yaml",
        "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "1",
        "ORCHESTRATOR_STATIC": "1",
    }


def _file(folder: str, name: str, text: str) -> str:
    path = Path(folder) / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def _told(stderr: str) -> str:
    """What went wrong, in Ansible's words; the last ones, which are its verdict."""
    told = " ".join(stderr.replace("[ERROR]: ", "").replace("[WARNING]: ", "").split())[-TOLD:]
    return f"{told} {SHUT}" if "no vault secrets" in told else told
