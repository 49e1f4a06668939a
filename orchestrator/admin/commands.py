"""Per-device results, read-only: a device's history, and the page of one result with all its output."""

import re
from typing import Any, Final

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import reverse
from unfold.decorators import display

from orchestrator.admin.labels import COMMAND_LABELS
from orchestrator.admin.scoped import OrganizationScopedAdmin, VisibleFilter, access_of
from orchestrator.models import Command, MassCommand

# ECMA-48 section 5.4: control sequences such as colours; operating system commands; what a terminal would act on
_CONTROL: Final = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x00-\x08\x0b-\x1f\x7f]")


@admin.register(Command)
class CommandAdmin(OrganizationScopedAdmin):
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

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Never."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Never."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Never: it goes with its organization only."""
        return False

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        """A device's page links to its history."""
        return lookup == "device__exact" or super().lookup_allowed(lookup, value, request)

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
            "stdout": _plain(row.stdout),
            "stderr": _plain(row.stderr),
            "input": [(name.replace("_", " "), value) for name, value in (_input(row, run)).items()],
            "address": reverse("admin:orchestrator_command_change", args=[row.pk]),
        }
        if "fragment" in request.GET:
            return TemplateResponse(request, "orchestrator/output.html", context)
        context |= {**self.admin_site.each_context(request), "title": f"{row.device_name}: {row.get_type_display()}"}
        return TemplateResponse(request, "orchestrator/command.html", context)


def _plain(text: str) -> str:
    """Without the control sequences of a terminal; the template escapes the rest."""
    return _CONTROL.sub("", text)


def _input(row: Command, run: MassCommand | None) -> dict[str, Any]:
    """What was asked for, secrets masked; of a system-wide run too, as the device's own history shows it."""
    owner = run or MassCommand.objects.filter(commands=row).only("input").first()
    return (owner.input if owner else row.input) or {}
