"""RQ entry points: a job takes ids, takes the slice's lease, and lets the run happen.  No rules here.

At most once: a job whose slice was taken, ended or delivered again does nothing.
"""

import logging
import os
import socket
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from django.conf import settings
from django.db import InterfaceError, OperationalError

from orchestrator import dispatch, host_keys, origin, planning, runner, tuning
from orchestrator.events import HostEvent
from orchestrator.exceptions import OrchestratorError
from orchestrator.journal import Journal
from orchestrator.locking import LeaseLostError
from orchestrator.models import MassCommand, Slice
from orchestrator.pacing import advance, why_not
from orchestrator.plays import TaskEvent
from orchestrator.recording import Recorder
from orchestrator.rotation import PasswordChange
from orchestrator.settling import Ending, settle
from orchestrator.states import CommandStatus

log = logging.getLogger(__name__)

_REFUSED: Final = frozenset({"auth", "key"})  # codes after which another credential may do


def prepare() -> None:
    """Do before the first slice what each would have to find out anew."""
    tuning.prepare()


def run_slice(slice_id: str, attempt: int) -> None:
    """Carry out one slice; ``attempt`` is the delivery that this job belongs to."""
    with origin.through(origin.Door.WORKER):
        _run_slice(slice_id, attempt)


def _run_slice(slice_id: str, attempt: int) -> None:
    pk = uuid.UUID(slice_id)
    worker = f"{socket.gethostname()}:{os.getpid()}"
    lease = Slice.objects.take(pk, attempt=attempt, worker=worker, seconds=settings.LEASE_SECONDS)
    if lease is None:
        log.info("Slice %s, attempt %d: taken or ended already, nothing to do", slice_id, attempt)
        return
    if not dispatch.may_start() and Slice.objects.hand_back(pk, lease=lease):
        log.info("Slice %s goes back to the queue: this worker starts nothing more", slice_id)
        dispatch.enqueue([(pk, attempt + 1)])
        return
    slice_ = Slice.objects.get(pk=pk)
    slice_.lease = lease  # whoever has it by now
    MassCommand.objects.begin(slice_.mass_command_id)  # before the run is read: its deadline counts from now
    change = None
    try:
        change = planning.password_change(slice_.mass_command)
        ending, detail = _carry_out(slice_, lease, change)
    except (OperationalError, InterfaceError):
        raise  # a database that is locked or away says nothing of the devices: recovery knows what had started
    except LeaseLostError:
        log.warning("The lease of slice %s was lost; whoever has it goes on", slice_id)
        return
    except OrchestratorError as error:
        ending, detail = Ending.CRASHED, error.detail
    except OSError as error:
        log.exception("Slice %s broke", slice_id)
        ending, detail = Ending.CRASHED, f"The worker's machine says: {error.strerror or error}."
    except Exception:
        log.exception("Slice %s broke", slice_id)
        ending, detail = Ending.CRASHED, "The service's log says why."
    settle(slice_, lease=lease, ending=ending, detail=detail, change=change)
    _look_again(slice_)
    advance(slice_.mass_command_id)


def _look_again(slice_: Slice) -> None:
    """Mark devices with another host key.  The results stand already: what fails here must not stop what follows."""
    try:
        host_keys.look_again(slice_)
    except Exception:
        log.exception("Changed host keys in slice %s could not be marked", slice_.pk)


def _carry_out(slice_: Slice, lease: uuid.UUID, change: PasswordChange | None) -> tuple[Ending, str]:
    """Run the playbook on the slice's devices; credential after credential where a login was refused."""
    plan = planning.plan(slice_)
    with (
        Journal(slice_.pk, slice_.attempt, plan.assignments) as journal,
        Recorder(slice_, lease=lease, assignments=plan.assignments, change=change, journal=journal) as recorder,
    ):
        for number in range(plan.rounds):
            targets = plan.targets(number)
            if not targets:
                break
            if number == 0 and not Slice.objects.spawn(slice_.pk, lease=lease):
                return _held_up(slice_), ""
            if recorder.stop_requested:
                return Ending.STOPPED, ""
            listener = _Listener(plan, recorder.record)
            outcome = runner.run(
                plan.request(targets, ident=planning.round_ident(slice_, number)),
                on_event=listener.hear,
                orders=_orders(recorder, first=number == 0 and not plan.run.playbook),
            )
            if outcome.ended != "completed":
                return Ending(outcome.ended), outcome.detail
    return Ending.COMPLETED, ""


def _orders(recorder: Recorder, *, first: bool) -> runner.Orders:
    return runner.Orders(
        stop=lambda: recorder.stop_requested,
        cancelled=lambda: recorder.cancelled_hosts,
        drain=lambda: first and not dispatch.may_start(),  # else they had their turn, or a play means them all
        withdrawn=recorder.hand_back,
    )


def _held_up(slice_: Slice) -> Ending:
    """Why the slice may not start now."""
    slice_.mass_command.refresh_from_db()
    return why_not(slice_.mass_command) or Ending.PAUSED


@dataclass(slots=True)
class _Listener:
    """Passes events on, except a refused login that leaves another credential to try."""

    plan: planning.Plan
    record: Callable[[HostEvent | TaskEvent], None]

    def hear(self, event: HostEvent | TaskEvent) -> None:
        if isinstance(event, TaskEvent):
            self.record(event)
            return
        unreachable = event.kind == "finished" and event.status == CommandStatus.UNREACHABLE
        if not (unreachable and event.code in _REFUSED and self.plan.try_next_login(event.host_name)):
            self.record(event)
