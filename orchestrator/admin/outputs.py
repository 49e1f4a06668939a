"""Which devices of a run said the same: "918 said this, 3 said that".  Counted by the database, on request."""

import difflib
from dataclasses import dataclass, replace
from typing import Any, Final

from django.db.models import Count, Min
from django.db.models.functions import MD5, Left

from orchestrator.admin.terminal import plain
from orchestrator.models import Command, MassCommand
from orchestrator.states import FINISHED

_GROUPS: Final = 20  # shown; a command such as "date" makes one of each device
_TEXT: Final = 4_000  # characters of an output
_AROUND: Final = 2  # unchanged lines around a change
_NAMES: Final = 5  # devices named of each group
_KEY: Final = ("status", "rc", "reason", "stdout_md5", "stderr_md5")


@dataclass(frozen=True, slots=True)
class Change:
    """A line of a comparison; ``sign`` is + (only here), - (only in the largest group), @ (a gap) or blank."""

    sign: str
    text: str

    @property
    def kind(self) -> str:
        """What a style sheet calls it."""
        return {"+": "added", "-": "removed", "@": "gap"}.get(self.sign, "same")


@dataclass(frozen=True, slots=True)
class OutputGroup:
    """Devices with one outcome and one output; ``row`` is one of them."""

    count: int
    row: Any
    names: tuple[str, ...]
    said: str
    complained: str
    changes: tuple["Change", ...] = ()  # from what the largest group said

    @property
    def printed(self) -> str:
        """Output and error output as one text."""
        return f"{self.said}{self.complained}".strip("\n")

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
    if not largest:
        return [], 0
    total = len(largest) if len(largest) < _GROUPS else keys.distinct().count()
    groups = [_group(rows, found) for found in largest]
    usual = next((group for group in groups if group.printed), None)
    return [replace(group, changes=_changes(usual, group)) for group in groups], total


def _changes(usual: OutputGroup | None, group: OutputGroup) -> tuple[Change, ...]:
    """What makes the group different from the usual one; empty where that is nothing, or where one printed nothing."""
    if usual is None or not group.printed:
        return ()
    before, after = usual.printed, group.printed
    lines = list(difflib.unified_diff(before.splitlines(), after.splitlines(), n=_AROUND, lineterm=""))[3:]
    changes = tuple(Change(line[:1], line[1:] if line[:1] != "@" else "") for line in lines)
    return changes if any(change.kind == "same" for change in changes) else ()  # nothing in common: no comparison


def _group(rows: Any, found: dict[str, Any]) -> OutputGroup:
    members = rows.filter(**{name: found[name] for name in _KEY if found[name] is not None})
    if found["rc"] is None:
        members = members.filter(rc=None)
    shown = members.defer("stdout", "stderr", "input").annotate(
        said=Left("stdout", _TEXT), complained=Left("stderr", _TEXT)
    )
    first = list(shown.order_by("device_name", "pk")[:_NAMES])
    row, names = first[0], tuple(member.device_name for member in first)
    return OutputGroup(found["count"], row, names, plain(row.said), plain(row.complained))


def summary_of(groups: list[OutputGroup], total: int, run: MassCommand) -> str:
    """The page in a sentence; empty where every device is a group of its own."""
    finished = run.device_count - run.queued_count - run.running_count
    if not groups or groups[0].count < 2:
        return ""
    rest = finished - groups[0].count
    if rest <= 0:
        return f"All {finished:,} devices said the same."
    verb, kinds = ("differs", "") if rest == 1 else ("differ", f", in {total - 1:,} ways" if total > 2 else "")
    return f"{groups[0].count:,} devices said the same, {rest:,} {verb}{kinds}."
