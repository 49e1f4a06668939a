"""The fleet for other programs: pages of the inventory, the pinned host keys as a known_hosts file."""

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from orchestrator.access import Role
from orchestrator.models import Device, Organization, Token
from tests import factories
from tests.integration.api_addresses import DEVICES, MISSING

pytestmark = [pytest.mark.django_db, pytest.mark.database]

INVENTORY, KNOWN_HOSTS = DEVICES + "inventory/", DEVICES + "known-hosts/"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHZyVPqYZYXE0hTzW0bTgzlhZyZvoqFJ8MBxKh7qyHsB"


@pytest.fixture
def north() -> Organization:
    """Attic and cellar (of the group "routers", at "Town hall"), and a server that stands alone."""
    north = factories.organization(name="North")
    group = factories.group(organization=north, name="all routers")
    place = factories.location(organization=north, name="Town hall")
    both: dict[str, Any] = {"organization": north, "group": group, "location": place}
    factories.device(name="attic", host="192.0.2.1", tags=["roof", "{{ 7*7 }}"], host_key=KEY, **both)
    factories.device(name="cellar", host="2001:DB8::2", port=2222, host_key=f"{KEY}\n{KEY}", **both)
    factories.device(name="server", organization=north, platform="linux", host="srv.example.org", credentials=[])
    return north


def names(reply: Any) -> list[str]:
    """Of the devices in a reply, sorted."""
    assert reply.status_code == 200, reply.content
    return sorted(row["name"] for row in reply.json()["results"])


def test_a_device_has_what_ansible_needs_of_it(api: Any, north: Organization) -> None:
    reply = api(factories.user(organization=north, role=Role.VIEWER)).get(INVENTORY, {"name": "attic"})
    device = Device.objects.get(name="attic")
    assert reply.json() == {
        "next": None,
        "results": [
            {
                "id": str(device.pk), "name": "attic", "organization": "North", "group": "all routers",
                "location": "Town hall", "host": "192.0.2.1", "port": 22, "platform": "openwrt",
                "tags": ["roof", "{{ 7*7 }}"], "username": "root", "host_key": KEY,
                "groups": ["openwrt", "organization_North", "group_all_routers", "location_Town_hall",
                           "platform_openwrt", "tag_roof", "tag____7_7___"],
            }
        ],
    }  # fmt: skip


def test_what_is_inactive_or_of_others_is_not_in_it(api: Any, north: Organization) -> None:
    factories.device(organization=north, is_active=False)
    factories.device(name="foreign")
    member, root = api(factories.user(organization=north, role=Role.VIEWER)), api(factories.superuser())
    assert names(member.get(INVENTORY)) == ["attic", "cellar", "server"]
    assert names(root.get(INVENTORY)) == ["attic", "cellar", "foreign", "server"]
    Organization.objects.filter(pk=north.pk).update(is_active=False)
    assert names(root.get(INVENTORY)) == ["foreign"]
    assert root.get(KNOWN_HOSTS).getvalue() == b""


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"group": "all routers"}, ["attic", "cellar"]),
        ({"location": "Town hall", "tags": "roof"}, ["attic"]),
        ({"tags": ["roof", "{{ 7*7 }}"]}, ["attic"]),
        ({"platform": "linux"}, ["server"]),
        ({"name": "*E*"}, ["cellar", "server"]),
        ({"devices": ["attic", "server"], "platform": "linux"}, ["server"]),
        ({"exclude_groups": "all routers"}, ["server"]),
        ({"exclude_devices": ["attic", "server"]}, ["cellar"]),
        ({"name": "nothing like it"}, []),
    ],
)  # fmt: skip
def test_the_parameters_are_those_of_the_target_filter(
    api: Any, north: Organization, query: dict[str, Any], expected: list[str]
) -> None:
    ids: dict[str, str] = {"all routers": str(north.devicegroups.get().pk), "Town hall": str(north.locations.get().pk)}
    ids |= {row.name: str(row.pk) for row in Device.objects.all()}
    asked = {
        name: value if name in ("name", "tags", "platform")
        else [ids[each] for each in value] if isinstance(value, list) else ids[value]
        for name, value in query.items()
    }  # fmt: skip
    assert names(api(factories.user(organization=north, role=Role.VIEWER)).get(INVENTORY, asked)) == expected


@pytest.mark.parametrize(
    "query",
    ["group=7", f"group={MISSING}", f"devices={MISSING}", "devices=", f"exclude_groups={MISSING}", "platform=mac",
     "nam=x", "all_devices=true", "exclude=x", "after=7", "page_size=0", "page_size=x", "name=a&name=b", "tags=%0A",
     f"organization={MISSING}", "name=%00"],
)  # fmt: skip
@pytest.mark.parametrize("address", [INVENTORY, KNOWN_HOSTS])
def test_what_is_not_valid_is_refused_by_its_name(api: Any, north: Organization, address: str, query: str) -> None:
    reply = api(factories.user(organization=north)).get(f"{address}?{query}")
    assert reply.status_code == 400, reply.content
    field = query.split("=", maxsplit=1)[0]
    assert set(reply.json()) == {field}, reply.content


def test_the_pages_hold_each_device_once_and_cost_one_query_each(api: Any, north: Organization) -> None:
    for number in range(20):
        factories.device(organization=north, name=f"ap-{number}", group=factories.group(organization=north))
    client = api(factories.user(organization=north, role=Role.VIEWER))
    seen: list[str] = []
    address, needed = f"{INVENTORY}?page_size=5&exclude_devices={Device.objects.get(name='attic').pk}", set()
    while address:
        with CaptureQueriesContext(connection) as captured:
            reply = client.get(address).json()
        needed.add(len(captured))
        assert len(reply["results"]) <= 5
        seen += [row["name"] for row in reply["results"]]
        address = reply["next"]
    assert sorted(seen) == sorted(Device.objects.exclude(name="attic").values_list("name", flat=True))
    assert len(needed) == 1
    assert needed.pop() <= 3  # roles, what is excluded, the page
    with CaptureQueriesContext(connection) as captured:
        assert len(client.get(INVENTORY, {"page_size": 1_000_000}).json()["results"]) == 23
    assert len(captured) <= 2


def test_the_pinned_keys_are_a_known_hosts_file(api: Any, north: Organization) -> None:
    client = api(factories.user(organization=north, role=Role.VIEWER))
    reply = client.get(KNOWN_HOSTS, headers={"accept": "text/plain"})
    assert reply.headers["Content-Type"].startswith("text/plain")
    lines = b"".join(reply.streaming_content).decode().splitlines()
    assert sorted(lines) == sorted([f"192.0.2.1 {KEY}", f"[2001:db8::2]:2222 {KEY}", f"[2001:db8::2]:2222 {KEY}"])
    assert client.get(KNOWN_HOSTS, {"name": "server"}).getvalue() == b""


def test_a_token_of_one_organization_leads_to_no_other(api: Any, north: Organization) -> None:
    factories.device(name="foreign", host="192.0.2.99", host_key=KEY)
    root = factories.superuser()
    root.token = Token.objects.create(user=root, organization=north, read_only=True)
    client = api(root)
    assert names(client.get(INVENTORY)) == ["attic", "cellar", "server"]
    assert b"192.0.2.99" not in client.get(KNOWN_HOSTS).getvalue()
