"""The admin's first page: what runs, what ran, how the fleet stands, and what to do next."""

import logging
from typing import Any, Final

from django.db.models import Count, Exists, OuterRef, Q
from django.http import HttpRequest
from django.urls import reverse
from redis.exceptions import RedisError

from orchestrator import dispatch
from orchestrator.access import Access, Right
from orchestrator.admin.attention import matters
from orchestrator.admin.history import history_of
from orchestrator.admin.scoped import access_of
from orchestrator.models import (
    Credential,
    Device,
    DeviceCredential,
    MassCommand,
    Organization,
    Schedule,
    Slice,
    SliceStatus,
)
from orchestrator.states import RUN_ACTIVE

log = logging.getLogger(__name__)

_RUNS: Final = 8  # in each list
_SCHEDULES: Final = 5  # to come


def context(request: HttpRequest, given: dict[str, Any]) -> dict[str, Any]:
    """What the first page shows, of what exists for the user (unfold's DASHBOARD_CALLBACK)."""
    access = access_of(request)
    runs = access.visible(MassCommand.objects.select_related("organization", "created_by"))
    active = list(runs.filter(status__in=sorted(RUN_ACTIVE))[:_RUNS])
    for run in active:
        run.percent = int(100 * run.progress)
    fleet = _fleet(access)
    last = list(runs.exclude(pk__in=[run.pk for run in active])[:_RUNS])
    queue = _queue(access)
    return given | {
        "title": "Dashboard",
        "active_runs": active,
        "last_runs": last,
        "fleet": fleet,
        "history": history_of(runs),
        "matters": matters(access, queue, fleet),
        "schedules": access.visible(Schedule.objects.filter(enabled=True)).order_by("next_run")[:_SCHEDULES],
        "queue": queue,
        "steps": _steps(access, fleet) if not (active or last) else [],
        "may_run": access.can_anywhere(Right.RUN),
        "is_member": access.can_anywhere(Right.VIEW),
    }


def _fleet(access: Access) -> dict[str, int]:
    """The devices by what can be done with them."""
    has_login = Exists(DeviceCredential.objects.filter(device=OuterRef("pk")))
    return access.visible(Device.objects.order_by()).aggregate(
        total=Count("pk"),
        active=Count("pk", filter=Q(is_active=True)),
        inactive=Count("pk", filter=Q(is_active=False)),
        without_key=Count("pk", filter=Q(is_active=True, host_key="")),
        without_login=Count("pk", filter=Q(is_active=True) & ~Q(has_login)),
        ready=Count("pk", filter=Q(is_active=True) & ~Q(host_key="") & Q(has_login)),
    )


def _queue(access: Access) -> dict[str, Any]:
    """Whether the queue answers, its workers, and what waits for them; never fails with the queue."""
    state: dict[str, Any] = {"reachable": dispatch.reachable(), "workers": None, "draining": False}
    if state["reachable"]:
        try:
            state |= {"workers": dispatch.worker_count(), "draining": dispatch.draining()}
        except (RedisError, OSError) as error:
            log.warning("The workers can't be counted: %s", error)
            state["reachable"] = False
    unfinished = Slice.objects.exclude(status=SliceStatus.FINISHED).order_by()
    slices = access.visible(unfinished, organization="mass_command__organization")
    counted = dict(slices.values_list("status").annotate(count=Count("pk")))
    return state | {status.value: counted.get(status.value, 0) for status in SliceStatus}


def _steps(access: Access, fleet: dict[str, int]) -> list[dict[str, Any]]:
    """What to do next on an install that has run nothing yet: (what, why, where, done)."""
    if not access.can_anywhere(Right.MANAGE):
        return []
    organizations = access.visible(Organization.objects.all(), organization="pk").exists()
    credentials = access.visible(Credential.objects.all()).exists()
    add = {name: reverse(f"admin:orchestrator_{name}_add") for name in ("organization", "credential", "device")}
    devices = reverse("admin:orchestrator_device_changelist")
    steps = [
        ("Add an organization", "A tenant: its devices and runs are visible to its members only.",
         add["organization"], organizations),
        ("Add a credential", "How to log in: a user name with a password or an SSH key, sealed at rest.",
         add["credential"], credentials),
        ("Add devices", "Routers and servers that are reached by SSH. Many at once: “Import devices…”.",
         add["device"], fleet["total"] > 0),
        ("Enrol their host keys", "Tick devices in the list and choose “Enrol”, then compare the fingerprints.",
         f"{devices}?pinned=no", fleet["total"] > 0 and not fleet["without_key"]),
        ("Run a first command", "“uptime” harms nothing.", reverse("admin:orchestrator_run_new"), False),
    ]  # fmt: skip
    return [{"title": title, "text": text, "href": href, "done": done} for title, text, href, done in steps]
