"""Per-device results, read-only: a device's history, and the page of one result with all its output."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.http import content_disposition_header
from unfold.decorators import display

from orchestrator.admin.labels import COMMAND_LABELS
from orchestrator.admin.playbook_inputs import words_of
from orchestrator.admin.run_tasks import recap_of, tasks_of
from orchestrator.admin.scoped import OrganizationScopedAdmin, ReadOnlyAdmin, VisibleFilter, access_of
from orchestrator.admin.terminal import colored
from orchestrator.models import Command, CommandType, MassCommand


@admin.register(Command)
class CommandAdmin(ReadOnlyAdmin, OrganizationScopedAdmin):
    """What became of devices."""

    list_display = ("device_name", "state", "type", "reason", "rc", "organization", "started", "finished")
    list_filter = ("status", "type", ("organization", VisibleFilter))
    list_select_related = ("organization",)
    search_fields = ("device_name",)
    ordering = ("-created", "-id")
    actions = None

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Without the output, which may have hundreds of kilobytes a row."""
        return super().get_queryset(request).defer("stdout", "stderr", "input")

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        """A device's page links to its history, the dashboard to what went wrong lately."""
        linked = {"device__exact", "reason_code__exact", "created__gte"}
        return lookup in linked or super().lookup_allowed(lookup, value, request)

    def get_urls(self) -> list[URLPattern]:
        """A result's output as a file, before Django's own addresses."""
        view = self.admin_site.admin_view(self.output_view)
        return [path("<uuid:pk>/output/", view, name="orchestrator_command_output"), *super().get_urls()]

    @display(description="status", ordering="status", label=COMMAND_LABELS)  # type: ignore[untyped-decorator]
    def state(self, row: Command) -> tuple[str, str]:
        """Its status."""
        return row.status, row.get_status_display()

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """One result; with ``?fragment=1`` only what a drawer shows."""
        row = self.get_object(request, object_id)
        if row is None:
            row = get_object_or_404(Command.objects.none())
        run = access_of(request).visible(MassCommand.objects.filter(commands=row)).first()
        context = {
            "row": row,
            "run": run,  # a system-wide one exists for superusers alone
            "stdout": colored(row.stdout),
            "stderr": colored(row.stderr),
            "input": words_of(_input(row, run)),
            "address": reverse("admin:orchestrator_command_change", args=[row.pk]),
        }
        if row.type == CommandType.PLAYBOOK:
            context |= {"tasks": tasks_of(row, request), "recap": recap_of(row)}
        if "fragment" in request.GET:
            return TemplateResponse(request, "orchestrator/output.html", context)
        context |= {**self.admin_site.each_context(request), "title": f"{row.device_name}: {row.get_type_display()}"}
        return TemplateResponse(request, "orchestrator/command.html", context)

    def output_view(self, request: HttpRequest, pk: Any) -> HttpResponse:
        """What the device printed, as it came; ``?stream=stderr`` its error output."""
        stream = request.GET.get("stream", "stdout")
        if stream not in {"stdout", "stderr"}:
            raise Http404
        row = get_object_or_404(self.get_queryset(request), pk=pk)
        name = "".join(sign if sign.isalnum() or sign in "-_." else "_" for sign in row.device_name)
        headers = {"Content-Disposition": content_disposition_header(True, f"{name}-{stream}.txt") or "attachment"}
        return HttpResponse(getattr(row, stream), content_type="text/plain; charset=utf-8", headers=headers)


def _input(row: Command, run: MassCommand | None) -> dict[str, Any]:
    """What was asked for, secrets masked; of a system-wide run too, as the device's own history shows it."""
    owner = run or MassCommand.objects.filter(commands=row).only("input").first()
    return (owner.input if owner else row.input) or {}
