"""A run as cells, one for each device in the order of names: what a page of ten thousand devices can draw.

A letter stands for a cell's status; where there are more devices than cells, a cell has the worst of its devices.
"""

from itertools import batched
from typing import Any, Final

from django.urls import reverse

from orchestrator.models import Command, MassCommand
from orchestrator.states import CommandStatus

CELLS: Final = 10_000  # drawn at most
_C = CommandStatus
# What is to be seen first stands first; the letter of a status is its place in this row.
_WORST: Final = (
    _C.LOST, _C.FAILED, _C.TIMED_OUT, _C.UNREACHABLE, _C.CANCELLED, _C.TERMINATED, _C.RUNNING, _C.QUEUED, _C.SKIPPED,
    _C.SUCCESS,
)  # fmt: skip
_LETTERS: Final = {status.value: str(number) for number, status in enumerate(_WORST)}


def grid_of(run: MassCommand) -> dict[str, Any]:
    """The cells of a run as the script of its page draws them: ``cells`` has a digit each, of ``statuses``."""
    rows = Command.objects.filter(mass_command=run).order_by("device_name", "pk").values_list("status", flat=True)
    letters = (_LETTERS[status] for status in rows.iterator(chunk_size=CELLS))
    each = -(-run.device_count // CELLS) or 1
    return {
        "statuses": [status.value for status in _WORST],
        "cells": "".join(letters if each == 1 else (min(part) for part in batched(letters, each))),
        "devices_in_a_cell": each,
    }


def cell_of(run: MassCommand, number: int) -> dict[str, Any]:
    """The devices behind a cell: how many, and the first of them; empty when there is none."""
    each = -(-run.device_count // CELLS) or 1
    rows = Command.objects.filter(mass_command=run).order_by("device_name", "pk")
    found = list(rows.values("pk", "device_name", "status", "reason")[number * each : (number + 1) * each])
    if not found:
        return {}
    first = min(found, key=lambda row: _LETTERS[row["status"]])
    return {
        "count": len(found),
        "name": first["device_name"],
        "last": found[-1]["device_name"],
        "status": first["status"],
        "label": str(CommandStatus(first["status"]).label),
        "reason": first["reason"],
        "address": reverse("admin:orchestrator_command_change", args=[first["pk"]]),
    }
