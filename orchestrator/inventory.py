"""Devices of a slice as Ansible and ssh read them: the inventory document and the known_hosts file.

Pure translation: no database, no queue, no subprocess.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from orchestrator.models import Platform

# A pinned key's type → the algorithms with which a server may prove that it holds the key (RFC 8332 for RSA).
# ssh negotiates exactly these, so that a device with several keys shows the pinned one.
HOST_KEY_ALGORITHMS: Final[Mapping[str, tuple[str, ...]]] = {
    "ssh-ed25519": ("ssh-ed25519",),
    "ecdsa-sha2-nistp256": ("ecdsa-sha2-nistp256",),
    "ecdsa-sha2-nistp384": ("ecdsa-sha2-nistp384",),
    "ecdsa-sha2-nistp521": ("ecdsa-sha2-nistp521",),
    "ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256"),
}
_KEY: Final = re.compile(r"(?P<type>[a-z0-9-]+) +(?P<blob>[A-Za-z0-9+/]+={0,2})(?: .*)?")
_UNSAFE: Final = re.compile(r"\W")
_NO_NAME: Final = re.compile(r"[^\w.-]|^-")  # as in inventory_plugins/orchestrator.py, and so is the next
_TAKEN: Final = frozenset({"localhost", "127.0.0.1", "::1", "all", "ungrouped"})
_HOST: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_OURS: Final = re.compile(r"(organization|group|location|platform|tag)_|device-[0-9a-f]{32}$", re.IGNORECASE)
_SSH_PORT: Final = 22


@dataclass(frozen=True, slots=True)
class Login:
    """What a device is logged in to with.  `repr` shows no secret."""

    username: str
    password: str = field(default="", repr=False)
    private_key: str = field(default="", repr=False)  # PEM or OpenSSH, as text
    passphrase: str = field(default="", repr=False)  # of the private key
    become_password: str = field(default="", repr=False)  # for sudo; "" = the login password

    @property
    def secrets(self) -> frozenset[str]:
        """What no output may show."""
        return frozenset({self.password, self.private_key, self.passphrase, self.become_password}) - {""}


@dataclass(frozen=True, slots=True)
class Target:
    """One device of a slice."""

    host_name: str  # made by the service, e.g. "device-<hex of uuid>": unique, and never the user's text
    address: str
    port: int
    platform: str  # "openwrt" | "linux"
    host_key: str  # "ssh-ed25519 AAAA…", one or more lines; a comment behind a key is ignored
    login: Login
    groups: tuple[str, ...] = ()  # of a user's own playbook, see group_names(); else its platform alone
    facts: Mapping[str, Any] = field(default_factory=dict)  # orchestrator_<name> → value, for the users' own playbooks


def inventory(targets: Sequence[Target], *, connect_timeout: float) -> dict[str, Any]:
    """The document that inventory_plugins/orchestrator.py reads.  `connect_timeout` in seconds, until logged in.

    Shape: `{"plugin": "orchestrator", "hosts": {host_name: {"groups": [platform], "vars": {name: value}}}}`.
    Values are passed on as they are; the plugin hands them to Ansible untrusted, so none is ever a template.
    """
    return {
        "plugin": "orchestrator",
        "hosts": {
            target.host_name: {
                "groups": list(target.groups) or [target.platform],
                "vars": _host_vars(target, connect_timeout),
            }
            for target in targets
        },
    }


def known_hosts(targets: Sequence[Target]) -> str:
    """The only keys that ssh believes in this run, one line each: `host_name type key`.

    Under the service's name of the device (ssh's HostKeyAlias), not under its address: of two devices that claim one
    address, one's key must not pass for the other's, and ports and IPv6 need no quoting.  A target without a usable
    key has no line, and ssh then refuses it.
    """
    return "".join(f"{t.host_name} {kind} {blob}\n" for t in targets for kind, blob in _keys(t.host_key))


def group_names(
    *, platform: str, organization: str = "", group: str = "", location: str = "", tags: Iterable[str] = ()
) -> list[str]:
    """The Ansible groups of a device, from the names of what it belongs to; the same in runs and for plain Ansible.

    Ansible takes letters, digits and "_" in a group's name without a complaint; everything else becomes "_".  The
    prefix tells a location from a group of its name, and keeps words apart that mean something to Ansible ("all").
    The platform is there without it, too: public roles for OpenWrt ask for a group of that name.
    """
    named = {"organization": organization, "group": group, "location": location, "platform": platform}
    pairs = [*((kind, name) for kind, name in named.items() if name), *(("tag", tag) for tag in tags)]
    return list(dict.fromkeys([platform, *(f"{kind}_{_UNSAFE.sub('_', name)}" for kind, name in pairs)]))


def host_names(names: Mapping[str, str], groups: Iterable[str]) -> dict[str, str]:
    """What devices are called in a user's own playbook: id (32 digits) → host name, from id → the device's name.

    The names that inventory_plugins/orchestrator.py gives them for plain Ansible, as far as they are plain file names:
    a playbook that sets a device's name from `inventory_hostname` must find it here, too.  A name that is a group's,
    could be one's, or is how we call another device, would let its owner step into what is meant for others.
    """
    plain = {pk: _NO_NAME.sub("_", name) for pk, name in names.items()}
    # Whatever the case: ssh looks names up in known_hosts without regard to it.
    often, taken = Counter(map(str.lower, plain.values())), {*map(str.lower, groups), *_TAKEN, *Platform}
    made = {
        pk: f"{name}_{pk[:8]}" if often[name.lower()] > 1 or name.lower() in taken or _OURS.match(name) else name
        for pk, name in plain.items()
    }
    # What was appended to one may be the end of another's name.
    often = Counter(map(str.lower, made.values()))
    unique = {pk for pk, name in made.items() if often[name.lower()] == 1 and name.lower() not in taken}
    return {pk: name if pk in unique and _HOST.fullmatch(name) else f"device-{pk}" for pk, name in made.items()}


def known_host(address: str, port: int, host_key: str) -> str:
    """Lines of a known_hosts file for an address, as ssh looks it up (sshd(8)): `address` or `[address]:port`."""
    where = address.lower() if port == _SSH_PORT else f"[{address.lower()}]:{port}"
    return "".join(f"{where} {kind} {blob}\n" for kind, blob in _keys(host_key))


def _host_vars(target: Target, connect_timeout: float) -> dict[str, Any]:
    login = target.login
    algorithms = [a for kind, _ in _keys(target.host_key) for a in HOST_KEY_ALGORITHMS[kind]]
    wanted = {
        "ansible_connection": "device_ssh",
        "ansible_host": target.address,
        "ansible_port": target.port,
        "ansible_user": login.username,
        "ansible_ssh_timeout": max(1, math.ceil(connect_timeout)),
        "ansible_ssh_use_tty": False,
        "ansible_password": login.password,
        "ansible_private_key": login.private_key,
        "ansible_private_key_passphrase": login.passphrase,
        "ansible_become_password": login.become_password or login.password,
        "orchestrator_platform": target.platform,
        "orchestrator_host_name": target.host_name,
        "orchestrator_host_key_algorithms": ",".join(dict.fromkeys(algorithms)),
    }
    told = {name: value for name, value in wanted.items() if value != ""}
    return told | {f"orchestrator_{name}": value for name, value in target.facts.items()}


def _keys(host_key: str) -> list[tuple[str, str]]:
    """(type, base64) of each line that holds a key of a type we know."""
    found = (_KEY.fullmatch(line.strip()) for line in host_key.splitlines())
    return [(key["type"], key["blob"]) for key in found if key and key["type"] in HOST_KEY_ALGORITHMS]
