"""`device_linear` against Ansible's own `linear`: the same events, results and recap for the same plays."""

import json
import os
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from lab.fleet import DEFAULT_PASSWORD
from orchestrator.tuning import key_exchange
from tests.integration.engine import Engine

pytestmark = [pytest.mark.lab, pytest.mark.slow]

PROJECT: Final = Path(__file__).resolve().parent.parent.parent
CORPUS: Final = PROJECT / "tests" / "corpus"
PLUGINS: Final = PROJECT / "ansible_plugins"
PLAYS: Final[list[dict[str, Any]]] = yaml.safe_load((CORPUS / "plays.yml").read_text())

# devices → those of the lab, each with variables of its own.  Each play has hosts of its own: one that has failed is
# out of all plays that follow.
HOSTS: Final[dict[str, list[tuple[str, dict[str, Any]]]]] = {
    "both": [("openwrt1", {}), ("linux1", {})],
    "openwrt": [("openwrt1", {})],
    "linux": [("linux1", {})],
    "some": [("openwrt1", {}), ("linux1", {}), ("openwrt2", {"ansible_port": 9}), ("linux2", {})],
    "sudoer": [("linux1", {"ansible_user": "operator", "ansible_become_password": DEFAULT_PASSWORD})],
    "refused": [("openwrt1", {"ansible_port": 9}), ("linux1", {})],
    # sshd takes seconds to say no to a password, and more on a busy machine.
    "auth": [
        ("openwrt1", {"ansible_password": "not this one", "ansible_timeout": 60}),
        ("linux1", {"ansible_password": "nor this", "ansible_timeout": 60}),
    ],
    "host_key": [("openwrt1", {"wrong_key": True}), ("linux1", {})],
    "name": [("openwrt1", {"ansible_host": "no-such-device.invalid"})],
    "mute": [("openwrt3", {})],
    "hang": [("openwrt1", {"orchestrator_execution_timeout": 2}), ("linux1", {"orchestrator_execution_timeout": 2})],
}


def write_project(engine: Engine, folder: Path, strategy: str) -> None:
    """The plays as playbooks, with the inventory and the host keys that they need.

    The other strategy runs at the same time on the same devices: each has paths of its own there.
    """
    hosts: dict[str, dict[str, Any]] = {}
    keys, playbooks = [], defaultdict(list)
    for number, given in enumerate(PLAYS):
        play = {name: value for name, value in given.items() if name not in {"devices", "alone"}}
        names = [f"p{number:03}-spared"]
        hosts[names[0]] = {"spared": True}
        for device_name, changed in HOSTS[given["devices"]]:
            device, name = engine.device(device_name), f"p{number:03}-{device_name}"
            names.insert(-1, name)
            hosts[name] = {
                "ansible_host": device.address,
                "ansible_port": device.port,
                "ansible_user": "root",
                "ansible_password": DEFAULT_PASSWORD,
                "ansible_connection": "device_ssh",
                "ansible_python_interpreter": "/usr/bin/python3",
                "ansible_timeout": 3,
                "platform": str(device.kind),
                **changed,
            }
            other = engine.device("openwrt2" if changed.get("wrong_key") else device_name)
            keys.append(f"{name} {other.hostkey}")
        # A play whose hosts all fail ends the playbook, so one leaves it before anything happens.
        spare = {"meta": "end_host", "when": "spared is defined"}
        whole = {"hosts": ",".join(names), "gather_facts": False, "pre_tasks": [spare], **play}
        playbooks[number if given.get("alone") else 0].append(whole)
    for number, plays in playbooks.items():
        text = yaml.safe_dump(plays, sort_keys=False).replace("/tmp/fast-path", f"/tmp/{strategy}")
        (folder / f"site{number:03}.yml").write_text(text)
    inventory = {"all": {"hosts": hosts, "vars": {"hostile": "UNSAFE"}}}
    text = yaml.safe_dump(inventory).replace("UNSAFE", '!unsafe "{{ 7 * 7 }} {% raw %}"')
    (folder / "hosts.yml").write_text(text)
    (folder / "known_hosts").write_text("\n".join(keys) + "\n")
    (folder / "included.yml").write_text('- raw: "echo {{ word }}"\n')
    role = folder / "roles" / "small"
    for part, tasks in {
        "tasks": [{"raw": "echo {{ word }} {{ more }}", "notify": "small told"}],
        "handlers": [{"name": "small told", "raw": "echo told"}],
    }.items():
        (role / part).mkdir(parents=True)
        (role / part / "main.yml").write_text(yaml.safe_dump(tasks))
    (role / "defaults").mkdir()
    (role / "defaults" / "main.yml").write_text("more: default\n")


def carry_out(folder: Path, strategy: str) -> dict[str, list[Any]]:
    """Host → what happened to it, in order; the recap comes last."""
    folder /= strategy
    record = folder / "record.jsonl"
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(folder),
        "PYTHONPATH": str(PROJECT),
        "LC_ALL": "C.UTF-8",
        "RECORD": str(record),
        "ANSIBLE_STRATEGY": strategy,
        "ANSIBLE_STRATEGY_PLUGINS": str(PLUGINS / "strategy"),
        "ANSIBLE_ACTION_PLUGINS": str(PLUGINS / "action"),
        "ANSIBLE_CONNECTION_PLUGINS": str(PLUGINS / "connection"),
        "ANSIBLE_CALLBACK_PLUGINS": str(CORPUS / "callback"),
        "ANSIBLE_STDOUT_CALLBACK": "record",
        "ANSIBLE_PIPELINING": "True",
        "ANSIBLE_SSH_AGENT": "none",
        "ANSIBLE_SSH_ARGS": f"-o KexAlgorithms={key_exchange()}",
        "ANSIBLE_SSH_RETRIES": "0",
        "ANSIBLE_TASK_TIMEOUT": "450",  # as the service sets it for users' own playbooks; one play has its own
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_DEPRECATION_WARNINGS": "False",
        "ORCHESTRATOR_KNOWN_HOSTS": str(folder / "known_hosts"),
        "ORCHESTRATOR_SSH_LIBRARY": "True",  # where tasks share a process; so `linear` has a process of ssh for each
    }
    codes, said = [], ""
    for playbook in sorted(folder.glob("site*.yml")):
        done = subprocess.run(
            ["ansible-playbook", "-i", "hosts.yml", playbook, "--forks", "4"],
            cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=500,
        )  # fmt: skip
        codes.append(done.returncode)
        said += done.stdout + done.stderr
    assert record.exists(), said
    events = defaultdict(list)
    for line in record.read_text().splitlines():
        event = json.loads(line)
        events[event.pop("host")].append(event)
    return dict(events) | {"": codes}


@pytest.fixture(scope="module")
def both(engine_lab: Engine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[Any]]]:
    """Strategy → what happened under it."""
    folder = tmp_path_factory.mktemp("plays")
    engine_lab.lab.fault("openwrt3", "mute")
    try:
        strategies = ("linear", "device_linear")
        for strategy in strategies:
            (folder / strategy).mkdir()
            write_project(engine_lab, folder / strategy, strategy)
        with ThreadPoolExecutor() as threads:
            return dict(zip(strategies, threads.map(partial(carry_out, folder), strategies), strict=True))
    finally:
        engine_lab.heal()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", range(len(PLAYS)), ids=[play["name"] for play in PLAYS])
def test_a_play_comes_to_the_same(both: dict[str, dict[str, list[Any]]], number: int) -> None:
    stock, ours = (
        {host: said for host, said in events.items() if host.startswith(f"p{number:03}-")} for events in both.values()
    )
    assert stock, "nothing happened"
    assert ours == stock


def test_the_whole_comes_to_the_same(both: dict[str, dict[str, list[Any]]]) -> None:
    assert both["device_linear"][""] == both["linear"][""]
    assert both["device_linear"].keys() == both["linear"].keys()


def test_what_both_say_of_a_wrong_password_is_that(both: dict[str, dict[str, list[Any]]]) -> None:
    numbers = [number for number, play in enumerate(PLAYS) if play["devices"] == "auth"]
    assert numbers
    for number in numbers:
        for name, _ in HOSTS["auth"]:
            assert "[orchestrator:auth]" in json.dumps(both["device_linear"][f"p{number:03}-{name}"])
