"""Reading and deleting mass commands: lists, filters, details, per-device rows, history."""

import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from orchestrator.access import Role
from orchestrator.models import Command, MassCommand
from orchestrator.states import CommandStatus
from tests import factories
from tests.integration.api_addresses import (
    DEVICES,
    GROUPS,
    LOCATIONS,
    MISSING,
    ORGANIZATIONS,
    PREVIEW,
    RUNS,
    UPTIME,
    case,
    finish,
    launch,
    names,
)

pytestmark = [pytest.mark.django_db, pytest.mark.database, pytest.mark.usefixtures("outbox")]

RUN_FIELDS = {
    "id", "type", "playbook", "playbook_digest", "playbook_commit", "input", "status", "label", "notes",
    "organization", "group", "location", "created_by", "created",
    "started", "finished", "device_count", "counts", "progress", "controls", "parent", "paused", "run_at", "deadline",
}  # fmt: skip
ROW_FIELDS = {
    "id", "mass_command", "device", "device_name", "type", "playbook", "status", "reason", "rc", "recap", "stdout",
    "stderr", "truncated", "bytes_total", "created", "started", "finished",
}  # fmt: skip


@pytest.fixture
def fleet() -> Any:
    """An organization of three devices; one of them is deactivated."""
    organization = factories.organization(name="north")
    shared = factories.credential(organization=organization)
    for name in ("alpha", "beta", "gamma"):
        factories.device(organization=organization, name=name, credentials=[shared], is_active=name != "gamma")
    return organization


@pytest.fixture
def operator(api: Any, fleet: Any) -> Any:
    """A client of its operator."""
    return api(factories.user(organization=fleet, username="olga"))


@pytest.fixture
def administrator(api: Any, fleet: Any) -> Any:
    """A client of its administrator."""
    return api(factories.user(organization=fleet, role=Role.ADMINISTRATOR))


def test_a_launch_answers_with_the_run_and_its_address(operator: Any, fleet: Any) -> None:
    reply = operator.post(RUNS, {**UPTIME, "organization": str(fleet.pk), "label": "weekly", "notes": "why"})
    assert reply.status_code == 201
    run = reply.json()
    assert set(run) == RUN_FIELDS
    assert reply["Location"].endswith(f"{RUNS}{run['id']}/")
    assert (run["type"], run["input"], run["status"]) == ("custom", {"command": "uptime"}, "queued")
    assert (run["label"], run["notes"], run["created_by"]) == ("weekly", "why", "olga")
    assert (run["organization"], run["group"], run["location"]) == (str(fleet.pk), None, None)
    assert (run["device_count"], run["started"], run["finished"]) == (3, None, None)
    assert set(run["counts"]) == set(CommandStatus)
    assert sum(run["counts"].values()) == 3
    assert (run["counts"]["queued"], run["counts"]["skipped"], run["progress"]) == (2, 1, 0.3333)


def test_a_finished_run_says_so(operator: Any, fleet: Any) -> None:
    run = launch(operator, organization=str(fleet.pk))
    finish(run["id"])
    shown = operator.get(f"{RUNS}{run['id']}/").json()
    assert (shown["status"], shown["progress"], shown["counts"]["success"]) == ("partial", 1.0, 2)
    assert shown["finished"]


def test_the_list_is_newest_first_and_in_pages(operator: Any, fleet: Any) -> None:
    made = [launch(operator, organization=str(fleet.pk), label=f"run {number}")["label"] for number in range(3)]
    assert names(operator.get(RUNS), "label") == made[::-1]
    page = operator.get(RUNS, {"page_size": 2}).json()
    assert (page["count"], len(page["results"]), page["previous"]) == (3, 2, None)
    assert set(page["results"][0]) == RUN_FIELDS
    rest = operator.get(page["next"]).json()
    assert [row["label"] for row in rest["results"]] == ["run 0"]


@pytest.fixture
def history(api: Any, fleet: Any) -> Any:
    """Two runs that differ in everything, and a superuser's client."""
    root = api(factories.superuser())
    group = factories.group(organization=fleet)
    fleet.devices.filter(name="alpha").update(group=group)
    location = factories.location()
    factories.device(organization=location.organization, location=location)
    first = launch(root, group=str(group.pk), label="first of all")
    finish(first["id"])
    MassCommand.objects.filter(pk=first["id"]).update(created=timezone.now() - timedelta(days=2))
    second = launch(root, location=str(location.pk), label="second", type="reboot", input=None)
    return {"root": root, "fleet": fleet, "group": group, "location": location, "first": first, "second": second}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"status": "success"}, ["first of all"]),
        ({"status": "queued"}, ["second"]),
        ({"status": ["queued", "success"]}, ["second", "first of all"]),
        ({"status": "failed"}, []),
        ({"type": "reboot"}, ["second"]),
        ({"type": ["custom", "reboot"]}, ["second", "first of all"]),
        ({"type": "custom", "status": "queued"}, []),
        ({"label": "FIRST"}, ["first of all"]),
        ({"organization": "fleet"}, ["first of all"]),
        ({"group": "group"}, ["first of all"]),
        ({"location": "location"}, ["second"]),
        ({"organization": MISSING}, []),
        ({"created_after": -1}, ["second"]),
        ({"created_before": -1}, ["first of all"]),
        ({"created_after": -3, "created_before": -1}, ["first of all"]),
    ],
    ids=case,
)
def test_the_list_is_filtered(history: Any, query: dict[str, Any], found: list[str]) -> None:
    given = {
        name: history[value].pk if isinstance(value, str) and value in history
        else (timezone.now() + timedelta(days=value)).isoformat() if isinstance(value, int) else value
        for name, value in query.items()
    }  # fmt: skip
    assert names(history["root"].get(RUNS, given), "label") == found


@pytest.mark.parametrize(
    ("name", "value"),
    [("status", "done"), ("status", "QUEUED"), ("type", "x"), ("organization", "x"), ("group", "1"), ("location", "{}"),
     ("created_after", "yesterday"), ("created_before", "9999-12-31T23:59:59-23:00"), ("colour", "red"),
     ("label", "\x00")],
)  # fmt: skip
def test_a_bad_filter_is_named(operator: Any, name: str, value: str) -> None:
    reply = operator.get(RUNS, {name: value})
    assert reply.status_code == 400
    assert list(reply.json()) == [name]


def test_the_detail_has_targets_and_the_first_page_of_results(operator: Any, fleet: Any) -> None:
    run = launch(operator, organization=str(fleet.pk))
    shown = operator.get(f"{RUNS}{run['id']}/").json()
    assert set(shown) == RUN_FIELDS | {"targets", "digest", "commands", "waits_for"}
    assert shown["targets"] == {"organization": str(fleet.pk)}
    page = shown["commands"]
    assert page["url"].endswith(f"{RUNS}{run['id']}/commands/")
    assert (page["count"], page["next"], page["previous"]) == (3, None, None)
    assert [row["device_name"] for row in page["results"]] == ["alpha", "beta", "gamma"]
    assert set(page["results"][0]) == ROW_FIELDS


def test_the_detail_of_many_devices_links_to_the_next_page(operator: Any, fleet: Any) -> None:
    for number in range(25):
        factories.device(organization=fleet, name=f"n{number:02}", credentials=[])
    run = launch(operator, organization=str(fleet.pk))
    page = operator.get(f"{RUNS}{run['id']}/").json()["commands"]
    assert (page["count"], len(page["results"])) == (28, 20)
    rest = operator.get(page["next"]).json()
    assert len(rest["results"]) == 8
    assert not {row["id"] for row in rest["results"]} & {row["id"] for row in page["results"]}


def test_each_device_has_a_row_with_its_reason(operator: Any, fleet: Any) -> None:
    run = launch(operator, organization=str(fleet.pk))
    finish(run["id"])
    rows = {row["device_name"]: row for row in operator.get(f"{RUNS}{run['id']}/commands/").json()["results"]}
    assert set(rows["alpha"]) == ROW_FIELDS
    assert (rows["alpha"]["status"], rows["alpha"]["rc"], rows["alpha"]["stdout"]) == ("success", 0, "up 3 days")
    assert (rows["gamma"]["status"], rows["gamma"]["reason"]) == ("skipped", "The device is deactivated.")
    assert rows["gamma"]["rc"] is None
    assert rows["alpha"]["mass_command"] == run["id"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"status": "skipped"}, ["gamma"]),
        ({"status": ["skipped", "queued"]}, ["alpha", "beta", "gamma"]),
        ({"device_name": "ET"}, ["beta"]),
        ({"device_name": "a", "status": "queued"}, ["alpha", "beta"]),
        ({"device": MISSING}, []),
    ],
    ids=case,
)
def test_per_device_rows_are_filtered(operator: Any, fleet: Any, query: dict[str, Any], found: list[str]) -> None:
    run = launch(operator, organization=str(fleet.pk))
    assert names(operator.get(f"{RUNS}{run['id']}/commands/", query), "device_name") == found


@pytest.mark.parametrize("query", [{"status": "x"}, {"device": "x"}, {"page_size": "0"}, {"name": "x"}], ids=case)
def test_a_bad_filter_of_per_device_rows_is_named(operator: Any, fleet: Any, query: dict[str, str]) -> None:
    run = launch(operator, organization=str(fleet.pk))
    reply = operator.get(f"{RUNS}{run['id']}/commands/", query)
    assert (reply.status_code, list(reply.json())) == (400, list(query))


# ---------------------------------------------------------------- delete


def test_a_finished_run_is_deleted_and_its_devices_keep_their_history(administrator: Any, fleet: Any) -> None:
    run = launch(administrator, organization=str(fleet.pk))
    finish(run["id"])
    reply = administrator.delete(f"{RUNS}{run['id']}/")
    assert (reply.status_code, reply.content) == (204, b"")
    assert administrator.get(f"{RUNS}{run['id']}/").status_code == 404
    device = fleet.devices.get(name="alpha")
    (row,) = administrator.get(f"{DEVICES}{device.pk}/command/").json()["results"]
    assert (row["mass_command"], row["input"], row["stdout"]) == (None, {"command": "uptime"}, "up 3 days")
    assert Command.objects.count() == 3


def test_an_active_run_is_not_deleted(administrator: Any, fleet: Any) -> None:
    run = launch(administrator, organization=str(fleet.pk))
    reply = administrator.delete(f"{RUNS}{run['id']}/")
    assert (reply.status_code, reply.json()["code"]) == (409, "still_active")
    assert MassCommand.objects.exists()


def test_deleting_is_for_administrators(operator: Any, fleet: Any) -> None:
    run = launch(operator, organization=str(fleet.pk))
    finish(run["id"])
    assert operator.delete(f"{RUNS}{run['id']}/").status_code == 403
    assert MassCommand.objects.exists()


def test_a_system_wide_run_is_invisible_to_others(api: Any, administrator: Any, fleet: Any) -> None:
    run = launch(api(factories.superuser()), all_devices=True, expected_count=fleet.devices.count())
    assert run["organization"] is None
    assert administrator.get(RUNS).json()["count"] == 0
    for path in ("", "commands/"):
        assert administrator.get(f"{RUNS}{run['id']}/{path}").status_code == 404


def test_a_role_that_is_taken_away_ends_the_access_at_once(api: Any, fleet: Any) -> None:
    user = factories.user(organization=fleet)
    client = api(user)
    run = launch(client, organization=str(fleet.pk))
    assert client.get(f"{RUNS}{run['id']}/").status_code == 200
    user.memberships.all().delete()
    assert client.get(f"{RUNS}{run['id']}/").status_code == 404
    assert client.get(RUNS).json()["count"] == 0


# ---------------------------------------------------------------- one device


def test_one_command_runs_on_one_device(operator: Any, fleet: Any, outbox: Any) -> None:
    device = fleet.devices.get(name="alpha")
    reply = operator.post(f"{DEVICES}{device.pk}/command/", {**UPTIME, "label": "one"})
    assert reply.status_code == 201
    row = reply.json()
    assert set(row) == ROW_FIELDS | {"input"}
    assert (row["device"], row["status"], row["input"]) == (str(device.pk), "queued", {"command": "uptime"})
    run = operator.get(f"{RUNS}{row['mass_command']}/").json()
    assert (run["device_count"], run["label"], run["targets"]) == (1, "one", {"devices": [str(device.pk)]})
    assert operator.get(f"{DEVICES}{device.pk}/command/").json()["results"] == [row]


def test_a_device_that_is_not_eligible_has_a_skipped_row(operator: Any, fleet: Any) -> None:
    device = fleet.devices.get(name="gamma")
    row = operator.post(f"{DEVICES}{device.pk}/command/", UPTIME).json()
    assert (row["status"], row["reason"]) == ("skipped", "The device is deactivated.")


def test_a_device_history_is_newest_first_and_filtered(operator: Any, fleet: Any) -> None:
    address = f"{DEVICES}{fleet.devices.get(name='alpha').pk}/command/"
    for number, kind in enumerate(("custom", "reboot")):
        body = {"type": kind, "input": UPTIME["input"] if kind == "custom" else None}
        operator.post(address, body)
        Command.objects.filter(type=kind).update(created=timezone.now() + timedelta(seconds=number))
    assert names(operator.get(address), "type") == ["reboot", "custom"]
    assert names(operator.get(address, {"type": "custom"}), "type") == ["custom"]
    assert operator.get(address, {"status": "x"}).status_code == 400


def test_a_device_that_moved_leaves_its_history_behind(api: Any, operator: Any, fleet: Any) -> None:
    device = fleet.devices.get(name="alpha")
    launch(operator, devices=[str(device.pk)])
    other = factories.organization()
    device.organization = other
    device.save()
    assert operator.get(f"{DEVICES}{device.pk}/command/").status_code == 404
    assert api(factories.user(organization=other)).get(f"{DEVICES}{device.pk}/command/").json()["count"] == 0


@pytest.mark.parametrize("body", [{"devices": [MISSING]}, {"organization": MISSING}, {"all_devices": True}], ids=case)
def test_a_command_for_one_device_takes_no_targets(operator: Any, fleet: Any, body: dict[str, Any]) -> None:
    device = fleet.devices.get(name="alpha")
    reply = operator.post(f"{DEVICES}{device.pk}/command/", {**UPTIME, **body})
    assert (reply.status_code, list(reply.json())) == (400, list(body))


# ---------------------------------------------------------------- secrets


def test_a_new_password_is_masked_everywhere(operator: Any, fleet: Any) -> None:
    secret = {"password": "Tr0ub4dor&3", "confirm_password": "Tr0ub4dor&3", "username": "admin"}
    body = {"type": "change_password", "input": secret, "organization": str(fleet.pk)}
    device = fleet.devices.get(name="alpha")
    preview, launched = operator.post(PREVIEW, body), operator.post(RUNS, body)
    run = launched.json()
    single = operator.post(f"{DEVICES}{device.pk}/command/", {"type": "change_password", "input": secret})
    replies = [preview, launched, single]
    pages = [RUNS, f"{RUNS}{run['id']}/", f"{RUNS}{run['id']}/commands/", f"{DEVICES}{device.pk}/command/"]
    replies += [operator.get(address) for address in pages]
    for reply in replies:
        assert reply.status_code in (200, 201)
        assert b"Tr0ub4dor" not in reply.content
    assert run["input"]["username"] == "admin"
    assert run["input"]["password"] == run["input"]["confirm_password"] != ""
    row = MassCommand.objects.values().get(pk=uuid.UUID(run["id"]))
    assert "Tr0ub4dor" not in repr(row)


def test_a_list_without_roles_is_empty_not_forbidden(api: Any) -> None:
    client = api(factories.user())
    for address in (RUNS, DEVICES, GROUPS, LOCATIONS, ORGANIZATIONS):
        assert client.get(address).json()["count"] == 0
