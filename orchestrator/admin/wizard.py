"""The run wizard: targets, command, review, run.  Each step has an address of its own.

The same actions as the API's, in the same order: a preview shows the set and its digest, the launch is bound to it.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path

from orchestrator.admin import drafts, review, wizard_controls, wizard_targets
from orchestrator.admin.drafts import Draft
from orchestrator.admin.scoped import access_of
from orchestrator.admin.wizard_command import CommandForm
from orchestrator.admin.wizard_controls import ControlsForm
from orchestrator.admin.wizard_frame import address, changed_meanwhile, page, runners, with_draft
from orchestrator.exceptions import InvalidFieldError, OrchestratorError
from orchestrator.models import CommandType
from orchestrator.targeting import resolve

_BASE: Final = "run/"


def addresses(wrap: Callable[..., Any]) -> list[URLPattern]:
    """The wizard's addresses, below those of mass commands."""
    pages: tuple[tuple[str, Any, str], ...] = (
        ("", wizard_targets.new, "new"),
        ("count/", wizard_targets.count, "count"),
        ("find/", wizard_targets.find_rows, "find"),
        ("<uuid:pk>/targets/", wizard_targets.targets_step, "targets"),
        ("<uuid:pk>/command/", command_step, "command"),
        ("<uuid:pk>/review/", review_step, "review"),
    )
    return [path(_BASE + route, wrap(runners(view)), name=f"orchestrator_run_{name}") for route, view, name in pages]


# ---------------------------------------------------------------- step 2
@with_draft
def command_step(request: HttpRequest, draft: Draft) -> HttpResponse:
    """What to run."""
    data: Any = request.POST if request.method == "POST" else None
    initial = {"type": draft.type, "label": draft.label, "notes": draft.notes}
    form = CommandForm(data, draft=draft, initial=initial)
    pace = ControlsForm(data, initial=wizard_controls.initial(draft.controls))
    if data is not None and "back" in data:
        return _go_back(request, draft, form, pace)
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
            return HttpResponseRedirect(address("targets", draft.id))
        form.add_error("type", str(error.message))
        total, eligible = resolve(draft.targets, access=access).totals()
    return page(request, "command", draft, {"form": form, "pace": pace, "total": total, "eligible": eligible})


def _keep_command(request: HttpRequest, draft: Draft, form: CommandForm, pace: ControlsForm) -> HttpResponse:
    values = form.cleaned_data
    changed = replace(
        draft, type=values["type"], input=values["input"], label=values["label"], notes=values["notes"],
        controls=pace.given(),
    )  # fmt: skip
    if not drafts.save(changed):
        return changed_meanwhile(request, "command", draft.id)
    return HttpResponseRedirect(address("review", draft.id))


def _go_back(request: HttpRequest, draft: Draft, form: CommandForm, pace: ControlsForm) -> HttpResponse:
    """To the targets, with what was typed so far: it is checked before the review, not here."""
    form.is_valid()
    pace.is_valid()
    kind = request.POST.get("type", "")
    kind = kind if kind in CommandType.values else ""
    changed = replace(
        draft, type=kind, input=form.cleaned_data.get("input", {}), controls=pace.given(),
        label=form.cleaned_data.get("label", draft.label), notes=form.cleaned_data.get("notes", draft.notes),
    )  # fmt: skip
    if pace.errors:
        names = ", ".join(wizard_controls.NAMES[name] for name in pace.errors)
        messages.warning(request, f"Not kept, because it can't be: {names}.")
    if not drafts.save(changed):
        return changed_meanwhile(request, "command", draft.id)
    return HttpResponseRedirect(address("targets", draft.id))


# ---------------------------------------------------------------- step 3
@with_draft
def review_step(request: HttpRequest, draft: Draft) -> HttpResponse:
    """What would happen, in full; then the launch."""
    if not draft.type:
        return HttpResponseRedirect(address("command", draft.id))
    refused: review.Refusal | None = None
    if request.method == "POST":
        outcome = review.submit(request, draft)
        if isinstance(outcome, HttpResponse):
            return outcome
        refused = outcome
    try:
        context = review.context(request, draft)
    except OrchestratorError as error:
        messages.error(request, review.words(error))
        step = "command" if getattr(error, "field", "") in {"type", "input"} else "targets"
        return HttpResponseRedirect(address(step, draft.id))
    return page(request, "review", draft, context | {"refused": refused})
