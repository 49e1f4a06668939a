"""Which devices of a run said the same: "918 said this, 3 said that".  Counted by the database, on request."""

from dataclasses import dataclass
from typing import Any, Final

from django.db.models import Count, Min
from django.db.models.functions import MD5, Left

from orchestrator.models import Command, MassCommand
from orchestrator.states import FINISHED

_GROUPS: Final = 20  # shown; a command such as "date" makes one of each device
_TEXT: Final = 4_000  # characters of an output
_NAMES: Final = 5  # devices named of each group
_KEY: Final = ("status", "rc", "reason", "stdout_md5", "stderr_md5")


@dataclass(frozen=True, slots=True)
class OutputGroup:
    """Devices with one outcome and one output; ``row`` is one of them."""

    count: int
    row: Any
    names: tuple[str, ...]

    @property
    def more(self) -> int:
        """How many devices are not named."""
        return self.count - len(self.names)


def grouped(run: MassCommand) -> tuple[list[OutputGroup], int]:
    """The largest groups of finished devices, and how many groups there are."""
    rows = Command.objects.filter(mass_command=run, status__in=sorted(FINISHED))
    # the digests are compared by nobody but this page: collisions made on purpose gain nothing
    rows = rows.annotate(stdout_md5=MD5("stdout"), stderr_md5=MD5("stderr"))
    keys = rows.order_by().values(*_KEY)
    largest = list(keys.annotate(count=Count("pk"), first=Min("device_name")).order_by("-count", "first")[:_GROUPS])
    total = len(largest) if len(largest) < _GROUPS else keys.distinct().count()
    return [_group(rows, found) for found in largest], total


def _group(rows: Any, found: dict[str, Any]) -> OutputGroup:
    members = rows.filter(**{name: found[name] for name in _KEY if found[name] is not None})
    if found["rc"] is None:
        members = members.filter(rc=None)
    shown = members.defer("stdout", "stderr", "input").annotate(
        said=Left("stdout", _TEXT), complained=Left("stderr", _TEXT)
    )
    first = list(shown.order_by("device_name", "pk")[:_NAMES])
    return OutputGroup(found["count"], first[0], tuple(row.device_name for row in first))
