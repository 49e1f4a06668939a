"""Targets by attribute, and what is excluded: in the API, and in the filter that a run keeps."""

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from orchestrator.models import Command, Device, MassCommand
from orchestrator.targeting import TargetFilter
from tests import factories
from tests.integration.api_addresses import MISSING, PREVIEW, RUNS, UPTIME, case, launch, post

pytestmark = [pytest.mark.django_db, pytest.mark.database, pytest.mark.usefixtures("outbox")]

NAMES = {
    "ap-1": ("openwrt", ["roof", "solar"]),
    "AP-22": ("openwrt", ["roof"]),
    "srv_1": ("linux", ["roof", "ü 100%", "😀"]),
    "srv%2": ("linux", []),
    "a[p]*": ("linux", ["roofs"]),
}


@pytest.fixture
def fleet() -> Any:
    """An organization of devices that differ in platform, name and tags; some in a group."""
    organization = factories.organization()
    group = factories.group(organization=organization)
    for name, (platform, tags) in NAMES.items():
        placed = group if name.startswith("srv") else None
        factories.device(organization=organization, name=name, platform=platform, tags=tags, group=placed)
    return organization


@pytest.fixture
def operator(api: Any, fleet: Any) -> Any:
    """A client of its operator."""
    return api(factories.user(organization=fleet))


def _shown(client: Any, **body: Any) -> set[str]:
    reply = post(client, PREVIEW, body)
    assert reply.status_code == 200, reply.content
    return {row["name"] for row in reply.json()["results"]}


ATTRIBUTES: list[tuple[dict[str, Any], set[str]]] = [
    ({"platform": "linux"}, {"srv_1", "srv%2", "a[p]*"}),
    ({"name": "ap-*"}, {"ap-1", "AP-22"}),
    ({"name": "AP-?"}, {"ap-1"}),
    ({"name": "ap"}, set()),
    ({"name": "*1"}, {"ap-1", "srv_1"}),
    ({"name": "srv_?"}, {"srv_1"}),
    ({"name": "srv%*"}, {"srv%2"}),
    ({"name": "a[p]*"}, {"a[p]*"}),
    ({"name": "a[p*"}, {"a[p]*"}),
    ({"name": "\\*"}, set()),
    ({"name": "*"}, set(NAMES)),
    ({"name": ".*"}, set()),
    ({"name": "x' OR 1=1 --"}, set()),
    ({"tags": ["roof"]}, {"ap-1", "AP-22", "srv_1"}),
    ({"tags": ["roof", "solar", "roof"]}, {"ap-1"}),
    ({"tags": ["ü 100%", "😀"]}, {"srv_1"}),
    ({"tags": ["Roof"]}, set()),
    ({"tags": ["roo"]}, set()),
    ({"platform": "openwrt", "tags": ["roof"], "name": "*2"}, {"AP-22"}),
]


@pytest.mark.parametrize(("given", "expected"), ATTRIBUTES, ids=case)
def test_attributes_are_combined_with_all_else(
    operator: Any, fleet: Any, given: dict[str, Any], expected: set[str]
) -> None:
    factories.device(name="ap-9", platform="linux", tags=["roof"])
    assert _shown(operator, organization=str(fleet.pk), **given) == expected
    assert _shown(operator, **given) == expected  # the one organization that the user may run in
    if expected:
        run = launch(operator, organization=str(fleet.pk), **given)
        assert set(Command.objects.filter(mass_command=run["id"]).values_list("device_name", flat=True)) == expected


@pytest.mark.parametrize(
    ("given", "word"), [({"platform": "linux"}, "platform"), ({"name": "srv*"}, "name"), ({"tags": ["solar"]}, "tags")]
)
def test_picked_devices_that_the_attributes_do_not_match_are_skipped_with_the_reason(
    operator: Any, fleet: Any, given: dict[str, Any], word: str
) -> None:
    picked = Device.objects.get(name="AP-22")
    run = launch(operator, devices=[str(picked.pk)], **given)
    row = Command.objects.get(mass_command=run["id"])
    assert (row.status, row.reason_code) == ("skipped", f"outside_{word}")
    assert word in row.reason


def test_excluded_devices_and_groups_are_no_targets(operator: Any, fleet: Any) -> None:
    group = fleet.devicegroups.get()
    spared = str(Device.objects.get(name="ap-1").pk)
    owner = str(fleet.pk)
    assert _shown(operator, organization=owner, exclude={"groups": [str(group.pk)]}) == {"ap-1", "AP-22", "a[p]*"}
    assert _shown(operator, organization=owner, exclude={"devices": [spared]}) == set(NAMES) - {"ap-1"}
    both = {"devices": [spared], "groups": [str(group.pk)]}
    assert _shown(operator, organization=owner, exclude=both, platform="openwrt") == {"AP-22"}
    run = launch(operator, organization=owner, exclude=both)
    assert run["device_count"] == 2
    shown = operator.get(f"{RUNS}{run['id']}/").json()["targets"]
    assert shown == {"organization": owner, "exclude": both}


def test_who_picks_and_excludes_the_same_runs_on_nothing(operator: Any, fleet: Any) -> None:
    pk = str(Device.objects.get(name="ap-1").pk)
    reply = operator.post(RUNS, {**UPTIME, "devices": [pk], "exclude": {"devices": [pk]}})
    assert (reply.status_code, reply.json()["code"]) == (400, "no_targets")


@pytest.mark.parametrize("kind", ["devices", "groups"])
def test_what_is_excluded_must_exist_for_the_user(operator: Any, fleet: Any, kind: str) -> None:
    foreign = factories.device(group=None) if kind == "devices" else factories.group()
    said = []
    for pk in (str(foreign.pk), MISSING):
        reply = operator.post(RUNS, {**UPTIME, "organization": str(fleet.pk), "exclude": {kind: [pk]}})
        assert (reply.status_code, list(reply.json())) == (400, ["exclude"])
        said.append(reply.content.decode().replace(pk, "…"))
    assert said[0] == said[1]
    assert not MassCommand.objects.exists()


@pytest.mark.parametrize("nothing", [None, {}, {"devices": []}, {"groups": None}], ids=case)
def test_excluding_nothing_changes_nothing_and_names_nothing(operator: Any, fleet: Any, nothing: Any) -> None:
    assert _shown(operator, organization=str(fleet.pk), exclude=nothing) == set(NAMES)
    assert list(operator.post(PREVIEW, {"exclude": nothing}).json()) == ["targets"]


def test_an_exclusion_alone_names_nothing(operator: Any, fleet: Any) -> None:
    pk = str(Device.objects.get(name="ap-1").pk)
    assert list(operator.post(PREVIEW, {"exclude": {"devices": [pk]}}).json()) == ["targets"]


def test_attributes_alone_span_organizations_for_superusers_who_say_so_only(api: Any, fleet: Any) -> None:
    factories.device(name="ap-9")
    boss = api(factories.superuser())
    assert list(post(boss, PREVIEW, {"name": "ap-*"}).json()) == ["targets"]
    assert _shown(boss, name="ap-*", all_devices=True) == {"ap-1", "AP-22", "ap-9"}
    run = launch(boss, name="ap-*", all_devices=True, expected_count=3)
    assert (run["organization"], run["device_count"]) == (None, 3)


def test_attributes_alone_are_ambiguous_for_who_runs_in_two_organizations(api: Any, fleet: Any) -> None:
    user = factories.user(organization=fleet)
    user.memberships.create(organization=factories.organization(), role="viewer")
    assert _shown(api(user), name="ap-*") == {"ap-1", "AP-22"}
    user.memberships.create(organization=factories.organization(), role="operator")
    assert list(post(api(user), RUNS, {**UPTIME, "name": "ap-*"}).json()) == ["targets"]


def test_attributes_alone_mean_nothing_for_a_viewer(api: Any, fleet: Any) -> None:
    viewer = api(factories.user(organization=fleet, role="viewer"))
    assert post(viewer, PREVIEW, {"name": "*"}).status_code == 403


BAD: dict[str, list[Any]] = {
    "platform": ["", "windows", 1, [], {}],
    "name": ["", 1, True, [], {}, "a\nb", "a\x00b", "x" * 129],
    "tags": [[], "roof", [""], [1], [None], {}, [["roof"]], ["x" * 65], ["a\x00"], [str(n) for n in range(65)]],
    "exclude": [[], "x", 1, {"device": []}, {"devices": ["x"]}, {"devices": [None]}, {"groups": "x"}, {"groups": [1]}],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD.items() for value in values], ids=case
)
def test_a_malformed_value_is_named(operator: Any, fleet: Any, name: str, value: Any) -> None:
    for address in (PREVIEW, RUNS):
        reply = post(operator, address, {**UPTIME, "organization": str(fleet.pk), name: value})
        assert (reply.status_code, list(reply.json())) == (400, [name])
    assert not MassCommand.objects.exists()


def test_a_pattern_of_many_stars_is_matched_at_once(operator: Any, fleet: Any) -> None:
    factories.device(organization=fleet, name="a" * 128)
    assert _shown(operator, organization=str(fleet.pk), name="*a" * 63 + "b") == set()


def test_the_filter_that_is_kept_is_the_one_that_was_given(fleet: Any) -> None:
    device, group = Device.objects.get(name="ap-1"), fleet.devicegroups.get()
    given = TargetFilter(
        organization=fleet.pk, platform="linux", name="a*", tags=("x", "y"), exclude_devices=(device.pk,),
        exclude_groups=(group.pk,),
    )  # fmt: skip
    assert TargetFilter.from_json(given.as_json()) == given
    assert TargetFilter.from_json(TargetFilter(devices=(device.pk,)).as_json()) == TargetFilter(devices=(device.pk,))


def test_the_number_of_queries_does_not_depend_on_the_number_of_exclusions(operator: Any, fleet: Any) -> None:
    counts = []
    spared = [str(factories.device(organization=fleet).pk) for _ in range(10)]
    for devices in (1, 1, 10):  # the first one stores what the digest stands for
        pks = spared[:devices]
        body = {"organization": str(fleet.pk), "tags": ["roof"], "name": "*", "exclude": {"devices": pks}}
        with CaptureQueriesContext(connection) as captured:
            assert operator.post(PREVIEW, body).status_code == 200
        counts.append(len(captured))
    assert counts[1] == counts[2]
