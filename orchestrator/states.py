"""Every status of a run and of a device's part in it, the transitions between them, and what they add up to.

Imports nothing of ours: each layer above may speak of states.  The diagram in docs/architecture.md is tested
against ``TRANSITIONS`` and ``RUN_TRANSITIONS``.
"""

from collections.abc import Mapping
from typing import Final

from django.db import models


class CommandStatus(models.TextChoices):
    """What became of one device in a run."""

    QUEUED = "queued", "queued"
    """Waits for a worker; the device was not contacted."""
    RUNNING = "running", "running"
    """A worker has turned to the device; it may have received the command."""
    SUCCESS = "success", "success"
    """The command ended with rc 0 (a reboot: the device came back)."""
    FAILED = "failed", "failed"
    """The device was logged in to, and the command did not succeed."""
    UNREACHABLE = "unreachable", "unreachable"
    """Never logged in: refused, no route, no answer, wrong credential or host key."""
    TIMED_OUT = "timed_out", "timed out"
    """Ran past the execution timeout; it may still be running on the device."""
    CANCELLED = "cancelled", "cancelled"
    """A person stopped it before its end."""
    TERMINATED = "terminated", "terminated"
    """Never started: the error budget was spent or the deadline passed."""
    LOST = "lost", "lost"
    """Its worker died: the device may or may not have run it.  Never run again on its own."""
    SKIPPED = "skipped", "skipped"
    """Not eligible: at launch, or no longer when its turn came; never contacted."""


class RunStatus(models.TextChoices):
    """What became of a mass command as a whole."""

    SCHEDULED = "scheduled", "scheduled"
    """Starts later."""
    QUEUED = "queued", "queued"
    """No worker has taken a slice of it yet."""
    RUNNING = "running", "running"
    """At least one slice was taken."""
    CANCELLING = "cancelling", "cancelling"
    """A person asked to stop it; workers are ending what runs."""
    SUCCESS = "success", "success"
    """Every device succeeded."""
    PARTIAL = "partial", "partial"
    """Some devices succeeded, not all."""
    FAILED = "failed", "failed"
    """No device succeeded."""
    CANCELLED = "cancelled", "cancelled"
    """Stopped by a person before its end."""


_C = CommandStatus
_R = RunStatus

FINISHED: Final = frozenset(_C) - {_C.QUEUED, _C.RUNNING}
OPEN: Final = frozenset({_C.QUEUED, _C.RUNNING})
ERRORS: Final = frozenset({_C.FAILED, _C.UNREACHABLE, _C.TIMED_OUT, _C.LOST})
"""What counts against the error budget, and what a retry takes up unless told."""
RUN_FINISHED: Final = frozenset({_R.SUCCESS, _R.PARTIAL, _R.FAILED, _R.CANCELLED})
RUN_ACTIVE: Final = frozenset(_R) - RUN_FINISHED

TRANSITIONS: Final[Mapping[CommandStatus, frozenset[CommandStatus]]] = {
    # A running device goes back to queued only when it was never logged in to, and waits to be online.
    # A device that was never turned to can still be unreachable (no pinned host key), failed (Ansible did not
    # start) or lost (the worker died before its first word); so every finished status follows from queued too.
    _C.QUEUED: FINISHED | {_C.RUNNING},
    _C.RUNNING: FINISHED - {_C.SKIPPED, _C.TERMINATED} | {_C.QUEUED},
} | {status: frozenset() for status in FINISHED}

RUN_TRANSITIONS: Final[Mapping[RunStatus, frozenset[RunStatus]]] = {
    _R.SCHEDULED: frozenset({_R.QUEUED, _R.CANCELLING}) | RUN_FINISHED,
    _R.QUEUED: frozenset({_R.RUNNING, _R.CANCELLING}) | RUN_FINISHED,
    _R.RUNNING: frozenset({_R.CANCELLING}) | RUN_FINISHED,
    _R.CANCELLING: RUN_FINISHED,
} | {status: frozenset() for status in RUN_FINISHED}


def summarize(counts: Mapping[str, int]) -> RunStatus:
    """The status of a finished run from its counters (command status → number of devices).

    ``partial`` means that some succeeded and not all: a skipped device makes a run partial, never a false
    success, and never failed while others succeeded.

    Raises:
        ValueError: some device has not finished yet; a run is never judged early.
    """
    if any(counts.get(status, 0) for status in OPEN):
        raise ValueError("the run has devices that have not finished")
    total, succeeded = sum(counts.values()), counts.get(_C.SUCCESS, 0)
    if total and succeeded == total:
        return RunStatus.SUCCESS
    if counts.get(_C.CANCELLED, 0):
        return RunStatus.CANCELLED
    return RunStatus.PARTIAL if succeeded else RunStatus.FAILED
