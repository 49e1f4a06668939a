"""Recurring mass commands: each occurrence starts one run, whatever number of processes look.

The run carries its schedule and occurrence, and the database allows one run for each; a process that comes second
only moves the schedule on.  What was missed while the service was down is made up for once, not many times.
"""

import logging
import zoneinfo
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from croniter import croniter
from django.db import DatabaseError, IntegrityError
from django.utils import timezone

from orchestrator import actions, origin
from orchestrator.exceptions import OrchestratorError
from orchestrator.models import MassCommand, Overlap, Schedule, User
from orchestrator.pacing import Controls
from orchestrator.playbooks import CheckedInput
from orchestrator.targeting import TargetFilter

log = logging.getLogger(__name__)

_TIMING: Final = frozenset({"cron", "timezone", "enabled"})


def next_occurrence(cron: str, zone: str, *, after: datetime) -> datetime:
    """The first time after ``after`` that the expression names, in that time zone's wall clock.

    As cron does it, when clocks change: what falls into an hour that is left out happens at its end; of an hour that is
    there twice the second one counts only for expressions that mean every hour.
    """
    times = croniter(cron, after.astimezone(zoneinfo.ZoneInfo(zone)))
    every_hour = cron.split()[1].startswith("*")
    while True:
        found: datetime = times.get_next(datetime)
        if every_hour or found.utcoffset() == found.replace(fold=0).utcoffset():
            return found


def plan_next(schedule: Schedule, *, now: datetime | None = None) -> None:
    """Set ``next_run`` from the expression, or empty when the schedule is off; the caller saves it."""
    after = now or timezone.now()
    schedule.next_run = next_occurrence(schedule.cron, schedule.timezone, after=after) if schedule.enabled else None


def store(row: Schedule, values: Mapping[str, Any], *, actor: User, checked: CheckedInput | None = None) -> None:
    """Insert or update a schedule with columns that were found valid; ``checked`` is its input, if it is another.

    From now on it runs with the rights of the actor: nobody's words run with another one's.  The time of the next run
    is told anew only where it may have changed.
    """
    new, changed = row._state.adding, dict(values)
    if checked:
        row.set_secret_input(checked.secret)
        changed |= {"input": checked.shown, "sealed_input": row.sealed_input}
    timing = any(getattr(row, name) != changed[name] for name in _TIMING & changed.keys())
    for name, value in (changed | {"created_by": actor}).items():
        setattr(row, name, value)
    columns = {*changed, "created_by", "modified"}
    if new or timing:
        plan_next(row)
        columns.add("next_run")
    row.save(force_insert=new, update_fields=None if new else columns)


def start_due(*, now: datetime | None = None) -> int:
    """Start what is due; the number of runs that were started here."""
    moment = now or timezone.now()
    started = 0
    for schedule in Schedule.objects.filter(enabled=True, next_run__lte=moment).select_related("created_by"):
        occurrence = schedule.next_run
        try:
            why_not = _start(schedule)
            started += why_not is None
        except DatabaseError:
            raise
        except Exception:  # one that is broken must not keep the others from their time
            log.exception("Schedule %s could not be started", schedule.pk)
            why_not = "It could not be started; the service's log says why."
        following = next_occurrence(schedule.cron, schedule.timezone, after=moment)
        # guarded: somebody may have changed the schedule, or moved it on, meanwhile
        Schedule.objects.filter(pk=schedule.pk, next_run=occurrence).update(
            next_run=following, last_run=occurrence, last_result=why_not or ""
        )
    return started


def _start(schedule: Schedule) -> str | None:
    """Start the due occurrence: None when that was done, "" when another process has done it, else why not."""
    runs = MassCommand.objects.filter(schedule=schedule)
    if runs.filter(occurrence=schedule.next_run).exists():
        return ""
    if schedule.overlap == Overlap.SKIP and runs.active().exists():
        return "" if runs.filter(occurrence=schedule.next_run).exists() else "The previous run has not ended."
    if schedule.created_by is None:
        return "Its owner was deleted, so nobody's rights apply."
    try:
        with origin.through(origin.Door.SCHEDULER):
            actions.launch(actor=schedule.created_by, request=_request(schedule))
    except IntegrityError:
        return ""
    except OrchestratorError as error:
        log.warning("Schedule %s started no run: %s", schedule.pk, error.detail)
        return error.detail
    return None


def _request(schedule: Schedule) -> actions.LaunchRequest:
    return actions.LaunchRequest(
        type=schedule.type,
        playbook=schedule.playbook,
        input=schedule.input | schedule.secret_input(),
        targets=TargetFilter.from_json(schedule.targets),
        label=schedule.name,
        controls=Controls(**_times(schedule.controls)),
        schedule=schedule,
    )


def _times(controls: dict[str, Any]) -> dict[str, Any]:
    names = {"run_at", "wait_for_offline_until"}
    return {name: datetime.fromisoformat(value) if name in names else value for name, value in controls.items()}
