"""Our own playbooks go the short way, and nothing else does."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.playbook import Playbook
from ansible.playbook.play_context import PlayContext
from ansible.plugins import loader as plugins
from ansible.vars.manager import VariableManager

from ansible_plugins.own_play import OwnPlay
from ansible_plugins.run_state import LINE_BYTES, Results
from orchestrator.inventory import Login, Target, inventory
from orchestrator.run_directory import ResultLines
from orchestrator.sandbox import PLUGINS, PROJECT

LOGIN = Login("admin", password="secret", private_key="a key", passphrase="words", become_password="for sudo")
VARIABLES = {"command": "uptime", "new_password": "a-new-Password", "username": "root", "reboot_timeout": 77}
PLAY = """
- name: Anybody's
  hosts: all
  gather_facts: false
  tasks:
    - name: One
      device_command: {line: uptime}
"""


class Told:
    """A queue manager that keeps what callbacks would hear."""

    def __init__(self) -> None:
        self.events: list[tuple[str, tuple[Any, ...]]] = []
        self._failed_hosts: dict[str, bool] = {}
        self._unreachable_hosts: dict[str, bool] = {}
        self._stats = SimpleNamespace(increment=lambda what, host: self.events.append((what, (host,))))

    def send_callback(self, name: str, *arguments: Any, **_: Any) -> None:
        self.events.append((name, arguments))


@pytest.fixture(autouse=True)
def plugin_directories() -> None:
    """Where runs of the service find our plugins."""
    plugins.action_loader.add_directory(str(PLUGINS / "action"))
    plugins.connection_loader.add_directory(str(PLUGINS / "connection"))


def strategy(hosts: dict[str, dict[str, Any]]) -> Any:
    """As much of a strategy as a play of ours needs."""
    loader = DataLoader()
    known = InventoryManager(loader=loader, sources=None)
    for name, variables in hosts.items():
        known.add_host(name)
        for variable, value in variables.items():
            known.get_host(name).set_variable(variable, value)
    manager = VariableManager(loader=loader, inventory=known)
    manager._extra_vars = VARIABLES
    return SimpleNamespace(
        _tqm=Told(), _loader=loader, _inventory=known, _variable_manager=manager, _hosts_cache=list(hosts)
    )


def play_of(path: Path, given: Any) -> Any:
    """The first play of a playbook, as Ansible reads it."""
    return Playbook.load(str(path), variable_manager=given._variable_manager, loader=given._loader).get_plays()[0]


def devices(*names: str) -> dict[str, dict[str, Any]]:
    """The variables that a slice gives to each."""
    targets = [Target(name, "192.0.2.7", 2222, "openwrt", "ssh-ed25519 AAAA", LOGIN) for name in names]
    told = inventory(targets, connect_timeout=7)["hosts"]
    return {name: dict(about["vars"]) for name, about in told.items()}


@pytest.mark.parametrize("path", sorted((PROJECT / "playbooks").glob("*.yml")), ids=lambda path: path.stem)
def test_each_of_our_playbooks_goes_the_short_way(path: Path) -> None:
    given = strategy(devices("a", "b"))
    own = OwnPlay(given, play_of(path, given), PlayContext())
    arguments = json.dumps({name: str(value) for name, value in own.task.args.items()})
    assert "{{" not in arguments
    wanted = {"custom": "uptime", "change_password": "a-new-Password", "reboot": "77"}
    assert wanted.get(path.stem, "") in arguments


def test_a_connection_has_its_own_device_s_options() -> None:
    hosts = devices("a", "b")
    hosts["b"] |= {"ansible_host": "192.0.2.8", "ansible_port": 22, "ansible_user": "root"}
    given = strategy(hosts)
    own = OwnPlay(given, play_of(PROJECT / "playbooks" / "custom.yml", given), PlayContext())
    first, second = (own._connect(host) for host in own.hosts)
    names = "host", "port", "remote_user", "host_key_alias", "password", "private_key", "private_key_passphrase"
    assert [first.get_option(name) for name in names] == [
        "192.0.2.7", 2222, "admin", "a", "secret", "a key", "words",
    ]  # fmt: skip
    assert [second.get_option(name) for name in names[:4]] == ["192.0.2.8", 22, "root", "b"]
    assert first.get_option("timeout") == 7
    assert first.get_option("host_key_algorithms") == "ssh-ed25519"


@pytest.mark.parametrize(
    "change",
    [
        ("hosts: all", "hosts: all\n  become: true"),
        ("hosts: all", "hosts: all\n  serial: 1"),
        ("gather_facts: false", "gather_facts: true"),
        ("gather_facts: false", "gather_facts: false\n  vars: {a: b}"),
        ("device_command: {line: uptime}", "device_command: {line: uptime}\n      register: said"),
        ("device_command: {line: uptime}", "device_command: {line: uptime}\n    - debug:"),
        ("{line: uptime}", "{line: '{{ inventory_hostname }}'}"),
        ("{line: uptime}", "{line: '{{ not_given }}'}"),
        ("device_command: {line: uptime}", "raw: uptime"),
    ],
    ids=lambda change: change[1].splitlines()[-1].strip(),
)
def test_what_is_not_as_plain_is_left_to_ansible(tmp_path: Path, change: tuple[str, str]) -> None:
    path = tmp_path / "play.yml"
    path.write_text(PLAY)
    given = strategy(devices("a"))
    OwnPlay(given, play_of(path, given), PlayContext())  # as it is it would do
    path.write_text(PLAY.replace(*change))
    given = strategy(devices("a"))
    with pytest.raises(AnsibleError):
        OwnPlay(given, play_of(path, given), PlayContext())


def test_a_variable_that_no_slice_gives_is_left_to_ansible() -> None:
    given = strategy({"a": devices("a")["a"] | {"ansible_become": True}})
    with pytest.raises(AnsibleError, match="ansible_become"):
        OwnPlay(given, play_of(PROJECT / "playbooks" / "custom.yml", given), PlayContext())


@pytest.mark.parametrize(
    ("result", "event", "counted"),
    [
        ({"changed": True, "rc": 0, "stdout": "x"}, "v2_runner_on_ok", ["ok", "changed"]),
        ({"changed": False}, "v2_runner_on_ok", ["ok"]),
        ({"changed": True, "rc": 3, "failed": True}, "v2_runner_on_failed", ["failures"]),
        ({"unreachable": True, "changed": False}, "v2_runner_on_unreachable", ["dark"]),
        (ZeroDivisionError("a fault of ours"), "v2_runner_on_failed", ["failures"]),
    ],
)
@pytest.mark.parametrize("by", ["line", "event"])
def test_a_result_is_counted_and_told_as_the_strategy_does(
    result: Any, event: str, counted: list[str], by: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if by == "line":
        monkeypatch.setenv("ORCHESTRATOR_RUN", str(tmp_path))
    given = strategy(devices("a"))
    own = OwnPlay(given, play_of(PROJECT / "playbooks" / "custom.yml", given), PlayContext())

    def perform(*_: Any) -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    def start(announce: Callable[[], None], work: Callable[[], None]) -> bool:
        work()
        return True

    monkeypatch.setattr(own._action, "perform", perform)
    own.run(start)
    names = [name for name, _ in given._tqm.events]
    if by == "line":
        assert names == ["v2_playbook_on_task_start", *counted]
        [(kind, _, host, told)] = ResultLines(tmp_path).new()
        assert (f"v2_{kind}", host) == (event, "a")
        assert told == result or "a fault of ours" in told["msg"]
    else:
        assert names == ["v2_playbook_on_task_start", *counted, event]
        assert given._tqm.events[-1][1][0].host.name == "a"
    assert bool(own.failed) == bool(given._tqm._failed_hosts) == (event == "v2_runner_on_failed")
    assert bool(own.unreachable) == bool(given._tqm._unreachable_hosts) == (event == "v2_runner_on_unreachable")


def test_results_are_read_once_and_only_whole_lines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ORCHESTRATOR_RUN", str(tmp_path))
    lines = ResultLines(tmp_path)
    assert lines.new() == []
    results = Results()
    assert results.add("runner_on_ok", 1.5, "a", {"stdout": "\N{SNOWMAN}\n\udcff"})
    [(kind, at, host, told)] = lines.new()
    assert (kind, at.timestamp(), host, told) == ("runner_on_ok", 1.5, "a", {"stdout": "\N{SNOWMAN}\n\udcff"})
    with (tmp_path / "results").open("a") as file:
        file.write('["runner_on_ok", 2.0, "b", {}]\n["runner_on_ok", 2.0, "c", {')
    assert [host for _, _, host, _ in lines.new()] == ["b"]
    assert lines.new() == []


def test_a_long_result_and_all_behind_half_a_line_are_events(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ORCHESTRATOR_RUN", str(tmp_path))
    results = Results()
    assert not results.add("runner_on_ok", 1.0, "a", {"stdout": "x" * LINE_BYTES})
    assert results.add("runner_on_ok", 1.0, "b", {})
    with monkeypatch.context() as patch:  # as on a full disk
        patch.setattr("os.write", lambda file, line: len(line) - 1)
        assert not results.add("runner_on_ok", 1.0, "c", {})
    assert not results.add("runner_on_ok", 1.0, "d", {})
    assert [host for _, _, host, _ in ResultLines(tmp_path).new()] == ["b"]
