"""The inventory plugin in plain Ansible, which knows nothing of Django, against the service's REST API."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.access import Role
from orchestrator.models import Organization, Token
from tests import factories

PROJECT = Path(__file__).parents[2]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHZyVPqYZYXE0hTzW0bTgzlhZyZvoqFJ8MBxKh7qyHsB"
HOSTILE = "{{ lookup('pipe', 'touch evaluated') }}"

pytestmark = pytest.mark.django_db(transaction=True)


ALONE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {'django', 'orchestrator', 'rest_framework', 'ansible_plugins'}:
            raise ImportError(f'{name} is not installed here')
sys.meta_path.insert(0, Refuse())
"""


class Ansible:
    """Plain Ansible in a folder, with an environment of its own, where nothing of the service can be imported."""

    def __init__(self, folder: Path, url: str, token: str) -> None:
        self.folder = folder
        (folder / "python").mkdir()
        (folder / "python" / "sitecustomize.py").write_text(ALONE)
        self.environment = {
            "PYTHONPATH": str(folder / "python"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(folder), "LC_ALL": "C.UTF-8",
            "ANSIBLE_HOME": str(folder / "home"), "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"),
            "ANSIBLE_INVENTORY_PLUGINS": str(PROJECT / "inventory_plugins"),
            "ANSIBLE_INVENTORY_ENABLED": "orchestrator", "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "1",
            "ORCHESTRATOR_URL": url, "ORCHESTRATOR_TOKEN": token,
        }  # fmt: skip

    def run(self, program: str, *arguments: str, configuration: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        """The program with the configuration as its inventory."""
        source = self.folder / "fleet.orchestrator.yml"
        source.write_text(json.dumps({"plugin": "orchestrator", "strict": True, **configuration}))
        return subprocess.run(
            [program, "-i", source, *arguments],
            env=self.environment, cwd=self.folder, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip

    def listed(self, **configuration: Any) -> Any:
        """What ``ansible-inventory --list`` tells, untrusted values as they are."""
        done = self.run("ansible-inventory", "--list", configuration=configuration)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout, object_hook=lambda found: found.get("__ansible_unsafe", found))

    def refused(self, **configuration: Any) -> str:
        """What it says of a configuration that gives no inventory."""
        done = self.run("ansible-inventory", "--list", configuration=configuration)
        assert done.returncode != 0, done.stdout
        return " ".join((done.stdout + done.stderr).split())


@pytest.fixture
def ansible(live_server: Any, tmp_path: Path) -> Ansible:
    """Plain Ansible, and a fleet that a viewer of North sees a part of."""
    north = factories.organization(name="North")
    south = factories.organization(name="South")
    group = factories.group(organization=north, name="all routers")
    place = factories.location(organization=north, name="Küche")
    key = factories.credential(organization=north, password="a-Canary-1", username="admin")
    own: dict[str, Any] = {"organization": north, "credentials": [key]}
    factories.device(
        name="attic", host="192.0.2.1", port=2222, group=group, location=place, host_key=KEY, tags=["roof"], **own
    )
    factories.device(name="cellar", host="192.0.2.2", group=group, **own)
    factories.device(name=HOSTILE, host="192.0.2.3", platform="linux", tags=[HOSTILE], **own)
    factories.device(name="localhost", host="192.0.2.4", **own)
    factories.device(name="attic", organization=south)
    viewer = factories.user(organization=north, role=Role.VIEWER)
    token = Token.objects.issue(user=viewer, name="script")[1]
    return Ansible(tmp_path, live_server.url, token)


def test_plain_ansible_lists_the_fleet_in_groups(ansible: Ansible) -> None:
    probe = [sys.executable, "-c", "import django"]
    assert (
        b"not installed here" in subprocess.run(probe, env=ansible.environment, capture_output=True, check=False).stderr
    )
    listed = ansible.listed(
        known_hosts="keys/known hosts",
        compose={"where": "orchestrator_location | default('nowhere', true)"},
        groups={"high": "'roof' in orchestrator_tags"},
        keyed_groups=[{"key": "orchestrator_platform", "prefix": "runs"}],
    )
    hosts = listed["_meta"]["hostvars"]
    hostile = next(name for name in hosts if name.startswith("__"))
    local = next(name for name in hosts if name.startswith("localhost_"))  # not the implicit one
    assert hosts.keys() == {"attic", "cellar", hostile, local}
    attic = hosts["attic"]
    assert attic.items() >= {
        "ansible_host": "192.0.2.1", "ansible_port": 2222, "ansible_user": "admin", "orchestrator_name": "attic",
        "orchestrator_organization": "North", "orchestrator_group": "all routers", "orchestrator_location": "Küche",
        "orchestrator_platform": "openwrt", "orchestrator_tags": ["roof"], "where": "Küche",
        "ansible_host_key_checking": True,
    }.items()  # fmt: skip
    assert (hosts["cellar"]["where"], hosts[hostile]["orchestrator_name"]) == ("nowhere", HOSTILE)
    assert hosts[hostile]["orchestrator_tags"] == [HOSTILE]
    members = {name: set(group.get("hosts", ())) for name, group in listed.items() if name != "_meta"}
    assert members["group_all_routers"] == {"attic", "cellar"}
    assert members["location_Küche"] == members["tag_roof"] == members["high"] == {"attic"}
    assert members["organization_North"] == set(hosts)
    assert members["platform_linux"] == members["linux"] == members["runs_linux"] == {hostile}
    keys = ansible.folder / "keys" / "known hosts"
    assert keys.read_text() == f"[192.0.2.1]:2222 {KEY}\n"
    assert keys.stat().st_mode & 0o077 == 0
    assert f'UserKnownHostsFile="{keys}"' in attic["ansible_ssh_common_args"]
    assert "a-Canary-1" not in json.dumps(listed)


def test_nothing_of_the_api_is_a_template(ansible: Ansible) -> None:
    play = ansible.folder / "play.yml"
    message = "{{ orchestrator_name }} {{ orchestrator_tags | join }}"
    task = {"ansible.builtin.debug": {"msg": message}, "delegate_to": "localhost"}
    play.write_text(json.dumps([{"hosts": "platform_linux", "gather_facts": False, "tasks": [task]}]))
    done = ansible.run("ansible-playbook", str(play), configuration={})
    assert done.returncode == 0, done.stdout + done.stderr
    assert f'"msg": "{HOSTILE} {HOSTILE}"' in done.stdout
    assert not (ansible.folder / "evaluated").exists()


def test_filters_take_names_and_ids(ansible: Ansible) -> None:
    listed = ansible.listed(
        organization="North", group="all routers", platform="openwrt", exclude_devices=["cellar"], hostname="id"
    )
    [(name, values)] = listed["_meta"]["hostvars"].items()
    assert name == f"device-{values['orchestrator_id'].replace('-', '')}"
    assert values["orchestrator_name"] == "attic"
    again = ansible.listed(devices=[values["orchestrator_id"]], location="Küche", tags=["roof"], name="A*")
    assert list(again["_meta"]["hostvars"]) == ["attic"]


@pytest.mark.parametrize(
    ("configuration", "told"),
    [
        ({"organization": "South"}, 'organization: there is no "South"'),
        ({"devices": []}, "It never means all devices"),
        ({"token": "0" * 64}, "does not know the token"),
    ],
)
def test_what_gives_no_inventory_is_told_and_fails(ansible: Ansible, configuration: dict[str, Any], told: str) -> None:
    assert told in ansible.refused(**configuration)


def test_the_cache_holds_no_secret_and_answers_the_same_question_only(ansible: Ansible) -> None:
    cache: dict[str, Any] = {"cache": True, "cache_plugin": "jsonfile", "cache_connection": "cache"}
    token = ansible.folder / "token"
    token.write_text(ansible.environment.pop("ORCHESTRATOR_TOKEN") + "\n")
    cache["token_file"] = str(token)
    first = ansible.listed(**cache)
    kept = b"".join(path.read_bytes() for path in (ansible.folder / "cache").iterdir())
    assert b"192.0.2.1" in kept
    assert token.read_bytes().strip() not in kept
    factories.device(organization=Organization.objects.get(name="North"), name="new")
    assert ansible.listed(**cache) == first
    other = ansible.listed(platform="openwrt", **cache)["_meta"]["hostvars"]
    assert other.keys() == first["_meta"]["hostvars"].keys() - {"___lookup__pipe____touch_evaluated_____"} | {"new"}


def test_its_options_are_documented_as_ansible_wants_it(ansible: Ansible) -> None:
    done = subprocess.run(
        ["ansible-doc", "-t", "inventory", "-j", "orchestrator"],
        env=ansible.environment, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    told = json.loads(done.stdout)["orchestrator"]
    assert {"url", "token", "token_file", "keyed_groups", "cache", "known_hosts"} <= set(told["doc"]["options"])
    assert "plugin: orchestrator" in told["examples"]
