"""Recurring mass commands: each occurrence starts one run, whatever number of processes look.

The run carries its schedule and occurrence, and the database allows one run for each; a process that comes second
only moves the schedule on.  What was missed while the service was down is made up for once, not many times.
"""

import logging
import zoneinfo
from datetime import datetime
from typing import Any

from croniter import croniter
from django.db import IntegrityError
from django.utils import timezone

from orchestrator import actions, origin
from orchestrator.exceptions import OrchestratorError
from orchestrator.models import MassCommand, Overlap, Schedule
from orchestrator.pacing import Controls
from orchestrator.targeting import TargetFilter

log = logging.getLogger(__name__)


def next_occurrence(cron: str, zone: str, *, after: datetime) -> datetime:
    """The first time after ``after`` that the expression names, in that time zone's wall clock."""
    local = after.astimezone(zoneinfo.ZoneInfo(zone))
    found: datetime = croniter(cron, local).get_next(datetime)
    return found


def plan_next(schedule: Schedule, *, now: datetime | None = None) -> None:
    """Set ``next_run`` from the expression, or empty when the schedule is off; the caller saves it."""
    after = now or timezone.now()
    schedule.next_run = next_occurrence(schedule.cron, schedule.timezone, after=after) if schedule.enabled else None


def start_due(*, now: datetime | None = None) -> int:
    """Start what is due; the number of runs that were started here."""
    moment = now or timezone.now()
    started = 0
    for schedule in Schedule.objects.filter(enabled=True, next_run__lte=moment).select_related("created_by"):
        occurrence = schedule.next_run
        result = _start(schedule)
        started += result is None
        following = next_occurrence(schedule.cron, schedule.timezone, after=moment)
        # guarded: somebody may have changed the schedule, or moved it on, meanwhile
        Schedule.objects.filter(pk=schedule.pk, next_run=occurrence).update(
            next_run=following, last_run=occurrence, last_result=result or ""
        )
    return started


def _start(schedule: Schedule) -> str | None:
    """Start the due occurrence; None when that was done, else why not."""
    if schedule.overlap == Overlap.SKIP and MassCommand.objects.active().filter(schedule=schedule).exists():
        return "The previous run has not ended."
    if schedule.created_by is None:
        return "Its owner was deleted, so nobody's rights apply."
    try:
        with origin.through(origin.Door.SCHEDULER):
            actions.launch(actor=schedule.created_by, request=_request(schedule))
    except IntegrityError:
        return "Another process has started this occurrence."
    except OrchestratorError as error:
        log.warning("Schedule %s started no run: %s", schedule.pk, error.detail)
        return error.detail
    return None


def _request(schedule: Schedule) -> actions.LaunchRequest:
    return actions.LaunchRequest(
        type=schedule.type,
        input=schedule.input | schedule.secret_input(),
        targets=TargetFilter.from_json(schedule.targets),
        label=schedule.name,
        controls=Controls(**_times(schedule.controls)),
        schedule=schedule,
    )


def _times(controls: dict[str, Any]) -> dict[str, Any]:
    names = {"run_at", "wait_for_offline_until"}
    return {name: datetime.fromisoformat(value) if name in names else value for name, value in controls.items()}
