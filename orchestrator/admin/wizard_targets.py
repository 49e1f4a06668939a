"""The first step of the run wizard: which devices."""

import uuid
from dataclasses import replace
from typing import Any, Final

from django import forms
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.views.decorators.http import require_GET, require_POST
from unfold.widgets import INPUT_CLASSES, UnfoldAdminSelectWidget

from orchestrator.access import Access
from orchestrator.admin import drafts
from orchestrator.admin.drafts import Draft
from orchestrator.admin.pickers import Picker, find, named, row_field, uuids
from orchestrator.admin.scoped import access_of
from orchestrator.admin.tags import TagsField
from orchestrator.admin.wizard_frame import address, changed_meanwhile, page, with_draft
from orchestrator.exceptions import InvalidFieldError, OrchestratorError
from orchestrator.models import CommandType, Device, Platform
from orchestrator.models.playbooks import PLAYBOOK_NAME_LENGTH
from orchestrator.targeting import REASONS, TargetFilter, TargetSet, resolve

SCOPES: Final = (
    ("filter", "By organization, group, location or saved set"),
    ("devices", "Picked devices"),
    ("all", "All devices"),
)
_PLACES: Final = ("organization", "group", "location", "saved")
_ATTRIBUTES: Final = ("platform", "name", "tags")
_PICKED: Final = ("devices", "exclude_devices", "exclude_groups")
_INPUT: Final = " ".join(INPUT_CLASSES)


class TargetsForm(forms.Form):
    """The devices: by a filter, picked one by one, or all of them (superusers); narrowed down, and without some.

    ``before`` is the filter of the draft: what is too long to be shown is kept from it.
    """

    scope = forms.ChoiceField(choices=SCOPES, widget=forms.RadioSelect, label="Which devices")
    platform = forms.ChoiceField(
        choices=(("", "Any"), *Platform.choices), required=False, label="Platform", widget=UnfoldAdminSelectWidget()
    )
    name = forms.CharField(
        required=False, max_length=128, label="Name", help_text="The whole name: * is any text, ? is one character.",
        widget=forms.TextInput(attrs={"class": _INPUT, "placeholder": "ap-*", "autocomplete": "off"}),
    )  # fmt: skip
    tags = TagsField(label="Tags", help_text="One a line; a device must have all of them.")
    keep_within = forms.BooleanField(required=False, label="Only while they are still where they were when chosen")

    def __init__(self, *args: Any, access: Access, before: TargetFilter | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.before = before or TargetFilter()
        if not access.everything:
            self.fields["scope"].choices = SCOPES[:2]  # type: ignore[attr-defined]
        for kind in _PLACES:
            self.fields[kind] = row_field(kind, access=access)

    def picks(self, name: str) -> tuple[uuid.UUID, ...]:
        """The ticked rows of a picker, and those of the draft that are too many to list."""
        data: Any = self.data
        kept = (getattr(self.before, name) or ()) if data.get(f"keep_{name}") else ()
        return tuple(dict.fromkeys((*kept, *uuids(data.getlist(name)))))

    def target_filter(self) -> TargetFilter:
        """What the form says.  Fields of another scope count for nothing."""
        values = self.cleaned_data
        return replace(
            self._scope(),
            platform=values["platform"], name=values["name"], tags=tuple(values["tags"]),
            exclude_devices=self.picks("exclude_devices"), exclude_groups=self.picks("exclude_groups"),
        )  # fmt: skip

    def _scope(self) -> TargetFilter:
        values = self.cleaned_data
        if values["scope"] == "all":
            return TargetFilter(all_devices=True)
        if values["scope"] == "devices":
            within = {kind: getattr(self.before, kind) for kind in _PLACES} if values["keep_within"] else {}
            return TargetFilter(**within, devices=self.picks("devices"))
        return TargetFilter(**{kind: values[kind].pk for kind in _PLACES if values.get(kind)})

    def refuse(self, error: InvalidFieldError) -> None:
        """Show an error of the targeting at the field it belongs to."""
        self.add_error(error.field if error.field in {*_PLACES, *_ATTRIBUTES} else None, str(error.message))

    @property
    def narrowed(self) -> bool:
        """Whether the folded fields hold anything."""
        names = (*_ATTRIBUTES, *_PICKED[1:])
        return any(getattr(self.before, name) for name in names) or any(self.data.get(name) for name in names)


def new(request: HttpRequest) -> HttpResponse:
    """The first step of a new run; ``?group=…`` and the like choose in advance, so that a choice can be bookmarked.

    ``?playbook=…`` is chosen in the next step.
    """
    return _targets(request, None)


@with_draft
def targets_step(request: HttpRequest, draft: Draft) -> HttpResponse:
    """The first step again."""
    return _targets(request, draft)


def _targets(request: HttpRequest, draft: Draft | None) -> HttpResponse:
    access, before = access_of(request), draft.targets if draft else _asked(request)
    data: Any = request.POST if request.method == "POST" else None
    form = TargetsForm(data, access=access, before=before, initial=_initial(before))
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
    chosen = {name: form.picks(name) if data is not None else getattr(before, name) or () for name in _PICKED}
    context = {
        "form": form,
        "devices": Picker.of(request, "devices", "device", label="Search by name or host", chosen=chosen["devices"]),
        "excluded": [
            Picker.of(request, "exclude_devices", "device", label="Devices to leave out",
                      chosen=chosen["exclude_devices"]),
            Picker.of(request, "exclude_groups", "group", label="Groups to leave out",
                      chosen=chosen["exclude_groups"]),
        ],
        "within": before.devices is not None and any(getattr(before, kind) for kind in _PLACES),
        "fleet_count": access.visible(Device.objects.all()).count() if access.everything else 0,
    }  # fmt: skip
    return page(request, "targets", draft, context)


def _asked(request: HttpRequest) -> TargetFilter:
    """What the address of a new run chooses in advance; what makes no sense is left out."""
    given: dict[str, Any] = {kind: next(iter(uuids([request.GET.get(kind, "")])), None) for kind in _PLACES}
    if "devices" in request.GET:
        given["devices"] = tuple(uuids(request.GET.getlist("devices")))
    if request.GET.get("platform") in Platform.values:
        given["platform"] = request.GET["platform"]
    given["name"] = request.GET.get("name", "")[:128]
    return TargetFilter(**given)


def _initial(before: TargetFilter) -> dict[str, Any]:
    scope = "all" if before.all_devices else "devices" if before.devices is not None else "filter"
    named_fields = {name: getattr(before, name) for name in (*_PLACES, "platform", "name")}
    return named_fields | {"tags": list(before.tags), "scope": scope, "keep_within": True}


def _keep(request: HttpRequest, draft: Draft | None, wanted: TargetFilter) -> HttpResponse:
    if draft is None:
        owner = uuid.UUID(str(request.user.pk))
        playbook = request.GET.get("playbook", "")[:PLAYBOOK_NAME_LENGTH].replace("\x00", "")
        draft = Draft(
            owner=owner, targets=wanted, type=CommandType.PLAYBOOK.value if playbook else "", playbook=playbook
        )
        return HttpResponseRedirect(address("command", drafts.add(draft)))
    if not drafts.save(replace(draft, targets=wanted)):
        return changed_meanwhile(request, "targets", draft.id)
    return HttpResponseRedirect(address("command", draft.id))


@require_GET
def find_rows(request: HttpRequest) -> HttpResponse:
    """Rows of ``kind`` whose name holds ``q``, for the search as you type."""
    kind = request.GET.get("kind", "device")
    try:
        rows = find(kind, access_of(request), request.GET.get("q", ""))
    except KeyError as error:
        raise Http404 from error
    found = [
        {"id": str(row.pk), "name": row.name, "text": named(row),
         "organization": "" if kind == "organization" else row.organization.name}
        for row in rows
    ]  # fmt: skip
    return JsonResponse({"results": found})


@require_POST
def count(request: HttpRequest) -> HttpResponse:
    """How many devices the form means at the moment; nothing is stored."""
    access, before = access_of(request), None
    for pk in uuids(request.POST.getlist("draft")):
        draft = drafts.load(request.user, pk)
        before = draft.targets if isinstance(draft, Draft) else None
    form = TargetsForm(request.POST, access=access, before=before)
    if not form.is_valid():
        return JsonResponse({"text": " ".join(str(error[0]) for error in form.errors.values())})
    wanted = form.target_filter()
    if wanted == TargetFilter():
        return JsonResponse({"text": "Choose what must hold."})
    try:
        return JsonResponse({"text": in_words(resolve(wanted, access=access))})
    except OrchestratorError as error:
        return JsonResponse({"text": str(getattr(error, "message", error.detail))})


def in_words(found: TargetSet) -> str:
    """How many devices a set has, and why how many of them would be skipped."""
    counts = found.reasons()
    total, skipped = sum(counts.values()), {code: number for code, number in counts.items() if code}
    text = f"{total:,} device{'' if total == 1 else 's'}"
    if not skipped:
        return text
    reasons = "; ".join(f"{number:,}: {REASONS[code].rstrip('.').lower()}" for code, number in skipped.items())
    return f"{text}, {sum(skipped.values()):,} of them would be skipped ({reasons})"
