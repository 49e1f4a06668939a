"""The per-device results of a run, a page at a time: a run may have 100,000 of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final
from urllib.parse import urlencode

from django.core.paginator import Page, Paginator
from django.db.models import F, QuerySet
from django.db.models.functions import Left
from django.http import HttpRequest
from django.urls import reverse

from orchestrator.admin.labels import BAR_ORDER
from orchestrator.admin.terminal import plain
from orchestrator.models import Command, MassCommand
from orchestrator.states import CommandStatus

PAGE: Final = 50  # rows
_EXCERPT: Final = 120  # characters of the output in the table


class CountedPaginator(Paginator):  # type: ignore[type-arg]
    """Pages of rows whose number is known: the run's counters say it."""

    def __init__(self, rows: QuerySet[Any], per_page: int, *, known: int | None) -> None:
        super().__init__(rows, per_page)
        self.known = known

    @cached_property
    def count(self) -> int:
        """The number of rows, counted only if nothing else knows it."""
        return super().count if self.known is None else self.known


@dataclass(frozen=True, slots=True)
class Share:
    """One status in a bar: ``start`` and ``width`` in percent."""

    status: str
    label: str
    count: int
    start: float
    width: float
    href: str = ""


def shares(counts: Mapping[str, int], address: str = "") -> list[Share]:
    """The parts of a bar, in a fixed order; also those that are empty, so that a script can fill them."""
    total, start, parts = sum(counts.values()), 0.0, []
    for status in BAR_ORDER:
        count = counts.get(status.value, 0)
        width = 100 * count / total if total else 0.0
        href = f"{address}?status={status.value}#results" if address else ""
        parts.append(Share(status.value, str(status.label), count, round(start, 3), round(width, 3), href))
        start += width
    return parts


@dataclass(frozen=True, slots=True)
class Results:
    """One page of results and what it was filtered by."""

    page: "Page[Any]"
    status: str
    search: str

    @classmethod
    def of(cls, run: MassCommand, request: HttpRequest) -> "Results":
        """The page that the address asks for; a filter that makes no sense is none."""
        status = request.GET.get("status", "")
        status = status if status in CommandStatus.values else ""
        search = request.GET.get("q", "").replace("\x00", "").strip()[:128]
        rows = Command.objects.filter(mass_command=run).defer("stdout", "stderr", "input")
        known: int | None = run.counts[status] if status else run.device_count
        if status:
            rows = rows.filter(status=status)
        if search:
            rows, known = rows.filter(device_name__icontains=search), None
        # the whole output of a page's devices may have many megabytes
        rows = rows.annotate(said=Left(F("stdout"), _EXCERPT), complained=Left(F("stderr"), _EXCERPT))
        page = CountedPaginator(rows, PAGE, known=known).get_page(request.GET.get("page"))
        return cls(page, status, search)

    def address(self, number: int) -> str:
        """The query of another page of the same."""
        given = {"status": self.status, "q": self.search, "page": number if number > 1 else ""}
        return "?" + urlencode({name: value for name, value in given.items() if value}) + "#results"

    def exports(self, run: MassCommand) -> list[tuple[str, str]]:
        """Kind and address of each file that has the filtered results, of all pages."""
        address = reverse("batch-command-export", args=[run.pk])
        given = {name: value for name, value in (("status", self.status), ("device_name", self.search)) if value}
        return [(kind.upper(), f"{address}?{urlencode({'format': kind} | given)}") for kind in ("csv", "ndjson")]

    @property
    def previous(self) -> str:
        """The address of the page before, if there is one."""
        return self.address(self.page.previous_page_number()) if self.page.has_previous() else ""

    @property
    def next(self) -> str:
        """The address of the page after, if there is one."""
        return self.address(self.page.next_page_number()) if self.page.has_next() else ""

    @property
    def rows(self) -> Sequence[Any]:
        """The rows of the page; what they printed as a terminal would show it."""
        rows = list(self.page.object_list)
        for row in rows:
            row.said, row.complained = plain(row.said), plain(row.complained)
        return rows
