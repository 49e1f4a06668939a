"""What a worker has heard and not yet written: results survive the death of their worker on the same machine.

One file for each attempt at a slice, below ``<data directory>/journal``, private to the service: a line that says
whose host names these are, then a line for each event, appended before the event waits for the database.  A kill
loses no line (they are in the kernel's hands); a crash of the machine may.
"""

import json
import logging
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Final, Self

from django.conf import settings

from orchestrator.events import HostEvent
from orchestrator.plays import TaskEvent
from orchestrator.states import CommandStatus

log = logging.getLogger(__name__)

_NAMES: Final = {kind: tuple(field.name for field in fields(kind)) for kind in (HostEvent, TaskEvent)}


@dataclass(frozen=True, slots=True)
class Assignment:
    """Which row and device stand behind a host name of the inventory, and who is logged in there."""

    command: uuid.UUID
    device: uuid.UUID
    username: str


def path(slice_id: uuid.UUID, attempt: int) -> Path:
    """The journal of an attempt."""
    return Path(settings.DATA_DIR) / "journal" / f"{slice_id}-{attempt}.ndjson"


class Journal:
    """The journal of an attempt that is running."""

    def __init__(self, slice_id: uuid.UUID, attempt: int, assignments: Mapping[str, Assignment]) -> None:
        self._path = path(slice_id, attempt)
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file: IO[str] = self._path.open("w")
        self._path.chmod(0o600)
        self._line({host: [str(who.command), str(who.device), who.username] for host, who in assignments.items()})

    def __enter__(self) -> Self:
        """Keep it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it; ``remove`` once the slice has ended."""
        self._file.close()

    def add(self, event: HostEvent | TaskEvent) -> None:
        """Append an event."""
        values = {name: getattr(event, name) for name in _NAMES[type(event)]}
        self._line(values | {"at": event.at.isoformat()})

    def _line(self, value: Any) -> None:
        self._file.write(json.dumps(value) + "\n")
        self._file.flush()


def remove(slice_id: uuid.UUID, attempt: int) -> None:
    """Forget an attempt, once all of it is in the database."""
    path(slice_id, attempt).unlink(missing_ok=True)


def read(slice_id: uuid.UUID, attempt: int) -> tuple[dict[str, Assignment], list[HostEvent | TaskEvent]]:
    """Whose host names they are, and the events; empty when there is no journal on this machine."""
    try:
        lines = path(slice_id, attempt).read_text().splitlines()
    except FileNotFoundError:
        return {}, []
    values = list(_values(lines))
    if not values:
        return {}, []
    assignments = {
        host: Assignment(uuid.UUID(command), uuid.UUID(device), username)
        for host, (command, device, username) in values[0].items()
    }
    return assignments, [_event(value) for value in values[1:]]


def _values(lines: list[str]) -> Iterator[Any]:
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:  # the last line of a writer that was killed in it
            log.warning("A journal ends in the middle of a line")
            return


def _event(value: dict[str, Any]) -> HostEvent | TaskEvent:
    at = datetime.fromisoformat(value.pop("at"))
    if "task" in value:
        return TaskEvent(**value, at=at)
    status = value.pop("status")
    return HostEvent(**value, at=at, status=None if status is None else CommandStatus(status))
