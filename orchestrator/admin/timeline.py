"""How a run went on: when its devices ended, as columns of time, and what happened to the run as a whole."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from django.db.models import Count, Min, Sum
from django.utils import timezone

from orchestrator.admin.labels import BAR_ORDER
from orchestrator.models import Command, MassCommand, Slice
from orchestrator.models.lookups import Interval

_COLUMNS: Final = 60
_STEPS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 21_600, 43_200)  # seconds
_DAY: Final = 86_400  # seconds
_WAVES: Final = 20  # told one by one


@dataclass(frozen=True, slots=True)
class Part:
    """Devices of one column that ended in one way; ``top`` and ``height`` in percent of the chart."""

    status: str
    count: int
    top: float
    height: float


@dataclass(frozen=True, slots=True)
class Column:
    """What ended in one interval."""

    start: datetime
    left: float
    width: float
    parts: tuple[Part, ...]

    @property
    def count(self) -> int:
        """Devices that ended in it."""
        return sum(part.count for part in self.parts)

    @property
    def words(self) -> str:
        """The same in words."""
        return ", ".join(f"{part.count:,} {_LABELS[part.status]}" for part in self.parts)


_LABELS: Final = {status.value: str(status.label) for status in BAR_ORDER}


@dataclass(frozen=True, slots=True)
class Timeline:
    """The columns, each ``seconds`` long, and the moments of the run in their order."""

    columns: tuple[Column, ...]
    seconds: int
    most: int
    moments: tuple[tuple[datetime, str], ...]

    @property
    def filled(self) -> list[Column]:
        """The columns in which something ended."""
        return [column for column in self.columns if column.parts]

    @property
    def step(self) -> str:
        """The length of a column, in words."""
        for size, unit in ((_DAY, "day"), (3_600, "hour"), (60, "minute"), (1, "second")):
            if self.seconds % size == 0:
                number = self.seconds // size
                return unit if number == 1 else f"{number} {unit}s"
        raise AssertionError


def timeline_of(run: MassCommand) -> Timeline:
    """Two queries, whatever the number of devices; without columns while nothing has started."""
    moments = tuple(sorted(_moments(run), key=lambda moment: moment[0]))
    if run.started is None:
        return Timeline((), 1, 0, moments)
    length = ((run.finished or timezone.now()) - run.started).total_seconds()
    seconds = _step(length)
    rows = Command.objects.filter(mass_command=run, finished__gte=run.started).order_by()
    rows = rows.annotate(interval=Interval("finished", start=run.started, seconds=float(seconds)))
    ended: dict[int, dict[str, int]] = defaultdict(dict)
    last = max(1, -(-int(length * 1_000) // (seconds * 1_000)))
    for row in rows.values("interval", "status").annotate(count=Count("pk")):
        place = min(row["interval"], last - 1)
        ended[place][row["status"]] = ended[place].get(row["status"], 0) + row["count"]
    most = max((sum(counts.values()) for counts in ended.values()), default=0)
    width = 100 / last
    columns = tuple(
        _column(
            run.started + timedelta(seconds=seconds * place),
            left=place * width, width=width, counts=ended.get(place, {}), most=most,
        )
        for place in range(last)
    )  # fmt: skip
    return Timeline(columns, seconds, most, moments)


def _step(length: float) -> int:
    """The shortest round interval of which few enough cover that many seconds."""
    days = -(-int(length) // (_COLUMNS * _DAY)) or 1
    return next((step for step in _STEPS if length <= step * _COLUMNS), days * _DAY)


def _column(start: datetime, *, left: float, width: float, counts: dict[str, int], most: int) -> Column:
    top, parts = 100.0, []
    for status in BAR_ORDER:
        if count := counts.get(status.value, 0):
            height = 100 * count / most
            top -= height
            parts.append(Part(status.value, count, round(max(top, 0), 2), round(height, 2)))
    return Column(start, round(left, 3), round(width * 0.85, 3), tuple(parts))


def _moments(run: MassCommand) -> list[tuple[datetime, str]]:
    person = run.created_by.username if run.created_by else "a deleted user"
    told: list[tuple[Any, str]] = [
        (run.created, f"Created by {person}"),
        (run.started, "Started: a worker took the first slice"),
        (run.paused if run.is_active else None, "Paused"),
        (run.budget_spent, "More errors than allowed: what waited was not started"),
        (run.cancel_requested, "Cancelled"),
        (run.finished, f"Ended: {run.get_status_display()}"),
    ]
    return [(moment, text) for moment, text in told + _waves(run) if moment is not None]


def _waves(run: MassCommand) -> list[tuple[Any, str]]:
    """When each wave began, of a run that has several."""
    waves = Slice.objects.filter(mass_command=run).order_by("wave").values("wave")
    rows = list(waves.annotate(began=Min("spawned"), devices=Sum("size"))[: _WAVES + 1])
    if len(rows) < 2:
        return []
    return [(row["began"], f"Wave {row['wave']} began: {row['devices']:,} devices") for row in rows[:_WAVES]]
