"""What needs a person: each with a sentence and the page where something can be done about it."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlencode

from django.db.models import Count, Q
from django.urls import reverse
from django.utils import timezone

from orchestrator.access import Access, Right
from orchestrator.models import Command, MassCommand, Schedule
from orchestrator.states import RUN_ACTIVE, CommandStatus

_RECENT: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Matter:
    """``strong`` says what is the matter, ``text`` what follows from it; the link leads to where to act."""

    strong: str
    text: str = ""
    link: str = ""
    href: str = ""
    danger: bool = False


def matters(access: Access, queue: dict[str, Any], fleet: dict[str, int]) -> list[Matter]:
    """All of them, the worst first; a fixed number of queries."""
    return [*_service(access, queue), *_devices(access), *_runs(access), *_unfinished_fleet(access, fleet)]


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _service(access: Access, queue: dict[str, Any]) -> list[Matter]:
    if not queue["reachable"]:
        return [Matter("The queue can't be reached.", "Runs are kept and start as soon as it is back.", danger=True)]
    page = reverse("django_rq:home") if access.everything else ""
    link = "Look at the queue" if page else ""
    if queue["draining"]:
        return [Matter("The service is drained:", "workers start nothing until “manage.py drain --off”.", link, page)]
    if not queue["workers"]:
        return [Matter("No worker is alive.", "Runs wait until one is started.", link, page, danger=True)]
    return []


def _devices(access: Access) -> list[Matter]:
    """What devices of recent runs said that a person should look into."""
    begin = timezone.now() - _RECENT
    recent = access.visible(MassCommand.objects.filter(created__gte=begin))
    rows = access.visible(Command.objects.filter(mass_command__in=recent.order_by().values("pk"))).order_by()
    bad = (CommandStatus.LOST, CommandStatus.UNREACHABLE, CommandStatus.FAILED)
    found = rows.filter(status__in=bad).aggregate(
        lost=Count("pk", filter=Q(status=CommandStatus.LOST)),
        keys=Count("device", distinct=True, filter=Q(reason_code="host_key")),
        logins=Count("device", distinct=True, filter=Q(reason_code="auth")),
    )
    page = reverse("admin:orchestrator_command_changelist")
    since = urlencode({"created__gte": begin.isoformat()})
    told = []
    if found["keys"]:
        text = "Set up anew, or somebody else answers at the address. Compare the fingerprints before pinning anew."
        count = _number(found["keys"], "device")
        strong = f"{count} showed another host key than the pinned one in 7 days."
        told.append(Matter(strong, text, "Look at them", f"{page}?reason_code__exact=host_key&{since}", danger=True))
    if found["lost"]:
        strong = f"{_number(found['lost'], 'result')} lost in 7 days:"
        text = "a worker died, the device may or may not have run the command."
        told.append(Matter(strong, text, "Look at them", f"{page}?status__exact=lost&{since}"))
    if found["logins"]:
        strong = f"{_number(found['logins'], 'device')} did not accept the login in 7 days."
        text = "The stored user name, password or key is wrong."
        told.append(Matter(strong, text, "Look at them", f"{page}?reason_code__exact=auth&{since}"))
    return told


def _runs(access: Access) -> list[Matter]:
    active = access.visible(MassCommand.objects.filter(status__in=sorted(RUN_ACTIVE))).order_by()
    waiting = list(active.filter(paused__isnull=False).only("pk", "label", "type", "device_count")[:3])
    told = [
        Matter(f"“{run}” is paused.", "It goes on when somebody says so.", "Open it",
               reverse("admin:orchestrator_masscommand_change", args=[run.pk]))
        for run in waiting
    ]  # fmt: skip
    failing = access.visible(Schedule.objects.filter(enabled=True)).exclude(last_result="").order_by("name")[:3]
    told += [Matter(f"The schedule “{row}” started nothing the last time:", row.last_result) for row in failing]
    return told


def _unfinished_fleet(access: Access, fleet: dict[str, int]) -> list[Matter]:
    page, told = reverse("admin:orchestrator_device_changelist"), []
    can = access.can_anywhere(Right.MANAGE)
    if number := fleet["without_key"]:
        link = "Enrol them" if can else "See them"
        strong = f"{_number(number, 'active device')} {'has' if number == 1 else 'have'} no pinned host key"
        told.append(Matter(strong, "and can't be reached.", link, f"{page}?pinned=no&is_active__exact=1"))
    if number := fleet["without_login"]:
        strong = f"{_number(number, 'active device')} {'has' if number == 1 else 'have'} no credential"
        told.append(Matter(strong, "and will be skipped.", "See them", f"{page}?login=no&is_active__exact=1"))
    return told
