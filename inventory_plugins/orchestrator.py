"""Ansible inventory plugin of the orchestrator.  Never imports Django or the orchestrator.

    ansible-inventory -i slice.orchestrator.json --list

Reads the document that orchestrator/inventory.py writes for a slice of a run.
All values stay untrusted: Ansible never evaluates them as templates, whatever they hold.
"""

from __future__ import annotations

import json
from typing import Any

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin

DOCUMENTATION = """
name: orchestrator
short_description: The devices of an orchestrator
description:
  - Reads a slice of a run from a local file, C(*.orchestrator.json), as the service writes it.
options:
  plugin:
    description: Must be C(orchestrator).
    required: true
    choices: [orchestrator]
"""

SLICE = ".orchestrator.json"


class InventoryModule(BaseInventoryPlugin):  # type: ignore[misc]  # Ansible has no types
    """Hosts, their variables and their groups from a slice's document."""

    NAME = "orchestrator"
    trusted_by_default = False  # no value is a template, whatever it holds

    def verify_file(self, path: str) -> bool:
        return bool(super().verify_file(path)) and path.endswith(SLICE)

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache)
        self.add_slice(read_slice(path))

    def add_slice(self, document: dict[str, Any]) -> None:
        """`{"hosts": {name: {"groups": [name, …], "vars": {name: value}}}}`, see orchestrator/inventory.py."""
        for name, host in document["hosts"].items():
            self.inventory.add_host(name)
            for group in host["groups"]:
                self.inventory.add_child(self.inventory.add_group(group), name)
            for variable, value in host["vars"].items():
                self.inventory.set_variable(name, variable, value)


def read_slice(path: str) -> dict[str, Any]:
    """The slice's document; AnsibleParserError when the file is not one."""
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
    except (OSError, ValueError) as error:
        raise AnsibleParserError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(document, dict) or document.get("plugin") != "orchestrator" or "hosts" not in document:
        raise AnsibleParserError(f"{path} is not a slice of the orchestrator.")
    return document
