"""The run wizard by plain requests: what is reviewed is what is launched, once, by those who may."""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.urls import reverse
from django.utils import timezone

from orchestrator.access import Role
from orchestrator.admin import drafts
from orchestrator.admin.drafts import Draft
from orchestrator.models import Device, DeviceGroup, MassCommand, Organization
from orchestrator.targeting import TargetFilter
from tests import factories
from tests.integration.operator import UPTIME, Operator

pytestmark = [pytest.mark.django_db, pytest.mark.database]

PASSWORD = "an-unmistakable-Secret7"


@pytest.fixture
def organization() -> Organization:
    return factories.organization()


@pytest.fixture
def devices(organization: Organization) -> list[Device]:
    return [factories.device(organization=organization, name=f"device-{number}") for number in range(3)]


@pytest.fixture
def operator(client: Any, organization: Organization, outbox: Any) -> Operator:
    return Operator(client, factories.user(organization=organization, role=Role.OPERATOR, is_staff=True))


@pytest.fixture
def boss(client: Any, outbox: Any) -> Callable[[], Operator]:
    return lambda: Operator(client, factories.superuser())


def test_three_steps_lead_to_a_run(
    operator: Operator, organization: Organization, devices: list[Device], outbox: Any,
    django_capture_on_commit_callbacks: Any,
) -> None:  # fmt: skip
    command = UPTIME | {"label": "first", "notes": "by hand"}
    pk = operator.draft({"organization": organization.pk}, command)
    page = operator.get("run_review", pk).content.decode()
    assert "Run on 3 devices" in page
    assert not MassCommand.objects.exists()
    with django_capture_on_commit_callbacks(execute=True):
        reply = operator.post("run_review", pk, data=operator.review(pk), follow=True)
    run = MassCommand.objects.get()
    assert reply.redirect_chain[-1][0] == reverse("admin:orchestrator_masscommand_change", args=[run.pk])
    assert (run.label, run.notes, run.input, run.created_by) == (
        "first",
        "by hand",
        {"command": "uptime"},
        operator.user,
    )
    assert (run.device_count, run.targets) == (3, {"organization": str(organization.pk)})
    assert len(outbox) == 1


def test_a_second_click_finds_the_run_of_the_first(
    operator: Operator, organization: Organization, devices: list[Device]
) -> None:
    pk = operator.draft({"organization": organization.pk})
    data = operator.review(pk)
    first = operator.post("run_review", pk, data=data)
    second = operator.post("run_review", pk, data=data)
    assert first.url == second.url
    assert operator.get("run_targets", pk).url == first.url
    assert MassCommand.objects.count() == 1


def test_of_two_who_claim_a_draft_at_once_one_gets_it(operator: Operator, organization: Organization) -> None:
    stored = Draft(owner=operator.user.pk, targets=TargetFilter(organization=organization.pk))
    drafts.add(stored)
    one, two = (drafts.load(operator.user, stored.id) for _ in range(2))
    assert isinstance(one, Draft)
    assert isinstance(two, Draft)
    assert [drafts.claim(one), drafts.claim(two)] == [True, False]
    assert not drafts.save(replace(two, label="too late"))
    assert operator.get("run_review", stored.id).url == reverse("admin:orchestrator_masscommand_changelist")


def test_a_set_that_changed_after_the_review_is_not_run(
    operator: Operator, organization: Organization, devices: list[Device]
) -> None:
    pk = operator.draft({"organization": organization.pk})
    data = operator.review(pk)
    factories.device(organization=organization, name="newcomer")
    devices[0].delete()
    reply = operator.post("run_review", pk, data=data)
    page = reply.content.decode()
    assert "nothing was started" in page
    assert "Added: newcomer." in page
    assert "Gone: a deleted device." in page
    assert not MassCommand.objects.exists()
    assert operator.post("run_review", pk, data=operator.review(pk)).status_code == 302
    assert MassCommand.objects.get().device_count == 3


def test_a_command_that_changed_in_another_window_is_not_run(
    operator: Operator, organization: Organization, devices: list[Device]
) -> None:
    pk = operator.draft({"organization": organization.pk})
    data = operator.review(pk)
    operator.post("run_command", pk, data={"type": "reboot"})
    assert "changed in another window" in operator.post("run_review", pk, data=data).content.decode()
    assert not MassCommand.objects.exists()


def test_a_launch_without_a_digest_is_refused(
    operator: Operator, organization: Organization, devices: list[Device]
) -> None:
    pk = operator.draft({"organization": organization.pk})
    assert operator.post("run_review", pk, data=operator.review(pk, digest="")).status_code == 200
    assert not MassCommand.objects.exists()


def test_a_password_is_on_no_page_and_in_no_row(
    operator: Operator, organization: Organization, devices: list[Device]
) -> None:
    secrets = {"change_password__password": PASSWORD, "change_password__confirm_password": PASSWORD}
    command = {"type": "change_password", "change_password__username": "admin", **secrets}
    pk = operator.draft({"organization": organization.pk}, command)
    for step in ("targets", "command", "review"):
        assert PASSWORD not in operator.get(f"run_{step}", pk).content.decode()
    assert not any(PASSWORD in row.session_data for row in Session.objects.all())
    assert operator.post("run_command", pk, data={"type": "change_password"}).status_code == 302  # blank keeps it
    operator.post("run_review", pk, data=operator.review(pk))
    run = MassCommand.objects.get()
    assert run.secret_input()["password"] == PASSWORD
    assert PASSWORD not in str(run.input)
    assert PASSWORD not in operator.get("masscommand_change", run.pk).content.decode()


def test_a_wrong_password_form_shows_nothing_that_was_typed(
    operator: Operator, organization: Organization, devices: list[Device]
) -> None:
    pk = operator.draft({"organization": organization.pk})
    typed = {"change_password__password": PASSWORD, "change_password__confirm_password": "another-Secret8"}
    page = operator.post("run_command", pk, data={"type": "change_password", **typed}).content.decode()
    assert "The two passwords are not the same." in page
    assert PASSWORD not in page
    assert "another-Secret8" not in page


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ({}, "Choose what to run."),
        ({"type": "custom"}, "This field may not be blank."),
        ({"type": "custom", "custom__command": "x" * 8_001}, "more than 8000 bytes"),
        ({"type": "change_password"}, "Enter 6 to 128 characters."),
        ({"type": "format_disk"}, "Select a valid choice"),
    ],
)
def test_a_wrong_command_is_refused(
    operator: Operator, organization: Organization, devices: list[Device], command: dict[str, str], error: str
) -> None:
    pk = operator.draft({"organization": organization.pk})
    assert error in operator.post("run_command", pk, data=command).content.decode()


def test_targets_must_be_named_and_match(operator: Operator, organization: Organization) -> None:
    def errors(**data: Any) -> str:
        return str(operator.post("run_new", data=data).context["form"].errors)

    assert "Name at least one" in errors(scope="filter")
    assert "No device was picked" in errors(scope="devices")
    assert "No device matches" in errors(scope="filter", organization=organization.pk)
    assert "Select a valid choice" in errors(scope="all")
    assert "Select a valid choice" in errors(scope="filter", group=factories.group().pk)
    assert "There is no such device" in errors(scope="devices", devices=[factories.device().pk])


def test_a_forbidden_type_is_said_where_it_is_chosen(
    operator: Operator, organization: Organization, devices: list[Device]
) -> None:
    organization.allowed_types = ["custom"]
    organization.save()
    pk = operator.draft({"organization": organization.pk})
    assert (
        "not allowed in this organization" in operator.post("run_command", pk, data={"type": "reboot"}).content.decode()
    )


def test_pace_and_limits_reach_the_run(operator: Operator, organization: Organization, devices: list[Device]) -> None:
    pace = {
        "max_concurrency": "50%", "canary": "1", "max_errors": "0", "pause": "manual", "execution_timeout": "30",
        "on_conflict": "skip", "run_at": (timezone.now() + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M"),
    }  # fmt: skip
    pk = operator.draft({"organization": organization.pk}, UPTIME | pace)
    page = operator.get("run_command", pk).content.decode()  # kept for who comes back
    assert 'value="50%"' in page
    assert f'value="{pace["run_at"]}"' in page
    page = operator.get("run_review", pk).content.decode()
    assert "until a person goes on" in page
    operator.post("run_review", pk, data=operator.review(pk))
    run = MassCommand.objects.get()
    assert (run.max_concurrency, run.max_errors, run.pause_manual, run.on_conflict) == (2, 0, True, "skip")
    assert (run.status, run.execution_timeout) == ("scheduled", 30)
    assert "until a person goes on" in operator.get("masscommand_change", run.pk).content.decode()


@pytest.mark.parametrize(
    "pace",
    [
        {"max_concurrency": "0"}, {"max_concurrency": "0%"}, {"canary": "-1"}, {"max_errors": "101%"},
        {"max_errors": "many"}, {"pause": "7"}, {"deadline": "0"}, {"run_at": "2001-01-01T00:00"}, {"run_at": "soon"},
    ],
)  # fmt: skip
def test_wrong_limits_are_refused(
    operator: Operator, organization: Organization, devices: list[Device], pace: dict[str, str]
) -> None:
    pk = operator.draft({"organization": organization.pk})
    reply = operator.post("run_command", pk, data=UPTIME | pace)
    assert reply.status_code == 200
    assert list(reply.context["pace"].errors) == list(pace)


def test_ticked_devices_are_left_out(operator: Operator, organization: Organization, devices: list[Device]) -> None:
    pk = operator.draft({"organization": organization.pk})
    data = operator.review(pk, exclude="1", leave_out=[devices[1].pk])
    operator.post("run_review", pk, data=data)
    operator.post("run_review", pk, data=operator.review(pk))
    run = MassCommand.objects.get()
    assert set(run.commands.values_list("device_name", flat=True)) == {"device-0", "device-2"}
    assert run.organization == organization


def test_nothing_is_run_where_every_device_would_be_skipped(operator: Operator, organization: Organization) -> None:
    factories.device(organization=organization, is_active=False)
    pk = operator.draft({"organization": organization.pk})
    page = operator.get("run_review", pk).content.decode()
    assert "None of these devices can run it" in page
    assert "The device is deactivated." in page
    assert 'id="go"' not in page


def test_a_run_on_all_devices_needs_their_number(boss: Callable[[], Operator], devices: list[Device]) -> None:
    factories.device()
    somebody = boss()
    pk = somebody.draft({"scope": "all"})
    assert "Type the number" in somebody.post("run_review", pk, data=somebody.review(pk)).content.decode()
    assert not MassCommand.objects.exists()
    somebody.post("run_review", pk, data=somebody.review(pk, typed_count="4"))
    assert MassCommand.objects.get().device_count == 4


def test_viewers_have_no_wizard(client: Any, organization: Organization, devices: list[Device]) -> None:
    viewer = Operator(client, factories.user(organization=organization, role=Role.VIEWER, is_staff=True))
    assert viewer.get("run_new").status_code == 403
    assert viewer.get("run_find", q="device").status_code == 403
    assert reverse("admin:orchestrator_run_new") not in client.get("/admin/").content.decode()
    assert "Run a command on these" not in viewer.get("device_changelist").content.decode()


def test_a_draft_is_its_owner_s(client: Any, operator: Operator, organization: Organization, devices: Any) -> None:
    pk = operator.draft({"organization": organization.pk})
    colleague = Operator(client, factories.user(organization=organization, role=Role.OPERATOR, is_staff=True))
    for step in ("targets", "command", "review"):
        assert colleague.get(f"run_{step}", pk).status_code == 404


def test_a_right_that_ended_ends_the_wizard(operator: Operator, organization: Organization, devices: Any) -> None:
    pk = operator.draft({"organization": organization.pk})
    data = operator.review(pk)
    operator.user.memberships.update(role=Role.VIEWER)
    assert operator.post("run_review", pk, data=data).status_code == 403
    assert not MassCommand.objects.exists()


def test_a_draft_in_the_session_table_is_nobody_s_session(client: Any, operator: Operator) -> None:
    stored = Draft(owner=operator.user.pk)
    drafts.add(stored)
    client.logout()
    client.cookies["sessionid"] = f"draft{stored.id.hex}"
    assert client.get("/admin/").status_code == 302
    assert isinstance(drafts.load(operator.user, stored.id), Draft)


def test_the_enter_key_leads_on_and_not_back(
    operator: Operator, organization: Organization, devices: list[Device]
) -> None:
    """It presses the first button of a form, wherever on the page that is."""
    pk = operator.draft({"organization": organization.pk})
    for step in ("targets", "command"):
        page = operator.get(f"run_{step}", pk).content.decode()
        buttons = re.findall(r'<button type="submit"[^>]*form="step"[^>]*>|<form[^>]*id="step"', page)
        assert 'name="back"' not in buttons[0]
        assert buttons[0].startswith("<button")


# ---------------------------------------------------------------- ways into it
@pytest.mark.parametrize("model", ["device", "devicegroup", "location"])
def test_lists_lead_into_the_wizard(operator: Operator, organization: Organization, model: str) -> None:
    make: dict[str, Callable[..., Any]] = {"devicegroup": factories.group, "location": factories.location}
    field = {"devicegroup": "group", "location": "location"}.get(model, "")
    rows = []
    for _ in range(2):
        parts = {field: make[model](organization=organization)} if field else {}
        device = factories.device(organization=organization, **parts)
        rows.append(parts.get(field, device))
    for ticked, expected in [(rows, 2), (rows[:1], 1)]:
        data = {"action": "run_on_these", "_selected_action": [str(row.pk) for row in ticked]}
        reply = operator.post(f"{model}_changelist", data=data)
        pk = reply.url.rstrip("/").split("/")[-2]
        operator.post("run_command", pk, data=UPTIME)
        assert operator.get("run_review", pk).context["eligible"] == expected


def test_one_ticked_group_stays_a_filter(operator: Operator, organization: Organization) -> None:
    group = factories.group(organization=organization)
    factories.device(organization=organization, group=group)
    reply = operator.post(
        "devicegroup_changelist", data={"action": "run_on_these", "_selected_action": [str(group.pk)]}
    )
    pk = reply.url.rstrip("/").split("/")[-2]
    draft = operator.get("run_command", pk).context["draft"]
    assert draft.targets == TargetFilter(group=group.pk)
    assert DeviceGroup.objects.filter(pk=group.pk).exists()


def test_an_address_can_choose_in_advance(operator: Operator, organization: Organization, devices: Any) -> None:
    page = operator.get("run_new", devices=str(devices[0].pk)).content.decode()
    assert f'value="{devices[0].pk}" checked' in page
    page = operator.get("run_new", organization=str(organization.pk)).content.decode()
    assert f'<option value="{organization.pk}" selected' in page
    assert operator.get("run_new", organization="no-uuid", devices="no-uuid").status_code == 200


def test_the_search_finds_own_devices(operator: Operator, devices: list[Device]) -> None:
    factories.device(name="device-of-others")
    names = [row["name"] for row in operator.get("run_find", q="device-").json()["results"]]
    assert names == ["device-0", "device-1", "device-2"]
    page = operator.post(
        "run_new", data={"scope": "devices", "q_devices": "device-1", "search": "devices"}
    ).content.decode()
    assert str(devices[1].pk) in page


def test_the_count_follows_the_form(operator: Operator, organization: Organization, devices: list[Device]) -> None:
    Device.objects.filter(pk=devices[0].pk).update(is_active=False)
    reply = operator.post("run_count", data={"scope": "filter", "organization": organization.pk})
    assert reply.json()["text"] == "3 devices, 1 of them would be skipped (1: the device is deactivated)"
    assert (
        operator.post("run_count", data={"scope": "devices", "devices": [devices[1].pk]}).json()["text"] == "1 device"
    )
    assert operator.post("run_count", data={"scope": "filter", "draft": "no-uuid"}).status_code == 200


def test_many_picked_devices_stay_picked(operator: Operator, organization: Organization) -> None:
    credential = factories.credential(organization=organization)
    picked = [factories.device(organization=organization, credentials=[credential]) for _ in range(201)]
    reply = operator.post(
        "device_changelist",
        data={"action": "run_on_these", "_selected_action": [str(row.pk) for row in picked]},
    )
    pk = reply.url.rstrip("/").split("/")[-2]
    page = operator.get("run_targets", pk).content.decode()
    assert "The 201 devices that were picked from a list" in page
    operator.post("run_targets", pk, data={"scope": "devices", "keep_picked": "1"})
    operator.post("run_command", pk, data=UPTIME)
    assert operator.get("run_review", pk).context["eligible"] == 201
