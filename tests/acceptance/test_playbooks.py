"""Users' own playbooks: what plain ansible-playbook says of each host is what the service says of each device."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.client import Lab
from lab.fleet import DEFAULT_PASSWORD
from tests.acceptance.conftest import World
from tests.acceptance.service import Service, running

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(240)]

PLAYBOOKS = Path(__file__).parent / "playbooks"
NAMES = ("openwrt1", "openwrt2", "linux1")
RECAP = re.compile(r"^(\S+)\s+: (ok=.*)$", re.MULTILINE)
FLEET = "plugin: orchestrator\nhostname: name\n"


@pytest.fixture(scope="module")
def world(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A service with these playbooks, and some devices of both platforms."""
    with running(
        tmp_path_factory.mktemp("service"), workers=1,
        ORCHESTRATOR_PLAYBOOK_DIRS=str(PLAYBOOKS), ORCHESTRATOR_CONNECT_TIMEOUT="4", ORCHESTRATOR_LEASE_SECONDS="8",
    ) as service:  # fmt: skip
        organization = service.post("controller/organization/", {"name": "Lab"})["id"]
        some = {name: device for name, device in lab.devices().items() if name in NAMES}
        devices = service.register(some, organization=organization, password=DEFAULT_PASSWORD)
        refreshed = [sys.executable, "manage.py", "refresh_playbooks"]
        subprocess.run(refreshed, cwd=PLAYBOOKS.parents[2], env=service.stack.environment, check=True)
        yield World(service=service, lab=lab, organization=organization, devices=devices)


def plain(service: Service, name: str, folder: Path, *options: str) -> dict[str, dict[str, int]]:
    """The recap of plain ansible-playbook, with the fleet from the API and Ansible's own connection."""
    (folder / "fleet.orchestrator.yml").write_text(f"{FLEET}known_hosts: {folder}/known_hosts\n")
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(folder), "LC_ALL": "C.UTF-8",
        "ORCHESTRATOR_URL": service.stack.url, "ORCHESTRATOR_TOKEN": str(service.http.headers["Authorization"])[7:],
        "ANSIBLE_INVENTORY_PLUGINS": str(PLAYBOOKS.parents[2] / "inventory_plugins"),
        "ANSIBLE_NOCOLOR": "1", "ANSIBLE_SSH_ARGS": "-o ControlMaster=no", "ANSIBLE_PIPELINING": "1",
    }  # fmt: skip
    program = ["ansible-playbook", "-i", "fleet.orchestrator.yml", str(PLAYBOOKS / f"{name}.yml")]
    login = ["-e", f"ansible_password={DEFAULT_PASSWORD}", "-e", "ansible_ssh_use_tty=false"]
    done = subprocess.run(
        [*program, *login, *options], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    found = RECAP.findall(done.stdout)
    assert found, done.stdout + done.stderr
    return {
        host: {key: int(value) for key, value in (pair.split("=") for pair in counts.split())} for host, counts in found
    }


def tasks(world: World, row: Any, **query: Any) -> list[Any]:
    """What each task did on a device."""
    found: list[Any] = world.service.get(f"controller/commands/{row['id']}/tasks/", page_size=100, **query)["results"]
    return found


def launch(world: World, name: str, **more: Any) -> Any:
    """The run of a playbook on all devices."""
    body = {"organization": world.organization, "type": "playbook", "playbook": name}
    return world.service.run(**{**body, **more}, within=120.0)


def test_every_keyword_means_what_it_means_to_ansible_playbook(world: World, tmp_path: Path) -> None:
    expected = plain(world.service, "everything", tmp_path)
    run = launch(world, "everything")
    assert {name: row["recap"] for name, row in run["rows"].items()} == expected
    assert {name: row["status"] for name, row in run["rows"].items()} == {
        "openwrt1": "success", "openwrt2": "success", "linux1": "failed",
    }  # fmt: skip
    failed = run["rows"]["linux1"]
    assert (failed["rc"], failed["stderr"]) == (6, "out of order\n")
    assert failed["reason"].startswith('A task failed: "Fail on one platform"')
    by_name = {task["task"]: task for task in tasks(world, failed)}
    by_name.pop("Once", None)  # on the first one only
    assert {name: task["status"] for name, task in by_name.items()} == {
        "Change": "changed", "Loop": "changed", "Fail and be rescued": "failed", "Rescue": "ok", "Always": "ok",
        "Ignored": "ignored", "Skipped": "skipped", "Hidden": "ok", "Elsewhere": "changed",
        "On the controller": "ok", "Tell": "ok", "Fail on one platform": "failed",
    }  # fmt: skip
    assert by_name["Loop"]["message"] == "item a: ok\nitem b: changed\nitem c: ok"
    assert by_name["Loop"]["stdout"] == "a\nb\nc\n"
    assert by_name["Always"]["message"] == "always on linux1"
    assert by_name["Hidden"]["message"] == "The task has no_log: its output is not kept."
    assert by_name["Hidden"]["stdout"] == ""
    assert by_name["Elsewhere"]["module"] == "ansible.builtin.raw"
    assert [task["status"] for task in tasks(world, run["rows"]["openwrt1"], task="Bow")] == ["changed"]


def test_ordinary_modules_run_where_there_is_python_and_the_others_are_told_apart(world: World, tmp_path: Path) -> None:
    expected = plain(world.service, "modules", tmp_path, "-e", "line=here")
    run = launch(world, "modules", input={"line": "here"}, diff=True)
    rows = run["rows"]
    assert {name: row["recap"] for name, row in rows.items() if row["recap"]} == expected
    assert (rows["openwrt1"]["status"], rows["openwrt1"]["started"]) == ("skipped", None)
    assert rows["openwrt1"]["reason"] == "No play of the playbook is for this device."
    by_name = {task["task"]: task for task in tasks(world, rows["linux1"])}
    assert "+here" in by_name["Copy"]["diff"]
    assert (by_name["Copy"]["status"], by_name["Copy again"]["status"]) == ("changed", "ok")
    assert by_name["Become another"]["stdout"].strip() == "nobody"
    assert by_name["Script"]["stdout"].strip() == "hello from a script"


def test_check_mode_and_tags_are_ansibles(world: World, tmp_path: Path) -> None:
    expected = plain(world.service, "everything", tmp_path, "--check", "--skip-tags", "never_mind")
    run = launch(world, "everything", check=True, skip_tags=["never_mind"])
    assert {name: row["recap"] for name, row in run["rows"].items()} == expected
    run = launch(world, "everything", job_tags=["no_such_tag"])
    assert {row["status"] for row in run["rows"].values()} == {"skipped"}
    assert {row["reason"] for row in run["rows"].values()} == {"The playbook had no task for this device."}


def test_devices_whose_turn_did_not_come_were_not_contacted(world: World) -> None:
    run = launch(world, "abort")
    assert run["counts"]["failed"] == 1
    assert run["counts"]["terminated"] == 2
    row = next(row for row in run["rows"].values() if row["status"] == "terminated")
    assert (row["reason"], row["started"]) == ("The playbook ended before its turn came.", None)


def test_a_device_that_is_off_is_unreachable_and_the_others_go_on(world: World) -> None:
    world.lab.power("openwrt2", "off")
    world.lab.wait_until("openwrt2", "off")
    try:
        run = launch(world, "secret", input={"pin": "a-long-secret"})
    finally:
        world.lab.power("openwrt2", "on")
        world.lab.wait_until("openwrt2", "up")
    assert run["rows"]["openwrt1"]["status"] == "success", run["rows"]
    away = run["rows"]["openwrt2"]
    assert (away["status"], away["recap"]["unreachable"]) == ("unreachable", 1)


def test_secrets_and_templates_in_an_input_are_data_and_are_not_shown(world: World) -> None:
    run = launch(world, "secret", input={"pin": "s3cret-{{ 7*7 }}-pin", "word": "{{ 7*7 }} $(id)"})
    assert run["status"] == "success", run["rows"]
    assert run["input"] == {"pin": "********", "word": "{{ 7*7 }} $(id)"}
    [task] = tasks(world, run["rows"]["openwrt1"])
    assert task["stdout"] == "{{ 7*7 }} $(id) ********\n"
    assert "s3cret" not in str(run)
