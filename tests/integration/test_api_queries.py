"""How many queries an address needs does not depend on how much there is."""

import tracemalloc
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from orchestrator.access import Role
from orchestrator.models import Command, Device, DeviceCredential, TaskResult
from tests import factories
from tests.integration.api_addresses import (
    CONTROLLER,
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
    "tasks": CONTROLLER + "commands/{row}/tasks/",
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
        row = Command.objects.filter(mass_command=runs[0]["id"])[0]
        TaskResult.objects.bulk_create(_tasks(row, devices))
        address = ADDRESSES[name].format(run=runs[0]["id"], device=device.pk, row=row.pk)
        needed.append(_queries(lambda client=client, address=address: client.get(address, {"page_size": 100})  # type: ignore[misc]
                               if name != "detail" else client.get(address)))  # fmt: skip
    assert needed[0] == needed[1] <= 6


def test_the_tasks_of_a_device_come_in_pages_that_cost_the_same(api: Any) -> None:
    organization = _organization(1)
    client = api(factories.user(organization=organization))
    row = Command.objects.get(mass_command=launch(client, organization=str(organization.pk))["id"])
    TaskResult.objects.bulk_create(_tasks(row, 10 * MANY))
    address = f"{CONTROLLER}commands/{row.pk}/tasks/"
    seen: list[int] = []
    needed: set[int] = set()
    for page in range(1, 9):
        with CaptureQueriesContext(connection) as captured:
            reply = client.get(address, {"page": page, "page_size": 50}).json()
        needed.add(len(captured))
        seen += [task["number"] for task in reply["results"]]
        assert (reply["count"], bool(reply["next"])) == (10 * MANY, page < 8)
    assert seen == list(range(1, 10 * MANY + 1))
    assert len(needed) == 1
    assert client.get(address, {"page": 9, "page_size": 50}).status_code == 404
    failed = client.get(address, {"status": "failed", "page_size": 50}).json()
    assert failed["count"] == MANY
    assert {task["number"] % 10 for task in failed["results"]} == {0}


def _tasks(row: Command, number: int) -> list[TaskResult]:
    """The results of so many tasks, of which each tenth failed; all begun in the same moment."""
    at = timezone.now()
    return [
        TaskResult(
            id=uuid.uuid4(), command=row, number=each, task=f"Task {each}", started=at, duration=0.1,
            status="failed" if each % 10 == 0 else "ok",
        )
        for each in range(1, number + 1)
    ]  # fmt: skip


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


def _grow(like: Device, number: int) -> None:
    """Make it a fleet of so many devices, in two statements: one by one would take longer than what is measured."""
    sqlite = connection.vendor == "sqlite"
    columns = [str(field.column) for field in Device._meta.concrete_fields]
    values = {"id": "lower(hex(randomblob(16)))" if sqlite else "gen_random_uuid()", "name": "name || '-' || number"}
    pk, key = ((row.hex if sqlite else row) for row in (like.pk, like.credentials.get().pk))
    with connection.cursor() as cursor:
        cursor.execute(  # names of our own columns
            "WITH RECURSIVE numbers (number) AS (SELECT %s UNION ALL SELECT number + 1 FROM numbers WHERE number < %s) "  # noqa: S608
            f"INSERT INTO orchestrator_device ({', '.join(columns)}) "
            f"SELECT {', '.join(values.get(name, name) for name in columns)} FROM numbers, orchestrator_device "
            "WHERE id = %s",
            [like.organization.devices.count() + 1, number, pk],
        )
        cursor.execute(
            "INSERT INTO orchestrator_devicecredential (device_id, credential_id, position) "
            "SELECT id, %s, 0 FROM orchestrator_device "
            "WHERE id NOT IN (SELECT device_id FROM orchestrator_devicecredential)",
            [key],
        )


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_preview_of_100_000_devices_does_not_hold_them_in_memory(api: Any) -> None:
    device = factories.device()
    client = api(factories.user(organization=device.organization))
    body = {**UPTIME, "organization": str(device.organization_id)}
    peaks, needed = [], []
    for devices in (10_000, 100_000):
        _grow(device, devices)
        queries: list[str] = []  # counted by a wrapper: what Django captures of a query holds its values too
        tracemalloc.start()
        try:
            with connection.execute_wrapper(lambda run, *args, queries=queries: queries.append(args[0]) or run(*args)):
                reply = client.post(PREVIEW, body)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        assert reply.json()["eligible_count"] == devices, reply.content
        needed.append(len(queries))
    assert needed[0] == needed[1] <= 20
    # To tell later what has changed, 17 bytes of each device are kept; PostgreSQL's driver writes them in hexadecimal.
    # A row as an object would be some 2,000 bytes, an id in a set 200.
    assert peaks[1] - peaks[0] < 90_000 * 160
    assert peaks[1] < 16 * 1024 * 1024
