"""Which devices a preview and a launch mean, and which of them are eligible."""

from typing import Any

import pytest

from orchestrator.access import Role
from orchestrator.models import Command, MassCommand
from tests import factories
from tests.integration.api_addresses import DEVICES, MISSING, PREVIEW, RUNS, UPTIME, launch

pytestmark = [pytest.mark.django_db, pytest.mark.database, pytest.mark.usefixtures("outbox")]


@pytest.fixture
def fleet() -> dict[str, Any]:
    """An organization with devices in a group, at a location, in both and in neither; its operator."""
    organization = factories.organization(name="north")
    group = factories.group(organization=organization)
    location = factories.location(organization=organization)
    own: dict[str, Any] = {"organization": organization}
    return {
        **own,
        "group": group,
        "location": location,
        "grouped": factories.device(name="grouped", group=group, **own),
        "placed": factories.device(name="placed", location=location, **own),
        "both": factories.device(name="both", group=group, location=location, **own),
        "neither": factories.device(name="neither", **own),
        "operator": factories.user(**own),
    }


def _body(fleet: dict[str, Any], names: str) -> dict[str, Any]:
    return {name: str(fleet[name].pk) for name in names.split()}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("organization", {"grouped", "placed", "both", "neither"}),
        ("group", {"grouped", "both"}),
        ("location", {"placed", "both"}),
        ("group location", {"both"}),
        ("organization group", {"grouped", "both"}),
        ("organization group location", {"both"}),
    ],
)
def test_filters_are_combined_with_and(api: Any, fleet: dict[str, Any], given: str, expected: set[str]) -> None:
    factories.device(name="stranger")
    client, body = api(fleet["operator"]), _body(fleet, given)
    preview = client.post(PREVIEW, body).json()
    assert {row["name"] for row in preview["results"]} == expected
    run = launch(client, **body)
    assert set(Command.objects.filter(mass_command=run["id"]).values_list("device_name", flat=True)) == expected
    assert run["device_count"] == preview["count"] == len(expected)


def test_picked_devices_are_taken_as_given(api: Any, fleet: dict[str, Any]) -> None:
    body = {"devices": [str(fleet["neither"].pk), str(fleet["placed"].pk)]}
    reply = api(fleet["operator"]).post(PREVIEW, body).json()
    assert [(row["name"], row["eligible"]) for row in reply["results"]] == [("neither", True), ("placed", True)]


@pytest.mark.parametrize("narrowed", ["group", "location"])
def test_a_picked_device_outside_of_the_filter_is_ineligible_with_a_reason(
    api: Any, fleet: dict[str, Any], narrowed: str
) -> None:
    client = api(fleet["operator"])
    body = {**_body(fleet, narrowed), "devices": [str(fleet["both"].pk), str(fleet["neither"].pk)]}
    reply = client.post(PREVIEW, body).json()
    assert {row["name"]: row["eligible"] for row in reply["results"]} == {"both": True, "neither": False}
    reasons = {row["name"]: row["reason"] for row in reply["results"]}
    assert narrowed in reasons["neither"]
    run = launch(client, **body)
    skipped = Command.objects.get(mass_command=run["id"], status="skipped")
    assert (skipped.device_name, skipped.reason) == ("neither", reasons["neither"])


def test_a_device_picked_twice_is_one_target(api: Any, fleet: dict[str, Any]) -> None:
    run = launch(api(fleet["operator"]), devices=[str(fleet["both"].pk)] * 3)
    assert run["device_count"] == 1


@pytest.mark.parametrize("address", [PREVIEW, RUNS])
@pytest.mark.parametrize("who", ["operator", "superuser"])
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "targets"),
        ({"organization": None}, "targets"),
        ({"group": None, "location": None, "devices": None, "all_devices": False}, "targets"),
        ({"devices": []}, "devices"),
        ({"all_devices": True, "devices": []}, "devices"),
    ],
)
def test_naming_nothing_never_means_everything(
    api: Any, fleet: dict[str, Any], address: str, who: str, body: dict[str, Any], field: str
) -> None:
    user = fleet["operator"] if who == "operator" else factories.superuser()
    reply = api(user).post(address, {**UPTIME, **body})
    assert reply.status_code == 400
    assert field in reply.json()
    assert not MassCommand.objects.exists()


def test_an_empty_list_of_devices_does_not_widen_to_its_organization(api: Any, fleet: dict[str, Any]) -> None:
    body = {**UPTIME, **_body(fleet, "organization"), "devices": []}
    reply = api(fleet["operator"]).post(RUNS, body)
    assert reply.status_code == 400
    assert list(reply.json()) == ["devices"]


@pytest.mark.parametrize("address", [PREVIEW, RUNS])
@pytest.mark.parametrize("field", ["organization", "group", "location", "devices"])
@pytest.mark.parametrize("kind", ["foreign", "missing"])
def test_a_foreign_object_in_the_body_does_not_exist(
    api: Any, fleet: dict[str, Any], address: str, field: str, kind: str
) -> None:
    other = factories.organization()
    stranger = factories.device(organization=other)
    rows = {
        "organization": other,
        "group": factories.group(organization=other),
        "location": factories.location(organization=other),
        "devices": stranger,
    }
    pk = str(rows[field].pk) if kind == "foreign" else MISSING
    reply = api(fleet["operator"]).post(address, {**UPTIME, field: [pk] if field == "devices" else pk})
    assert reply.status_code == 400
    assert list(reply.json()) == [field]
    assert other.name not in reply.content.decode()
    same = api(fleet["operator"]).post(address, {**UPTIME, field: [MISSING] if field == "devices" else MISSING})
    assert reply.content.decode().replace(pk, MISSING) == same.content.decode()


@pytest.mark.parametrize("field", ["group", "location", "devices"])
def test_what_belongs_to_another_organization_than_the_one_named_is_refused(
    api: Any, fleet: dict[str, Any], field: str
) -> None:
    other = factories.organization()
    row = fleet["both"] if field == "devices" else fleet[field]
    body = {**UPTIME, "organization": str(other.pk), field: [str(row.pk)] if field == "devices" else str(row.pk)}
    for address in (PREVIEW, RUNS):
        reply = api(factories.superuser()).post(address, body)
        assert reply.status_code == 400
        assert list(reply.json()) == [field]


@pytest.mark.parametrize("address", [PREVIEW, RUNS])
def test_several_organizations_are_for_superusers(api: Any, fleet: dict[str, Any], address: str) -> None:
    other = factories.device()
    both = factories.user(organization=fleet["organization"], role=Role.ADMINISTRATOR)
    both.memberships.create(organization=other.organization, role=Role.ADMINISTRATOR)
    body = {**UPTIME, "devices": [str(fleet["both"].pk), str(other.pk)]}
    reply = api(both).post(address, body)
    assert reply.status_code == 400
    assert "Only superusers" in reply.json()["devices"][0]
    assert api(factories.superuser()).post(address, body).status_code in (200, 201)


def test_all_devices_span_every_organization(api: Any, fleet: dict[str, Any]) -> None:
    other = factories.device()
    body = {"all_devices": True}
    preview = api(factories.superuser()).post(PREVIEW, body).json()
    assert preview["count"] == 5
    organizations = {row["id"]: row["count"] for row in preview["breakdown"]["organization"]}
    assert organizations == {str(fleet["organization"].pk): 4, str(other.organization_id): 1}


@pytest.mark.parametrize("address", [PREVIEW, RUNS])
def test_all_devices_are_refused_to_others_with_the_reason(api: Any, fleet: dict[str, Any], address: str) -> None:
    administrator = factories.user(organization=fleet["organization"], role=Role.ADMINISTRATOR)
    reply = api(administrator).post(address, {**UPTIME, "all_devices": True})
    assert reply.status_code == 400
    assert "Only superusers" in reply.json()["all_devices"][0]


def test_a_run_within_one_organization_belongs_to_it_however_it_was_named(api: Any, fleet: dict[str, Any]) -> None:
    client = api(factories.superuser())
    for body in (
        _body(fleet, "group"),
        _body(fleet, "location"),
        {"devices": [str(fleet["both"].pk), str(fleet["neither"].pk)]},
    ):
        assert launch(client, **body)["organization"] == str(fleet["organization"].pk)


def test_a_preview_counts_by_organization_group_and_location(api: Any, fleet: dict[str, Any]) -> None:
    fleet["both"].is_active = False
    fleet["both"].save()
    breakdown = api(fleet["operator"]).post(PREVIEW, _body(fleet, "organization")).json()["breakdown"]
    group, location = str(fleet["group"].pk), str(fleet["location"].pk)
    for name, key in (("group", group), ("location", location)):
        counted = {row["id"]: (row["count"], row["eligible_count"]) for row in breakdown[name]}
        assert counted == {None: (2, 2), key: (2, 1)}
    assert [row["name"] for row in breakdown["organization"]] == ["north"]


def test_a_filter_that_matches_nothing_is_previewed_as_nothing_and_never_launched(api: Any) -> None:
    group = factories.group()
    client = api(factories.user(organization=group.organization))
    preview = client.post(PREVIEW, {"group": str(group.pk)})
    assert preview.status_code == 200
    assert (preview.json()["count"], preview.json()["results"]) == (0, [])
    reply = client.post(RUNS, {**UPTIME, "group": str(group.pk), "digest": preview.json()["digest"]})
    assert reply.status_code == 400
    assert reply.json()["code"] == "no_targets"
    assert not MassCommand.objects.exists()


def test_each_reason_why_a_device_is_skipped(api: Any, fleet: dict[str, Any]) -> None:
    own = {"organization": fleet["organization"]}
    off = factories.device(name="off", is_active=False, **own)
    bare = factories.device(name="bare", credentials=[], **own)
    closed = factories.device(name="closed", organization=factories.organization(is_active=False))
    strict = factories.device(name="strict", organization=factories.organization(allowed_types=["reboot"]))
    picked = [off, bare, closed, strict, fleet["both"]]
    run = launch(api(factories.superuser()), devices=[str(row.pk) for row in picked])
    reasons = dict(Command.objects.filter(mass_command=run["id"]).values_list("device_name", "reason"))
    assert reasons == {
        "both": "",
        "off": "The device is deactivated.",
        "bare": "The device has no credential.",
        "closed": "The organization is deactivated.",
        "strict": "The organization does not allow this command type.",
    }
    assert (run["counts"]["queued"], run["counts"]["skipped"], run["device_count"]) == (1, 4, 5)


def test_a_run_of_skipped_devices_alone_has_ended_and_failed(api: Any, outbox: Any) -> None:
    device = factories.device(is_active=False)
    run = launch(api(factories.superuser()), devices=[str(device.pk)])
    assert (run["status"], run["progress"]) == ("failed", 1.0)
    assert run["finished"]
    assert outbox == []


@pytest.mark.parametrize("address", [PREVIEW, RUNS])
def test_a_type_that_the_named_organization_forbids_is_refused(api: Any, address: str) -> None:
    device = factories.device(organization=factories.organization(allowed_types=["reboot"]))
    client = api(factories.user(organization=device.organization))
    reply = client.post(address, {**UPTIME, "organization": str(device.organization_id)})
    assert reply.status_code == 400
    assert "custom" in reply.json()["type"][0]
    body = {"type": "reboot", "organization": str(device.organization_id)}
    assert client.post(address, body).status_code in (200, 201)


def test_eligibility_depends_on_the_type_that_was_named(api: Any) -> None:
    device = factories.device(organization=factories.organization(allowed_types=["reboot"]))
    client, body = api(factories.superuser()), {"devices": [str(device.pk)]}
    eligible = [
        client.post(PREVIEW, {**body, **kind}).json()["eligible_count"] for kind in ({}, {"type": "reboot"}, UPTIME)
    ]
    assert eligible == [1, 1, 0]


def test_a_preview_creates_nothing(api: Any, fleet: dict[str, Any], outbox: Any) -> None:
    client = api(fleet["operator"])
    client.post(PREVIEW, {**UPTIME, **_body(fleet, "organization"), "label": "x", "notes": "y"})
    assert client.get(RUNS).json()["count"] == 0
    assert not Command.objects.exists()
    assert outbox == []


def test_a_preview_comes_in_pages(api: Any, fleet: dict[str, Any]) -> None:
    client, body = api(fleet["operator"]), _body(fleet, "organization")
    first = client.post(PREVIEW + "?page_size=3", body).json()
    assert (len(first["results"]), first["count"], first["previous"]) == (3, 4, None)
    second = client.post(first["next"], body).json()
    assert (len(second["results"]), second["next"]) == (1, None)
    assert second["digest"] == first["digest"]
    listed = [row["name"] for page in (first, second) for row in page["results"]]
    assert listed == sorted(listed)


def test_the_device_list_and_a_preview_agree(api: Any, fleet: dict[str, Any]) -> None:
    client, body = api(fleet["operator"]), _body(fleet, "group")
    listed = {row["id"] for row in client.get(DEVICES, body).json()["results"]}
    assert {row["device"] for row in client.post(PREVIEW, body).json()["results"]} == listed
