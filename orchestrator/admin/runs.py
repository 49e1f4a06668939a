"""Mass commands: the list, the page of one while it runs and after, and what can be done to it."""

import uuid
from dataclasses import replace
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from unfold.decorators import display

from orchestrator import actions
from orchestrator.access import Right
from orchestrator.admin import wizard, wizard_controls
from orchestrator.admin.drafts import Draft
from orchestrator.admin.grid import CELLS, cell_of, grid_of
from orchestrator.admin.labels import RUN_LABELS
from orchestrator.admin.outputs import grouped, summary_of
from orchestrator.admin.playbook_inputs import words_of
from orchestrator.admin.results import Results, shares
from orchestrator.admin.run_tasks import devices_of, summaries_of
from orchestrator.admin.running import open_wizard
from orchestrator.admin.scoped import OrganizationScopedAdmin, VisibleFilter, access_of
from orchestrator.admin.timeline import timeline_of
from orchestrator.exceptions import OrchestratorError
from orchestrator.models import Command, MassCommand, TaskStatus
from orchestrator.secrets import MASK
from orchestrator.states import FINISHED, CommandStatus
from orchestrator.targeting import MAX_PICKED, TargetFilter

_MOMENTS = frozenset({"run_at", "wait_for_offline_until"})
_ADDRESS = "admin:orchestrator_masscommand_"


@admin.register(MassCommand)
class MassCommandAdmin(OrganizationScopedAdmin):
    """Read-only: runs are made by the wizard, and changed by what happens."""

    list_display = ("title", "state", "done", "device_count", "type", "organization", "created_by", "created")
    list_filter = ("status", "type", ("organization", VisibleFilter))
    list_select_related = ("organization", "created_by")
    search_fields = ("label", "notes", "created_by__username")
    search_help_text = "Label, notes or user"
    ordering = ("-created", "-id")
    actions = None

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Not by a form: see wizard.py."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Never."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Administrators of its organization, once it has ended."""
        return super().has_delete_permission(request, obj) and (obj is None or not obj.is_active)

    def get_urls(self) -> list[URLPattern]:
        """The wizard and what belongs to a run, before Django's own addresses."""
        wrap = self.admin_site.admin_view
        name = "orchestrator_masscommand_"
        own = [
            path("<uuid:pk>/progress/", wrap(never_cache(self.progress_view)), name=f"{name}progress"),
            path("<uuid:pk>/grid/", wrap(never_cache(self.grid_view)), name=f"{name}grid"),
            path("<uuid:pk>/outputs/", wrap(self.outputs_view), name=f"{name}outputs"),
            path("<uuid:pk>/tasks/", wrap(never_cache(self.tasks_view)), name=f"{name}tasks"),
            path("<uuid:pk>/cancel/", wrap(self.cancel_view), name=f"{name}cancel"),
            path("<uuid:pk>/pause/", wrap(self.pause_view), name=f"{name}pause"),
            path("<uuid:pk>/again/", wrap(self.again_view), name=f"{name}again"),
        ]
        return [*wizard.addresses(wrap), *own, *super().get_urls()]

    @admin.display(description="run", ordering="label")
    def title(self, run: MassCommand) -> str:
        """Its label, or what it does."""
        return str(run)

    @display(description="status", ordering="status", label=RUN_LABELS)  # type: ignore[untyped-decorator]
    def state(self, run: MassCommand) -> tuple[str, str]:
        """Its status."""
        return run.status, run.get_status_display()

    @admin.display(description="done")
    def done(self, run: MassCommand) -> str:
        """The finished share."""
        return f"{int(100 * run.progress)} %"  # rounded down: 100 % is said only when nothing is open

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """The page of a run."""
        run = self._run(request, object_id)
        results = Results.of(run, request)
        here = reverse(f"{_ADDRESS}change", args=[run.pk])
        context = {"run": run, "results": results, "shares": shares(run.counts, here), "address": here}
        if (fragment := request.GET.get("fragment")) == "results":
            return TemplateResponse(request, "orchestrator/results.html", context)
        if fragment == "tasks":
            return TemplateResponse(request, "orchestrator/tasks.html", _tasks(run))
        context["timeline"] = timeline_of(run)
        if fragment == "timeline":
            return TemplateResponse(request, "orchestrator/timeline.html", context)
        access = access_of(request)
        may_run = access.can(Right.RUN, run.organization_id)
        counts = run.counts
        context |= {
            **self.admin_site.each_context(request),
            "title": str(run),
            "subtitle": "",
            "progress": progress_of(run),
            "said": words_of(run.input),
            "exports": results.exports(run),
            "controls": wizard_controls.shown(run.controls),
            "may_cancel": may_run and run.is_active and run.cancel_requested is None,
            "may_rerun": may_run and not run.is_active,
            "unsuccessful": 0 if run.is_active else sum(counts[status.value] for status in _again()),
            "may_delete": self.has_delete_permission(request, run),
            "may_manage": access.can(Right.MANAGE, run.organization_id),
        }
        return TemplateResponse(request, "orchestrator/run.html", context)

    def _run(self, request: HttpRequest, pk: Any) -> MassCommand:
        """The run, if it exists for the user."""
        try:
            key = pk if isinstance(pk, uuid.UUID) else uuid.UUID(pk)
        except ValueError as error:
            raise Http404 from error
        rows = self.get_queryset(request).select_related("organization", "group", "location", "created_by")
        run: MassCommand = get_object_or_404(rows, pk=key)
        return run

    def progress_view(self, request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
        """What a script asks every two seconds: one query on one row."""
        return JsonResponse(progress_of(get_object_or_404(self.get_queryset(request), pk=pk)))

    def grid_view(self, request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
        """What the script draws as cells; with ``?cell=7`` what stands behind one of them."""
        run = get_object_or_404(self.get_queryset(request), pk=pk)
        if "cell" not in request.GET:
            return JsonResponse(grid_of(run))
        cell = request.GET["cell"]
        if not (cell.isascii() and cell.isdigit() and int(cell) < CELLS):
            raise Http404
        return JsonResponse(cell_of(run, int(cell)))

    def outputs_view(self, request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
        """The devices by what they said."""
        run = self._run(request, pk)
        groups, total = grouped(run)
        context = {
            **self.admin_site.each_context(request),
            "title": f"{run}: same outcomes", "groups": groups, "total": total,
            "summary": summary_of(groups, total, run),
            "back": reverse(f"{_ADDRESS}change", args=[run.pk]),
        }  # fmt: skip
        return TemplateResponse(request, "orchestrator/outputs.html", context)

    def tasks_view(self, request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
        """The tasks of a playbook over all devices; with ``?task=…&status=failed`` the devices of one."""
        run = self._run(request, pk)
        here = reverse(f"{_ADDRESS}tasks", args=[run.pk])
        context = {
            **self.admin_site.each_context(request),
            "title": f"{run}: tasks", "all": here, "back": reverse(f"{_ADDRESS}change", args=[run.pk]),
        }  # fmt: skip
        if "task" in request.GET:
            named, tasks = devices_of(run, request)
            status = dict(TaskStatus.choices).get(named["status"], "")
            context |= {"named": named, "tasks": tasks, "status": status}
        else:
            context |= _tasks(run)
        return TemplateResponse(request, "orchestrator/tasks_page.html", context)

    def cancel_view(self, request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
        """Ask, then stop the run."""
        run, actor = self._run(request, pk), request.user
        here = reverse(f"{_ADDRESS}change", args=[run.pk])
        if not access_of(request).can(Right.RUN, run.organization_id):
            raise PermissionDenied
        if not run.is_active:
            messages.info(request, "This run has ended already: there is nothing to cancel.")
            return HttpResponseRedirect(here)
        if request.method == "POST":
            actions.cancel(actor=actor, run=run)  # type: ignore[arg-type]
            messages.success(request, "Cancelled: what waits is not started, what runs is being stopped.")
            return HttpResponseRedirect(here)
        context = {
            **self.admin_site.each_context(request),
            "title": "Cancel a run", "question": f"Cancel “{run}”?", "button": "Cancel the run", "danger": True,
            "back": here, "back_label": "Let it run",
            "explanation": f"{run.queued_count:,} devices still wait and will not be contacted. "
            f"On {run.running_count:,} it is being carried out: there it is stopped within seconds, and may have "
            "taken effect.",
        }  # fmt: skip
        return TemplateResponse(request, "orchestrator/confirm.html", context)

    def pause_view(self, request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
        """Hold the run, or let it go on: what runs on a device goes on to its end in both cases."""
        run, actor = self._run(request, pk), request.user
        if request.method != "POST" or not access_of(request).can(Right.RUN, run.organization_id):
            raise PermissionDenied
        try:
            if "resume" in request.POST:
                actions.resume(actor=actor, run=run)  # type: ignore[arg-type]
                messages.success(request, "The run goes on.")
            else:
                actions.pause(actor=actor, run=run)  # type: ignore[arg-type]
                messages.success(request, "Paused: nothing more is started. Devices that run it go on to its end.")
        except OrchestratorError as error:
            messages.error(request, error.detail)
        return HttpResponseRedirect(reverse(f"{_ADDRESS}change", args=[run.pk]))

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """Ask, then delete a run that has ended; not Django's own, which would hold a transaction around it."""
        run, actor = self._run(request, object_id), request.user
        here = reverse(f"{_ADDRESS}change", args=[run.pk])
        if not access_of(request).can(Right.MANAGE, run.organization_id):
            raise PermissionDenied
        if request.method == "POST" or run.is_active:
            try:
                actions.delete(actor=actor, run=run)  # type: ignore[arg-type]
            except OrchestratorError as error:
                messages.error(request, error.detail)
                return HttpResponseRedirect(here)
            messages.success(request, f"“{run}” is deleted. The results stay in the histories of its devices.")
            return HttpResponseRedirect(reverse(f"{_ADDRESS}changelist"))
        context = {
            **self.admin_site.each_context(request),
            "title": "Delete a run", "question": f"Delete “{run}”?", "button": "Delete the run", "danger": True,
            "back": here,
            "explanation": f"The results of its {run.device_count:,} devices stay in the devices' own histories.",
        }  # fmt: skip
        return TemplateResponse(request, "orchestrator/confirm.html", context)

    def again_view(self, request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
        """Prepare the same run once more, on all of its targets or on those that did not succeed."""
        run = self._run(request, pk)
        if request.method != "POST" or not access_of(request).can(Right.RUN, run.organization_id):
            raise PermissionDenied
        targets, parent = TargetFilter.from_json(run.targets), None
        if request.POST.get("which") == "unsuccessful":
            rows = Command.objects.filter(mass_command=run, status__in=_again(), device__isnull=False)
            devices = tuple(rows.order_by("device").values_list("device", flat=True)[: MAX_PICKED + 1])
            if not 0 < len(devices) <= MAX_PICKED:
                messages.error(request, f"These are no device, or more than {MAX_PICKED:,}.")
                return HttpResponseRedirect(reverse(f"{_ADDRESS}change", args=[run.pk]))
            targets, parent = replace(targets, devices=devices, all_devices=False), run.pk
        # A name may have been a secret when the run began, and be none by the schema of today.
        kept = {name: value for name, value in run.input.items() if value != MASK}
        secret = run.input.keys() - kept.keys()
        owner = uuid.UUID(str(request.user.pk))
        controls = {name: value for name, value in run.controls.items() if name not in _MOMENTS}  # they have passed
        draft = Draft(
            owner=owner, targets=targets, type=run.type, playbook=run.playbook, input=kept, label=run.label,
            notes=run.notes, controls=controls, parent=parent,
        )  # fmt: skip
        return open_wizard(draft, step="command" if secret else "review")  # a secret must be typed anew


def _tasks(run: MassCommand) -> dict[str, Any]:
    summaries, more = summaries_of(run)
    return {"summaries": summaries, "more": more}


def _again() -> list[CommandStatus]:
    return sorted(FINISHED - {CommandStatus.SUCCESS, CommandStatus.SKIPPED})


def progress_of(run: MassCommand) -> dict[str, Any]:
    """How far the run is; what is left is an estimate from its own pace."""
    now = run.finished or timezone.now()
    elapsed = (now - run.started).total_seconds() if run.started else 0.0
    waiting = run.queued_count + run.running_count
    done = run.device_count - waiting - run.skipped_count
    rate = done / elapsed if elapsed > 0 else 0.0
    return {
        "status": run.status,
        "label": run.get_status_display(),
        "active": run.is_active,
        "paused": run.is_active and run.paused is not None,
        "counts": run.counts,
        "device_count": run.device_count,
        "finished_count": run.device_count - waiting,
        "percent": int(100 * run.progress),
        "elapsed": round(elapsed, 1),
        "rate": round(rate, 2),
        "left": round(waiting / rate) if rate and waiting else None,
        "pace": _pace(rate, waiting if run.is_active else 0),
    }


def _pace(rate: float, waiting: int) -> str:
    """Devices per second and the time left, in words."""
    if not rate:
        return ""
    text = f"{rate:,.1f} a second" if rate >= 1 else f"{60 * rate:,.1f} a minute"
    return f"{text}, about {_duration(waiting / rate)} left" if waiting else text


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5_400 else f"{seconds / 3_600:.1f} h"
