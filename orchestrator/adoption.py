"""From hosts of an Ansible inventory to devices: what each variable and group means here, and what means nothing.

Pure translation, but for the private keys that variables name by their path.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from django.core.exceptions import ValidationError

from orchestrator.models import CredentialSecrets, Device, Platform
from orchestrator.models.addresses import validate_username

# What is meant → the variables that say it, as in Ansible's ssh and sudo plugins: the last one that is set counts.
MEANINGS: Final[Mapping[str, tuple[str, ...]]] = {
    "address": ("ansible_host", "ansible_ssh_host"),
    "port": ("ansible_port", "ansible_ssh_port"),
    "username": ("ansible_user", "ansible_ssh_user"),
    "password": ("ansible_password", "ansible_ssh_pass", "ansible_ssh_password"),
    "key": ("ansible_private_key", "ansible_ssh_private_key"),
    "key_file": ("ansible_private_key_file", "ansible_ssh_private_key_file"),
    "passphrase": ("ansible_private_key_passphrase", "ansible_ssh_private_key_passphrase"),
    "become_password": ("ansible_become_password", "ansible_become_pass", "ansible_sudo_pass"),
    "connection": ("ansible_connection",),
    "become": ("ansible_become",),
    "become_method": ("ansible_become_method",),
    "become_user": ("ansible_become_user", "ansible_sudo_user"),
}
SSH: Final = frozenset({"", "ssh", "smart", "paramiko", "paramiko_ssh", "libssh"})
# Of no use here, and nothing is lost: the service needs no Python on devices, and checks host keys always.
NEEDLESS: Final = frozenset({
    "ansible_python_interpreter", "ansible_host_key_checking", "ansible_ssh_host_key_checking", "ansible_pipelining",
    "ansible_ssh_pipelining", "ansible_ssh_use_tty", "ansible_remote_tmp", "ansible_ssh_retries",
    "ansible_group_priority",
})  # fmt: skip
_KEY_BYTES: Final = 32_768


@dataclass(frozen=True, slots=True)
class SourceHost:
    """A host as Ansible knows it."""

    name: str
    values: Mapping[str, Any] = field(repr=False)  # of the variables that were asked for; may be secret
    unread: Mapping[str, str]  # those of them that have no value → why
    others: tuple[str, ...]  # the names of all other variables
    groups: Mapping[str, int]  # group → how deep it is; 1 is just below "all"


@dataclass(frozen=True, slots=True)
class Rules:
    """What groups and missing variables mean.  Patterns are those of shells (`site_*`)."""

    location_groups: tuple[str, ...] = ()
    device_groups: tuple[str, ...] = ("*",)
    openwrt_groups: tuple[str, ...] = ()
    platform_variable: str = "orchestrator_platform"
    platform: str = Platform.LINUX  # of a device that is new and whose platform is not said
    username: str = "root"  # where there is a password or a key, but no user
    private_key: str = field(default="", repr=False)  # for hosts without a password or key of their own
    key_files: bool = True  # whether paths of private keys in variables are read

    @property
    def variables(self) -> list[str]:
        """What to ask the inventory for."""
        return [*(name for names in MEANINGS.values() for name in names), self.platform_variable]


@dataclass(frozen=True, slots=True)
class Login:
    """A user name and its secrets."""

    username: str
    secrets: CredentialSecrets


@dataclass(frozen=True, slots=True)
class Draft:
    """A device as the inventory has it.  Empty or None: the inventory does not say."""

    name: str
    host: str
    port: int | None
    platform: str
    group: str
    location: str
    tags: tuple[str, ...]
    login: Login | None


@dataclass(slots=True)
class Findings:
    """What could not be taken over as it is: a sentence → the hosts it is true of, in their order."""

    hosts: dict[str, list[str]] = field(default_factory=dict)

    def add(self, sentence: str, host: str) -> None:
        """It is true of this host, too."""
        self.hosts.setdefault(sentence, []).append(host)


class _UnfitError(Exception):
    """The host can't be a device; the message says why."""


def adopt(hosts: Sequence[SourceHost], rules: Rules) -> tuple[list[Draft], Findings]:
    """The devices, in the order of their names, and what could not be mapped."""
    findings, drafts = Findings(), []
    keys: dict[str, tuple[str, str]] = {}
    for host in hosts:
        try:
            drafts.append(_draft(host, rules, findings, keys))
        except _UnfitError as error:
            findings.add(f"Not imported: {error}", host.name)
    return drafts, findings


def _draft(host: SourceHost, rules: Rules, findings: Findings, keys: dict[str, tuple[str, str]]) -> Draft:
    said = {meaning: _last(host, names) for meaning, names in MEANINGS.items()}
    connection = str(said["connection"] or "").rsplit(".", 1)[-1]
    if connection not in SSH:
        raise _UnfitError(f'its connection is "{connection}"; devices are reached by ssh')
    address, port = str(said["address"] or host.name), said["port"]
    if unread := [name for name in (*MEANINGS["address"], *MEANINGS["port"]) if name in host.unread]:
        raise _UnfitError(f"{unread[0]} has no value: {host.unread[unread[0]]}")
    _check("name", host.name)
    _check("host", address)
    try:
        number = None if port in (None, "") else int(port)
    except (TypeError, ValueError):
        number = 0
    if number is not None:
        _check("port", number)
    group, location, tags = _places(host, rules, findings)
    _notice(host, said, findings)
    return Draft(
        name=host.name,
        host=address,
        port=number,
        platform=_platform(host, rules, findings),
        group=group,
        location=location,
        tags=tags,
        login=_login(host, said, rules, findings, keys),
    )


def _last(host: SourceHost, names: Iterable[str]) -> Any:
    given = [host.values[name] for name in names if host.values.get(name) is not None]
    return given[-1] if given else None


def _check(name: str, value: Any) -> None:
    model_field: Any = Device._meta.get_field(name)
    try:
        if name == "name" and not value.isprintable():
            raise ValidationError("It holds control characters.")
        model_field.run_validators(value)
    except ValidationError as error:
        raise _UnfitError(f"its {name} is not valid here: {' '.join(error.messages)}") from error


def _platform(host: SourceHost, rules: Rules, findings: Findings) -> str:
    said = host.values.get(rules.platform_variable)
    if said is not None:
        if str(said).lower() in Platform.values:
            return str(said).lower()
        findings.add(f'{rules.platform_variable} is "{said}", which is none of {", ".join(Platform.values)}', host.name)
    return Platform.OPENWRT.value if any(_matches(group, rules.openwrt_groups) for group in host.groups) else ""


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _places(host: SourceHost, rules: Rules, findings: Findings) -> tuple[str, str, tuple[str, ...]]:
    """The device group, the location and the tags: a device has one of each of the former, so the deepest is taken."""
    deepest = sorted(host.groups, key=lambda name: (-host.groups[name], name))
    locations = [name for name in deepest if _matches(name, rules.location_groups)]
    groups = [name for name in deepest if name not in locations and _matches(name, rules.device_groups)]
    for kind, found in (("location", locations), ("device group", groups)):
        if len(found) > 1:
            rest = ", ".join(sorted(found[1:]))
            findings.add(f'A device has one {kind}: "{found[0]}" is it, and these became tags: {rest}', host.name)
    group, location = (groups or [""])[0], (locations or [""])[0]
    return group, location, tuple(sorted(set(deepest) - {group, location}))


def _login(
    host: SourceHost, said: Mapping[str, Any], rules: Rules, findings: Findings, keys: dict[str, tuple[str, str]]
) -> Login | None:
    """How to log in, or None with the reason among the findings."""
    for meaning in ("username", "password", "key", "key_file", "passphrase", "become_password"):
        if unread := [name for name in MEANINGS[meaning] if name in host.unread]:
            findings.add(f"No credential: {unread[0]} has no value, {host.unread[unread[0]]}", host.name)
            return None
    texts = {name: str(said[name] or "") for name in ("password", "passphrase", "become_password")}
    key = str(said["key"] or "")
    if not key and said["key_file"]:
        key = _key(str(said["key_file"]), host.name, rules, findings, keys)
    if not key and not texts["password"]:
        key = rules.private_key
    if not key and not texts["password"]:
        findings.add("No credential: there is neither a password nor a private key for it", host.name)
        return None
    if not said["username"]:
        findings.add(f'There is no ansible_user: the user name is "{rules.username}"', host.name)
    username = str(said["username"] or rules.username)
    try:
        validate_username(username)
        if wrong := [name for name, text in texts.items() if not text.isprintable()]:
            raise ValidationError(f"Its {wrong[0]} holds what can't be entered at a login.")
        secrets = CredentialSecrets(private_key=key, **texts).with_readable_key()
    except ValidationError as error:
        findings.add(f"No credential: {' '.join(error.messages)}", host.name)
        return None
    return Login(username, secrets)


def _key(path: str, host: str, rules: Rules, findings: Findings, keys: dict[str, tuple[str, str]]) -> str:
    """The private key of the file, empty with a finding when it can't be read; ``keys`` has what came of each."""
    if not rules.key_files:
        findings.add(f"The private key {path} is a file that is not here", host)
        return ""
    if path not in keys:
        try:
            with Path(path).expanduser().open(encoding="ascii") as file:
                keys[path] = file.read(_KEY_BYTES), "It is empty"
        except (OSError, ValueError, RuntimeError) as error:
            keys[path] = "", str(getattr(error, "strerror", None) or error)
    key, problem = keys[path]
    if not key:
        findings.add(f"The private key {path} can't be read: {problem}", host)
    return key


def _notice(host: SourceHost, said: Mapping[str, Any], findings: Findings) -> None:
    """What the variables say that has no place here."""
    if str(said["become_method"] or "sudo").rsplit(".", 1)[-1] != "sudo":
        findings.add(f'ansible_become_method is "{said["become_method"]}"; here it is always sudo', host.name)
    if str(said["become_user"] or "root") != "root":
        findings.add(f'ansible_become_user is "{said["become_user"]}"; here it is always root', host.name)
    if said["become"] is not None and str(said["become"]).lower() in ("false", "no", "0", "off"):
        findings.add("ansible_become is off; here a user who is not root uses sudo", host.name)
    for name in host.others:
        if name not in NEEDLESS:
            findings.add(f"The variable {name} has no place here", host.name)
