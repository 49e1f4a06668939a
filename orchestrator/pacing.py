"""How a run is paced: waves, devices in flight, error budget, pauses, deadline.

A slice is held until ``advance`` releases it.  Devices in flight over all workers are those of the slices that are
queued or running: so ``max_concurrency`` holds whatever the number of workers, and no worker has to count.
"""

import logging
import math
import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from django.conf import settings
from django.db import transaction
from django.db.models import Sum
from django.utils import timezone

from orchestrator import dispatch
from orchestrator.models import Command, MassCommand, Slice
from orchestrator.settling import CANCELLED_WAITING, Ending, settle, skip
from orchestrator.states import CommandStatus, RunStatus

log = logging.getLogger(__name__)

_SLICE_LEAST: Final = 100  # devices, where nobody has said how many
_SLICE_MOST: Final = 500  # devices

type Amount = int | str | None
"""A number, or a percentage of the eligible devices such as "10%"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """How a run is to be paced, as it was asked for; times in seconds."""

    max_concurrency: Amount = None
    ramp: bool = False
    max_errors: Amount = None
    canary: Amount = None
    pause: float | str | None = None  # seconds between two waves, or "manual"
    connect_timeout: float | None = None
    execution_timeout: float | None = None
    deadline: float | None = None  # from the start of the run
    on_conflict: str = "queue"
    run_at: datetime | None = None
    wait_for_offline_until: datetime | None = None
    check: bool = False
    diff: bool = False  # this and what follows: of the users' own playbooks, as ansible-playbook has them
    job_tags: Sequence[str] | None = None
    skip_tags: Sequence[str] | None = None
    verbosity: int | None = None

    def as_json(self) -> dict[str, Any]:
        """What was given, as it is stored and shown."""
        given = {name: getattr(self, name) for name in self.__slots__}
        shown = {name: value for name, value in given.items() if value is not None and value is not False}
        return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in shown.items()}


def amount(given: Amount, of: int) -> int | None:
    """The number of devices that an amount means; a percentage is rounded up and at least 1, but 0 % is 0."""
    if given is None or isinstance(given, int):
        return given
    percent = float(given.removesuffix("%"))
    return math.ceil(of * percent / 100)


def cut_waves(controls: Controls, devices: int, *, whole: bool = False) -> Iterator[tuple[int, int]]:
    """(wave, devices) of each slice, in order, for a run on so many eligible devices.

    ``whole``: a wave is one slice unless a limit is asked for.  A user's own playbook means all its hosts by `serial`,
    `run_once` and the like, and so it is one ansible-playbook.
    """
    limit = amount(controls.max_concurrency, devices) or devices
    careful = any((controls.max_concurrency, controls.max_errors is not None, controls.canary, controls.ramp))
    # All devices of a slice are in flight at once: none waits inside of Ansible where nothing could hold it back.
    chunk = slice_size(devices)
    chunk = min(chunk, settings.FORKS, max(1, limit // 2)) if careful else chunk
    chunk = devices if whole and not careful else chunk
    left = devices
    for wave, size in enumerate(_wave_sizes(controls, devices, limit), start=1):
        in_wave = min(size, left)
        left -= in_wave
        for start in range(0, in_wave, chunk):
            yield wave, min(chunk, in_wave - start)
        if not left:
            return


def slice_size(devices: int) -> int:
    """The devices of one slice.  Few starts of Ansible, a second of CPU each, and no worker idle at the end.

    The cores of this machine stand for the workers, of which there may be others elsewhere.
    """
    if given := int(settings.SLICE_SIZE):
        return given
    cores = len(os.sched_getaffinity(0))
    slices = math.ceil(math.ceil(devices / _SLICE_MOST) / cores) * cores
    return max(math.ceil(devices / max(slices, 1)), _SLICE_LEAST)


def _wave_sizes(controls: Controls, devices: int, limit: int) -> Iterator[int]:
    if canary := amount(controls.canary, devices):
        yield canary
    step = 1
    while controls.ramp and step < limit:
        yield step
        step *= 2
    while controls.pause is not None:
        yield limit
    yield devices  # all the rest, as many at a time as max_concurrency lets


def advance(run_id: uuid.UUID) -> None:
    """Release what may start now, or end what may not start any more; harmless at any time, from anywhere."""
    now = timezone.now()
    ending = None
    released: list[tuple[uuid.UUID, int]] = []
    with transaction.atomic():
        run = MassCommand.objects.select_for_update().active().filter(pk=run_id).first()
        if run is None:
            return
        _cancel_waiting(run)
        ending = _ending(run, now) or _check_wave(run, now)
        if ending is None and _may_go(run, now):
            released = _release(run, now)
        transaction.on_commit(lambda: dispatch.enqueue(released) if released else None)
    if ending is not None:
        end_waiting(run, ending)


def _cancel_waiting(run: MassCommand) -> None:
    """End the rows that were cancelled one by one and that no worker has; the caller holds the run's lock."""
    asked = Command.objects.filter(mass_command=run, cancel_requested__isnull=False, status=CommandStatus.QUEUED)
    slices = Slice.objects.filter(pk__in=asked.values("slice"), status__in=("held", "queued"))
    # Locked, so that no worker takes one of these slices and plans with a row that ends here.
    if locked := list(slices.select_for_update().order_by("pk")):
        rows = asked.filter(slice__in=locked).values_list("pk", flat=True)
        skip(run.pk, dict.fromkeys(rows, CANCELLED_WAITING))


def end_waiting(run: MassCommand, ending: Ending) -> None:
    """End the slices that no worker has taken."""
    for slice_ in Slice.objects.filter(mass_command=run, status__in=("held", "queued")):
        lease = Slice.objects.seize_waiting(slice_.pk, seconds=settings.LEASE_SECONDS)
        if lease is not None:
            settle(slice_, lease=lease, ending=ending)
    MassCommand.objects.finish_if_done(run.pk)


def why_not(run: MassCommand) -> Ending | None:
    """Why a slice of the run may not start, if not because it is paused."""
    return _ending(run, timezone.now())


def _ending(run: MassCommand, now: datetime) -> Ending | None:
    if run.cancel_requested:
        return Ending.STOPPED
    if run.budget_spent:
        canary = run.wave == 1 and run.controls.get("canary")  # whose first error is one too many
        return Ending.CANARY_FAILED if canary else Ending.TERMINATED
    if run.deadline and run.deadline <= now:
        return Ending.DEADLINE
    return None


def _may_go(run: MassCommand, now: datetime) -> bool:
    if run.status == RunStatus.SCHEDULED:
        if run.run_at and run.run_at > now:
            return False
        MassCommand.objects.filter(pk=run.pk, status=RunStatus.SCHEDULED).update(status=RunStatus.QUEUED)
    return run.paused is None


def _check_wave(run: MassCommand, now: datetime) -> Ending | None:
    """Let the next wave begin when this one is over, the canaries live and the pause has passed."""
    if not wave_is_over(run):
        return None
    if run.wave == 1 and run.controls.get("canary") and _errors_of_wave(run):
        MassCommand.objects.filter(pk=run.pk, budget_spent=None).update(budget_spent=now)
        return Ending.CANARY_FAILED
    if run.pause_manual:
        return None  # a person approves
    if run.pause_seconds and run.wave_due is None:
        run.wave_due = now + timedelta(seconds=run.pause_seconds)
        run.save(update_fields=("wave_due",))
    if run.wave_due is None or run.wave_due <= now:
        open_wave(run)
    return None


@dataclass(frozen=True, slots=True)
class Wait:
    """Why nothing starts at the moment."""

    what: Literal["start", "resume", "approval", "pause"]
    until: datetime | None = None  # None: a person says


def waits_for(run: MassCommand) -> Wait | None:
    """What has to happen before more of the run starts; None when it goes on by itself, or has ended."""
    if not run.is_active or run.cancel_requested or run.budget_spent:
        return None
    if run.paused:
        return Wait("resume")
    if run.status == RunStatus.SCHEDULED:
        return Wait("start", run.run_at)
    if not (run.pause_manual or run.pause_seconds) or not wave_is_over(run):
        return None
    return Wait("approval") if run.pause_manual else Wait("pause", run.wave_due)


def wave_is_over(run: MassCommand) -> bool:
    """Whether all of the waves so far has ended and another is to follow."""
    slices = Slice.objects.filter(mass_command=run)
    before = slices.filter(wave__lte=run.wave)
    if not (run.wave == 1 and run.controls.get("canary")):
        before = before.filter(tries=0)  # devices that are offline or busy hold up nobody but themselves
    return not before.exclude(status="finished").exists() and slices.filter(wave__gt=run.wave).exists()


def open_wave(run: MassCommand) -> None:
    """Let the next wave begin; the caller holds the row's lock."""
    run.wave, run.wave_due = run.wave + 1, None
    run.save(update_fields=("wave", "wave_due"))


def _errors_of_wave(run: MassCommand) -> bool:
    rows = Command.objects.filter(mass_command=run, slice__wave=run.wave)
    return rows.exclude(status__in=(CommandStatus.SUCCESS, CommandStatus.SKIPPED)).exists()


def _release(run: MassCommand, now: datetime) -> list[tuple[uuid.UUID, int]]:
    slices = Slice.objects.filter(mass_command=run)
    in_flight = slices.filter(status__in=("queued", "running")).aggregate(n=Sum("size"))["n"] or 0
    room = math.inf if run.max_concurrency is None else run.max_concurrency - in_flight
    released = []
    for slice_ in slices.filter(status="held", wave__lte=run.wave).order_by("number"):
        if slice_.not_before and slice_.not_before > now:
            continue
        if slice_.size > room:
            break
        if Slice.objects.release(slice_.pk):
            room -= slice_.size
            released.append((slice_.pk, slice_.attempt))
    return released
