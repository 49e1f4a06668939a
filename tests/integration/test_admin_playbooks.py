"""The users' own playbooks in the admin: chosen, filled in by a form of their schema, run, and run again."""

import json
import uuid
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.urls import reverse
from django.utils import timezone

from orchestrator.access import Role
from orchestrator.admin.playbook_inputs import LEFT_OUT, MORE, fields_of
from orchestrator.models import (
    Command,
    Device,
    MassCommand,
    Organization,
    Playbook,
    PlaybookStatus,
    Schedule,
    TaskResult,
    TaskStatus,
)
from orchestrator.states import CommandStatus
from tests import factories, run_rows
from tests.integration.operator import Operator

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("outbox")]

SECRET = "an-unmistakable-Secret7"
PROPERTIES: dict[str, Any] = {
    "port": {"type": "integer", "minimum": 1, "maximum": 65_535, "description": "Where it listens"},
    "ratio": {"type": "number", "default": 0.5},
    "site": {"type": "string", "title": "Site name", "pattern": "^[a-z]+$"},
    "mode": {"enum": ["fast", "safe", 3], "default": "safe"},
    "verify": {"type": "boolean"},
    "servers": {"type": "array", "items": {"type": "string", "format": "ipv4"}, "maxItems": 2},
    "vlans": {"type": "array", "items": {"enum": [10, 20, 30]}},
    "extra": {"type": "object", "properties": {"mtu": {"type": "integer"}}},
    "token": {"type": "string", "writeOnly": True, "minLength": 8},
}
FILLED = {
    "type": "playbook", "playbook": "net/site", "playbook_shown": "net/site", "playbook__port": "8080",
    "playbook__ratio": "2", "playbook__site": "vienna", "playbook__mode": "3", "playbook__verify": "false",
    "playbook__servers": "192.0.2.1\r\n\r\n192.0.2.2", "playbook__vlans": ["10", "30"],
    "playbook__extra": '{"mtu": 1400}', "playbook__token": SECRET,
}  # fmt: skip
READ = {
    "port": 8_080, "ratio": 2, "site": "vienna", "mode": 3, "verify": False, "servers": ["192.0.2.1", "192.0.2.2"],
    "vlans": [10, 30], "extra": {"mtu": 1_400},
}  # fmt: skip


@pytest.fixture
def site(db: Any) -> Playbook:
    """A playbook with an input of each kind."""
    return factories.playbook(
        name="net/site", properties=PROPERTIES, required=("port",), description="Sets a site up.\nAll of it."
    )


@pytest.fixture
def organization(db: Any) -> Organization:
    return factories.organization()


@pytest.fixture
def device(organization: Organization) -> Device:
    return factories.device(organization=organization)


@pytest.fixture
def operator(client: Any, organization: Organization) -> Operator:
    return Operator(client, factories.user(organization=organization, role=Role.OPERATOR, is_staff=True))


@pytest.fixture
def draft(operator: Operator, device: Device) -> Any:
    """A draft whose targets are chosen."""
    reply = operator.post("run_new", data={"scope": "filter", "organization": device.organization_id})
    return reply.url.rstrip("/").split("/")[-2]


def test_a_filled_in_form_is_the_input_and_a_secret_is_on_no_page_and_in_no_row(
    operator: Operator, draft: Any, site: Playbook
) -> None:
    options = {"check": "on", "diff": "on", "job_tags": "a, b c", "skip_tags": "", "verbosity": "2"}
    reply = operator.post("run_command", draft, data=FILLED | options)
    assert reply.status_code == 302, reply.context["form"].errors
    page = operator.get("run_command", draft).content.decode()  # for who comes back
    for text in ('value="8080"', 'value="vienna"', "192.0.2.1\n192.0.2.2", "&quot;mtu&quot;: 1400", 'value="a, b c"'):
        assert text in page
    for step in ("targets", "command", "review"):
        assert SECRET not in operator.get(f"run_{step}", draft).content.decode()
    assert not any(SECRET in row.session_data for row in Session.objects.all())
    again = FILLED | {"playbook__token": "", "playbook__port": "8081"} | options  # left blank, the secret is kept
    assert operator.post("run_command", draft, data=again).status_code == 302
    review = operator.get("run_review", draft).content.decode()
    assert "net/site on <b>1</b> device" in review
    assert "192.0.2.1, 192.0.2.2" in review
    assert operator.post("run_review", draft, data=operator.review(draft)).status_code == 302
    run = MassCommand.objects.get()
    assert run.input == READ | {"port": 8_081, "token": "********"}
    assert (run.secret_input(), run.playbook, run.playbook_digest) == ({"token": SECRET}, "net/site", site.digest)
    assert run.controls == {
        "check": True, "diff": True, "job_tags": ["a", "b c"], "verbosity": 2, "on_conflict": "queue",
    }  # fmt: skip
    page = operator.get("masscommand_change", run.pk).content.decode()
    assert "net/site" in page
    assert SECRET not in page


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"playbook__port": "0"}, "playbook__port", "less than the minimum of 1"),
        ({"playbook__port": ""}, "playbook__port", "This field is required."),
        ({"playbook__port": "80a"}, "playbook__port", "Enter a whole number."),
        ({"playbook__ratio": "nan"}, "playbook__ratio", "Enter a number"),
        ({"playbook__site": "Vienna"}, "playbook__site", "does not match"),
        ({"playbook__mode": "4"}, "playbook__mode", "Select a valid choice"),
        ({"playbook__servers": "192.0.2.1\nnowhere"}, "playbook__servers", "1: "),
        ({"playbook__vlans": ["11"]}, "playbook__vlans", "Select a valid choice"),
        ({"playbook__extra": "{mtu: 1}"}, "playbook__extra", "This is no JSON"),
        ({"playbook__extra": '{"mtu": "much"}'}, "playbook__extra", "mtu: "),
        ({"playbook__extra": "NaN"}, "playbook__extra", "NaN is no number of JSON."),
        ({"playbook__extra": '{"__ansible_unsafe": "x"}'}, "playbook__extra", "mean something to Ansible"),
        ({"playbook__token": "T7x-q"}, "playbook__token", "minLength 8"),
        ({"playbook": ""}, "playbook", "Choose a playbook."),
        ({"playbook": "net/none"}, "playbook", "There is no such playbook"),
        ({"playbook_shown": ""}, "playbook", "Fill in what net/site takes."),
    ],
)
def test_what_the_schema_refuses_is_told_beside_its_field(
    operator: Operator, draft: Any, site: Playbook, changes: dict[str, Any], field: str, words: str
) -> None:
    reply = operator.post("run_command", draft, data=FILLED | changes)
    assert reply.status_code == 200
    assert list(reply.context["form"].errors) == [field]
    assert words in str(reply.context["form"].errors[field])
    page = reply.content.decode()
    assert SECRET not in page
    assert "T7x-q" not in page


def test_mistakes_in_what_was_not_chosen_are_nobodys_concern(operator: Operator, draft: Any, site: Playbook) -> None:
    data = FILLED | {"type": "custom", "custom__command": "uptime", "playbook__port": "x", "job_tags": "a"}
    assert operator.post("run_command", draft, data=data).status_code == 302
    operator.post("run_review", draft, data=operator.review(draft))
    run = MassCommand.objects.get()
    assert (run.type, run.playbook, run.input, run.controls) == (
        "custom", "", {"command": "uptime"}, {"on_conflict": "queue"},
    )  # fmt: skip


def test_only_playbooks_that_may_run_there_are_offered(
    operator: Operator, draft: Any, site: Playbook, organization: Organization
) -> None:
    factories.playbook(name="broken", status=PlaybookStatus.BROKEN, message="no_such_module")
    factories.playbook(name="other")

    def offered() -> list[str]:
        choices = operator.get("run_command", draft).context["form"].fields["playbook"].choices
        return [name for name, _ in choices][1:]

    assert offered() == ["net/site", "other"]
    organization.allowed_playbooks = ["net/site", "broken"]
    organization.save()
    assert offered() == ["net/site"]
    reply = operator.post("run_command", draft, data={"type": "playbook", "playbook": "other"})
    assert "There is no such playbook" in reply.content.decode()
    organization.allowed_playbooks = []
    organization.save()
    assert "has no playbook that these devices may run" in operator.get("run_command", draft).content.decode()


def test_the_script_gets_the_fields_of_a_playbook_that_the_user_may_see(
    operator: Operator, draft: Any, site: Playbook, organization: Organization
) -> None:
    operator.post("run_command", draft, data=FILLED)
    page = operator.get("run_inputs", playbook="net/site", draft=draft).content.decode()
    assert 'name="playbook__port" value="8080"' in page
    assert "Left blank, it is kept." in page
    assert SECRET not in page
    assert "<html" not in page
    assert 'value="8080"' not in operator.get("run_inputs", playbook="net/site").content.decode()
    organization.allowed_playbooks = []
    organization.save()
    assert operator.get("run_inputs", playbook="net/site").content.decode().strip() == ""


def test_a_playbook_without_check_mode_is_not_tried(operator: Operator, draft: Any) -> None:
    factories.playbook(name="bold", check_mode=False)
    reply = operator.post("run_command", draft, data={"type": "playbook", "playbook": "bold", "check": "on"})
    assert "has no check mode" in str(reply.context["pace"].errors["check"])


def test_a_playbook_that_broke_after_it_was_chosen_leads_back(operator: Operator, draft: Any, site: Playbook) -> None:
    operator.post("run_command", draft, data=FILLED)
    Playbook.objects.update(status=PlaybookStatus.BROKEN, message="no_such_module")
    reply = operator.client.get(reverse("admin:orchestrator_run_review", args=[draft]), follow=True)
    assert reply.redirect_chain[-1][0] == reverse("admin:orchestrator_run_command", args=[draft])
    assert SECRET not in reply.content.decode()
    Playbook.objects.update(status=PlaybookStatus.OK, schema={"properties": {"token": {"type": "string"}}})
    page = operator.get("run_command", draft).content.decode()
    assert 'name="playbook__token"' in page
    assert SECRET not in page  # a secret of yesterday is not shown because the schema is another one today


def test_a_run_of_a_playbook_is_run_again_and_its_secrets_are_asked_for(
    operator: Operator, organization: Organization, device: Device, site: Playbook
) -> None:
    given = READ | {"token": "********"}
    run = run_rows.run(
        {CommandStatus.FAILED: 2}, organization=organization, with_devices=True, type="playbook", playbook="net/site",
        playbook_digest=site.digest, input=given, controls={"diff": True},
    )  # fmt: skip
    for which, devices in (("unsuccessful", 2), ("all", 3)):
        reply = operator.post("masscommand_again", run.pk, data={"which": which})
        step, pk = reply.url.rstrip("/").split("/")[-1], reply.url.rstrip("/").split("/")[-2]
        assert step == "command"
        reply = operator.post("run_command", pk, data=FILLED | {"playbook__token": "", "diff": "on"})
        assert reply.status_code == 302  # it is optional: without one
        operator.post("run_review", pk, data=operator.review(pk))
        again = MassCommand.objects.order_by("created").last()
        assert again is not None
        assert (again.device_count, again.input, again.controls["diff"]) == (devices, READ, True)
    assert MassCommand.objects.filter(parent=run).count() == 1


def test_a_schedule_of_a_playbook_is_made_and_changed(operator: Operator, device: Device, site: Playbook) -> None:
    sent = FILLED | {
        "schedule-name": "nightly", "schedule-cron": "30 2 * * *", "schedule-timezone": "UTC",
        "schedule-overlap": "skip", "schedule-enabled": "on", "scope": "filter",
        "organization": str(device.organization_id),
    }  # fmt: skip
    add = reverse("admin:orchestrator_schedule_add")
    reply = operator.client.post(add, sent)
    assert reply.status_code == 302, reply.context["command"].errors
    row = Schedule.objects.get()
    assert (row.playbook, row.input, row.secret_input()) == (
        "net/site", READ | {"token": "********"}, {"token": SECRET},
    )  # fmt: skip
    change = reverse("admin:orchestrator_schedule_change", args=[row.pk])
    page = operator.client.get(change).content.decode()
    assert 'name="playbook__port" value="8080"' in page
    assert SECRET not in page
    reply = operator.client.post(change, sent | {"playbook__token": "", "playbook__port": "9", "check": "on"})
    assert reply.status_code == 302
    row.refresh_from_db()
    assert (row.input["port"], row.secret_input(), row.controls["check"]) == (9, {"token": SECRET}, True)


# ---------------------------------------------------------------- which field for which schema
def _read(about: Any, text: Any, **schema: Any) -> Any:
    playbook = Playbook(schema={"type": "object", "properties": {"value": about}} | schema)
    return fields_of(playbook, {}, ())["value"].clean(text)


@pytest.mark.parametrize(
    ("about", "text", "value"),
    [
        ({"type": ["string", "null"]}, " as typed ", " as typed "),
        ({"type": ["integer", "null"]}, " -7 ", -7),
        ({"type": "number"}, "1e3", 1_000.0),
        ({"type": "boolean"}, "true", True),
        ({"$ref": "#/$defs/port"}, "22", 22),
        ({"type": "array", "items": {"type": "boolean"}}, "yes\nfalse", [True, False]),
        ({"type": "array"}, "1\ntwo", ["1", "two"]),
        ({"type": "array", "items": {"type": "object"}}, '[{"a": 1}]', [{"a": 1}]),
        ({"type": ["string", "integer"]}, '"22"', "22"),
        (True, "[null]", [None]),
        ({}, '""', ""),
    ],
)
def test_a_value_is_read_by_its_type(about: Any, text: str, value: Any) -> None:
    assert _read(about, text, **{"$defs": {"port": {"type": "integer"}}}) == value
    assert type(_read(about, text, **{"$defs": {"port": {"type": "integer"}}})) is type(value)
    assert _read(about, "", **{"$defs": {"port": {"type": "integer"}}}) is LEFT_OUT


def test_inputs_that_the_schema_does_not_name_are_an_object(operator: Operator, draft: Any) -> None:
    factories.playbook(name="open", schema={"type": "object", "properties": {}, "additionalProperties": True})
    data = {"type": "playbook", "playbook": "open", "playbook_shown": "open", f"playbook__{MORE}": "[1]"}
    assert "Enter an object" in operator.post("run_command", draft, data=data).content.decode()
    data[f"playbook__{MORE}"] = json.dumps({"anything": [1, {"a": None}]})
    assert operator.post("run_command", draft, data=data).status_code == 302
    operator.post("run_review", draft, data=operator.review(draft))
    assert MassCommand.objects.get().input == {"anything": [1, {"a": None}]}


def test_what_a_field_must_keep_to_is_told_beside_it() -> None:
    playbook = Playbook(schema={"properties": PROPERTIES, "required": ["port"]})
    fields = fields_of(playbook, {}, ())
    assert fields["port"].label == "Port (required)"
    assert fields["port"].help_text == "Where it listens. 1 to 65535."
    assert fields["ratio"].help_text == "Left blank: 0.5."
    assert fields["site"].label == "Site name"
    assert fields["servers"].help_text == "At most 2 entries. One a line. Each: Format: ipv4."
    assert fields["extra"].help_text == "As JSON: an object, with mtu."
    assert fields["mode"].choices[0] == ("", "Left blank: safe")  # type: ignore[attr-defined]


# ---------------------------------------------------------------- what the tasks did
@pytest.fixture
def ended(organization: Organization) -> MassCommand:
    """A run of a playbook on three devices, one of which failed at its last task."""
    run = run_rows.run(
        {CommandStatus.SUCCESS: 2, CommandStatus.FAILED: 1}, organization=organization, type="playbook",
        playbook="net/site", playbook_digest="d" * 64, input={},
    )  # fmt: skip
    run_rows.tasks(run, ["Copy", "Restart"], message="<b>said</b>", diff="--- before\n+++ after\n@@ -1 +1 @@\n-a\n+b\n")
    failed = TaskResult.objects.filter(command__status=CommandStatus.FAILED, task="Restart")
    failed.update(status=TaskStatus.FAILED, message="no such service", stderr="restart: not found", rc=127)
    Command.objects.filter(status=CommandStatus.FAILED).update(recap={"ok": 0, "changed": 1, "failed": 1})
    return run


def test_each_task_is_told_over_all_devices_and_leads_to_them(operator: Operator, ended: MassCommand) -> None:
    assert "fragment=tasks" in operator.get("masscommand_change", ended.pk).content.decode()
    page = operator.get("masscommand_change", ended.pk, fragment="tasks")
    tasks = page.context["summaries"]
    assert [(task.task, [(part.status, part.count) for part in task.counts]) for task in tasks] == [
        ("Copy", [("changed", 3)]), ("Restart", [("failed", 1), ("ok", 2)]),
    ]  # fmt: skip
    assert [(task.average, task.most) for task in tasks] == [("0.5 s", "0.5 s"), ("1.0 s", "1.0 s")]
    listed = operator.client.get(tasks[1].counts[0].href)
    assert [row.command.device_name for row in listed.context["tasks"].rows] == ["failed-00000"]
    assert "no such service" in listed.content.decode()
    assert "Copy" in operator.get("masscommand_tasks", ended.pk).content.decode()


def test_a_device_tells_what_each_task_did_there(operator: Operator, ended: MassCommand) -> None:
    row = Command.objects.get(status=CommandStatus.FAILED)
    for query in ({}, {"fragment": "1"}):
        page = operator.get("command_change", row.pk, **query).content.decode()
        assert "1 changed, 1 failed" in page
        assert "&lt;b&gt;said&lt;/b&gt;" in page
        assert '<div class="o-diff-added">+b</div>' in page
        assert "restart: not found" in page
        assert "exit code 127" in page
        assert "It printed nothing" not in page
    TaskResult.objects.bulk_create(
        TaskResult(
            id=uuid.uuid4(), command=row, number=number, task=f"task {number:03}", status="ok", duration=1,
            started=timezone.now(),
        )
        for number in range(60)
    )  # fmt: skip
    first = operator.get("command_change", row.pk).content.decode()
    assert "1 to 50 of 62" in first
    second = operator.get("command_change", row.pk, page="2").content.decode()
    assert 'start="51"' in second
    assert "task 059" in second
    assert "task 000" not in second


def test_tasks_exist_for_members_only(client: Any, ended: MassCommand) -> None:
    stranger = Operator(client, factories.user(organization=factories.organization(), is_staff=True))
    assert stranger.get("masscommand_tasks", ended.pk).status_code == 404
    assert stranger.get("masscommand_tasks", ended.pk, task="Copy").status_code == 404


def test_a_task_on_many_devices_takes_few_queries_and_pages(
    operator: Operator, organization: Organization, django_assert_max_num_queries: Any
) -> None:
    run = run_rows.run({CommandStatus.SUCCESS: 120}, organization=organization, type="playbook", playbook="net/site",
                       playbook_digest="d" * 64)  # fmt: skip
    run_rows.tasks(run, [f"Task {number}" for number in range(5)])
    with django_assert_max_num_queries(12):
        page = operator.get("masscommand_tasks", run.pk)
    assert [task.count for task in page.context["summaries"]] == [120] * 5
    with django_assert_max_num_queries(12):
        listed = operator.client.get(page.context["summaries"][0].counts[0].href)
    assert listed.context["tasks"].rows[0].command.device_name == "success-00000"
    following = operator.client.get(listed.request["PATH_INFO"] + listed.context["tasks"].next)
    assert following.context["tasks"].rows[0].command.device_name == "success-00050"
    assert operator.get("masscommand_tasks", run.pk, task="Task 1", page="9" * 30).status_code == 200


# ---------------------------------------------------------------- the catalogue
def test_the_catalogue_tells_what_there_is_and_what_is_wrong(
    operator: Operator, organization: Organization, site: Playbook
) -> None:
    broken = factories.playbook(name="broken", status=PlaybookStatus.BROKEN, message="no_such_module at line 4")
    Playbook.objects.filter(pk=site.pk).update(url="https://fleet.example.org/net.git", commit="c" * 40)
    run_rows.run({CommandStatus.SUCCESS: 1}, organization=organization, type="playbook", playbook="net/site",
                 playbook_digest="d" * 64, label="last night")  # fmt: skip
    listed = operator.get("playbook_changelist").content.decode()
    for text in ("net/site", "Sets a site up.", "https://fleet.example.org/net.git", "c" * 12, "no_such_module"):
        assert text in listed
    page = operator.get("playbook_change", site.pk).content.decode()
    for text in ("c" * 40, organization.name, "last night", "one of fast, safe, 3", "Left blank: safe.", "secret"):
        assert text in page
    assert "/nowhere" not in page  # where it lies on the server
    assert "?playbook=net%2Fsite" in page
    page = operator.get("playbook_change", broken.pk).content.decode()
    assert "no_such_module at line 4" in page
    assert "?playbook=" not in page


def test_a_playbook_exists_where_it_is_allowed(
    client: Any, operator: Operator, organization: Organization, site: Playbook
) -> None:
    organization.allowed_playbooks = []
    organization.save()
    assert operator.get("playbook_change", site.pk).status_code == 404
    assert "net/site" not in operator.get("playbook_changelist").content.decode()
    viewer = Operator(client, factories.user(organization=factories.organization(), role=Role.VIEWER, is_staff=True))
    page = viewer.get("playbook_change", site.pk).content.decode()
    assert "?playbook=" not in page
    assert organization.name not in page
    assert viewer.get("playbook_history", site.pk).status_code == 404


def test_a_playbook_that_was_chosen_in_the_catalogue_is_chosen_in_the_wizard(
    operator: Operator, device: Device, site: Playbook
) -> None:
    address = reverse("admin:orchestrator_run_new") + "?playbook=net/site"
    reply = operator.client.post(address, {"scope": "filter", "organization": device.organization_id}, follow=True)
    page = reply.content.decode()
    assert '<option value="net/site" selected>' in page
    assert 'name="playbook__port"' in page


def test_an_organization_s_playbooks_are_ticked(client: Any, organization: Organization, site: Playbook) -> None:
    administrator = Operator(
        client, factories.user(organization=organization, role=Role.ADMINISTRATOR, is_staff=True)
    )  # fmt: skip
    factories.playbook(name="other")
    sent = {
        "name": organization.name, "is_active": "on", "every_type": "on", "keep_days": "",
        "memberships-TOTAL_FORMS": "0", "memberships-INITIAL_FORMS": "0",
    }  # fmt: skip
    for more, stored in (
        ({"allowed_playbooks": ["net/site"]}, ["net/site"]),
        ({}, []),
        ({"every_playbook": "on", "allowed_playbooks": ["other"]}, None),
    ):
        reply = administrator.post("organization_change", organization.pk, data=sent | more)
        assert reply.status_code == 302, reply.context["adminform"].errors
        organization.refresh_from_db()
        assert organization.allowed_playbooks == stored
    organization.allowed_playbooks = ["gone/long-ago", "other"]
    organization.save()
    page = administrator.get("organization_change", organization.pk).content.decode()
    assert 'value="gone/long-ago"' in page  # not taken away by saving
    assert 'value="net/site"' in page  # nobody there may run it, but it can be allowed
    viewer = Operator(client, factories.user(organization=organization, role=Role.VIEWER, is_staff=True))
    assert "gone/long-ago, other" in viewer.get("organization_change", organization.pk).content.decode()
