"""Old runs and results are deleted after the days that their organization keeps them, in batches."""

import logging
from datetime import datetime, timedelta
from typing import Final

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from orchestrator import audit
from orchestrator.models import AuditAction, AuditEntry, Command, MassCommand, Organization
from orchestrator.states import FINISHED, RUN_ACTIVE, RUN_FINISHED

log = logging.getLogger(__name__)

LEAST_AUDIT_DAYS: Final = 30  # as settings.py says of ORCHESTRATOR_AUDIT_DAYS
_BATCH: Final = 1_000  # rows in one transaction: short ones, so that runs go on beside it


def delete_old(*, system_days: int | None = None, now: datetime | None = None) -> int:
    """Delete what is past its time; how many rows.  ``system_days`` is for runs over several organizations.

    A device's row goes with its organization's time, also when its run is system-wide and stays.
    """
    moment = now or timezone.now()
    deleted = 0
    for organization in Organization.objects.filter(keep_days__isnull=False):
        before = moment - timedelta(days=organization.keep_days or 0)
        rows = Command.objects.filter(organization=organization, **_ended(before, FINISHED))
        # A finished row of a run that goes on stays: the run's counters are about it.
        results = _delete(rows.exclude(mass_command__status__in=sorted(RUN_ACTIVE)))
        runs = _delete(MassCommand.objects.filter(organization=organization, **_ended(before, RUN_FINISHED)))
        _tell(organization, before, runs=runs, results=results)
        deleted += results + runs
    if system_days is not None:
        before = moment - timedelta(days=system_days)
        old = MassCommand.objects.filter(organization=None, **_ended(before, RUN_FINISHED))
        _delete(Command.objects.filter(mass_command__in=old))  # a thousand runs may have millions of them
        runs = _delete(old)
        _tell(None, before, runs=runs)
        deleted += runs
    return deleted


def delete_old_entries(*, days: int, now: datetime | None = None) -> int:
    """Delete audit entries older than this; how many.  An entry says so first: the database lets go no others.

    Raises:
        ValueError: these are fewer days than entries must be kept.
    """
    if days < LEAST_AUDIT_DAYS:
        raise ValueError(f"Audit entries are kept for {LEAST_AUDIT_DAYS} days at least.")
    before = (now or timezone.now()) - timedelta(days=days)
    old = AuditEntry.objects.filter(at__lt=before)
    if not (number := old.count()):
        return 0
    details = {"before": before, "days": days, "count": number}
    audit.record(AuditAction.AUDIT_DELETE, details=details, removed_before=before)
    total = 0
    while batch := list(old.order_by("at").values_list("pk", flat=True)[:_BATCH]):
        with transaction.atomic():
            total += AuditEntry.objects.filter(pk__in=batch)._raw_delete(AuditEntry.objects.db)
    return total


def _tell(organization: Organization | None, before: datetime, **numbers: int) -> None:
    if any(numbers.values()):
        about = organization or audit.Subject("run")
        audit.record(AuditAction.RETENTION, about=about, details={"before": before, **numbers})


def _ended(before: datetime, statuses: frozenset[str]) -> dict[str, object]:
    return {"finished__lt": before, "status__in": sorted(statuses)}


def _delete(rows: "QuerySet[Command] | QuerySet[MassCommand]") -> int:
    total = 0
    while True:
        with transaction.atomic():
            batch = list(rows.order_by("pk").values_list("pk", flat=True)[:_BATCH])
            if not batch:
                return total
            rows.model._default_manager.filter(pk__in=batch).delete()
        total += len(batch)
        log.info("Deleted %d %s past their time", len(batch), rows.model._meta.verbose_name_plural)
