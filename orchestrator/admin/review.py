"""The last step of the wizard: the previewed set, what speaks against running it, and the launch bound to it."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlencode

from django.contrib import messages
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from orchestrator import actions
from orchestrator.admin import drafts, wizard_controls
from orchestrator.admin.drafts import Draft
from orchestrator.admin.pickers import uuids
from orchestrator.admin.playbook_inputs import words_of
from orchestrator.admin.results import CountedPaginator
from orchestrator.admin.scoped import access_of
from orchestrator.exceptions import InvalidFieldError, OrchestratorError, TargetsChangedError
from orchestrator.models import Command, CommandType, Device, MassCommand, User
from orchestrator.secrets import mask
from orchestrator.states import FINISHED, CommandStatus
from orchestrator.targeting import MAX_PICKED, REASONS, TargetSet

_PAGE: Final = 50  # devices
_BARS: Final = 8  # organizations, groups and locations drawn each
_MANY: Final = 20  # devices that restart at once without a word of warning
_CONTACTED: Final = FINISHED - {CommandStatus.SKIPPED, CommandStatus.CANCELLED, CommandStatus.TERMINATED}
_NAMED: Final = 20  # devices named when a set has changed


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nothing was started, in words; with what has changed in the set."""

    text: str
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


def context(request: HttpRequest, draft: Draft) -> dict[str, Any]:
    """The preview as the page shows it.

    Raises:
        InvalidFieldError: the targets or the input are no longer valid.
        NotPermittedError: the user may no longer run on them.
    """
    found, digest = actions.preview(
        actor=_actor(request), targets=draft.targets, command_type=draft.type, playbook=draft.playbook,
        command_input=draft.input,
    )  # fmt: skip
    total, eligible = found.totals()
    offline = _offline(found).order_by().count()
    shown = mask(draft.input, draft.secret_names)
    return {
        "digest": digest,
        "total": total,
        "eligible": eligible,
        "skipped": total - eligible,
        "type_label": draft.playbook or str(CommandType(draft.type).label).capitalize(),
        "input": words_of({name: value for name, value in shown.items() if name != "confirm_password"}),
        "controls": wizard_controls.shown(draft.controls),
        "bars": _bars(found),
        "warnings": _warnings(draft, found, eligible, offline),
        "left_out": len(draft.targets.exclude_devices),
        **_devices(request, found, {"": total, "eligible": eligible, "skipped": total - eligible, "offline": offline}),
    }


def words(error: OrchestratorError) -> str:
    """What is wrong, in a sentence; also where the API would say it by field."""
    message = error.message if isinstance(error, InvalidFieldError) else error.detail
    if isinstance(message, dict):
        return " ".join(f"{name.replace('_', ' ').capitalize()}: {' '.join(texts)}" for name, texts in message.items())
    return str(message)


def _actor(request: HttpRequest) -> User:
    user: Any = request.user
    return user  # type: ignore[no-any-return]


def _bars(found: TargetSet) -> list[dict[str, Any]]:
    drawn = []
    for title, rows in found.breakdown().items():
        if len(rows) == 1 and rows[0]["id"] is None:
            continue  # no device has one
        rows.sort(key=lambda row: -row["count"])
        most = max((row["count"] for row in rows), default=1)
        for row in rows:
            row["width"] = round(100 * row["count"] / most, 2)
            row["eligible_width"] = round(100 * row["eligible_count"] / most, 2)
        drawn.append({"title": title, "rows": rows[:_BARS], "more": len(rows) - _BARS})
    return drawn


def _offline(found: TargetSet) -> Any:
    """Eligible devices that could not be reached by their last command that has ended."""
    ended = Command.objects.filter(device=OuterRef("pk"), status__in=sorted(_CONTACTED)).order_by("-created")
    rows = found.rows.filter(ineligible="").annotate(last=Subquery(ended.values("status")[:1]))
    return rows.filter(last=CommandStatus.UNREACHABLE)


def _restart(draft: Draft, found: TargetSet, eligible: int) -> str:
    """What to think of before many devices restart; more of it where that was never done here."""
    runs = MassCommand.objects.filter(organization=found.organization, type=CommandType.REBOOT, success_count__gt=_MANY)
    text = f"{eligible:,} devices restart nearly at the same time. What depends on them will notice."
    paced = {"canary", "max_concurrency"} & draft.controls.keys()
    if runs.order_by().exists() or paced:
        return text
    return (
        f"{text} So many were never restarted here before: consider “{wizard_controls.NAMES['canary']}” and "
        f"“{wizard_controls.NAMES['max_concurrency']}” under Pace and limits, one step back."
    )


def _warnings(draft: Draft, found: TargetSet, eligible: int, offline: int) -> list[str]:
    warnings = []
    if draft.targets.all_devices:
        warnings.append("This runs on every device of the system, of all organizations.")
    elif found.organization is None:
        warnings.append("These devices belong to several organizations: only superusers will see this run.")
    if draft.type == CommandType.REBOOT and eligible > _MANY:
        warnings.append(_restart(draft, found, eligible))
    if offline:
        warnings.append(f"{offline:,} of them could not be reached the last time.")
    unpinned = found.rows.filter(ineligible="", host_key="").order_by().count()
    if unpinned:
        warnings.append(f"{unpinned:,} have no pinned host key: they are not contacted until they are enrolled.")
    return warnings


def _devices(request: HttpRequest, found: TargetSet, counts: Mapping[str, int]) -> dict[str, Any]:
    """One page of the set; by default of all of it, those that would be skipped first."""
    which = request.GET.get("show", "")
    which = which if counts.get(which) else ""
    rows: QuerySet[Any] = _offline(found) if which == "offline" else found.rows
    if which in {"skipped", "eligible"}:
        rows = rows.filter(ineligible="") if which == "eligible" else rows.exclude(ineligible="")
    search = request.GET.get("q", "").replace("\x00", "").strip()[:128]
    if search:
        rows = rows.filter(name__icontains=search)
    names = ("pk", "name", "ineligible", "organization__name", "group__name", "location__name")
    ordered = rows.order_by("-ineligible", "name", "pk").values(*names)
    known = None if search else counts[which]
    page = CountedPaginator(ordered, _PAGE, known=known).get_page(request.GET.get("page"))
    for row in page.object_list:
        row["reason"] = REASONS.get(row["ineligible"], "")
    choices = (("", "All"), ("eligible", "Will run"), ("skipped", "Skipped"), ("offline", "Not reached last time"))
    query = {name: value for name, value in (("show", which), ("q", search)) if value}
    return {
        "page": page, "rows": page.object_list, "q": search, "show": which,
        "views": [
            {"href": f"?show={value}#devices" if value else "?#devices", "label": label, "count": counts[value],
             "current": value == which}
            for value, label in choices
            if counts[value] or not value
        ],
        "previous": "?" + urlencode(query | {"page": page.number - 1}) + "#devices" if page.has_previous() else "",
        "next": "?" + urlencode(query | {"page": page.number + 1}) + "#devices" if page.has_next() else "",
    }  # fmt: skip


def submit(request: HttpRequest, draft: Draft) -> HttpResponse | Refusal:
    """Launch what was reviewed, or leave the ticked devices out of it."""
    here = reverse("admin:orchestrator_run_review", args=[draft.id])
    if request.POST.get("revision") != draft.revision:
        return Refusal("This run was changed in another window after you looked at it. Review it again.")
    if "exclude" in request.POST:
        return _exclude(request, draft) or HttpResponseRedirect(here)
    digest, typed = request.POST.get("digest", ""), request.POST.get("typed_count", "").replace(",", "").strip()
    if len(digest) != 64:
        return Refusal("The digest of the preview is missing. Review the run again.")
    if draft.targets.all_devices and typed != request.POST.get("eligible"):
        return Refusal("Type the number of devices to confirm a run on all of them.")
    if not drafts.claim(draft):
        return HttpResponseRedirect(here)  # somebody was faster: that page leads to the run
    try:
        run = actions.launch(actor=_actor(request), request=draft.request(digest))
    except OrchestratorError as error:  # after any other one it is not known whether a run was created
        drafts.release(draft)
        return _refusal(request, error)
    drafts.settle(draft, run.pk)
    return _started(request, run)


def _started(request: HttpRequest, run: MassCommand) -> HttpResponse:
    messages.success(request, f"Started on {run.device_count - run.skipped_count:,} devices.")
    return HttpResponseRedirect(reverse("admin:orchestrator_masscommand_change", args=[run.pk]))


def _refusal(request: HttpRequest, error: OrchestratorError) -> Refusal:
    if isinstance(error, TargetsChangedError):
        text = "The devices are no longer the ones you reviewed; nothing was started. Below is the set as it is now."
        return Refusal(text, _names(request, error.extra.get("added")), _names(request, error.extra.get("removed")))
    return Refusal(words(error))


def _names(request: HttpRequest, ids: list[str] | None) -> tuple[str, ...]:
    """The names of changed devices; one that was deleted has none any more."""
    ids = ids or []
    rows = access_of(request).visible(Device.objects.filter(pk__in=ids[:_NAMED])).in_bulk()
    named = [rows[pk].name if (pk := uuid.UUID(text)) in rows else "a deleted device" for text in ids[:_NAMED]]
    return (*named, f"{len(ids) - _NAMED:,} more") if len(ids) > _NAMED else tuple(named)


def _exclude(request: HttpRequest, draft: Draft) -> Refusal | None:
    """Leave the ticked devices out of the set; it stays the filter that it was."""
    without = uuids(request.POST.getlist("leave_out"))
    if not without:
        return Refusal("Tick the devices to leave out first.")
    excluded = tuple(dict.fromkeys((*draft.targets.exclude_devices, *without)))
    if len(excluded) > MAX_PICKED:
        return Refusal(f"At most {MAX_PICKED:,} devices can be left out. Narrow the filter instead.")
    targets = replace(draft.targets, exclude_devices=excluded)
    found, _ = actions.preview(actor=_actor(request), targets=targets, command_type=draft.type, playbook=draft.playbook)
    if not found.totals()[0]:
        return Refusal("No device would be left.")
    if not drafts.save(replace(draft, targets=targets)):
        return Refusal("This run was changed in another window meanwhile. Review it again.")
    messages.info(request, f"{len(without):,} left out. They can be taken in again at the targets.")
    return None
