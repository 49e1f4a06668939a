"""What the steps of the run wizard share: their frame, their addresses, and the draft that they work on."""

import uuid
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.cache import never_cache

from orchestrator.access import Right
from orchestrator.admin import drafts
from orchestrator.admin.drafts import Draft, Submitted
from orchestrator.admin.scoped import access_of


def runners(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """For those who may run commands somewhere; where exactly is said by targeting.resolve."""

    @wraps(view)
    def gated(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if not access_of(request).can_anywhere(Right.RUN):
            raise PermissionDenied
        return view(request, *args, **kwargs)

    return never_cache(gated)


def address(step: str, pk: uuid.UUID) -> str:
    """Of a step of a draft."""
    return reverse(f"admin:orchestrator_run_{step}", args=[pk])


def page(request: HttpRequest, step: str, draft: Draft | None, context: dict[str, Any]) -> HttpResponse:
    """A step within the frame of all."""
    names = (("targets", "Targets"), ("command", "Command"), ("review", "Review"))
    reached = 0 if draft is None else 2 if draft.type else 1
    steps: list[dict[str, Any]] = [
        {
            "title": title,
            "href": address(name, draft.id) if draft and number <= reached and name != step else "",
            "current": name == step,
        }
        for number, (name, title) in enumerate(names)
    ]
    here = [name for name, _ in names].index(step)
    if here < 2:  # what was filled in goes along, where a link would drop it
        for number in (here - 1, here + 1):
            if 0 <= number <= reached:
                steps[number] |= {"button": True, "back": number < here}
    shared = {
        **admin.site.each_context(request),
        "title": "Run a command", "steps": steps, "buttons": here < 2, "draft": draft,
    }  # fmt: skip
    return TemplateResponse(request, f"orchestrator/wizard_{step}.html", shared | context)


def changed_meanwhile(request: HttpRequest, step: str, pk: uuid.UUID) -> HttpResponse:
    """Somebody was faster: the step again, as it is now."""
    messages.warning(request, "This run was changed in another window meanwhile. Look at it again.")
    return HttpResponseRedirect(address(step, pk))


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
