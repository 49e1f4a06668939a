"""The run wizard: targets, command, review, run.  Each step has an address of its own.

The same actions as the API's, in the same order: a preview shows the set and its digest, the launch is bound to it.
"""

import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.views.decorators.http import require_GET

from orchestrator.admin import drafts, review, wizard_controls, wizard_targets
from orchestrator.admin.drafts import Draft
from orchestrator.admin.pickers import uuids
from orchestrator.admin.scoped import access_of
from orchestrator.admin.wizard_command import CommandForm, usable_playbooks
from orchestrator.admin.wizard_controls import ControlsForm
from orchestrator.admin.wizard_frame import address, changed_meanwhile, page, runners, with_draft
from orchestrator.exceptions import InvalidFieldError, OrchestratorError
from orchestrator.models import CommandType
from orchestrator.targeting import TargetSet, resolve

_BASE: Final = "run/"


def addresses(wrap: Callable[..., Any]) -> list[URLPattern]:
    """The wizard's addresses, below those of mass commands."""
    pages: tuple[tuple[str, Any, str], ...] = (
        ("", wizard_targets.new, "new"),
        ("count/", wizard_targets.count, "count"),
        ("find/", wizard_targets.find_rows, "find"),
        ("inputs/", inputs_of_playbook, "inputs"),
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
    found, access = _targets(request, draft), access_of(request)
    playbooks = usable_playbooks(access, found.organization if found else None)
    form = CommandForm(data, draft=draft, access=access, playbooks=playbooks, initial=initial)
    pace = ControlsForm(data, initial=wizard_controls.initial(draft.controls))
    if data is not None and "back" in data:
        return _go_back(request, draft, form, pace)
    if found is None:
        return HttpResponseRedirect(address("targets", draft.id))
    if data is not None and all([form.is_valid(), pace.is_valid()]) and _fits(draft, form, pace):
        return _keep_command(request, draft, form, pace)
    total, eligible = found.totals()
    return page(request, "command", draft, {"form": form, "pace": pace, "total": total, "eligible": eligible})


@require_GET
def inputs_of_playbook(request: HttpRequest) -> HttpResponse:
    """The fields of a playbook that was chosen just now, for the page's script; ``draft`` says what they hold."""
    draft: Any = Draft(owner=uuid.UUID(str(request.user.pk)))
    for pk in uuids([request.GET.get("draft", "")]):
        draft = drafts.load(request.user, pk)
    if not isinstance(draft, Draft):
        raise Http404
    access, chosen = access_of(request), request.GET.get("playbook", "")
    form = CommandForm(draft=draft, access=access, playbooks=usable_playbooks(access), chosen=chosen)
    return TemplateResponse(request, "orchestrator/wizard_inputs.html", {"form": form})


def _targets(request: HttpRequest, draft: Draft) -> TargetSet | None:
    """The devices of the draft; None when they are no longer to be had, which the user is told."""
    try:
        return resolve(draft.targets, access=access_of(request))
    except InvalidFieldError as error:
        messages.error(request, str(error.message))
        return None


def _fits(draft: Draft, form: CommandForm, pace: ControlsForm) -> bool:
    """Whether the command may run on the devices, and has what was asked for; else the forms say why not."""
    kind, playbook, possible = form.cleaned_data["type"], form.chosen_playbook, form.has_check_mode
    try:
        resolve(draft.targets, access=form.access, command_type=kind, playbook=playbook)
    except InvalidFieldError as error:
        form.add_error(error.field if error.field in {"type", "playbook"} else None, str(error.message))
    return not pace.refuse_check(possible=possible) and not form.errors


def _keep_command(request: HttpRequest, draft: Draft, form: CommandForm, pace: ControlsForm) -> HttpResponse:
    values = form.cleaned_data
    changed = replace(
        draft, type=values["type"], playbook=form.chosen_playbook, input=values["input"], hidden=form.hidden,
        label=values["label"], notes=values["notes"], controls=pace.given(values["type"]),
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
        draft, type=kind, playbook=form.chosen_playbook, input=form.cleaned_data.get("input", {}),
        hidden=form.hidden, controls=pace.given(kind),
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
        step = "command" if getattr(error, "field", "") in {"type", "playbook", "input"} else "targets"
        return HttpResponseRedirect(address(step, draft.id))
    return page(request, "review", draft, context | {"refused": refused})
