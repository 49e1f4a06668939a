"""Recurring mass commands."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from orchestrator.models import Device, MassCommand, Schedule
from orchestrator.scheduling import next_occurrence, plan_next, start_due
from tests import factories

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database]


@pytest.fixture(autouse=True)
def queue(outbox: Any) -> Any:
    """Nothing is run."""
    return outbox


def due(**fields: Any) -> Schedule:
    """A schedule whose time has come, on one device."""
    device = factories.device()
    values = {
        "name": "nightly",
        "organization": device.organization,
        "type": "custom",
        "input": {"command": "uptime"},
        "targets": {"organization": str(device.organization_id)},
        "cron": "0 3 * * *",
        "created_by": factories.user(organization=device.organization),
    }
    schedule = Schedule(**values | fields)
    schedule.next_run = timezone.now() - timedelta(seconds=5)
    schedule.save()
    return schedule


def test_what_is_due_starts_once_and_is_planned_again() -> None:
    schedule = due()
    assert (start_due(), start_due()) == (1, 0)
    run = MassCommand.objects.get()
    assert (run.schedule, run.label, run.created_by) == (schedule, "nightly", schedule.created_by)
    schedule.refresh_from_db()
    assert schedule.next_run
    assert schedule.next_run > timezone.now()
    assert schedule.last_run == run.occurrence


def test_two_schedulers_that_look_at_once_start_one_run() -> None:
    schedule = due()
    occurrence = schedule.next_run
    assert start_due() == 1
    for overlap in ("start", "skip"):
        Schedule.objects.filter(pk=schedule.pk).update(next_run=occurrence, overlap=overlap)  # the other still sees it
        assert start_due() == 0
        assert MassCommand.objects.count() == 1
        schedule.refresh_from_db()
        assert (schedule.last_run, schedule.last_result) == (occurrence, "")


def test_a_schedule_that_is_broken_does_not_keep_others_from_their_time() -> None:
    broken, sound = due(name="broken", controls={"nonsense": 1}), due(name="sound")
    assert start_due() == 1
    assert MassCommand.objects.get().schedule == sound
    broken.refresh_from_db()
    assert "log says why" in broken.last_result
    assert broken.next_run
    assert broken.next_run > timezone.now()


def test_missed_occurrences_are_made_up_for_once() -> None:
    schedule = due(cron="* * * * *", overlap="start")
    Schedule.objects.filter(pk=schedule.pk).update(next_run=timezone.now() - timedelta(hours=5))
    assert (start_due(), start_due()) == (1, 0)


@pytest.mark.parametrize(("overlap", "started"), [("skip", 0), ("start", 1)])
def test_what_happens_when_the_previous_run_has_not_ended(overlap: str, started: int) -> None:
    schedule = due(overlap=overlap)
    start_due()
    Schedule.objects.filter(pk=schedule.pk).update(next_run=timezone.now())
    assert start_due() == started
    schedule.refresh_from_db()
    assert bool(schedule.last_result) == (overlap == "skip")


def test_the_rights_of_its_owner_are_looked_at_each_time() -> None:
    schedule = due()
    assert schedule.created_by
    schedule.created_by.memberships.all().delete()
    assert start_due() == 0
    schedule.refresh_from_db()
    assert schedule.last_result
    assert not MassCommand.objects.exists()


def test_a_disabled_schedule_never_starts() -> None:
    schedule = due()
    Schedule.objects.filter(pk=schedule.pk).update(enabled=False)
    assert start_due() == 0
    schedule.refresh_from_db()
    plan_next(schedule)
    assert schedule.next_run is None


def test_the_secret_of_a_schedule_is_sealed() -> None:
    schedule = due(type="change_password", input={"password": "********", "confirm_password": "********"})
    schedule.set_secret_input({"password": "n3w-Secret", "confirm_password": "n3w-Secret"})
    schedule.save()
    assert "n3w-Secret" not in schedule.sealed_input
    assert start_due() == 1
    assert MassCommand.objects.get().secret_input()["password"] == "n3w-Secret"


@pytest.mark.parametrize(
    ("cron", "zone", "after", "expected"),
    [
        ("0 3 * * *", "UTC", "2026-11-24T02:00+00:00", "2026-11-24T03:00+00:00"),
        ("0 3 * * *", "Europe/Vienna", "2026-11-24T00:00+00:00", "2026-11-24T02:00+00:00"),
        ("30 8 * * 1", "America/New_York", "2026-07-01T00:00+00:00", "2026-07-06T12:30+00:00"),
        ("0 12 * * *", "Europe/Vienna", "2026-03-28T12:00+00:00", "2026-03-29T10:00+00:00"),
        # 2:30 is left out that night
        ("30 2 * * *", "Europe/Vienna", "2026-03-28T12:00+00:00", "2026-03-29T01:00+00:00"),
        ("30 2 * * *", "Europe/Vienna", "2026-03-29T01:00+00:00", "2026-03-30T00:30+00:00"),
        # 2:30 is there twice that night
        ("30 2 * * *", "Europe/Vienna", "2026-10-24T12:00+00:00", "2026-10-25T00:30+00:00"),
        ("30 2 * * *", "Europe/Vienna", "2026-10-25T00:30+00:00", "2026-10-26T01:30+00:00"),
        ("*/20 2 * * *", "Europe/Vienna", "2026-10-25T00:40+00:00", "2026-10-26T01:00+00:00"),
        ("30 * * * *", "Europe/Vienna", "2026-10-25T00:30+00:00", "2026-10-25T01:30+00:00"),
        ("15 */2 * * *", "Europe/Vienna", "2026-10-25T00:15+00:00", "2026-10-25T01:15+00:00"),
    ],
)
def test_the_wall_clock_of_the_time_zone_counts(cron: str, zone: str, after: str, expected: str) -> None:
    found = next_occurrence(cron, zone, after=datetime.fromisoformat(after))
    assert found.astimezone(UTC) == datetime.fromisoformat(expected)


def test_a_schedule_does_not_follow_its_devices_into_another_organization() -> None:
    device = factories.device()
    targets = {"devices": [str(device.pk)]}
    schedule = due(organization=device.organization, targets=targets, created_by=factories.superuser())
    Device.objects.filter(pk=device.pk).update(organization=factories.organization())
    assert start_due() == 0
    schedule.refresh_from_db()
    assert schedule.last_result == "The targets are no longer in the organization of the schedule."
