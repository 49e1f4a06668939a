"""Ansible inventory plugin of the orchestrator: the fleet over its REST API, or a slice of a run from a local file.

Needs ansible-core and the standard library only; never imports Django or the orchestrator, so this one file can be
copied to any machine.  All values stay untrusted: Ansible never evaluates them as templates, whatever they hold.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import stat
import tempfile
import time
import uuid
from collections import Counter
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable

DOCUMENTATION = r"""
name: orchestrator
short_description: The devices of an orchestrator
author: the orchestrator's authors
description:
  - Reads the devices that the user of an API token may see, through the REST API of an orchestrator.
  - Its configuration is a file named C(orchestrator.yml) or C(*.orchestrator.yml).
  - Without a filter these are all active devices that the token's user may see. All filters that are given must hold.
  - Nothing that comes from the API is a template for Ansible; secrets are not part of it.
  - Also reads a slice of a run from a local file, C(*.orchestrator.json), as the service writes it.
notes:
  - Ansible goes on with what it has when a source of inventory fails. Set C(ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED=1)
    where half an inventory would be worse than none.
  - Two devices of one name (in two organizations) have the beginning of their ids appended.
extends_documentation_fragment:
  - constructed
  - inventory_cache
options:
  plugin:
    description: Must be C(orchestrator).
    required: true
    choices: [orchestrator]
  url:
    description: The address of the service, such as C(https://fleet.example.org).
    type: str
    env: [{name: ORCHESTRATOR_URL}]
  token:
    description: An API token. Better kept in the environment, in O(token_file), or encrypted by Ansible Vault.
    type: str
    env: [{name: ORCHESTRATOR_TOKEN}]
  token_file:
    description: A file that holds the token and nothing else. Used where O(token) is not given.
    type: path
    env: [{name: ORCHESTRATOR_TOKEN_FILE}]
  validate_certs:
    description: Whether the certificate of the service is checked.
    type: bool
    default: true
    env: [{name: ORCHESTRATOR_VALIDATE_CERTS}]
  ca_path:
    description: A file of certificates that sign the service's own, in PEM format.
    type: path
    env: [{name: ORCHESTRATOR_CA_PATH}]
  timeout:
    description: Seconds until the service has begun to answer a request.
    type: int
    default: 30
    env: [{name: ORCHESTRATOR_TIMEOUT}]
  retries:
    description: How often a request is sent again that got no answer, or one of 429, 502, 503 or 504. The wait is what
      C(Retry-After) says, else it doubles from one second on; it is never more than a minute.
    type: int
    default: 4
  organization:
    description: Only devices of this organization, by its name or id.
    type: str
    env: [{name: ORCHESTRATOR_ORGANIZATION}]
  group:
    description: Only devices of this group, by its name or id.
    type: str
  location:
    description: Only devices at this location, by its name or id.
    type: str
  devices:
    description: Only these devices, by their names or ids. An empty list is an error, never all devices.
    type: list
    elements: str
  platform:
    description: Only devices of this platform.
    type: str
    choices: [openwrt, linux]
  name:
    description: Only devices whose whole name matches this pattern; C(*) is any text, C(?) is one character.
    type: str
  tags:
    description: Only devices that have all of these tags.
    type: list
    elements: str
  exclude_devices:
    description: Never these devices, by their names or ids.
    type: list
    elements: str
  exclude_groups:
    description: Never devices of these groups, by their names or ids.
    type: list
    elements: str
  hostname:
    description: What a device is called in the inventory; its C(name), with what means something to Ansible replaced by
      C(_), or C(id), which is what runs of the service call it.
    type: str
    choices: [name, id]
    default: name
  known_hosts:
    description: A file into which the pinned host keys of these devices are written. All hosts then get
      C(ansible_ssh_common_args) that let ssh believe these keys and no others; a device that is not enrolled is not
      logged in to. To add options of your own, set that variable to C({{ orchestrator_ssh_args }}) and yours.
    type: path
    env: [{name: ORCHESTRATOR_KNOWN_HOSTS}]
"""

EXAMPLES = r"""
# fleet.orchestrator.yml: all that the token's user may see (ORCHESTRATOR_TOKEN in the environment)
plugin: orchestrator
url: https://fleet.example.org
known_hosts: ~/.cache/orchestrator/known_hosts

# the OpenWrt routers of one organization, in groups by the first part of their names, kept for ten minutes
---
plugin: orchestrator
url: https://fleet.example.org
token_file: /run/secrets/orchestrator-token
organization: North
platform: openwrt
exclude_groups: [laboratory]
strict: true
keyed_groups:
  - key: orchestrator_name.split('-')[0]
    prefix: site
compose:
  ansible_user: "'root'"
cache: true
cache_plugin: jsonfile
cache_connection: ~/.cache/orchestrator/inventory
cache_timeout: 600
"""

SLICE = ".orchestrator.json"
CONFIGURATIONS = ("orchestrator.yml", "orchestrator.yaml")
API = "/api/v1/controller/"
AGAIN = (429, 502, 503, 504)
PAGE = 1_000  # devices in a reply; as many as the service gives
LONGEST_WAIT = 60.0  # seconds between two tries
NAMED = ("organization", "group", "location")
PICKED = {"devices": "device", "exclude_devices": "device", "exclude_groups": "group"}
# What Ansible gives a meaning of its own as a host's name: an implicit host, or a pattern for all of them.
TAKEN = frozenset({"localhost", "127.0.0.1", "::1", "all", "ungrouped", "openwrt", "linux"})
UNSAFE = re.compile(r"[^\w.-]|^-")
OURS = re.compile(r"(organization|group|location|platform|tag)_|device-[0-9a-f]{32}$", re.IGNORECASE)


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):  # type: ignore[misc]  # Ansible has no types
    """Hosts, their variables and their groups."""

    NAME = "orchestrator"
    trusted_by_default = False  # no value is a template, whatever it holds

    def verify_file(self, path: str) -> bool:
        return bool(super().verify_file(path)) and path.endswith((SLICE, *CONFIGURATIONS))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache)
        if path.endswith(SLICE):
            self.add_slice(read_slice(path))
            return
        self._read_config_data(path)
        devices = self.devices(path, cache)
        if self.get_option("known_hosts"):
            self.trust(write_known_hosts(self.get_option("known_hosts"), devices))
        for name, device in zip(host_names(devices, self.get_option("hostname")), devices, strict=True):
            self.add_device(name, device)

    def add_slice(self, document: dict[str, Any]) -> None:
        """`{"hosts": {name: {"groups": [name, …], "vars": {name: value}}}}`, see orchestrator/inventory.py."""
        for name, host in document["hosts"].items():
            self.inventory.add_host(name)
            for group in host["groups"]:
                self.inventory.add_child(self.inventory.add_group(group), name)
            for variable, value in host["vars"].items():
                self.inventory.set_variable(name, variable, value)

    def devices(self, path: str, cache: bool) -> list[dict[str, Any]]:
        """The devices of the API's inventory, from the cache where it may be used and has them."""
        api = Api(self)
        cached = self.get_option("cache")
        key = f"{self.get_cache_key(path)}_{self.question(api)}"
        if cached and cache:
            try:
                found: list[dict[str, Any]] = self._cache[key]
                return found
            except KeyError:  # not there, or too old
                pass
        devices = [known(device) for device in api.pages("device/inventory/", self.query(api))]
        if cached:
            self._cache[key] = devices
        return devices

    def question(self, api: Api) -> str:
        """What tells two sources in one cache apart: the service, who asks, and for what.  The token can't be found
        from it: half of 64 bits of a hash of 256 random ones."""
        filters = {name: self.get_option(name) for name in (*NAMED, *PICKED, "platform", "name", "tags")}
        text = json.dumps([api.url, hashlib.sha256(api.token.encode()).hexdigest()[:8], filters], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def query(self, api: Api) -> list[tuple[str, str]]:
        """The target filter as the API's parameters; names are looked up."""
        query = [("page_size", str(PAGE))]
        ids: dict[str, str] = {}
        for name in NAMED:
            if wanted := self.get_option(name):
                ids[name] = api.identify(name, wanted, ids.get("organization", ""))
        query += ids.items()
        for name, kind in PICKED.items():
            wanted = self.get_option(name)
            if wanted is None:
                continue
            if not wanted and name == "devices":
                raise AnsibleParserError("devices: the list is empty. It never means all devices.")
            query += [(name, api.identify(kind, each, ids.get("organization", ""))) for each in wanted]
        query += [(name, value) for name in ("platform", "name") if (value := self.get_option(name))]
        return query + [("tags", tag) for tag in self.get_option("tags") or ()]

    def add_device(self, name: str, device: dict[str, Any]) -> None:
        """One host with its variables, in its groups, and those of the configuration."""
        self.inventory.add_host(name)
        values = variables(device)
        for variable, value in values.items():
            self.inventory.set_variable(name, variable, value)
        for group in device["groups"]:
            self.inventory.add_child(self.inventory.add_group(group), name)
        strict = self.get_option("strict")
        self._set_composite_vars(self.get_option("compose"), values, name, strict=strict)
        self._add_host_to_composed_groups(self.get_option("groups"), {}, name, strict=strict)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), {}, name, strict=strict)

    def trust(self, path: str) -> None:
        """Let ssh believe the keys of this file and no others; group_vars and host_vars may still say otherwise."""
        quoted = path.replace("\\", "\\\\").replace('"', '\\"')
        # ssh reads the value as a configuration line of its own: a path with blanks needs quotes there, too
        file = shlex.quote(f'UserKnownHostsFile="{quoted}"')
        arguments = f"-o {file} -o GlobalKnownHostsFile=/dev/null -o StrictHostKeyChecking=yes"
        for name in ("ansible_ssh_common_args", "orchestrator_ssh_args"):
            self.inventory.set_variable("all", name, arguments)
        self.inventory.set_variable("all", "ansible_host_key_checking", True)


class Api:
    """The REST API of the service, as the options of the plugin say."""

    def __init__(self, plugin: InventoryModule) -> None:
        self.option = plugin.get_option
        self.url = str(self.option("url") or "").strip().rstrip("/")
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise AnsibleParserError("url: give the address of the service, such as https://fleet.example.org.")
        if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            plugin.display.warning(f"The token is sent to {parts.hostname} in the clear: use https.")
        self.token = self.read_token()

    def read_token(self) -> str:
        """The token of the option, its environment variable, or the file."""
        token = str(self.option("token") or "").strip()
        path = self.option("token_file")
        if not token and path:
            try:
                with open(path, encoding="ascii") as file:
                    token = file.read().strip()
            except (OSError, ValueError) as error:
                raise AnsibleParserError(f"token_file: {path} can't be read: {type(error).__name__}") from None
        if not token:
            raise AnsibleParserError("token: set ORCHESTRATOR_TOKEN, or token_file, to an API token of the service.")
        if not token.isascii() or not token.isprintable() or " " in token:
            raise AnsibleParserError("token: this is not a token of the service.")  # and would not fit into a header
        return token

    def identify(self, kind: str, wanted: str, organization: str) -> str:
        """The id of the organization, group, location or device of this name; an id is taken as it is."""
        wanted = str(wanted)
        try:
            return str(uuid.UUID(wanted))
        except ValueError:
            pass
        query = [("name", wanted), ("page_size", "100")]
        if organization and kind != "organization":
            query.append(("organization", organization))
        found = [row["id"] for row in self.pages(f"{kind}/", query) if row["name"] == wanted]
        if not found:
            raise AnsibleParserError(f'{kind}: there is no "{wanted}" that the user of the token may see.')
        if len(found) > 1:
            raise AnsibleParserError(
                f'{kind}: {len(found)} are named "{wanted}". Name the organization, or give an id.'
            )
        return str(found[0])

    def pages(self, path: str, query: list[tuple[str, str]]) -> list[dict[str, Any]]:
        """The rows of all pages."""
        rows: list[dict[str, Any]] = []
        asked = urlencode(query)
        while True:
            page = self.get(f"{self.url}{API}{path}?{asked}")
            try:
                rows += page["results"]
                following = page["next"]
            except (KeyError, TypeError):
                raise AnsibleParserError(f"{self.url} does not answer as an orchestrator does.") from None
            if not following:
                return rows
            # the parameters alone: the token goes to no other address, whatever the reply says
            asked = urlsplit(following).query

    def get(self, address: str) -> Any:
        """The reply, after as many tries as it takes within reason."""
        from http.client import HTTPException  # noqa: PLC0415  # as below

        tries, wait = int(self.option("retries")), 1.0
        while True:
            try:
                return self.ask(address)
            except HTTPError as error:
                problem, again = self.explain(error), error.code in AGAIN
                pause = retry_after(error, wait)
            except (URLError, OSError, HTTPException) as error:
                problem, again = f"{self.url} can't be reached: {getattr(error, 'reason', error)}", True
                if "CERTIFICATE_VERIFY_FAILED" in problem:
                    problem, again = f"{problem} (ca_path names the certificates that are believed)", False
                pause = wait
            if not again or not tries:
                raise AnsibleParserError(problem)
            time.sleep(pause)
            tries, wait = tries - 1, min(2 * wait, LONGEST_WAIT)

    def ask(self, address: str) -> Any:
        """The reply to one request."""
        from ansible.module_utils.urls import open_url  # noqa: PLC0415  # a slice, which asks nobody, is read sooner

        reply = open_url(
            address,
            headers={"Authorization": f"Bearer {self.token}", "Accept": "application/json"},
            timeout=int(self.option("timeout")),
            validate_certs=self.option("validate_certs"),
            ca_path=self.option("ca_path"),
            follow_redirects="none",  # a redirect would take the token along
            http_agent="orchestrator-inventory",
        )
        try:
            return json.loads(reply.read())
        except ValueError:
            raise AnsibleParserError(f"{self.url} does not answer as an orchestrator does.") from None

    def explain(self, error: HTTPError) -> str:
        """What went wrong, in words for whoever wrote the configuration."""
        if error.code == 401:
            return f"{self.url} does not know the token, or it has expired (401)."
        if 300 <= error.code < 400:
            return f"{self.url} redirects to {error.headers.get('Location', 'nowhere')}: give the final address as url."
        try:
            told = json.loads(error.read())
            reasons = told.get("detail") or "; ".join(
                f"{name}: {' '.join(map(str, each))}" for name, each in told.items()
            )
        except (ValueError, AttributeError, TypeError, OSError):
            reasons = error.reason
        return f"{self.url} answers {error.code}: {reasons}"


def retry_after(error: HTTPError, wait: float) -> float:
    """Seconds to wait, as the service says; bounded."""
    given = str(error.headers.get("Retry-After", ""))
    return min(float(given), LONGEST_WAIT) if given.isascii() and given.isdigit() else wait


def known(device: dict[str, Any]) -> dict[str, Any]:
    """What is used of a device, each of the type it should have; so nothing else gets into the cache."""
    try:
        texts = {
            name: str(device[name] or "") for name in ("id", "name", *NAMED, "host", "platform", "username", "host_key")
        }
        lists = {name: [str(each) for each in device[name]] for name in ("tags", "groups")}
        return {**texts, **lists, "port": int(device["port"])}
    except (KeyError, TypeError, ValueError) as error:
        raise AnsibleParserError(f"A device of the reply lacks {error}: is the service of another version?") from None


def variables(device: dict[str, Any]) -> dict[str, Any]:
    """The host variables of a device."""
    values = {"ansible_host": device["host"], "ansible_port": device["port"]}
    if device["username"]:
        values["ansible_user"] = device["username"]
    own = ("id", "name", *NAMED, "platform", "tags")
    return values | {f"orchestrator_{name}": device[name] for name in own}


def host_names(devices: list[dict[str, Any]], kind: str) -> list[str]:
    """What the devices are called; no two the same, and none that Ansible takes for something else."""
    if kind == "id":
        return [f"device-{uuid.UUID(device['id']).hex}" for device in devices]
    plain = [UNSAFE.sub("_", device["name"]) for device in devices]
    often = Counter(map(str.lower, plain))  # to name servers and to ssh they are one, whatever the case
    taken = {group.lower() for device in devices for group in device["groups"]} | TAKEN
    made = [
        f"{name}_{device['id'][:8]}" if often[name.lower()] > 1 or name.lower() in taken or OURS.match(name) else name
        for name, device in zip(plain, devices, strict=True)
    ]
    often = Counter(map(str.lower, made))  # what was appended to one may be the end of another's name
    return [
        name if often[name.lower()] == 1 and name.lower() not in taken else f"device-{uuid.UUID(device['id']).hex}"
        for name, device in zip(made, devices, strict=True)
    ]


def write_known_hosts(path: str, devices: list[dict[str, Any]]) -> str:
    """The pinned keys as a known_hosts file, replaced in one go; its path."""
    lines = []
    for device in devices:
        where = device["host"].lower() if device["port"] == 22 else f"[{device['host'].lower()}]:{device['port']}"
        lines += [f"{where} {key}\n" for key in device["host_key"].splitlines()]
    path = os.path.abspath(os.path.expanduser(path))
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=os.path.dirname(path), delete=False) as file:
            file.writelines(lines)
        os.replace(file.name, path)
    except OSError as error:
        raise AnsibleParserError(f"known_hosts: {path} can't be written: {error.strerror}") from error
    return path


def read_slice(path: str) -> dict[str, Any]:
    """The slice's document; AnsibleParserError when the file is not one, or others could read or change it."""
    try:
        with open(path, encoding="utf-8") as file:
            status = os.fstat(file.fileno())
            if stat.S_IMODE(status.st_mode) & 0o077 or status.st_uid not in (0, os.geteuid()):
                raise AnsibleParserError(f"{path} holds logins: it must be yours, and of mode 0600.")
            document = json.load(file)
    except (OSError, ValueError) as error:
        raise AnsibleParserError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(document, dict) or document.get("plugin") != "orchestrator" or "hosts" not in document:
        raise AnsibleParserError(f"{path} is not a slice of the orchestrator.")
    return document
