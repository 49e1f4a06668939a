"""The run wizard: targets, command, review, run.  Each step has an address of its own.

The same actions as the API's, in the same order: a preview shows the set and its digest, the launch is bound to it.
"""

import uuid
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any, Final

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from orchestrator.access import Access, Right
from orchestrator.admin import drafts, review, wizard_controls
from orchestrator.admin.drafts import Draft, Submitted
from orchestrator.admin.scoped import access_of
from orchestrator.admin.wizard_controls import ControlsForm
from orchestrator.admin.wizard_forms import SHOWN_PICKS, CommandForm, TargetsForm, uuids
from orchestrator.exceptions import InvalidFieldError, OrchestratorError
from orchestrator.models import Device
from orchestrator.targeting import TargetFilter, resolve

_FOUND: Final = 20  # devices offered by a search
_BASE: Final = "run/"


def addresses(wrap: Callable[..., Any]) -> list[URLPattern]:
    """The wizard's addresses, below those of mass commands."""
    pages: tuple[tuple[str, Any, str], ...] = (
        ("", new, "new"),
        ("count/", count, "count"),
        ("devices/", find_devices, "devices"),
        ("<uuid:pk>/targets/", targets_step, "targets"),
        ("<uuid:pk>/command/", command_step, "command"),
        ("<uuid:pk>/review/", review_step, "review"),
    )
    return [path(_BASE + route, wrap(_runners(view)), name=f"orchestrator_run_{name}") for route, view, name in pages]


def _runners(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """For those who may run commands somewhere; where exactly is said by targeting.resolve."""

    @wraps(view)
    def gated(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if not access_of(request).can_anywhere(Right.RUN):
            raise PermissionDenied
        return view(request, *args, **kwargs)

    return never_cache(gated)


def _address(step: str, pk: uuid.UUID) -> str:
    return reverse(f"admin:orchestrator_run_{step}", args=[pk])


def _page(request: HttpRequest, step: str, draft: Draft | None, context: dict[str, Any]) -> HttpResponse:
    names = (("targets", "Targets"), ("command", "Command"), ("review", "Review"))
    reached = 0 if draft is None else 2 if draft.type else 1
    steps = [
        {
            "title": title,
            "href": _address(name, draft.id) if draft and number <= reached and name != step else "",
            "current": name == step,
        }
        for number, (name, title) in enumerate(names)
    ]
    shared = {**admin.site.each_context(request), "title": "Run a command", "steps": steps, "draft": draft}
    return TemplateResponse(request, f"orchestrator/wizard_{step}.html", shared | context)


def _submitted(request: HttpRequest, found: Submitted) -> HttpResponse:
    """What a second click, a reload or the back button finds."""
    if found.run is None:
        messages.info(request, "This run is being started already. It will be the first of this list.")
        return HttpResponseRedirect(reverse("admin:orchestrator_masscommand_changelist"))
    messages.info(request, "This run was started already: here it is.")
    return HttpResponseRedirect(reverse("admin:orchestrator_masscommand_change", args=[found.run]))


def with_draft(view: Callable[[HttpRequest, Draft], HttpResponse]) -> Callable[..., HttpResponse]:
    """The view with the user's draft; one that was launched leads to its run."""

    @wraps(view)
    def found(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
        draft = drafts.load(request.user, pk)
        return _submitted(request, draft) if isinstance(draft, Submitted) else view(request, draft)

    return found


# ---------------------------------------------------------------- step 1
def new(request: HttpRequest) -> HttpResponse:
    """The first step of a new run; ``?group=…`` and the like choose in advance, so that a choice can be bookmarked."""
    return _targets(request, None)


@with_draft
def targets_step(request: HttpRequest, draft: Draft) -> HttpResponse:
    """The first step again."""
    return _targets(request, draft)


def _targets(request: HttpRequest, draft: Draft | None) -> HttpResponse:
    access = access_of(request)
    picked = (draft.targets.devices or ()) if draft else ()
    data: Any = request.POST if request.method == "POST" else None
    form = TargetsForm(data, access=access, picked=picked, initial=_initial(request, draft))
    if data is not None and "search" not in data and form.is_valid():
        wanted = form.target_filter()
        try:
            if not resolve(wanted, access=access).totals()[0]:
                raise InvalidFieldError("targets", "No device matches: nothing to run on.")
        except InvalidFieldError as error:
            form.refuse(error)
        except OrchestratorError as error:
            form.add_error(None, error.detail)
        else:
            return _keep(request, draft, wanted)
    chosen = form.picks() if data is not None else picked or tuple(uuids(request.GET.getlist("devices")))
    search = (data or request.GET).get("q", "")
    listed = access.visible(Device.objects.filter(pk__in=chosen[:SHOWN_PICKS]))
    context = {
        "form": form,
        "picked": listed.select_related("organization").order_by("name") if len(chosen) <= SHOWN_PICKS else (),
        "picked_count": len(chosen),
        "many": len(chosen) > SHOWN_PICKS,
        "q": search,
        "found": _search(access, search) if search else (),
        "fleet_count": access.visible(Device.objects.all()).count() if access.everything else 0,
    }
    return _page(request, "targets", draft, context)


def _initial(request: HttpRequest, draft: Draft | None) -> dict[str, Any]:
    if draft is None:
        given: dict[str, Any] = {name: request.GET.get(name, "") for name in ("organization", "group", "location")}
        return given | {"scope": "devices" if "devices" in request.GET else "filter"}
    targets = draft.targets
    scope = "all" if targets.all_devices else "devices" if targets.devices is not None else "filter"
    return {
        "organization": targets.organization, "group": targets.group, "location": targets.location, "scope": scope,
    }  # fmt: skip


def _keep(request: HttpRequest, draft: Draft | None, wanted: TargetFilter) -> HttpResponse:
    if draft is None:
        owner = uuid.UUID(str(request.user.pk))
        return HttpResponseRedirect(_address("command", drafts.add(Draft(owner=owner, targets=wanted))))
    if not drafts.save(replace(draft, targets=wanted)):
        messages.warning(request, "This run was changed in another window meanwhile. Look at it again.")
        return HttpResponseRedirect(_address("targets", draft.id))
    return HttpResponseRedirect(_address("command", draft.id))


def _search(access: Access, text: str) -> Any:
    rows = access.visible(Device.objects.select_related("organization"))
    if not access.everything:
        rows = rows.filter(organization__in=access.organizations(Right.RUN))
    text = text.replace("\x00", "")[:128]
    return (rows.filter(name__icontains=text) | rows.filter(host__icontains=text)).order_by("name", "pk")[:_FOUND]


@require_GET
def find_devices(request: HttpRequest) -> HttpResponse:
    """Devices whose name or host holds ``q``, for the search as you type."""
    rows = _search(access_of(request), request.GET.get("q", ""))
    found = [{"id": str(row.pk), "name": row.name, "organization": row.organization.name} for row in rows]
    return JsonResponse({"results": found})


@require_POST
def count(request: HttpRequest) -> HttpResponse:
    """How many devices the form means at the moment; nothing is stored."""
    access, picked = access_of(request), ()
    for pk in uuids(request.POST.getlist("draft")):
        draft = drafts.load(request.user, pk)
        picked = (draft.targets.devices or ()) if isinstance(draft, Draft) else ()  # type: ignore[assignment]
    form = TargetsForm(request.POST, access=access, picked=picked)
    if not form.is_valid():
        return JsonResponse({"text": ""})
    try:
        total, eligible = resolve(form.target_filter(), access=access).totals()
    except OrchestratorError as error:
        return JsonResponse({"text": str(getattr(error, "message", error.detail))})
    text = f"{total:,} device{'' if total == 1 else 's'}"
    return JsonResponse(
        {"text": text + (f", {total - eligible:,} of them would be skipped" if eligible < total else "")}
    )


# ---------------------------------------------------------------- step 2
@with_draft
def command_step(request: HttpRequest, draft: Draft) -> HttpResponse:
    """What to run."""
    data: Any = request.POST if request.method == "POST" else None
    initial = {"type": draft.type, "label": draft.label, "notes": draft.notes}
    form = CommandForm(data, draft=draft, initial=initial)
    pace = ControlsForm(data, initial=wizard_controls.initial(draft.controls))
    access = access_of(request)
    total = eligible = 0
    try:
        if data is not None and all([form.is_valid(), pace.is_valid()]):
            resolve(draft.targets, access=access, command_type=form.cleaned_data["type"])
            return _keep_command(request, draft, form, pace)
        total, eligible = resolve(draft.targets, access=access).totals()
    except InvalidFieldError as error:
        if error.field != "type" or data is None:
            messages.error(request, str(error.message))
            return HttpResponseRedirect(_address("targets", draft.id))
        form.add_error("type", str(error.message))
        total, eligible = resolve(draft.targets, access=access).totals()
    return _page(request, "command", draft, {"form": form, "pace": pace, "total": total, "eligible": eligible})


def _keep_command(request: HttpRequest, draft: Draft, form: CommandForm, pace: ControlsForm) -> HttpResponse:
    values = form.cleaned_data
    changed = replace(
        draft, type=values["type"], input=values["input"], label=values["label"], notes=values["notes"],
        controls=pace.given(),
    )  # fmt: skip
    if not drafts.save(changed):
        messages.warning(request, "This run was changed in another window meanwhile. Look at it again.")
        return HttpResponseRedirect(_address("command", draft.id))
    return HttpResponseRedirect(_address("review", draft.id))


# ---------------------------------------------------------------- step 3
@with_draft
def review_step(request: HttpRequest, draft: Draft) -> HttpResponse:
    """What would happen, in full; then the launch."""
    if not draft.type:
        return HttpResponseRedirect(_address("command", draft.id))
    refused: review.Refusal | None = None
    if request.method == "POST":
        outcome = review.submit(request, draft)
        if isinstance(outcome, HttpResponse):
            return outcome
        refused = outcome
    try:
        context = review.context(request, draft)
    except OrchestratorError as error:
        messages.error(request, str(getattr(error, "message", error.detail)))
        step = "command" if getattr(error, "field", "") in {"type", "input"} else "targets"
        return HttpResponseRedirect(_address(step, draft.id))
    return _page(request, "review", draft, context | {"refused": refused})
