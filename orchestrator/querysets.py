"""The guarded writes and the set reads of mass commands, slices and commands.

A transition is one UPDATE whose WHERE says from where it may come; zero rows is an answer, not an accident.
"""

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import reduce
from operator import add
from typing import Any, Self

from django.db import connections, models
from django.db.models import F, Q
from django.utils import timezone

from orchestrator.states import ERRORS, OPEN, RUN_ACTIVE, RUN_TRANSITIONS, CommandStatus, RunStatus, summarize


def _sources(target: RunStatus) -> list[RunStatus]:
    return sorted(status for status, targets in RUN_TRANSITIONS.items() if target in targets)


class MassCommandQuerySet(models.QuerySet[Any]):
    """Mass commands."""

    def active(self) -> Self:
        """Those that have not ended."""
        return self.filter(status__in=sorted(RUN_ACTIVE))

    def begin(self, pk: uuid.UUID) -> bool:
        """Say that the first slice was taken."""
        now = timezone.now()
        started = self.filter(pk=pk, status__in=_sources(RunStatus.RUNNING))
        if not started.update(status=RunStatus.RUNNING, started=now):
            return False
        for run in self.filter(pk=pk, deadline_seconds__isnull=False):
            self.filter(pk=pk).update(deadline=now + timedelta(seconds=run.deadline_seconds))
        return True

    def spend_budget(self, pk: uuid.UUID) -> bool:
        """Say that the run has more errors than it may have, if that is so now for the first time."""
        errors = reduce(add, (F(f"{status}_count") for status in sorted(ERRORS)))
        over = self.active().filter(pk=pk, budget_spent=None, max_errors__isnull=False, max_errors__lt=errors)
        return bool(over.update(budget_spent=timezone.now()))

    def next_change(self, pk: uuid.UUID) -> int:
        """The number of a change to the run's rows, to be written into each row that changes; in a transaction.

        The run's row stays locked until the transaction ends, so numbers become visible in their order: who has seen
        number n has seen all before it, and can go on reading from there without a loss (streaming/).
        """
        self.filter(pk=pk).update(changes=F("changes") + 1)
        number: int = self.filter(pk=pk).values_list("changes", flat=True).get()
        return number

    def count_moves(self, pk: uuid.UUID, moves: Mapping[tuple[str, str], int]) -> None:
        """Add to the counters what was moved: (from status, to status) → number of devices."""
        deltas: dict[str, int] = {}
        for (source, target), number in moves.items():
            deltas[source] = deltas.get(source, 0) - number
            deltas[target] = deltas.get(target, 0) + number
        changes = {f"{status}_count": F(f"{status}_count") + delta for status, delta in deltas.items() if delta}
        if changes:
            self.filter(pk=pk).update(**changes)

    def finish_if_done(self, pk: uuid.UUID) -> RunStatus | None:
        """End the run if no device is open any more, and wipe its secrets; the status it ended with, if it did now."""
        run = self.active().filter(pk=pk, queued_count=0, running_count=0).first()
        if run is None:
            return None
        status = summarize(run.counts)
        # Two workers may come here together: the second one's WHERE finds nothing.
        changed = self.filter(
            pk=pk, status__in=_sources(status), queued_count=0, running_count=0
        ).update(status=status, finished=timezone.now(), sealed_input="")  # fmt: skip
        return status if changed else None


class SliceQuerySet(models.QuerySet[Any]):
    """Slices and their leases."""

    def take(self, pk: uuid.UUID, *, attempt: int, worker: str, seconds: float) -> uuid.UUID | None:
        """Take the lease of a queued slice: the fencing token, or None when it is not to be had."""
        lease, now = uuid.uuid4(), timezone.now()
        changed = self.filter(pk=pk, status="queued", attempt=attempt).update(
            status="running", lease=lease, lease_expires=now + timedelta(seconds=seconds), worker=worker, spawned=None
        )
        return lease if changed else None

    def renew(self, pk: uuid.UUID, *, lease: uuid.UUID, seconds: float) -> bool:
        """Prolong the lease; False when it is no longer ours."""
        expires = timezone.now() + timedelta(seconds=seconds)
        return bool(self.filter(pk=pk, status="running", lease=lease).update(lease_expires=expires))

    def spawn(self, pk: uuid.UUID, *, lease: uuid.UUID) -> bool:
        """Say that Ansible is about to start; False when the lease is no longer ours, or the run may not go on."""
        now = timezone.now()
        in_time = Q(mass_command__deadline=None) | Q(mass_command__deadline__gt=now)
        changed = self.filter(
            in_time,
            pk=pk,
            status="running",
            lease=lease,
            mass_command__cancel_requested=None,
            mass_command__budget_spent=None,
            mass_command__paused=None,
        )
        return bool(changed.update(spawned=now))

    def release(self, pk: uuid.UUID) -> bool:
        """Let workers take a held slice."""
        return bool(self.filter(pk=pk, status="held").update(status="queued", not_before=None, enqueued=timezone.now()))

    def hold(self, run: uuid.UUID) -> int:
        """Take back what no worker has taken yet; the deliveries that are under way do nothing then."""
        waiting = self.filter(mass_command=run, status="queued")
        return waiting.update(status="held", attempt=F("attempt") + 1)

    def put_back(self, pk: uuid.UUID, *, lease: uuid.UUID) -> bool:
        """Hold a slice again that was taken and has not started."""
        changed = self.filter(pk=pk, status="running", lease=lease, spawned=None)
        return bool(changed.update(status="held", lease=None, lease_expires=None, attempt=F("attempt") + 1))

    def seize_waiting(self, pk: uuid.UUID, *, seconds: float) -> uuid.UUID | None:
        """Take a slice that no worker has taken, as one would, in order to end it: none can start it any more."""
        lease, now = uuid.uuid4(), timezone.now()
        changed = self.filter(pk=pk, status__in=("held", "queued")).update(
            status="running", lease=lease, lease_expires=now + timedelta(seconds=seconds), worker="", spawned=None
        )
        return lease if changed else None

    def finish(self, pk: uuid.UUID, *, lease: uuid.UUID) -> bool:
        """End the slice; False when the lease is no longer ours."""
        changed = self.filter(pk=pk, status="running", lease=lease)
        return bool(changed.update(status="finished", lease=None, lease_expires=None))

    def seize(self, pk: uuid.UUID, *, old: uuid.UUID, new: uuid.UUID, seconds: float) -> bool:
        """Take an expired lease over, with a token of our own; False when it was renewed or another was first."""
        now = timezone.now()
        changed = self.filter(pk=pk, status="running", lease=old, lease_expires__lt=now)
        return bool(changed.update(lease=new, lease_expires=now + timedelta(seconds=seconds)))

    def hand_back(self, pk: uuid.UUID, *, lease: uuid.UUID) -> bool:
        """Put a slice that never started back; the delivery that is running is then an earlier one."""
        changed = self.filter(pk=pk, status="running", lease=lease, spawned=None)
        return bool(
            changed.update(
                status="queued", lease=None, lease_expires=None, attempt=F("attempt") + 1, enqueued=timezone.now()
            )
        )

    def redeliver(self, pk: uuid.UUID, *, attempt: int) -> bool:
        """Count one more delivery of a queued slice; False when it was taken or delivered meanwhile."""
        changed = self.filter(pk=pk, status="queued", attempt=attempt)
        return bool(changed.update(attempt=F("attempt") + 1, enqueued=timezone.now()))

    def expired(self, now: datetime) -> Self:
        """Running slices whose worker has not renewed its lease."""
        return self.filter(status="running", lease_expires__lt=now)


class CommandQuerySet(models.QuerySet[Any]):
    """Per-device rows."""

    def open(self) -> Self:
        """Those that have not ended."""
        return self.filter(status__in=sorted(OPEN))

    def end(self, *, source: CommandStatus, target: CommandStatus, code: str, reason: str, change: int) -> int:
        """Move all the rows of ``source`` in this set to a finished status; how many were moved.

        ``change`` is the number of this write (``next_change``).
        """
        return self.filter(status=source).update(
            status=target, reason_code=code, reason=reason, finished=timezone.now(), holds_device=False, change=change
        )

    def write(self, rows: Collection[Any], fields: Sequence[str]) -> None:
        """Save these fields of rows that the caller has locked, in a transaction.

        One statement that is carried out for each row.  bulk_update would make one with a CASE of all rows for each
        field: most of the CPU that recording a result costs.
        """
        if not rows:
            return
        using = connections[self.db]
        columns = [self.model._meta.get_field(name) for name in (*fields, "id")]
        *names, key = (using.ops.quote_name(column.column) for column in columns)
        table = using.ops.quote_name(self.model._meta.db_table)
        assignments = ", ".join(f"{name} = %s" for name in names)
        with using.cursor() as cursor:
            cursor.executemany(
                f"UPDATE {table} SET {assignments} WHERE {key} = %s",  # noqa: S608 - names of our own columns
                [[column.get_db_prep_save(getattr(row, column.attname), using) for column in columns] for row in rows],
            )

    def insert_like(self, row: Any, names: Sequence[str], values: Iterable[Sequence[Any]]) -> None:
        """Insert a row for each of the values, which are those of these columns; ids are made, the rest is ``row``'s.

        A tenth of bulk_create's CPU: nothing is made of each row but the tuple that the database takes.
        """
        using = connections[self.db]
        same = [field for field in self.model._meta.concrete_fields if field.column not in {*names, "id"}]
        constant = tuple(field.get_db_prep_save(field.pre_save(row, add=True), using) for field in same)
        columns = ", ".join(map(using.ops.quote_name, ("id", *names, *(field.column for field in same))))
        table, marks = using.ops.quote_name(self.model._meta.db_table), ", ".join(["%s"] * (1 + len(names) + len(same)))
        native = using.features.has_native_uuid_field

        def ready(value: Any) -> Any:
            if isinstance(value, datetime):
                return using.ops.adapt_datetimefield_value(value)
            return value.hex if isinstance(value, uuid.UUID) and not native else value

        with using.cursor() as cursor:
            cursor.executemany(
                f"INSERT INTO {table} ({columns}) VALUES ({marks})",  # noqa: S608 - names of our own columns
                [(ready(uuid.uuid4()), *map(ready, given), *constant) for given in values],
            )
