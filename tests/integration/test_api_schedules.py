"""Recurring mass commands through the API."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from orchestrator.models import Device, MassCommand, Schedule
from orchestrator.scheduling import start_due
from tests import factories
from tests.integration.api_addresses import CONTROLLER, MISSING, case, post

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database, pytest.mark.usefixtures("outbox")]

SCHEDULES = CONTROLLER + "schedule/"
SECRET = {"password": "n3w-Secret", "confirm_password": "n3w-Secret"}
MASKED = dict.fromkeys(SECRET, "********")


@pytest.fixture
def device() -> Device:
    """The device of an organization."""
    return factories.device()


@pytest.fixture
def operator(api: Any, device: Device) -> Any:
    """A client of its operator."""
    return api(factories.user(organization=device.organization, username="olga"))


def _body(device: Device, **changes: Any) -> dict[str, Any]:
    body = {
        "name": "nightly",
        "type": "custom",
        "input": {"command": "uptime"},
        "targets": {"organization": str(device.organization_id)},
        "cron": "0 3 * * *",
    }
    return body | changes


def _made(client: Any, device: Device, **changes: Any) -> dict[str, Any]:
    reply = client.post(SCHEDULES, _body(device, **changes))
    assert reply.status_code == 201, reply.content
    made: dict[str, Any] = reply.json()
    return made


def _start(pk: str) -> int:
    Schedule.objects.filter(pk=pk).update(next_run=timezone.now() - timedelta(seconds=1))
    return start_due()


def test_a_schedule_starts_what_it_says(operator: Any, device: Device) -> None:
    made = _made(operator, device, controls={"max_errors": 3, "check": True}, timezone="Europe/Vienna")
    assert (made["organization"], made["created_by"]) == (str(device.organization_id), "olga")
    assert made["next_run"] > timezone.now().isoformat()
    assert _start(made["id"]) == 1
    run = MassCommand.objects.get()
    assert (run.label, run.max_errors, run.check_mode, run.device_count) == ("nightly", 3, True, 1)


def test_the_secrets_of_a_schedule_are_masked_and_stay_when_they_come_back_masked(
    operator: Any, device: Device
) -> None:
    made = _made(operator, device, type="change_password", input=SECRET)
    assert made["input"] == MASKED
    address = f"{SCHEDULES}{made['id']}/"
    assert operator.put(address, made | {"name": "weekly"}).status_code == 200
    row = Schedule.objects.get()
    assert "n3w" not in row.sealed_input
    assert (row.name, row.secret_input()) == ("weekly", SECRET)
    assert operator.patch(address, {"name": "monthly"}).status_code == 200
    assert Schedule.objects.get().secret_input() == SECRET


def test_a_mask_is_no_password(operator: Any, device: Device) -> None:
    reply = operator.post(SCHEDULES, _body(device, type="change_password", input=MASKED))
    assert (reply.status_code, set(reply.json()["input"])) == (400, set(SECRET))


def test_whose_words_they_are_their_rights_count(api: Any, operator: Any, device: Device) -> None:
    made = _made(api(factories.superuser(username="root")), device)
    assert made["created_by"] == "root"
    reply = operator.patch(f"{SCHEDULES}{made['id']}/", {"input": {"command": "id"}})
    assert reply.json()["created_by"] == "olga"
    Schedule.objects.get().created_by.memberships.all().delete()  # type: ignore[union-attr]
    assert _start(made["id"]) == 0
    assert Schedule.objects.get().last_result


def test_the_time_is_told_anew_only_where_it_may_have_changed(operator: Any, device: Device) -> None:
    made = _made(operator, device)
    due = timezone.now() - timedelta(seconds=1)
    Schedule.objects.update(next_run=due)
    address = f"{SCHEDULES}{made['id']}/"
    operator.patch(address, {"name": "renamed"})
    assert Schedule.objects.get().next_run == due
    assert operator.patch(address, {"enabled": False}).json()["next_run"] is None
    assert operator.patch(address, {"enabled": True, "cron": "5 * * * *"}).json()["next_run"]


def test_a_schedule_whose_targets_are_gone_can_still_be_switched_off(operator: Any, device: Device) -> None:
    group = factories.group(organization=device.organization)
    made = _made(operator, device, targets={"group": str(group.pk)})
    group.delete()
    address = f"{SCHEDULES}{made['id']}/"
    assert list(operator.patch(address, {"name": "x"}).json()) == ["targets"]
    assert operator.patch(address, {"enabled": False}).status_code == 200


def test_system_wide_schedules_are_for_superusers(api: Any, operator: Any, device: Device) -> None:
    body = {"targets": {"all_devices": True}}
    assert "all_devices" in operator.post(SCHEDULES, _body(device, **body)).json()["targets"]
    made = _made(api(factories.superuser()), device, **body)
    assert made["organization"] is None
    assert operator.get(f"{SCHEDULES}{made['id']}/").status_code == 404
    assert operator.get(SCHEDULES).json()["count"] == 0


def test_a_name_is_unique_in_its_organization(operator: Any, device: Device) -> None:
    _made(operator, device)
    assert list(operator.post(SCHEDULES, _body(device)).json()) == ["name"]


BAD: dict[str, list[Any]] = {
    "name": ["", None, 1, "a\nb", "x" * 65],
    "organization": [MISSING, 1, "x"],
    "type": ["", "x", None, 1],
    "input": [None, {}, [], "uptime", {"command": ""}],
    "targets": [None, {}, [], "x", {"devices": []}, {"group": MISSING}, {"organisation": MISSING}, {"tags": []}],
    "controls": [None, [], {"canary": 0}, {"run_at": "2027-01-01T00:00:00Z"}, {"wait_for_offline_until": None}],
    "cron": ["", None, 1, "* * * *", "* * * * * *", "60 * * * *", "0 0 30 2 *", "@daily", "x" * 129],
    "timezone": ["", None, 1, "Mars", "../etc/passwd"],
    "enabled": [None, "true", 1],
    "overlap": [None, "", "queue", 1],
    "color": ["red"],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD.items() for value in values], ids=case
)
def test_what_is_wrong_is_named(operator: Any, device: Device, name: str, value: Any) -> None:
    reply = post(operator, SCHEDULES, _body(device, **{name: value}))
    assert (reply.status_code, list(reply.json())) == (400, [name]), reply.content
    assert not Schedule.objects.exists()
