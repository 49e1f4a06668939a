"""Recurring mass commands: list, make, change, switch on and off, and what each has started.

The forms are those of the run wizard, on one page; the rules are those of the API.
"""

import uuid
import zoneinfo
from typing import Any, Final, cast

from croniter import CroniterBadDateError
from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from unfold.widgets import INPUT_CLASSES, UnfoldAdminSelectWidget, UnfoldBooleanSwitchWidget

from orchestrator import audit, scheduling
from orchestrator.access import Access, Right
from orchestrator.admin import wizard_controls
from orchestrator.admin.drafts import Draft
from orchestrator.admin.pickers import Picker
from orchestrator.admin.scoped import OrganizationScopedAdmin, VisibleFilter, access_of
from orchestrator.admin.wizard_command import CommandForm, usable_playbooks
from orchestrator.admin.wizard_controls import ControlsForm
from orchestrator.admin.wizard_targets import TargetsForm
from orchestrator.catalogue import check_input
from orchestrator.exceptions import InvalidFieldError, OrchestratorError, SecretUnreadableError
from orchestrator.models import MassCommand, Overlap, Schedule, User
from orchestrator.models.mass_commands import LABEL_LENGTH
from orchestrator.targeting import TargetFilter, resolve

_INPUT: Final = " ".join(INPUT_CLASSES)
_RUNS: Final = 20  # of a schedule, that its page lists
_PICKERS: Final = (
    ("devices", "device", "Search by name or host"),
    ("exclude_devices", "device", "Devices to leave out"),
    ("exclude_groups", "group", "Groups to leave out"),
)


class TimesForm(forms.Form):
    """When a schedule starts its runs, and under which name."""

    name = forms.CharField(label="Name", max_length=LABEL_LENGTH, widget=forms.TextInput(attrs={"class": _INPUT}))
    cron = forms.CharField(
        label="When", max_length=128, help_text="Minute, hour, day of month, month, day of week: “0 3 * * 1-5” is "
        "three o'clock on working days, “*/30 * * * *” each half hour.",
        widget=forms.TextInput(attrs={"class": f"{_INPUT} o-mono", "autocomplete": "off", "placeholder": "0 3 * * *"}),
    )  # fmt: skip
    timezone = forms.CharField(
        label="Time zone", max_length=64, initial="UTC", help_text="Whose wall clock counts, also when clocks change.",
        widget=forms.TextInput(attrs={"class": _INPUT, "list": "zones", "autocomplete": "off"}),
    )  # fmt: skip
    overlap = forms.ChoiceField(
        label="When the previous run has not ended", choices=Overlap.choices, widget=UnfoldAdminSelectWidget
    )
    enabled = forms.BooleanField(label="Enabled", required=False, initial=True, widget=UnfoldBooleanSwitchWidget)

    def clean_cron(self) -> str:
        """Five fields."""
        return self._checked("cron")

    def clean_timezone(self) -> str:
        """One that there is."""
        return self._checked("timezone")

    def _checked(self, name: str) -> str:
        value: str = self.cleaned_data[name].strip()
        column: Any = Schedule._meta.get_field(name)
        column.run_validators(value)
        return value

    def clean(self) -> dict[str, Any]:
        """A day that comes."""
        values = super().clean() or {}
        if {"cron", "timezone"} <= values.keys():
            try:
                scheduling.next_occurrence(values["cron"], values["timezone"], after=timezone.now())
            except CroniterBadDateError:
                self.add_error("cron", "There is no such day in any year.")
        return values


class PaceForm(ControlsForm):
    """How each run is paced; a moment would be over after the first one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in ("run_at", "wait_for_offline_until"):
            del self.fields[name]
        pause, field = self.initial.get("pause"), cast("forms.ChoiceField", self.fields["pause"])
        if pause and pause not in dict(cast("Any", field.choices)):  # as the API takes them
            field.choices = [*cast("Any", field.choices), (pause, f"{pause} seconds")]


class Page:
    """The forms of a schedule's page: filled from the row, or with what was sent."""

    def __init__(self, request: HttpRequest, row: Schedule | None) -> None:
        self.request, self.row, self.access = request, row, access_of(request)
        data: Any = request.POST if request.method == "POST" else None
        self.before = TargetFilter.from_json(row.targets) if row else TargetFilter()
        controls = row.controls if row else {}
        times = ("name", "cron", "timezone", "overlap", "enabled")
        self.times = TimesForm(data, prefix="schedule", initial={name: getattr(row, name) for name in times if row})
        self.targets = TargetsForm(data, access=self.access, before=self.before, initial=_initial(self.before))
        self.command = CommandForm(
            data, draft=_draft(request, row), access=self.access, playbooks=usable_playbooks(self.access),
            initial={"type": row.type if row else "", "label": "", "notes": ""},
        )  # fmt: skip
        self.pace = PaceForm(data, initial=wizard_controls.initial(controls))
        self.kept = {name: value for name, value in controls.items() if name not in self.pace.fields}

    def is_valid(self) -> bool:
        """Whether all of them are; every complaint is shown at once."""
        wrong = [form for form in (self.times, self.targets, self.command, self.pace) if not form.is_valid()]
        return not wrong

    def save(self) -> Schedule | None:
        """Store what was sent; None when it can't be, and the forms say why."""
        actor, row, wanted = cast("User", self.request.user), self.row or Schedule(), self.targets.target_filter()
        kind, playbook = self.command.cleaned_data["type"], self.command.chosen_playbook
        given = self.command.cleaned_data["input"]
        if self.pace.refuse_check(possible=self.command.has_check_mode):
            return None
        try:
            checked = check_input(kind, given, access=self.access, playbook=playbook)
            owner = resolve(wanted, access=self.access, command_type=kind, playbook=playbook).organization
        except InvalidFieldError as error:
            if error.field == "playbook":
                self.command.add_error("playbook", str(error.message))
            else:
                self.targets.refuse(error)
            return None
        except OrchestratorError as error:
            self.times.add_error(None, error.detail)
            return None
        same = Schedule.objects.filter(organization=owner, name=self.times.cleaned_data["name"]).exclude(pk=row.pk)
        if same.exists():
            self.times.add_error("name", "There is a schedule of this name.")
            return None
        controls = wizard_controls.controls_of(self.pace.given(kind)).as_json() | self.kept
        values = self.times.cleaned_data | {
            "type": kind, "playbook": playbook, "targets": wanted.as_json(), "controls": controls,
            "organization": owner,
        }  # fmt: skip
        try:
            return save(row, values, actor=actor, checked=checked)
        except IntegrityError:
            self.times.add_error("name", "Another one of this name was made at the same moment.")
            return None

    def context(self) -> dict[str, Any]:
        """What the template draws."""
        sent = self.request.method == "POST"
        chosen = {name: self.targets.picks(name) if sent else getattr(self.before, name) or () for name, *_ in _PICKERS}
        pickers = [Picker.of(self.request, name, kind, label=label, chosen=chosen[name])
                   for name, kind, label in _PICKERS]  # fmt: skip
        return {
            "times": self.times, "form": self.targets, "command": self.command, "pace": self.pace,
            "devices": pickers[0], "excluded": pickers[1:], "zones": sorted(zoneinfo.available_timezones()),
            "within": self.before.devices is not None and bool(self.before.organization or self.before.group),
            "kept": wizard_controls.shown(self.kept),
        }  # fmt: skip


def save(row: Schedule, values: dict[str, Any], *, actor: User, checked: Any = None) -> Schedule:
    """Store a schedule, and write down who did."""
    new = row._state.adding
    before = None if new else audit.snapshot(Schedule.objects.get(pk=row.pk))
    with transaction.atomic():
        scheduling.store(row, values, actor=actor, checked=checked)
        if before is None:
            audit.created(row, actor=actor)
        else:
            audit.changed(row, actor=actor, before=before)
    return row


def _initial(before: TargetFilter) -> dict[str, Any]:
    scope = "all" if before.all_devices else "devices" if before.devices is not None else "filter"
    named = {name: getattr(before, name) for name in ("organization", "group", "location", "platform", "name")}
    return named | {"tags": list(before.tags), "scope": scope, "keep_within": True}


def _draft(request: HttpRequest, row: Schedule | None) -> Draft:
    """What the row holds, secrets too: they are kept where the form leaves them blank, and never shown."""
    owner = uuid.UUID(str(request.user.pk))
    if row is None:
        return Draft(owner=owner)
    try:
        secret = row.secret_input()
        given = {**row.input, **secret}
    except SecretUnreadableError:  # its key is gone: it has to be typed again
        given, secret = {}, {}
    return Draft(owner=owner, type=row.type, playbook=row.playbook, input=given, hidden=tuple(secret))


@admin.register(Schedule)
class ScheduleAdmin(OrganizationScopedAdmin):
    """Members see them; whoever may run commands in their organization may change them."""

    list_display = ("name", "organization", "type", "times", "enabled", "next_time", "last_time", "outcome")
    list_filter = ("enabled", "type", ("organization", VisibleFilter))
    list_select_related = ("organization",)
    search_fields = ("name",)
    ordering = ("name", "pk")
    actions = ("enable", "disable")

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Operators; on which devices is said by the targeting."""
        return self.has_run_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Operators."""
        return self._may(Right.RUN, request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Operators."""
        return self._may(Right.RUN, request, obj)

    @admin.display(description="when")
    def times(self, row: Schedule) -> str:
        """The expression and whose clock it means."""
        return format_html('<code class="o-mono">{}</code> <span class="o-sub">{}</span>', row.cron, row.timezone)

    @admin.display(description="next run (UTC)", ordering="next_run")
    def next_time(self, row: Schedule) -> str:
        """When it starts its next run."""
        return f"{row.next_run:%Y-%m-%d %H:%M}" if row.next_run else "—"

    @admin.display(description="last time (UTC)", ordering="last_run")
    def last_time(self, row: Schedule) -> str:
        """When it was due last."""
        return f"{row.last_run:%Y-%m-%d %H:%M}" if row.last_run else "—"

    @admin.display(description="last result")
    def outcome(self, row: Schedule) -> str:
        """Why the last occurrence started no run."""
        return row.last_result or ("started" if row.last_run else "—")

    @admin.action(description="Enable", permissions=["run"])
    def enable(self, request: HttpRequest, queryset: QuerySet[Schedule]) -> None:
        """Plan the ticked ones again."""
        self._switch(request, queryset, on=True)

    @admin.action(description="Disable", permissions=["run"])
    def disable(self, request: HttpRequest, queryset: QuerySet[Schedule]) -> None:
        """Start no run of the ticked ones any more."""
        self._switch(request, queryset, on=False)

    def _switch(self, request: HttpRequest, rows: QuerySet[Schedule], *, on: bool) -> None:
        access, done = access_of(request), 0
        for row in rows.exclude(enabled=on):
            if why_not := _refused(row, access, on=on):
                messages.error(request, f"{row}: {why_not}")
                continue
            save(row, {"enabled": on}, actor=cast("User", request.user))
            done += 1
        messages.success(request, f"{done} schedule{'' if done == 1 else 's'} {'enabled' if on else 'disabled'}.")

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        """A new one."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        return self._edit(request, None)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """One that exists for the user."""
        row = self.get_object(request, unquote(object_id))  # None also for what is no id at all
        if row is None:
            raise Http404
        if request.method == "POST" and not self.has_change_permission(request, row):
            raise PermissionDenied
        return self._edit(request, row)

    def _edit(self, request: HttpRequest, row: Schedule | None) -> HttpResponse:
        may_change = row is None or self.has_change_permission(request, row)
        if row is not None and request.method == "POST" and "switch" in request.POST:
            self._switch(request, Schedule.objects.filter(pk=row.pk), on=request.POST["switch"] == "on")
            return HttpResponseRedirect(request.path)
        page = Page(request, row) if may_change else None
        sent = request.method == "POST" and "search" not in request.POST
        if page and sent and page.is_valid() and (saved := page.save()):
            told = f"{saved.next_run:%Y-%m-%d %H:%M} UTC" if saved.next_run else "none, it is disabled"
            messages.success(request, f"{saved} is saved. Next run: {told}.")
            return HttpResponseRedirect(reverse("admin:orchestrator_schedule_change", args=[saved.pk]))
        runs = MassCommand.objects.filter(schedule=row, schedule__isnull=False)
        started = access_of(request).visible(runs.select_related("organization", "created_by"))
        context = {
            **self.admin_site.each_context(request),
            "title": row.name if row else "New schedule",
            "row": row,
            "opts": self.opts,
            "runs": list(started[:_RUNS]),
            "controls": wizard_controls.shown(row.controls) if row else [],
            "may_change": may_change,
            **(page.context() if page else {}),
        }
        return TemplateResponse(request, "orchestrator/schedule.html", context)


def _refused(row: Schedule, access: Access, *, on: bool) -> str:
    """Why this user may not switch it, or empty.  Who switches it on gives it their rights, so they must have them."""
    if not access.can(Right.RUN, row.organization_id):
        return "you may not run commands in its organization."
    if not on:
        return ""
    try:
        resolve(TargetFilter.from_json(row.targets), access=access, command_type=row.type, playbook=row.playbook)
    except (OrchestratorError, ValidationError) as error:
        return str(getattr(error, "message", "") or getattr(error, "detail", error))
    return ""
