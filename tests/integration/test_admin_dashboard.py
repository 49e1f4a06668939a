"""The dashboard: what needs a person, thirty days in charts, how the devices stand; in few queries."""

import time
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from orchestrator.access import Access, Role
from orchestrator.admin.attention import matters
from orchestrator.admin.contact import SEEN, contact_of
from orchestrator.admin.history import history_of
from orchestrator.models import Command, Device, MassCommand, Organization, Schedule
from orchestrator.states import CommandStatus
from tests import factories, run_rows

pytestmark = pytest.mark.django_db
C = CommandStatus
GOOD = {"reachable": True, "workers": 2, "draining": False}
COMPLETE = {"without_key": 0, "without_login": 0}
BOSS = Access(everything=True)


@pytest.fixture
def organization() -> Organization:
    return factories.organization()


@pytest.fixture
def viewer(client: Any, organization: Organization) -> Any:
    user = factories.user(organization=organization, role=Role.VIEWER, is_staff=True)
    client.force_login(user)
    return user


def _row(device: Device, status: CommandStatus, *, days: float, **fields: Any) -> Command:
    moment = timezone.now() - timedelta(days=days)
    row = Command.objects.create(
        device=device, organization=device.organization, type="custom", device_name=device.name, status=status,
        finished=moment, **fields,
    )  # fmt: skip
    Command.objects.filter(pk=row.pk).update(created=moment)
    return row


@pytest.mark.database
def test_days_sum_up_the_runs_that_ended_on_them(organization: Organization) -> None:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=1, microsecond=0)
    for days, seconds, counts in [
        (0, 10, {C.SUCCESS: 3, C.FAILED: 1, C.SKIPPED: 5}), (0, 30, {C.SUCCESS: 4}), (29, 40, {C.FAILED: 2}),
        (30, 5, {C.SUCCESS: 1}),
    ]:  # fmt: skip
        ended = today - timedelta(days=days)
        run = run_rows.run(counts, organization=organization)
        fields = {"started": ended - timedelta(seconds=seconds), "finished": ended, "created": ended}
        MassCommand.objects.filter(pk=run.pk).update(**fields)
    run_rows.run({C.RUNNING: 1}, organization=organization)
    history = history_of(MassCommand.objects.all())
    told = [(day.day, day.runs, day.devices, day.succeeded, day.rate, day.duration, day.height) for day in history.used]
    first = today.date() - timedelta(days=29)
    assert told == [(first, 1, 2, 0, 0, "40 s", 100), (today.date(), 2, 8, 7, 87.5, "20 s", 50)]
    assert (len(history.days), history.runs, history.rate, history.duration) == (30, 3, "70 %", "26.7 s")
    assert isinstance(history.days[0].day, date)


@pytest.mark.database
def test_devices_are_counted_by_last_result_and_by_last_contact(
    client: Any, organization: Organization, viewer: Any
) -> None:
    devices = [factories.device(organization=organization, name=f"d{number}") for number in range(5)]
    _row(devices[0], C.SUCCESS, days=3)
    _row(devices[0], C.UNREACHABLE, days=0)  # answered three days ago, not now
    _row(devices[1], C.FAILED, days=0.5)
    _row(devices[2], C.SUCCESS, days=40)
    _row(devices[3], C.LOST, days=1)  # nobody knows whether it was reached
    factories.device(organization=organization, is_active=False)
    stranger = factories.device()
    _row(stranger, C.SUCCESS, days=0)
    found = contact_of(Device.objects.filter(organization=organization))
    results = {bar["label"]: bar["count"] for bar in found["results"]}
    assert results == {"unreachable": 1, "failed": 1, "success": 1, "lost": 1, "no command yet": 1}
    assert [(bar["label"], bar["count"]) for bar in found["seen"]] == [
        ("Within a day", 1), ("Within a week", 1), ("Longer ago", 1), ("Never", 2),
    ]  # fmt: skip
    for bar in found["results"] + found["seen"]:
        listed = client.get(bar["href"])
        assert listed.context["cl"].result_count == bar["count"], bar["href"]
    for fragment in ({}, {"fragment": "1"}):
        page = client.get(reverse("admin:orchestrator_device_contact"), fragment)
        assert "Within a week" in page.content.decode()
    assert set(SEEN) == {"day", "week", "month", "longer"}


def test_the_list_of_devices_shows_when_each_was_seen(client: Any, organization: Organization, viewer: Any) -> None:
    row = _row(factories.device(organization=organization, tags=["roof"]), C.SUCCESS, days=2)
    assert row.finished
    page = client.get(reverse("admin:orchestrator_device_changelist"), {"o": "-11"}).content.decode()
    assert f'datetime="{row.finished.isoformat()}"' in page
    assert "roof" in page


def _told(access: Access = BOSS, queue: Any = GOOD, fleet: Any = COMPLETE) -> list[str]:
    return [f"{matter.strong} {matter.text}" for matter in matters(access, queue, fleet)]


def test_what_needs_a_person_is_told_with_a_way_to_it(client: Any, organization: Organization) -> None:
    client.force_login(factories.superuser())
    assert _told() == []
    assert "No worker is alive." in _told(queue=GOOD | {"workers": 0})[0]
    assert "drained" in _told(queue=GOOD | {"draining": True})[0]
    assert "can't be reached" in _told(queue=GOOD | {"reachable": False})[0]
    run = run_rows.run({C.LOST: 2, C.FAILED: 1, C.UNREACHABLE: 3}, organization=organization, with_devices=True)
    Command.objects.filter(status=C.FAILED).update(reason_code="host_key")
    Command.objects.filter(status=C.UNREACHABLE).update(reason_code="auth")
    run_rows.run({C.QUEUED: 1}, organization=organization, label="nightly", paused=timezone.now())
    Schedule.objects.create(
        name="weekly", organization=organization, type="custom", cron="0 0 * * 0", next_run=timezone.now(),
        last_result="There is no such group.",
    )  # fmt: skip
    told = _told(fleet={"without_key": 1, "without_login": 2})
    assert [text.split(".")[0].split(":")[0] for text in told] == [
        "1 device showed another host key than the pinned one in 7 days",
        "2 results lost in 7 days",
        "3 devices did not accept the login in 7 days",
        "“nightly” is paused",
        "The schedule “weekly” started nothing the last time",
        "1 active device has no pinned host key and can't be reached",
        "2 active devices have no credential and will be skipped",
    ]
    counted = {}
    for matter in matters(BOSS, GOOD, COMPLETE | {"without_login": 2}):
        if matter.href:
            page = client.get(matter.href)
            assert page.status_code == 200, matter.href
            counted[matter.strong[:9]] = getattr(page.context.get("cl"), "result_count", None)
    assert counted == {"1 device ": 1, "2 results": 2, "3 devices": 3, "“nightly”": None, "2 active ": 0}
    MassCommand.objects.filter(pk=run.pk).update(created=timezone.now() - timedelta(days=8))
    assert not [text for text in _told() if "7 days" in text]
    assert _told(Access.of(factories.user(organization=factories.organization()))) == []


def test_the_dashboard_stays_fast_with_many_devices(
    client: Any, organization: Organization, viewer: Any, django_assert_max_num_queries: Any
) -> None:
    key = factories.credential(organization=organization)
    rows = [Device(organization=organization, name=f"d{n}", host="h", host_key="k") for n in range(4_000)]
    Device.objects.bulk_create(rows)
    Device.credentials.through.objects.bulk_create(
        [Device.credentials.through(device=row, credential=key) for row in rows[:2_000]]
    )
    Command.objects.bulk_create(
        [Command(device=row, organization=organization, type="custom", status=C.SUCCESS, device_name=row.name,
                 finished=timezone.now()) for row in rows[:2_000]]
    )  # fmt: skip
    for _ in range(20):
        run_rows.run({C.SUCCESS: 2}, organization=organization)
    started = time.process_time()
    with django_assert_max_num_queries(20):
        page = client.get(reverse("admin:index"))
    assert time.process_time() - started < 1.0
    assert page.context["fleet"]["without_login"] == 2_000
    started = time.process_time()
    with django_assert_max_num_queries(5):
        client.get(reverse("admin:orchestrator_device_contact"), {"fragment": "1"})
    assert time.process_time() - started < 2.0
