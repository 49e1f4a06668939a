"""How many queries an address needs does not depend on how much there is."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from orchestrator.access import Role
from orchestrator.models import Device, DeviceCredential
from tests import factories
from tests.integration.api_addresses import (
    CREDENTIALS,
    DEVICES,
    GROUPS,
    LOCATIONS,
    ORGANIZATIONS,
    PREVIEW,
    RUNS,
    UPTIME,
    launch,
)

pytestmark = [pytest.mark.django_db, pytest.mark.database, pytest.mark.usefixtures("outbox")]

FEW, MANY = 4, 40


def _organization(devices: int) -> Any:
    organization = factories.organization()
    own: dict[str, Any] = {"organization": organization}
    shared = [factories.credential(**own), factories.credential(**own)]
    for _ in range(devices):
        place = {"group": factories.group(**own), "location": factories.location(**own)}
        device = factories.device(credentials=[], **place, **own)
        DeviceCredential.objects.bulk_create(
            DeviceCredential(device=device, credential=row, position=at) for at, row in enumerate(shared)
        )
    return organization


def _queries(call: Callable[[], Any]) -> int:
    with CaptureQueriesContext(connection) as captured:
        reply = call()
    assert reply.status_code in (200, 201), reply.content
    return len(captured)


ADDRESSES = {
    "runs": RUNS,
    "devices": DEVICES,
    "groups": GROUPS,
    "locations": LOCATIONS,
    "credentials": CREDENTIALS,
    "organizations": ORGANIZATIONS,
    "detail": RUNS + "{run}/",
    "commands": RUNS + "{run}/commands/",
    "history": DEVICES + "{device}/command/",
}


@pytest.mark.parametrize("name", ADDRESSES)
@pytest.mark.parametrize("role", [Role.ADMINISTRATOR, None], ids=["administrator", "superuser"])
def test_a_page_needs_the_same_queries_for_ten_times_as_much(api: Any, name: str, role: Role | None) -> None:
    needed = []
    for devices in (FEW, MANY):
        organization = _organization(devices)
        user = factories.user(organization=organization, role=role) if role else factories.superuser()
        client = api(user)
        runs = [launch(client, organization=str(organization.pk)) for _ in range(devices // 4)]
        device = Device.objects.filter(organization=organization)[0]
        address = ADDRESSES[name].format(run=runs[0]["id"], device=device.pk)
        needed.append(_queries(lambda client=client, address=address: client.get(address, {"page_size": 100})  # type: ignore[misc]
                               if name != "detail" else client.get(address)))  # fmt: skip
    assert needed[0] == needed[1] <= 6


@pytest.mark.parametrize("kind", ["organization", "devices"])
def test_a_preview_needs_the_same_queries_for_ten_times_as_many_devices(api: Any, kind: str) -> None:
    needed = []
    for devices in (FEW, MANY):
        organization = _organization(devices)
        client = api(factories.user(organization=organization))
        picked = [str(pk) for pk in organization.devices.values_list("pk", flat=True)]
        body = {**UPTIME, kind: picked if kind == "devices" else str(organization.pk)}
        needed.append(_queries(lambda client=client, body=body: client.post(PREVIEW, body)))  # type: ignore[misc]
    assert needed[0] == needed[1] <= 20


def test_a_launch_needs_the_same_queries_for_ten_times_as_many_devices(api: Any) -> None:
    needed = []
    for devices in (FEW, MANY):
        organization = _organization(devices)
        client, body = api(factories.user(organization=organization)), {**UPTIME, "organization": str(organization.pk)}
        needed.append(_queries(lambda client=client, body=body: client.post(RUNS, body)))  # type: ignore[misc]
    assert needed[0] == needed[1] <= 40


def test_a_preview_does_not_hold_the_set_in_memory(api: Any) -> None:
    peaks = []
    organization = factories.organization()
    client, body = api(factories.user(organization=organization)), {**UPTIME, "organization": str(organization.pk)}
    for devices in (5_000, 10_000):  # more
        Device.objects.bulk_create(
            (
                Device(organization=organization, name=f"{devices}-{number}", host="192.0.2.1")
                for number in range(devices)
            ),
            batch_size=1_000,
        )
        tracemalloc.start()
        try:
            assert client.post(PREVIEW, body).status_code == 200
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    # For the digest 17 bytes of each device are summed up and kept; a row as an object would be some 2,000.
    assert peaks[1] - peaks[0] < 10_000 * 300
