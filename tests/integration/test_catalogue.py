"""The catalogue of playbooks: found, read by Ansible's parser, served, and launched by name."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from orchestrator import catalogue, snapshots
from orchestrator.cataloguing import Watch, refresh
from orchestrator.exceptions import PlaybookGoneError
from orchestrator.git_sources import PullFailedError, pull
from orchestrator.models import AuditEntry, MassCommand, Playbook, Schedule
from tests import factories
from tests.integration.api_addresses import CONTROLLER, PREVIEW, RUNS, case, finish

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("outbox")]

PLAYBOOKS = CONTROLLER + "playbook/"
PING = "- hosts: all\n  gather_facts: false\n  tasks:\n    - ansible.builtin.ping:\n"


@pytest.fixture
def folder(tmp_path: Path, settings: Any) -> Path:
    """A directory of playbooks beside the shipped one."""
    settings.DATA_DIR = tmp_path / "data"
    made = tmp_path / "mine"
    made.mkdir()
    settings.PLAYBOOK_DIRS = [settings.PLAYBOOK_DIR, made]
    return made


@pytest.fixture
def site() -> Playbook:
    """A playbook in the index."""
    properties = {
        "port": {"type": "integer", "minimum": 1},
        "servers": {"type": "array", "items": {"properties": {"host": {"type": "string", "format": "ipv4"}}}},
        "token": {"type": "string", "writeOnly": True, "minLength": 8},
    }
    return factories.playbook(name="net/site", properties=properties, required=("port",))


def test_one_broken_playbook_does_not_hide_the_others(folder: Path) -> None:
    (folder / "one.yml").write_text(PING)
    (folder / "two.yml").write_text(PING.replace("ansible.builtin.ping", "no_such_module"))
    (folder / "three.yml").write_text(PING)
    (folder / "with.yml").write_text(PING.replace("all", '"{{ where }}"'))
    (folder / "with.schema.yml").write_text("properties: {where: {type: string}}\n")
    report = refresh()
    assert report.added == ["one", "three", "two", "with"]
    rows = {row.name: row for row in Playbook.objects.all()}
    assert [name for name, row in rows.items() if row.broken] == ["two"]
    entry = AuditEntry.objects.get(action="catalogue.change")
    assert (entry.details["added"], entry.details["broken"]) == (["one", "three", "two", "with"], ["two"])
    assert {about["digest"] for about in entry.details["directories"]} == {rows["one"].digest}
    (folder / "one.yml").unlink()
    refresh()
    refresh()  # finds nothing new, and says nothing
    assert [entry.details.get("removed") for entry in AuditEntry.objects.order_by("at")] == [None, ["one"]]
    assert "no_such_module" in rows["two"].message
    assert "two.yml:4" in rows["two"].message
    assert str(folder.parent) not in rows["two"].message


def test_roles_are_found_where_the_directorys_ansible_cfg_says(folder: Path) -> None:
    (folder / "vendor" / "roles" / "greet" / "tasks").mkdir(parents=True)
    (folder / "vendor" / "roles" / "greet" / "tasks" / "main.yml").write_text("- ansible.builtin.ping:\n")
    (folder / "vendor" / "roles" / "greet" / "meta").mkdir()
    spec = "argument_specs: {main: {options: {word: {required: true}}}}\n"
    (folder / "vendor" / "roles" / "greet" / "meta" / "argument_specs.yml").write_text(spec)
    wires = folder / "vendor" / "more" / "ansible_collections" / "acme" / "net" / "roles" / "wires"
    for name, text in {
        "meta/argument_specs": spec.replace("word", "wire"),
        "tasks/main": "- ansible.builtin.ping:\n",
    }.items():
        (wires / name).parent.mkdir(parents=True)
        (wires / f"{name}.yml").write_text(text)
    (folder / "site.yml").write_text("- hosts: all\n  roles: [greet, acme.net.wires]\n")
    assert list(refresh().broken) == ["site"]
    paths = "roles_path = vendor/roles:../../elsewhere:%(home)s\ncollections_path = vendor/more\n"
    (folder / "ansible.cfg").write_text(f"[defaults]\n{paths}")
    assert refresh().broken == {}
    row = Playbook.objects.get()
    assert row.schema["required"] == ["word", "wire"]
    copy = snapshots.held(row.digest)
    told = snapshots.environment(copy)
    assert told["ANSIBLE_CONFIG"] == str(copy / "ansible.cfg")
    assert told["ANSIBLE_ROLES_PATH"].split(":")[0] == str(copy / "vendor" / "roles")
    assert "elsewhere" not in told["ANSIBLE_ROLES_PATH"]


def test_what_was_launched_is_kept_when_the_files_change(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []

    def parse(digest: str, *_: Any) -> str:
        parsed.append(digest)
        return ""

    monkeypatch.setattr("orchestrator.cataloguing._parse", parse)
    (folder / "roles").mkdir()
    (folder / "roles" / "text").write_text("one")
    (folder / "site.yml").write_text(PING)
    watch = Watch()
    assert watch.look() is not None
    first = Playbook.objects.get()
    assert watch.look() is None
    (folder / "roles" / "text").write_text("another")
    assert watch.look() is not None
    second = Playbook.objects.get()
    assert first.digest != second.digest
    assert (snapshots.held(first.digest) / "roles" / "text").read_text() == "one"
    assert len(parsed) == 2
    refresh()
    assert len(parsed) == 2  # what Ansible has read is not read again
    (folder / "site.yml").unlink()
    assert refresh().removed == ["site"]
    with pytest.raises(PlaybookGoneError):
        snapshots.held("0" * 64)


def test_a_repository_is_pulled_at_a_commit_with_what_it_requires(folder: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    tools = repository / "vendored" / "tools"
    (tools / "roles" / "greet" / "tasks").mkdir(parents=True)
    (tools / "galaxy.yml").write_text(
        "{namespace: acme, name: tools, version: 1.0.0, readme: README.md, authors: [me]}"
    )
    (tools / "README.md").write_text("Tools.")
    (tools / "roles" / "greet" / "tasks" / "main.yml").write_text("- ansible.builtin.raw: echo hi\n")
    (repository / "requirements.yml").write_text("collections: [{name: ./vendored/tools, type: dir}]\n")
    (repository / "site.yml").write_text("- hosts: all\n  roles: [acme.tools.greet]\n")

    def git(*words: str) -> str:
        who = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
        return subprocess.run(["git", *who, *words], cwd=repository, check=True, capture_output=True, text=True).stdout

    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    commit = git("rev-parse", "HEAD").strip()
    git("rm", "-q", "site.yml")
    git("commit", "-qm", "second")
    call_command("pull_playbooks", "net", url=f"file://{repository}", commit=commit)
    row = Playbook.objects.get()
    assert (row.name, row.status, row.commit, row.message) == ("net/site", "ok", commit, "")
    assert (snapshots.held(row.digest) / "collections" / "ansible_collections" / "acme" / "tools").is_dir()
    call_command("pull_playbooks", "net", remove=True)
    assert not Playbook.objects.exists()
    told = [(entry.action, entry.object_name) for entry in AuditEntry.objects.order_by("at")]
    assert told == [("catalogue.pull", "net"), ("catalogue.change", ""), ("catalogue.remove", "net"),
                    ("catalogue.change", "")]  # fmt: skip
    pulled = AuditEntry.objects.get(action="catalogue.pull")
    assert (pulled.details["commit"], pulled.door) == (commit, "cli")


@pytest.mark.parametrize("url", ["https://me:a-Secret@fleet.example.org/x.git", "https://a-Secret@fleet.example.org/x"])
def test_an_address_with_a_secret_is_refused(url: str) -> None:
    with pytest.raises(PullFailedError, match="credential helper"):
        pull("net", url=url, commit="0" * 40)


def test_no_program_that_reads_a_repository_has_the_services_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"DJANGO_SECRET_KEY": "x", "DATABASE_URL": "x", "REDIS_URL": "x", "ORCHESTRATOR_SECRET_KEYS": "x"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    environments: list[dict[str, str]] = []

    def run(words: list[str], folder: Path, environment: dict[str, str]) -> str:
        environments.append(environment)
        (folder / "requirements.yml").write_text("collections: [acme.tools]\n")
        return "0" * 40

    monkeypatch.setattr("orchestrator.git_sources._run", run)
    with pytest.raises(FileNotFoundError):  # it made no .git
        pull("net", url="https://fleet.example.org/net.git", commit="0" * 40)
    assert len(environments) == 4
    assert not any(environment.keys() & given.keys() for environment in environments)
    assert {environment["GIT_ALLOW_PROTOCOL"] for environment in environments} == {"https:ssh:git"}


@pytest.mark.parametrize("link", ["files/keys", "roles"])
def test_a_link_out_of_a_directory_carries_nothing_into_it(folder: Path, tmp_path: Path, link: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret_keys").write_text("a-Secret")
    (folder / "site.yml").write_text(PING)
    (folder / "inner.yml").symlink_to("site.yml")
    (folder / link).parent.mkdir(exist_ok=True)
    (folder / link).symlink_to(outside if link == "roles" else outside / "secret_keys")
    report = refresh()
    assert ["leads out" in problem and link in problem for problem in report.problems] == [True]
    assert not Playbook.objects.exists()
    stored = [path for path in Path(snapshots.path("x")).parent.rglob("*") if path.is_file()]
    assert not any("a-Secret" in path.read_text() for path in stored)
    (folder / link).unlink()
    assert sorted(refresh().added) == ["inner", "site"]


def test_the_api_serves_the_playbooks_that_an_organization_allows(api: Callable[..., Any], site: Playbook) -> None:
    other = factories.playbook(name="other", status="broken", message="no such module")
    member = factories.user(organization=factories.organization(allowed_playbooks=["other"]))
    [row] = api(member).get(PLAYBOOKS).json()["results"]
    assert (row["name"], row["status"], row["message"]) == ("other", "broken", "no such module")
    assert api(member).get(f"{PLAYBOOKS}{site.pk}/").status_code == 404
    shown = api(factories.superuser()).get(f"{PLAYBOOKS}{site.pk}/").json()
    assert shown["schema"]["properties"]["token"]["writeOnly"] is True
    assert api(factories.superuser()).get(PLAYBOOKS, {"status": "broken"}).json()["results"][0]["id"] == str(other.pk)


WRONG: list[tuple[Any, dict[str, str]]] = [
    ({}, {"port": "This field is required."}),
    ({"port": "80"}, {"port": "'80' is not of type 'integer'"}),
    ({"port": 80, "prot": 1}, {"prot": "The playbook has no such input."}),
    ({"port": 80, "servers": [{"host": "x"}]}, {"servers": "0.host: 'x' is not a 'ipv4'"}),
    ({"port": 80, "token": "hush"}, {"token": "This value is not valid: minLength 8."}),
    ({"port": 80, "ansible_host": "10.0.0.1"}, {"ansible_host": "it would change how devices are connected to"}),
    ({"port": 80, "servers": ["\0"]}, {"servers": "Null characters are not allowed."}),
]


@pytest.mark.parametrize(("given", "wrong"), WRONG, ids=case)
def test_a_wrong_input_is_told_field_by_field(api: Any, site: Playbook, given: Any, wrong: dict[str, str]) -> None:
    device = factories.device()
    body = {"devices": [str(device.pk)], "type": "playbook", "playbook": site.name, "input": given}
    for address in (RUNS, PREVIEW):
        reply = api(factories.superuser()).post(address, body)
        assert reply.status_code == 400, reply.content
        told = reply.json()["input"]
        assert told.keys() == wrong.keys()
        assert all(message in told[name][0] for name, message in wrong.items())


@pytest.mark.parametrize(("more", "given", "wrong"), [
    ({"additionalProperties": True}, {"__ansible_unsafe": "x"}, "input"),
    ({"additionalProperties": True}, {"inventory_hostname": "x"}, "input"),
    ({"properties": {"thing": {"type": "object"}}}, {"thing": {"__ansible_vault": "x"}}, "input"),
    ({"properties": {"thing": {}}}, {"thing": [{"a": {"__ansible_type": "x"}}]}, "input"),
    ({"properties": {"thing": {"$ref": "#/nowhere"}}}, {"thing": "x"}, "playbook"),
    ({"$ref": "#"}, {}, "playbook"),
], ids=case)  # fmt: skip
def test_a_key_of_ansibles_and_a_schema_that_can_t_be_used_are_refused(
    api: Any, more: Any, given: Any, wrong: str
) -> None:
    row = factories.playbook(name="open")
    Playbook.objects.filter(pk=row.pk).update(schema=row.schema | more)
    body = {"devices": [str(factories.device().pk)], "type": "playbook", "playbook": "open", "input": given}
    reply = api(factories.superuser()).post(RUNS, body)
    assert (reply.status_code, list(reply.json())) == (400, [wrong]), reply.content


def test_a_playbook_that_is_not_allowed_is_one_that_there_is_not(api: Any, site: Playbook) -> None:
    organization = factories.organization(allowed_playbooks=["other"])
    device = factories.device(organization=organization)
    client = api(factories.user(organization=organization, role="administrator"))
    body = {"devices": [str(device.pk)], "type": "playbook", "input": {}}
    later = {"name": "x", "cron": "0 3 * * *", "targets": {"devices": [str(device.pk)]}}
    for address, more in ((RUNS, {}), (PREVIEW, {}), (CONTROLLER + "schedule/", later)):
        given = {name: value for name, value in (body | more).items() if not (more and name == "devices")}
        for name in (site.name, "missing"):
            reply = client.post(address, {**given, "playbook": name})
            assert (reply.status_code, reply.json()) == (400, {"playbook": ["There is no such playbook."]})


def test_a_launch_pins_the_version_and_seals_the_secret(api: Any, site: Playbook) -> None:
    device, client = factories.device(), api(factories.superuser())
    given = {"port": 80, "token": "a-Secret-token"}
    body = {"devices": [str(device.pk)], "type": "playbook", "playbook": site.name, "input": given}
    reply = client.post(RUNS, {**body, "job_tags": ["deploy"], "diff": True, "verbosity": 1})
    assert reply.status_code == 201, reply.content
    made = reply.json()
    assert (made["playbook"], made["playbook_digest"]) == (site.name, site.digest)
    assert made["input"] == {"port": 80, "token": "********"}
    assert made["controls"] == {"on_conflict": "queue", "diff": True, "job_tags": ["deploy"], "verbosity": 1}
    run = MassCommand.objects.get()
    assert run.secret_input() == {"token": "a-Secret-token"}
    assert "a-Secret-token" not in run.sealed_input
    entry = AuditEntry.objects.get(action="run.launch")
    assert (entry.details["playbook"], entry.details["playbook_digest"]) == (site.name, site.digest)
    assert entry.details["input"] == {"port": 80, "token": "********"}
    assert entry.details["controls"]["job_tags"] == ["deploy"]
    finish(made["id"], "failed")
    again = client.post(f"{RUNS}{made['id']}/retry/", {})
    assert again.json() == {"input": ["Give the input again: the secrets of a run are wiped when it ends."]}
    again = client.post(f"{RUNS}{made['id']}/retry/", {"input": given})
    assert (again.status_code, again.json()["playbook"]) == (201, site.name)


def test_what_stands_for_a_secret_that_was_left_out_is_no_more_shown_than_the_secret(api: Any, site: Playbook) -> None:
    Playbook.objects.update(defaults={"token": "the-Usual-one", "port": 80})
    given = {"devices": [str(factories.device().pk)], "type": "playbook", "playbook": site.name, "input": {"port": 1}}
    assert api(factories.superuser()).post(RUNS, given).status_code == 201
    assert catalogue.secrets(MassCommand.objects.get()) == {"the-Usual-one"}


def test_what_can_t_be_launched_is_refused_with_the_reason(api: Any, site: Playbook) -> None:
    device, client = factories.device(), api(factories.superuser())
    factories.playbook(name="broken", status="broken", message="no such module")
    factories.playbook(name="rash", check_mode=False)
    own = {"devices": [str(device.pk)], "type": "playbook"}
    broken = "This playbook is broken and can't be launched. no such module"
    for body, wrong in (
        (own, {"playbook": ["Name the playbook."]}),
        ({**own, "playbook": "missing"}, {"playbook": ["There is no such playbook."]}),
        ({**own, "playbook": "broken"}, {"playbook": [broken]}),
        ({**own, "playbook": "rash", "check": True}, {"check": ["The playbook of rash has no check mode."]}),
        ({**own, "type": "reboot", "playbook": "rash"},
         {"playbook": ['Commands of type "reboot" have no playbook to choose.']}),
        ({**own, "type": "reboot", "job_tags": ["a"]},
         {"job_tags": ['This control is for commands of type "playbook".']}),
        ({**own, "playbook": "rash", "job_tags": ["a,b"]},
         {"job_tags": {"0": ["Give each tag by itself, without commas."]}}),
    ):  # fmt: skip
        reply = client.post(RUNS, body)
        assert (reply.status_code, reply.json()) == (400, wrong)


def test_an_organization_may_allow_some_playbooks_only(api: Any, site: Playbook) -> None:
    allowed = factories.playbook(name="allowed")
    organization = factories.organization(allowed_playbooks=[allowed.name])
    device = factories.device(organization=organization)
    factories.device(organization=factories.organization())
    client = api(factories.superuser())
    body = {"organization": str(organization.pk), "type": "playbook", "playbook": site.name, "input": {"port": 1}}
    assert client.post(RUNS, body).json() == {"playbook": ['"net/site" is not allowed in this organization.']}
    preview = client.post(PREVIEW, {**body, "organization": None, "all_devices": True}).json()
    assert {row["name"]: row["reason"] for row in preview["results"]}[device.name] == (
        "The organization does not allow this playbook."
    )
    assert preview["eligible_count"] == 1
    assert client.post(RUNS, {**body, "playbook": allowed.name, "input": {}}).status_code == 201


def test_a_schedule_keeps_the_playbook_and_its_secret(api: Any, site: Playbook) -> None:
    device, client = factories.device(), api(factories.superuser())
    body = {
        "name": "nightly", "type": "playbook", "playbook": site.name, "cron": "0 3 * * *",
        "input": {"port": 80, "token": "a-Secret-token"}, "targets": {"devices": [str(device.pk)]},
    }  # fmt: skip
    made = client.post(CONTROLLER + "schedule/", body)
    assert (made.status_code, made.json()["input"]) == (201, {"port": 80, "token": "********"})
    address = f"{CONTROLLER}schedule/{made.json()['id']}/"
    changed = client.patch(address, {"input": {"port": 81, "token": "********"}})
    assert changed.json()["input"] == {"port": 81, "token": "********"}
    assert Schedule.objects.get().secret_input() == {"token": "a-Secret-token"}
    assert client.patch(address, {"type": "custom", "input": {"command": "id"}}).json()["playbook"] == ""
