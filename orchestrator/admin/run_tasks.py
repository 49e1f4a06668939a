"""What the tasks of a playbook did: over all devices of a run, on the devices of one task, and on one device.

A run may have a million of these rows: the sums are made by the database, the rest is read a page at a time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode

from django.db.models import Count, Max, Min, QuerySet, Sum
from django.db.models.functions import Left
from django.http import Http404, HttpRequest
from django.urls import reverse

from orchestrator.admin.outputs import Change
from orchestrator.admin.results import CountedPaginator
from orchestrator.admin.terminal import plain
from orchestrator.models import Command, MassCommand, TaskResult, TaskStatus

_TASKS: Final = 200  # summed up; names that are templates can make one of each device
_PAGE: Final = 50  # rows
_TEXT: Final = 4_000  # characters of each text of a task
_EXCERPT: Final = 300  # characters of a message in a list of devices
_KEY: Final = ("play", "task", "module")
# In the order in which they are told: what needs a look first.
_ORDER: Final = (
    TaskStatus.FAILED, TaskStatus.UNREACHABLE, TaskStatus.IGNORED, TaskStatus.CHANGED, TaskStatus.OK,
    TaskStatus.SKIPPED,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class StatusCount:
    """On how many devices a task ended so, and where they are listed."""

    status: str
    label: str
    count: int
    href: str


@dataclass(slots=True)
class TaskSummary:
    """One task over all devices; times in seconds."""

    play: str
    task: str
    module: str
    first: datetime
    counts: list[StatusCount] = field(default_factory=list)
    count: int = 0
    took: float = 0.0
    longest: float = 0.0

    @property
    def average(self) -> str:
        """How long it took on a device."""
        return duration(self.took / self.count)

    @property
    def most(self) -> str:
        """How long it took where it took longest."""
        return duration(self.longest)


@dataclass(frozen=True, slots=True)
class TaskPage:
    """A page of rows, and the way to the pages around it."""

    rows: Sequence[Any]
    start: int
    previous: str = ""
    next: str = ""
    total: int | None = None

    @property
    def end(self) -> int:
        """The number of the last row."""
        return self.start + len(self.rows) - 1


def duration(seconds: float) -> str:
    """As people say it."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"


def summaries_of(run: MassCommand) -> tuple[list[TaskSummary], bool]:
    """Each task in the order of their first starts, and whether there are more than are told; one query."""
    rows = TaskResult.objects.filter(command__mass_command=run).order_by().values(*_KEY, "status")
    sums = rows.annotate(count=Count("pk"), took=Sum("duration"), longest=Max("duration"), first=Min("started"))
    found: dict[tuple[str, ...], TaskSummary] = {}
    for row in sums.order_by("first")[: _TASKS * len(_ORDER) + 1]:
        key = (row["play"], row["task"], row["module"])
        told = found.setdefault(key, TaskSummary(*key, row["first"]))
        told.count += row["count"]
        told.took += row["took"]
        told.longest = max(told.longest, row["longest"])
        told.counts.append(_count(run, row))
    for told in found.values():
        told.counts.sort(key=lambda count: _ORDER.index(TaskStatus(count.status)))
    return list(found.values())[:_TASKS], len(found) > _TASKS


def _count(run: MassCommand, row: Mapping[str, Any]) -> StatusCount:
    query = urlencode({name: row[name] for name in (*_KEY, "status")})
    href = f"{reverse('admin:orchestrator_masscommand_tasks', args=[run.pk])}?{query}"
    return StatusCount(row["status"], str(TaskStatus(row["status"]).label), row["count"], href)


def devices_of(run: MassCommand, request: HttpRequest) -> tuple[dict[str, str], TaskPage]:
    """The task that the address names, and a page of the devices on which it was run, by name.

    Raises:
        Http404: no task is named.
    """
    named = {name: request.GET.get(name, "").replace("\x00", "") for name in (*_KEY, "status")}
    if "task" not in request.GET:
        raise Http404
    wanted = {name: value for name, value in named.items() if name in request.GET}
    rows: QuerySet[Any] = TaskResult.objects.filter(command__mass_command=run, **wanted).select_related("command")
    rows = rows.only("status", "duration", "rc", "command__device_name").annotate(said=Left("message", _EXCERPT))
    number = _number(request)
    start = (number - 1) * _PAGE
    # Not counted: a task over all devices may have 100,000 rows, and whoever reads wants the first ones.
    page = list(rows.order_by("command__device_name", "command_id", "number")[start : start + _PAGE + 1])
    for row in page:
        row.took, row.said = duration(row.duration), plain(row.said)
    before = f"?{urlencode(wanted | {'page': number - 1})}" if number > 1 else ""
    after = f"?{urlencode(wanted | {'page': number + 1})}" if len(page) > _PAGE else ""
    return named, TaskPage(page[:_PAGE], start + 1, before, after)


def tasks_of(row: Command, request: HttpRequest) -> TaskPage:
    """A page of what each task did on one device, in the order of their starts."""
    texts = ("message", "stdout", "stderr", "diff")
    rows: QuerySet[Any] = TaskResult.objects.filter(command=row).defer(*texts)
    rows = rows.annotate(**{f"{name}_text": Left(name, _TEXT) for name in texts})
    page = CountedPaginator(rows, _PAGE, known=None).get_page(request.GET.get("page"))
    for task in page.object_list:
        task.took, task.said = duration(task.duration), plain(task.message_text)
        task.printed, task.complained = plain(task.stdout_text), plain(task.stderr_text)
        task.changes = [Change(line[:1].replace("@", " "), line) for line in plain(task.diff_text).splitlines()]
    here = reverse("admin:orchestrator_command_change", args=[row.pk])
    before = f"{here}?page={page.previous_page_number()}#tasks" if page.has_previous() else ""
    after = f"{here}?page={page.next_page_number()}#tasks" if page.has_next() else ""
    return TaskPage(list(page.object_list), page.start_index(), before, after, page.paginator.count)


def recap_of(row: Command) -> str:
    """Ansible's own line for the device."""
    return ", ".join(f"{count} {name}" for name, count in (row.recap or {}).items() if count)


def _number(request: HttpRequest) -> int:
    text = request.GET.get("page", "1")
    return max(1, int(text)) if text.isascii() and text.isdigit() and len(text) < 8 else 1
