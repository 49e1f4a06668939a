"""Thirty days of runs, a column for each day: how many devices succeeded, and how long runs took."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final

from django.db.models import Avg, Count, DurationField, ExpressionWrapper, F, QuerySet, Sum
from django.db.models.functions import TruncDate
from django.utils import timezone

from orchestrator.states import RUN_FINISHED

DAYS: Final = 30


@dataclass(frozen=True, slots=True)
class Day:
    """The runs that ended on a day (UTC); positions in percent of the chart."""

    day: date
    left: float
    runs: int = 0
    devices: int = 0  # without those that were skipped
    succeeded: int = 0
    seconds: float = 0.0  # mean duration of a run
    height: float = 0.0  # of that, against the longest day

    @property
    def rate(self) -> float:
        """Devices that succeeded, in percent."""
        return round(100 * self.succeeded / self.devices, 2) if self.devices else 0.0

    @property
    def rest(self) -> float:
        """Devices that did not, in percent."""
        return round(100 - self.rate, 2)

    @property
    def top(self) -> float:
        """Where its column begins."""
        return round(100 - self.height, 2)

    @property
    def duration(self) -> str:
        """The mean duration, in words."""
        return words(self.seconds)


@dataclass(frozen=True, slots=True)
class History:
    """All days, also those without a run, and their sums."""

    days: tuple[Day, ...]

    @property
    def used(self) -> list[Day]:
        """The days on which a run ended."""
        return [day for day in self.days if day.runs]

    @property
    def runs(self) -> int:
        """How many runs ended."""
        return sum(day.runs for day in self.days)

    @property
    def rate(self) -> str:
        """The share of devices that succeeded, rounded down; 100 % is said only when all did."""
        devices = sum(day.devices for day in self.days)
        return f"{int(1000 * sum(day.succeeded for day in self.days) / devices) / 10:g} %" if devices else "—"

    @property
    def duration(self) -> str:
        """The mean duration of a run."""
        return words(sum(day.seconds * day.runs for day in self.days) / self.runs) if self.runs else "—"

    @property
    def longest(self) -> str:
        """The mean duration of the slowest day."""
        return words(max((day.seconds for day in self.days), default=0))


def words(seconds: float) -> str:
    """A duration for people."""
    if seconds < 90:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 5_400 else f"{seconds / 3_600:.1f} h"


def history_of(runs: "QuerySet[Any]") -> History:
    """One query over the runs that ended in these days."""
    today = timezone.now().date()
    first = today - timedelta(days=DAYS - 1)
    begin = timezone.make_aware(datetime.combine(first, datetime.min.time()))
    # a run ended after it was created: the index on that finds the few that count
    ended = runs.order_by().filter(created__gte=begin - timedelta(days=7), finished__gte=begin, started__isnull=False)
    lasted = ExpressionWrapper(F("finished") - F("started"), output_field=DurationField())
    rows = ended.filter(status__in=sorted(RUN_FINISHED)).values(day=TruncDate("finished")).annotate(
        runs=Count("pk"), devices=Sum(F("device_count") - F("skipped_count")), succeeded=Sum("success_count"),
        lasted=Avg(lasted),
    )  # fmt: skip
    found = {row.pop("day"): row for row in rows}
    for row in found.values():
        row["seconds"] = row.pop("lasted").total_seconds()
    most = max((row["seconds"] for row in found.values()), default=0) or 1
    days = []
    for number in range(DAYS):
        day = first + timedelta(days=number)
        row = found.get(day, {})
        height = round(100 * row.get("seconds", 0) / most, 2)
        days.append(Day(day=day, left=round(100 * number / DAYS, 3), height=height, **row))
    return History(tuple(days))
