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

READ_SECONDS: Final = 600.0  # inventory scripts may ask slow services
TOLD: Final = 2_000  # characters of what Ansible said
PROJECT: Final = Path(__file__).resolve().parent.parent
# What is ours alone: an inventory script runs with the rest of the environment, as under ansible-inventory.
OWN: Final = ("ORCHESTRATOR_SECRET_KEYS", "DJANGO_SECRET_KEY", "DATABASE_URL", "REDIS_URL")


def read(
    source: str,
    *,
    variables: Sequence[str],
    vault_password_files: Sequence[str] = (),
    vault_password: str = "",
    static: bool = False,
) -> list[SourceHost]:
    """The hosts of whatever `ansible-inventory -i SOURCE` can read: INI, YAML, folders, scripts, plugins.

    `static` is for files of strangers: INI and YAML only, no template is evaluated, no ansible.cfg read.

    Raises:
        InventoryUnreadableError: Ansible can't read it, or not all of it, or it has no hosts.
    """
    command = [sys.executable, "-m", "ansible_plugins.inventory_reader", "-i", source, "--list"]
    for path in vault_password_files:
        command += ["--vault-password-file", path]
    with tempfile.TemporaryDirectory(dir=settings.RUN_DIR or None) as folder:
        if vault_password:
            command += ["--vault-password-file", _file(folder, "vault", vault_password)]
        environment = _environment(variables)
        if static:
            environment = _bare(environment, _file(folder, "ansible.cfg", ""))
        try:
            done = subprocess.run(
                command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                timeout=READ_SECONDS, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise InventoryUnreadableError(f"Reading it took longer than {READ_SECONDS:g} seconds.") from error
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
    return {name: value for name, value in os.environ.items() if name not in OWN} | {
        "ORCHESTRATOR_VARIABLES": ",".join(variables),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH")))),
        "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "1",  # half of an inventory looks as if devices were gone
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_DEPRECATION_WARNINGS": "0",
    }


def _bare(environment: Mapping[str, str], configuration: str) -> dict[str, str]:
    """The same without what could let Ansible run something: its own settings, other kinds of sources, templates."""
    kept = {name: value for name, value in environment.items() if not name.startswith("ANSIBLE_")}
    return kept | {
        "ANSIBLE_CONFIG": configuration,
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
    return " ".join(stderr.replace("[ERROR]: ", "").replace("[WARNING]: ", "").split())[-TOLD:]
