"""Runs whose rows are set directly, for tests of pages: nothing is executed."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from django.utils import timezone

from orchestrator.models import Command, MassCommand, TaskResult, TaskStatus
from orchestrator.states import OPEN, CommandStatus, RunStatus, summarize
from tests import factories

REASONS = {
    CommandStatus.UNREACHABLE: "Connection refused.",
    CommandStatus.FAILED: "",
    CommandStatus.SKIPPED: "The device is deactivated.",
    CommandStatus.LOST: "The worker died: the device may or may not have run the command.",
}


def run(
    counts: Mapping[CommandStatus, int], *, organization: Any = None, with_devices: bool = False, **fields: Any
) -> MassCommand:
    """A run with that many rows of each status; without organization it is system-wide."""
    organization_of_rows = organization or factories.organization()
    is_open = any(counts.get(status, 0) for status in OPEN)
    status = RunStatus.RUNNING if is_open else summarize({status.value: number for status, number in counts.items()})
    now = timezone.now()
    defaults: dict[str, Any] = {
        "type": "custom", "input": {"command": "uptime"}, "status": status, "organization": organization,
        "started": now - timedelta(seconds=20), "finished": None if is_open else now,
        "targets": {"organization": str(organization.pk)} if organization else {"all_devices": True},
        "device_count": sum(counts.values()),
    }  # fmt: skip
    made = MassCommand.objects.create(
        **defaults | {f"{status.value}_count": number for status, number in counts.items()} | fields
    )
    Command.objects.bulk_create(
        _row(made, organization_of_rows, status, f"{status.value}-{number:05}", with_devices=with_devices)
        for status, total in counts.items()
        for number in range(total)
    )
    return made


def _row(made: MassCommand, organization: Any, status: CommandStatus, name: str, *, with_devices: bool) -> Command:
    succeeded = status == CommandStatus.SUCCESS
    return Command(
        mass_command=made, organization=organization, device_name=name, type=made.type, status=status,
        device=factories.device(organization=organization, name=name) if with_devices else None,
        reason=REASONS.get(status, ""), rc={CommandStatus.SUCCESS: 0, CommandStatus.FAILED: 1}.get(status),
        stdout=" 10:12:51 up 3 days,  4:05,  load average: 0.08, 0.03, 0.01\n" if succeeded else "",
        stderr="ash: uptim: not found\n" if status == CommandStatus.FAILED else "",
        started=None if status in {CommandStatus.QUEUED, CommandStatus.SKIPPED} else timezone.now(),
        finished=None if status in OPEN else timezone.now(),
    )  # fmt: skip


def tasks(made: MassCommand, names: Sequence[str], *, last: TaskStatus = TaskStatus.OK, **texts: str) -> None:
    """Let each finished row of a run have these tasks; all are "changed" but the last one, which is as told."""
    began = made.started or timezone.now()
    rows = list(Command.objects.filter(mass_command=made, finished__isnull=False))
    TaskResult.objects.bulk_create(
        (
            TaskResult(
                id=uuid.uuid4(), command=row, number=number, play="Sites", task=name, module="ansible.builtin.raw",
                status=last if number == len(names) else TaskStatus.CHANGED,
                started=began + timedelta(seconds=number), duration=0.5 * number, **texts,
            )
            for row in rows
            for number, name in enumerate(names, start=1)
        ),
        batch_size=2_000,
    )  # fmt: skip
