"""`ansible-inventory --list` for manage.py import_inventory: tells those variables that it is asked for.

    python -m ansible_plugins.inventory_reader -i SOURCE --list [--vault-password-file FILE]

Everything is read as Ansible reads it: plugins, group_vars and host_vars, vaults, ansible.cfg.  Of a host's variables
those named in ORCHESTRATOR_VARIABLES (with commas) are told with their values, templates evaluated unless
ORCHESTRATOR_STATIC is set; of the others the names alone.  So what else a vault holds never leaves this process.
"""

from __future__ import annotations

import json
import os
import resource
from typing import Any

from ansible.cli.inventory import InventoryCLI
from ansible.errors import AnsibleError
from ansible.template import Templar

STATIC_BYTES = 1 << 30  # of memory
STATIC_SECONDS = 30  # of CPU
ALONE = frozenset({"all", "ungrouped"})


class InventoryReader(InventoryCLI):  # type: ignore[misc]  # Ansible has no types
    """The command line of ansible-inventory with another output."""

    def json_inventory(self, top: Any) -> dict[str, Any]:
        """`{"hosts": {name: {"values", "unread", "others", "groups": {name: depth}}}}`; depth 1 is just below "all"."""
        return {"hosts": {host.name: self.describe(host) for host in self.inventory.get_hosts(top.name)}}

    def describe(self, host: Any) -> dict[str, Any]:
        """One host."""
        wanted = os.environ["ORCHESTRATOR_VARIABLES"].split(",")
        everything = self.vm.get_vars(host=host, include_hostvars=False, stage="all")
        own = self._remove_internal(dict(everything))
        values, unread, static = {}, {}, bool(os.environ.get("ORCHESTRATOR_STATIC"))
        templar = Templar(loader=self.loader, variables=everything)
        for name in set(wanted) & own.keys():
            try:
                values[name] = plain(own[name] if static else templar.template(own[name]))
            except AnsibleError as error:
                unread[name] = reason(error)
        return {
            "values": values,
            "unread": unread,
            "others": sorted(name for name in own.keys() - set(wanted) if isinstance(name, str)),
            "groups": {group.name: group.depth for group in host.get_groups() if group.name not in ALONE},
        }

    @staticmethod
    def dump(stuff: Any) -> str:
        """One line of JSON."""
        return json.dumps(stuff)


def plain(value: Any) -> Any:
    """The value as JSON has it; a vaulted one is opened."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return value + 0  # without Ansible's tags
    return str(value)


def reason(error: AnsibleError) -> str:
    """Why a value can't be told, without the value."""
    text = str(error)
    if "vault" in text.lower() or "decrypt" in text.lower():
        return "no vault password given opens it"
    if "undefined" in text:
        return "its template needs a variable that is not defined"
    return "its template can't be evaluated"


if __name__ == "__main__":
    if os.environ.get("ORCHESTRATOR_STATIC"):  # one line can mean a million hosts
        resource.setrlimit(resource.RLIMIT_AS, (STATIC_BYTES, STATIC_BYTES))
        resource.setrlimit(resource.RLIMIT_CPU, (STATIC_SECONDS, STATIC_SECONDS))
    InventoryReader.cli_executor()
