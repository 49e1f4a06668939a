"""The admin's pages of recurring runs."""

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from orchestrator.models import AuditEntry, Device, MassCommand, Schedule
from orchestrator.models.users import User
from orchestrator.scheduling import start_due
from tests import factories

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("outbox")]

LIST = "/admin/orchestrator/schedule/"
SECRET = {"password": "n3w-Secret", "confirm_password": "n3w-Secret"}


@pytest.fixture
def device() -> Device:
    """The device of an organization."""
    return factories.device()


def signed_in(user: User) -> Client:
    """A browser of this user's."""
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def operator(device: Device) -> Client:
    """An operator of the organization."""
    return signed_in(factories.user(organization=device.organization, username="olga", is_staff=True))


def sent(device: Device, **changes: Any) -> dict[str, Any]:
    """What the form of a schedule sends."""
    return {
        "schedule-name": "nightly", "schedule-cron": "30 2 * * *", "schedule-timezone": "Europe/Vienna",
        "schedule-overlap": "skip", "schedule-enabled": "on", "scope": "filter",
        "organization": str(device.organization_id), "type": "custom", "custom__command": "uptime", "canary": "1",
    } | changes  # fmt: skip


def page(row: Schedule) -> str:
    """The address of a schedule."""
    return reverse("admin:orchestrator_schedule_change", args=[row.pk])


def make(client: Client, device: Device, **changes: Any) -> Schedule:
    """Make one by the form."""
    reply = client.post(f"{LIST}add/", sent(device, **changes))
    assert reply.status_code == 302, reply.content.decode()
    return Schedule.objects.get()


def test_a_schedule_is_made_and_starts_what_it_says(operator: Client, device: Device) -> None:
    assert operator.get(f"{LIST}add/").status_code == 200
    row = make(operator, device)
    assert (row.organization, row.timezone, row.controls["canary"]) == (device.organization, "Europe/Vienna", 1)
    assert row.created_by
    assert row.created_by.username == "olga"
    assert row.next_run
    assert row.next_run > timezone.now()
    Schedule.objects.update(next_run=timezone.now())
    assert start_due() == 1
    run = MassCommand.objects.get()
    text = operator.get(page(row)).content.decode()
    assert f"/admin/orchestrator/masscommand/{run.pk}/change/" in text
    assert "nightly" in operator.get(LIST).content.decode()
    assert AuditEntry.objects.filter(action="schedule.create").count() == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schedule-cron": "every night"}, "Enter five fields"),
        ({"schedule-cron": "0 0 30 2 *"}, "no such day"),
        ({"schedule-timezone": "Vienna"}, "Enter a time zone"),
        ({"schedule-name": ""}, "required"),
        ({"custom__command": " "}, "may not be blank"),
        ({"organization": ""}, "Name at least one"),
        ({"canary": "none"}, "a percentage"),
    ],
)
def test_what_a_launch_would_refuse_is_refused_beside_its_field(
    operator: Client, device: Device, changes: dict[str, str], words: str
) -> None:
    reply = operator.post(f"{LIST}add/", sent(device, **changes))
    assert reply.status_code == 200
    assert words in reply.content.decode()
    assert not Schedule.objects.exists()


def test_a_name_is_there_once(operator: Client, device: Device) -> None:
    make(operator, device)
    assert "There is a schedule of this name" in operator.post(f"{LIST}add/", sent(device)).content.decode()
    assert Schedule.objects.count() == 1


def test_a_change_keeps_the_secret_that_is_not_typed_again_and_what_the_form_does_not_show(
    operator: Client, device: Device
) -> None:
    typed = {f"change_password__{name}": value for name, value in SECRET.items()}
    row = make(operator, device, type="change_password", **typed)
    Schedule.objects.update(controls={"ramp": True, "pause": 45.0})
    text = operator.get(page(row)).content.decode()
    assert "n3w-Secret" not in text
    assert "45 seconds" in text
    changed = sent(device, type="change_password", pause="45", **{"schedule-name": "weekly"})
    assert operator.post(page(row), changed).status_code == 302
    row.refresh_from_db()
    assert (row.name, row.secret_input()) == ("weekly", SECRET)
    assert row.controls == {"ramp": True, "pause": 45.0, "canary": 1, "on_conflict": "queue"}
    assert "n3w-Secret" not in str(list(AuditEntry.objects.values_list("details", flat=True)))


def test_it_is_switched_off_and_on(operator: Client, device: Device) -> None:
    row = make(operator, device)
    for on in (False, True):
        operator.post(page(row), {"switch": "on" if on else "off"})
        row.refresh_from_db()
        assert (row.enabled, row.next_run is not None) == (on, on)
    for on in (False, True):
        operator.post(LIST, {"action": "enable" if on else "disable", "_selected_action": [str(row.pk)]})
        row.refresh_from_db()
        assert (row.enabled, row.next_run is not None) == (on, on)


def test_who_may_only_look_changes_nothing_and_strangers_find_nothing(operator: Client, device: Device) -> None:
    row = make(operator, device)
    viewer = signed_in(factories.user(organization=device.organization, role="viewer", is_staff=True))
    text = viewer.get(page(row)).content.decode()
    assert "nightly" in text
    assert 'id="step"' not in text
    assert viewer.post(page(row), {"switch": "off"}).status_code == 403
    assert viewer.post(page(row), sent(device)).status_code == 403
    assert viewer.get(f"{LIST}add/").status_code == 403
    stranger = signed_in(factories.user(organization=factories.organization(), is_staff=True))
    assert stranger.get(page(row)).status_code == 404
    assert stranger.post(page(row), {"switch": "off"}).status_code == 404
    assert "nightly" not in stranger.get(LIST).content.decode()
    reply = stranger.post(f"{LIST}add/", sent(device))
    assert (reply.status_code, Schedule.objects.count()) == (200, 1)


def test_an_operator_deletes_one(operator: Client, device: Device) -> None:
    row = make(operator, device)
    assert operator.post(f"{LIST}{row.pk}/delete/", {"post": "yes"}).status_code == 302
    assert not Schedule.objects.exists()
