"""The become password: how a login that is not root becomes root, by Ansible's ways and by our own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.fleet import DEFAULT_PASSWORD
from orchestrator.inventory import Target
from tests.integration.engine import Engine
from tests.integration.test_runner_secrets import watched

pytestmark = pytest.mark.lab

ROOT = "r00t's own $ecret"
PLAYBOOK = """
- hosts: all
  gather_facts: false
  become: true
  become_method: {method}
  tasks:
    - raw: id -un; echo {word}; sleep 0.3
"""


@pytest.fixture
def operator(engine: Engine) -> Iterator[Target]:
    """A login that needs root's password, which is not its own, to become root."""
    engine.lab.exec("linux1", "sh", "-c", "printf '%s' \"$1\" | chpasswd", "sh", f"root:{ROOT}")
    engine.lab.exec("linux1", "sh", "-c", "echo 'Defaults:operator rootpw' > /etc/sudoers.d/rootpw")
    yield engine.target("linux1", username="operator", become_password=ROOT)
    engine.lab.exec("linux1", "rm", "/etc/sudoers.d/rootpw")
    engine.lab.exec("linux1", "sh", "-c", "printf '%s' \"$1\" | chpasswd", "sh", f"root:{DEFAULT_PASSWORD}")


@pytest.mark.parametrize("method", ["sudo", "su"])
def test_a_playbook_becomes_root(engine: Engine, operator: Target, tmp_path: Path, method: str) -> None:
    playbook = tmp_path / "become.yml"
    playbook.write_text(PLAYBOOK.format(method=method, word=f'"{ROOT.replace("$", chr(92) + "$")}"'))
    with watched(ROOT) as found:
        event = engine.run(engine.request([operator], playbook)).finished["linux1"]
    assert (event.status, event.stdout.split("\n")[0]) == ("success", "root"), event
    assert ROOT not in event.stdout
    assert "********" in event.stdout
    assert {path for path in found if "/proc/" in path} == set()


def test_our_own_actions_become_root(engine: Engine, operator: Target) -> None:
    request = engine.request([operator], "change_password", new_password="0perator-New", username="operator")
    with watched(ROOT) as found:
        event = engine.run(request).finished["linux1"]
    assert event.status == "success", event
    assert found == set()
    engine.lab.exec("linux1", "sh", "-c", "printf '%s' \"$1\" | chpasswd", "sh", f"operator:{DEFAULT_PASSWORD}")


@pytest.mark.usefixtures("operator")
def test_a_wrong_become_password_is_a_failure_that_says_so(engine: Engine, tmp_path: Path) -> None:
    playbook = tmp_path / "become.yml"
    playbook.write_text(PLAYBOOK.format(method="sudo", word="in"))
    wrong = engine.target("linux1", username="operator", become_password="wr0ng-one")
    event = engine.run(engine.request([wrong], playbook)).finished["linux1"]
    assert event.status == "failed", event
    assert "password" in event.reason.lower(), event
    assert "wr0ng-one" not in event.reason + event.stdout + event.stderr
