"""Users' own playbooks: what plain ansible-playbook says of each host is what the service says of each device."""

import json
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
from tests.acceptance.service import Service, run_command, running
from tests.acceptance.vaulted import LABEL, Vaulted, make
from tests.documents import Reader, exchanges

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(300)]

PLAYBOOKS = Path(__file__).parent / "playbooks"
NAMES = ("openwrt1", "openwrt2", "linux1")
RECAP = re.compile(r"^(\S+)\s+: (ok=.*)$", re.MULTILINE)
DOCUMENT = PLAYBOOKS.parents[2] / "docs" / "playbooks.md"
FILES = re.compile(r"^```yaml\n# (\S+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FLEET = "plugin: orchestrator\nhostname: name\n"


@pytest.fixture(scope="module")
def vaulted(tmp_path_factory: pytest.TempPathFactory) -> Vaulted:
    """A directory of playbooks with encrypted variables."""
    return make(tmp_path_factory.mktemp("vaults"))


@pytest.fixture(scope="module")
def world(lab: Lab, vaulted: Vaulted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A service with these playbooks, and some devices of both platforms."""
    documented = tmp_path_factory.mktemp("documented")
    for name, text in FILES.findall(DOCUMENT.read_text()):
        (documented / name).write_text(text)
    with running(
        tmp_path_factory.mktemp("service"), workers=1,
        ORCHESTRATOR_PLAYBOOK_DIRS=f"{PLAYBOOKS}:{documented}:{vaulted.directory}",
        ORCHESTRATOR_PLAYBOOK_VAULTS=vaulted.setting, ORCHESTRATOR_CONNECT_TIMEOUT="4", ORCHESTRATOR_LEASE_SECONDS="8",
    ) as service:  # fmt: skip
        organization = service.post("controller/organization/", {"name": "Lab"})["id"]
        some = {name: device for name, device in lab.devices().items() if name in NAMES}
        devices = service.register(some, organization=organization, password=DEFAULT_PASSWORD)
        place(service, organization, devices)
        run_command("refresh_playbooks", environment=service.stack.environment)
        yield World(service=service, lab=lab, organization=organization, devices=devices)


def place(service: Service, organization: str, devices: dict[str, Any]) -> None:
    """Give the devices a group, a location and tags, for the patterns of plays."""
    own = {"organization": organization}
    group = service.post("controller/group/", {**own, "name": "edge"})["id"]
    location = service.post("controller/location/", {**own, "name": "Cellar 1"})["id"]
    for name, device in devices.items():
        about: dict[str, Any] = {"tags": ["even" if name.endswith("2") else "odd"]}
        about |= {"location": location} if name.startswith("openwrt") else {}
        about |= {"group": group} if name.endswith("1") else {}
        reply = service.http.patch(f"controller/device/{device['id']}/", json=about)
        assert reply.is_success, reply.text


def plain(world: World, name: str, folder: Path, *options: str, beside: Path = PLAYBOOKS) -> dict[str, dict[str, int]]:
    """The recap of plain ansible-playbook, with the fleet from the API and Ansible's own connection."""
    fleet = f"{FLEET}organization: {world.organization}\nknown_hosts: {folder}/known_hosts\n"
    (folder / "fleet.orchestrator.yml").write_text(fleet)
    service = world.service
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(folder), "LC_ALL": "C.UTF-8",
        "ORCHESTRATOR_URL": service.stack.url, "ORCHESTRATOR_TOKEN": str(service.http.headers["Authorization"])[7:],
        "ANSIBLE_INVENTORY_PLUGINS": str(PLAYBOOKS.parents[2] / "inventory_plugins"),
        "ANSIBLE_NOCOLOR": "1", "ANSIBLE_PIPELINING": "1", "ANSIBLE_TIMEOUT": "4",
        "ANSIBLE_SSH_ARGS": "-o ControlMaster=no -o KexAlgorithms=curve25519-sha256",
        "ANSIBLE_ROLES_PATH": str(PLAYBOOKS / "roles"),
    }  # fmt: skip
    program = ["ansible-playbook", "-i", "fleet.orchestrator.yml", str(beside / f"{name}.yml")]
    login = ["-e", f"ansible_password={DEFAULT_PASSWORD}", "-e", "ansible_ssh_use_tty=false"]
    done = subprocess.run(
        [*program, *login, *options], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    found = RECAP.findall(done.stdout)
    assert found, done.stdout + done.stderr
    return {
        host: {key: int(value) for key, value in (pair.split("=") for pair in counts.split())}
        for host, counts in found
        if host != "localhost"  # which is no device
    }


def tasks(world: World, row: Any, **query: Any) -> list[Any]:
    """What each task did on a device."""
    found: list[Any] = world.service.get(f"controller/commands/{row['id']}/tasks/", page_size=100, **query)["results"]
    return found


def launch(world: World, name: str, **more: Any) -> Any:
    """The run of a playbook on all devices."""
    body = {"organization": world.organization, "type": "playbook", "playbook": name}
    return world.service.run(**{**body, **more}, within=200.0)


def test_every_keyword_means_what_it_means_to_ansible_playbook(world: World, tmp_path: Path) -> None:
    expected = plain(world, "everything", tmp_path)
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
    expected = plain(world, "modules", tmp_path, "-e", "line=here")
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
    expected = plain(world, "everything", tmp_path, "--check", "--skip-tags", "never_mind")
    run = launch(world, "everything", check=True, skip_tags=["never_mind"])
    assert {name: row["recap"] for name, row in run["rows"].items()} == expected
    run = launch(world, "everything", job_tags=["no_such_tag"])
    assert {row["status"] for row in run["rows"].values()} == {"skipped"}
    assert {row["reason"] for row in run["rows"].values()} == {"The playbook had no task for this device."}


def test_what_brings_plays_together_and_ends_them_is_ansibles(world: World, tmp_path: Path) -> None:
    expected = plain(world, "keywords", tmp_path, "-vvvv", "--diff")
    run = launch(world, "keywords", verbosity=4, diff=True)
    rows = run["rows"]
    assert {name: row["recap"] for name, row in rows.items()} == expected
    assert {name: row["reason"] for name, row in rows.items()} == {
        "openwrt1": "", "openwrt2": 'A task failed: "Fail on few enough": non-zero return code',
        "linux1": 'A task failed: "Fail on one": linux1 is lost',
    }  # fmt: skip
    told = {name: [(task["play"], task["task"]) for task in tasks(world, row)] for name, row in rows.items()}
    patterns = {
        "Of the organization and a platform": {"linux1"}, "At a location but for a tag": {"openwrt1"},
        "A tag or a group": {"openwrt1", "openwrt2", "linux1"}, "Names by an expression": {"openwrt1", "linux1"},
        "That group": {"openwrt1", "openwrt2"}, "Of a platform": {"openwrt1", "openwrt2"},
    }  # fmt: skip
    for play, names in patterns.items():
        assert {name for name, known in told.items() if (play, "Say") in known} == names, play
    first = min((world.devices[name]["id"], name) for name in ("openwrt1", "openwrt2"))[1]  # in the order of ids
    assert [name for name, known in told.items() if ("The first of some", "Say") in known] == [first]
    ended = {"After a host": {"openwrt2", "linux1"}, "After a batch": {"openwrt1", "linux1"}, "After a play": set()}
    for task, names in ended.items():
        assert {name for name, known in told.items() if task in {each for _, each in known}} == names, task
    by_name = {task["task"]: task for task in tasks(world, rows["linux1"])}
    assert by_name["Include tasks"]["message"] == "one: ok\ntwo: ok"
    assert by_name["Which"]["message"] == "Judge: bad"
    assert by_name["Never said"]["message"] == ""
    assert "+new" in by_name["Differ"]["diff"]
    assert by_name["Kept to oneself"]["diff"] == ""
    assert by_name["Too long"]["status"] == "ignored"
    assert by_name["Told by the import"]["message"] == "All assertions passed"


def test_one_failure_ends_all_where_the_play_says_so_and_tags_choose_its_tasks(world: World, tmp_path: Path) -> None:
    expected = plain(world, "fatal", tmp_path, "--tags=asked", "--skip-tags=left_out")
    run = launch(world, "fatal", job_tags=["asked"], skip_tags=["left_out"])
    assert {name: row["recap"] for name, row in run["rows"].items()} == expected
    assert {name: row["status"] for name, row in run["rows"].items()} == {
        "openwrt1": "success", "openwrt2": "failed", "linux1": "success",
    }  # fmt: skip
    assert [task["task"] for task in tasks(world, run["rows"]["openwrt1"])] == [
        "Fail within", "Rescue", "Always", "When asked for only", "Fail on one",
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "waiting"), [("abort", 2), ("budget", 1)])
def test_devices_whose_turn_did_not_come_were_not_contacted(
    world: World, tmp_path: Path, name: str, waiting: int
) -> None:
    expected = plain(world, name, tmp_path)
    run = launch(world, name)
    assert {name: row["recap"] for name, row in run["rows"].items() if row["recap"]} == expected
    assert (run["counts"]["failed"], run["counts"]["terminated"]) == (1, waiting)
    row = next(row for row in run["rows"].values() if row["status"] == "terminated")
    assert (row["reason"], row["started"]) == ("The playbook ended before its turn came.", None)


def test_a_device_that_is_off_is_unreachable_and_the_others_go_on(world: World, tmp_path: Path) -> None:
    world.lab.power("openwrt2", "off")
    world.lab.wait_until("openwrt2", "off")
    try:
        expected = plain(world, "away", tmp_path)
        run = launch(world, "away")
    finally:
        world.lab.power("openwrt2", "on")
        world.lab.wait_until("openwrt2", "up")
    assert {name: row["recap"] for name, row in run["rows"].items()} == expected
    assert {name: row["status"] for name, row in run["rows"].items()} == {
        "openwrt1": "success", "openwrt2": "unreachable", "linux1": "success",
    }  # fmt: skip
    assert [(task["task"], task["status"]) for task in tasks(world, run["rows"]["openwrt2"])] == [
        ("Who is there", "unreachable"), ("Only on those", "skipped"), ("Again", "unreachable"), ("Say", "ok"),
    ]  # fmt: skip


def test_secrets_and_templates_in_an_input_are_data_and_are_not_shown(world: World) -> None:
    run = launch(world, "secret", input={"pin": "s3cret-{{ 7*7 }}-pin", "word": "{{ 7*7 }} $(id)"})
    assert run["status"] == "success", run["rows"]
    assert run["input"] == {"pin": "********", "word": "{{ 7*7 }} $(id)"}
    [task] = tasks(world, run["rows"]["openwrt1"])
    assert task["stdout"] == "{{ 7*7 }} $(id) ********\n"
    assert "s3cret" not in str(run)


def test_encrypted_variables_are_what_they_are_to_ansible_and_the_password_is_nowhere(
    world: World, vaulted: Vaulted, tmp_path: Path
) -> None:
    service, address = world.service, "controller/batch-command/"
    given, secret = json.dumps({"word": vaulted.ciphertext}), f"--vault-id={LABEL}@{vaulted.file}"
    expected = plain(world, "vaulted", tmp_path, secret, "-e", given, beside=vaulted.directory)
    body = {"organization": world.organization, "type": "playbook", "playbook": "vaulted"}
    marked = {"thing": {"__ansible_vault": vaulted.ciphertext}}
    assert service.http.post(address, json={**body, "input": marked}).status_code == 400
    run = service.launch(**body, input={"word": vaulted.ciphertext})
    directories, seen, told = Path("/dev/shm"), False, []
    while service.get(f"{address}{run['id']}/")["status"] in {"queued", "running"}:
        seen = seen or len(vaulted.readers()) > 1  # bubblewrap, and Ansible within it
        found = vaulted.found_in(*directories.glob("orchestrator-run-*"))
        # The event of the task that prints it is there until it was read: a playbook may print what it may read.
        told += vaulted.processes_that_tell() + [file for file in found if not file.endswith("-partial.json")]
    assert (seen, told) == (True, [])
    run = service.wait(run["id"])
    assert {name: row["recap"] for name, row in run["rows"].items()} == expected
    assert run["status"] == "success"
    for name, row in run["rows"].items():
        by_name = {task["task"]: task for task in tasks(world, row)}
        assert (by_name["Of the group"]["stdout"], by_name["Of the group"]["status"]) == ("gr0up-value\n", "changed")
        assert by_name["Inline"]["stdout"] == "1nline-value\n"
        assert by_name["Of a file"]["message"] == "f1le-value"
        assert by_name["Not of a file"]["status"] == "skipped"
        assert by_name["The password itself"]["message"] == "********"
        opened = [task for task, about in by_name.items() if "f1le-value" in str(about)]
        assert opened == ["Of a file", "An encrypted file of the controller"], name
        for task in ("A client's text", "A device says it", "It stays so"):
            assert "$ANSIBLE_VAULT;1.2" in str(by_name[task])
    assert vaulted.found_in(Path(service.stack.environment["ORCHESTRATOR_DATA_DIR"])) == []


def test_the_documented_way_from_zero_to_results_leads_there(world: World) -> None:
    service, lab = world.service, world.lab.devices()
    north = service.post("controller/organization/", {"name": "North"})["id"]
    own = {"attic": lab["openwrt1"], "cellar": lab["linux1"]}
    service.register(own, organization=north, password=DEFAULT_PASSWORD)
    reader = Reader()
    for told in exchanges(DOCUMENT.read_text()):
        if not told.method:
            service.wait(reader.in_life("77777777-7777-4777-8777-777777777777"))
            continue
        path = reader.in_life(told.path).removeprefix("/api/v1/")
        body = json.loads(reader.in_life(told.body)) if told.body else None
        reply = service.http.request(told.method, path, json=body)
        assert reply.status_code == told.status, reply.text
        assert reader.same(told.reply, reply.json()), json.dumps(reply.json(), indent=1)
    for name, file in (("openwrt1", "/etc/banner"), ("linux1", "/etc/motd")):
        assert world.lab.exec(name, "cat", file) == (0, "Out of order until 9\n")
    body = {"organization": north, "type": "playbook", "playbook": "motd", "input": {"text": "Out of order until 9"}}
    again = service.run(**body)
    assert {row["recap"]["skipped"] for row in again["rows"].values()} == {1}
