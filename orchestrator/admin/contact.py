"""How devices stand by their own history: what became of the last command, and when they were last logged in to."""

from datetime import datetime, timedelta
from typing import Any, Final

from django.db.models import Case, CharField, Count, OuterRef, Q, QuerySet, Subquery, Value, When
from django.db.models.functions import Coalesce
from django.urls import reverse
from django.utils import timezone

from orchestrator.admin.labels import BAR_ORDER
from orchestrator.models import Command
from orchestrator.states import CommandStatus

NEVER: Final = "never"
_LOGGED_IN: Final = (CommandStatus.SUCCESS, CommandStatus.FAILED, CommandStatus.TIMED_OUT)
# bucket → (what it is called, days since the last contact; the first that holds)
SEEN: Final[dict[str, tuple[str, int]]] = {
    "day": ("Within a day", 1),
    "week": ("Within a week", 7),
    "month": ("Within 30 days", 30),
    "longer": ("Longer ago", 100_000),
}


def with_last(devices: "QuerySet[Any]") -> Any:
    """Devices with ``last_status`` of their last command and ``last_seen``, the end of the last one that logged in."""
    # of the device's present organization: what happened in another one is not its members' to see
    rows = Command.objects.filter(device=OuterRef("pk"), organization=OuterRef("organization")).order_by("-created")
    seen = rows.filter(status__in=_LOGGED_IN, finished__isnull=False)
    return devices.annotate(
        last_status=Subquery(rows.values("status")[:1]), last_seen=Subquery(seen.values("finished")[:1])
    )


def _bucket(now: datetime) -> Case:
    cases = [When(last_seen__gte=now - timedelta(days=days), then=Value(name)) for name, (_, days) in SEEN.items()]
    return Case(*cases, default=Value(NEVER), output_field=CharField())


def seen_within(devices: "QuerySet[Any]", bucket: str) -> "QuerySet[Any]":
    """The devices of a bucket of ``SEEN``, or of ``NEVER``; they were annotated before."""
    if bucket == NEVER:
        return devices.filter(last_seen=None)
    now, names = timezone.now(), list(SEEN)
    wanted = Q(last_seen__gte=now - timedelta(days=SEEN[bucket][1]))
    if place := names.index(bucket):
        wanted &= Q(last_seen__lt=now - timedelta(days=SEEN[names[place - 1]][1]))
    return devices.filter(wanted)


def contact_of(devices: "QuerySet[Any]") -> dict[str, list[dict[str, Any]]]:
    """Active devices by last result and by last contact, in one query; each with a link to the list of them."""
    rows = with_last(devices.order_by().filter(is_active=True)).annotate(
        seen=_bucket(timezone.now()), result=Coalesce("last_status", Value(NEVER))
    )
    results: dict[str, int] = {}
    seen: dict[str, int] = {}
    for row in rows.values("result", "seen").annotate(count=Count("pk")).order_by():
        results[row["result"]] = results.get(row["result"], 0) + row["count"]
        seen[row["seen"]] = seen.get(row["seen"], 0) + row["count"]
    by_result = [(status.value, str(status.label), f"cmd-{status.value}") for status in BAR_ORDER]
    by_seen = [(name, label, "primary") for name, (label, _) in SEEN.items()]
    return {
        "results": _bars([*by_result, (NEVER, "no command yet", "queued")], results, "last_result"),
        "seen": _bars([*by_seen, (NEVER, "Never", "queued")], seen, "seen"),
    }


def _bars(names: list[tuple[str, str, str]], counts: dict[str, int], parameter: str) -> list[dict[str, Any]]:
    address, most = reverse("admin:orchestrator_device_changelist"), max(counts.values(), default=0) or 1
    return [
        {"label": label, "count": counts[name], "width": round(100 * counts[name] / most, 2),
         "fill": fill.removeprefix("cmd-"), "href": f"{address}?is_active__exact=1&{parameter}={name}"}
        for name, label, fill in names
        if counts.get(name)
    ]  # fmt: skip
