"""Results into rows: per-host events become guarded, batched writes; counters change in the same transaction.

One thread writes.  Whoever hears the events only appends to a queue, so that a slow database never stalls
ansible-runner.  The same thread renews the slice's lease and looks whether the run was cancelled.
"""

import logging
import queue
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Final, Self

from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection, transaction
from django.utils import timezone

from orchestrator.events import HostEvent
from orchestrator.journal import Assignment, Journal
from orchestrator.locking import LeaseLostError, defer, keep
from orchestrator.models import Command, MassCommand, Slice, TaskResult
from orchestrator.output import cut
from orchestrator.plays import TaskEvent
from orchestrator.rotation import PasswordChange, follow
from orchestrator.states import OPEN, TRANSITIONS, CommandStatus

log = logging.getLogger(__name__)

_BATCH: Final = 200  # rows in one transaction
_FLUSH: Final = 1.0  # seconds that an event waits for others at most: a write costs as much as ten rows in it
_FLUSH_ERROR: Final = 0.3  # seconds, of one that counts against the error budget
_TICK: Final = 1.0  # seconds between two looks at lease and cancellation
_RETRY: Final = 1.0  # seconds between two tries when the database fails
_NEVER_STARTED: Final = frozenset({CommandStatus.SKIPPED, CommandStatus.TERMINATED})
_IN_ORDER: Final = frozenset({None, CommandStatus.SUCCESS})
_UNCERTAIN: Final = frozenset({CommandStatus.TIMED_OUT, CommandStatus.LOST, CommandStatus.CANCELLED})
_REASON_LIMIT: Final = 4_000  # bytes
_OFFLINE: Final = frozenset({"refused", "no_route", "timeout"})  # nothing answered: certainly nothing was run
WAITS: Final = "offline"  # reason code of a queued row whose device is to be tried again
_BEGUN_FIELDS: Final = ("status", "started", "change")
_FIELDS: Final = (
    "status", "reason_code", "reason", "rc", "stdout", "stderr", "recap", "truncated", "bytes_total", "started",
    "finished", "holds_device", "change",
)  # fmt: skip


class Recorder:
    """Writes the results of one slice while it runs; a context manager, whose end waits for the last write."""

    def __init__(
        self,
        slice_: Slice,
        *,
        lease: uuid.UUID,
        assignments: Mapping[str, Assignment],
        change: PasswordChange | None = None,
        journal: Journal | None = None,
    ) -> None:
        self._slice_id, self._run, self._lease = slice_.pk, slice_.mass_command_id, lease
        self._offline_until = slice_.mass_command.offline_until
        self._assignments, self._change, self._journal = assignments, change, journal
        self._slice = slice_
        self._events: queue.SimpleQueue[HostEvent | TaskEvent | frozenset[str] | None] = queue.SimpleQueue()
        self._hosts = {assignment.command: host for host, assignment in assignments.items()}
        self._cancelled: frozenset[str] = frozenset()
        self._stop = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"recorder-{slice_.pk}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._events.put(None)
        self._thread.join()

    def record(self, event: HostEvent | TaskEvent) -> None:
        """Take an event; it is written soon.  Waits for no database."""
        if self._journal is not None and event.host_name in self._assignments:
            try:
                self._journal.add(event)
            except OSError:
                log.exception("The journal of slice %s can't be written; going on without", self._slice_id)
                self._journal = None
        self._events.put(event)

    def hand_back(self, hosts: Collection[str]) -> None:
        """Give devices for which nothing was started, and nothing will be, another turn; it happens soon."""
        self._events.put(frozenset(hosts))

    @property
    def cancelled_hosts(self) -> Collection[str]:
        """The hosts that a person has cancelled one by one."""
        return self._cancelled

    @property
    def stop_requested(self) -> bool:
        """Whether the run was cancelled or the lease was lost."""
        return self._stop.is_set() or self._lost.is_set()

    @property
    def lease_lost(self) -> bool:
        """Whether somebody else has taken the slice over."""
        return self._lost.is_set()

    def _work(self) -> None:
        next_tick, going = 0.0, True
        try:
            while going:
                batch, unstarted, going = self._gather(next_tick)
                if batch:
                    self._persist(partial(self._write, batch))
                if unstarted:
                    self._persist(partial(self._hand_back, unstarted))
                if time.monotonic() >= next_tick:
                    self._persist(self._look)
                    next_tick = time.monotonic() + _TICK
        except LeaseLostError:
            self._lost.set()
            log.warning("The lease of slice %s was lost; its run is stopped here", self._slice_id)
        except Exception:
            # Nobody would write, or renew the lease, any more: stop the run, and let recovery read the journal.
            self._lost.set()
            log.exception("The results of slice %s can't be recorded; its run is stopped", self._slice_id)
        finally:
            connection.close()

    def _gather(self, next_tick: float) -> tuple[list[HostEvent | TaskEvent], frozenset[str], bool]:
        """The events of the next moment, hosts that are handed back, and whether more may follow."""
        batch: list[HostEvent | TaskEvent] = []
        unstarted: frozenset[str] = frozenset()
        began = time.monotonic()
        until = min(began + _FLUSH, next_tick)
        while len(batch) < _BATCH and (left := until - time.monotonic()) > 0:
            try:
                event = self._events.get(timeout=left)
            except queue.Empty:
                break
            if event is None:
                return batch, unstarted, False
            if isinstance(event, frozenset):
                unstarted |= event
            else:
                batch.append(event)
                if isinstance(event, HostEvent) and event.status not in _IN_ORDER:
                    until = min(until, began + _FLUSH_ERROR)
        return batch, unstarted, True

    def _persist(self, write: Callable[[], None]) -> None:
        """Do it until the database has it: a restarted database costs time, not results."""
        while True:
            try:
                write()
            except DatabaseError:
                # The lease decides how long this makes sense: once it ran out, the write says LeaseLostError.
                log.exception("Results of slice %s could not be written; trying again", self._slice_id)
                connection.close()
                time.sleep(_RETRY)
            else:
                return

    def _look(self) -> None:
        if not Slice.objects.renew(self._slice_id, lease=self._lease, seconds=settings.LEASE_SECONDS):
            raise LeaseLostError
        if MassCommand.objects.filter(pk=self._run, cancel_requested__isnull=False).exists():
            self._stop.set()
        asked = Command.objects.open().filter(slice=self._slice_id, cancel_requested__isnull=False)
        self._cancelled |= {self._hosts[pk] for pk in asked.values_list("pk", flat=True) if pk in self._hosts}

    def _hand_back(self, hosts: frozenset[str]) -> None:
        rows = Command.objects.filter(slice=self._slice_id, pk__in=[self._assignments[host].command for host in hosts])
        defer(self._slice, rows, lease=self._lease, not_before=timezone.now(), again=False)

    def _write(self, batch: Sequence[HostEvent | TaskEvent]) -> None:
        known = [event for event in batch if event.host_name in self._assignments]
        events = [(self._assignments[event.host_name], event) for event in known if isinstance(event, HostEvent)]
        tasks = [_task(self._assignments[event.host_name], event) for event in known if isinstance(event, TaskEvent)]
        with transaction.atomic():
            keep(self._slice_id, self._lease)
            if tasks:  # one that a journal tells once more is there already
                TaskResult.objects.bulk_create(tasks, ignore_conflicts=True)
            if not events:
                return
            ids = {assignment.command for assignment, _ in events}
            rows = Command.objects.select_for_update().filter(pk__in=ids, status__in=sorted(OPEN))
            by_id = {
                values[0]: _Row(*values) for values in rows.values_list("pk", "status", "started", "cancel_requested")
            }
            before = {pk: row.status for pk, row in by_id.items()}
            change = MassCommand.objects.next_change(self._run)
            for assignment, event in events:
                if row := by_id.get(assignment.command):
                    _wait(row, event) if self._may_wait(row, event) else _apply(row, event)
                    row.change = change
            for told, fields in ((True, _FIELDS), (False, _BEGUN_FIELDS)):
                Command.objects.write([row for row in by_id.values() if row.told == told], fields)
            moves = Counter((before[pk], row.status) for pk, row in by_id.items() if row.status != before[pk])
            MassCommand.objects.count_moves(self._run, moves)
            MassCommand.objects.spend_budget(self._run)
            self._follow_passwords(by_id)

    def _may_wait(self, row: "_Row", event: HostEvent) -> bool:
        offline = event.status == CommandStatus.UNREACHABLE and event.code in _OFFLINE and not row.cancelled
        return offline and self._offline_until is not None and timezone.now() < self._offline_until

    def _follow_passwords(self, rows: Mapping[uuid.UUID, "_Row"]) -> None:
        if self._change is None:
            return
        for certain, statuses in ((True, frozenset({CommandStatus.SUCCESS})), (False, _UNCERTAIN)):
            logins = {
                assignment.device: assignment.username
                for assignment in self._assignments.values()
                if (row := rows.get(assignment.command))
                and row.reason_code != "cancelled"
                and (row.status in statuses or (not certain and row.reason_code == "connection_lost"))
            }
            if logins:
                follow(self._change, logins=logins, certain=certain)


@dataclass(slots=True)
class _Row:
    """An open row of Command, and what becomes of it.  As a model, with all that it holds, it cost twice as much."""

    id: uuid.UUID
    status: str
    started: datetime | None
    cancelled: datetime | None
    told: bool = False  # what it got: the rest, or only that it has begun
    change: int = 0
    reason_code: str = ""
    reason: str = ""
    rc: int | None = None
    stdout: str = ""
    stderr: str = ""
    recap: dict[str, int] | None = None
    truncated: bool = False
    bytes_total: int = 0
    finished: datetime | None = None
    holds_device: bool = False


def _apply(row: _Row, event: HostEvent) -> None:
    """Let the row say what the event told, if its status may still change."""
    target = event.status if event.kind == "finished" and event.status else CommandStatus.RUNNING
    if target not in TRANSITIONS[CommandStatus(row.status)]:
        return
    row.status = target
    if target not in _NEVER_STARTED:
        row.started = row.started or event.at
    if event.kind != "finished":
        return
    stdout, stderr = cut(event.stdout, settings.OUTPUT_LIMIT), cut(event.stderr, settings.OUTPUT_LIMIT)
    row.told = True
    row.finished = max(event.at, row.started or event.at)
    row.reason_code, row.reason, row.rc = event.code, cut(event.reason, _REASON_LIMIT).text, event.rc
    row.stdout, row.stderr = stdout.text, stderr.text
    row.recap = event.recap
    row.truncated = event.truncated or stdout.truncated or stderr.truncated
    row.bytes_total = event.bytes_total or stdout.size + stderr.size


def _task(assignment: Assignment, event: TaskEvent) -> TaskResult:
    return TaskResult(
        id=uuid.uuid5(assignment.command, event.key), command_id=assignment.command, number=event.number,
        play=event.play, task=event.task, module=event.module, status=event.status, started=event.at,
        duration=event.duration, message=event.message, rc=event.rc, stdout=event.stdout, stderr=event.stderr,
        diff=event.diff, truncated=event.truncated,
    )  # fmt: skip


def _wait(row: _Row, event: HostEvent) -> None:
    """Let the row of an offline device be queued again; ``settle`` moves it to a later slice."""
    row.told, row.status, row.reason_code = True, CommandStatus.QUEUED, WAITS
    row.reason = f"The device is offline and will be tried again. {event.reason}"
