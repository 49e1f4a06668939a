"""*Run a command on these*: from any list into the wizard."""

import uuid
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from orchestrator.admin import drafts
from orchestrator.admin.drafts import Draft
from orchestrator.models import CommandType, Device
from orchestrator.targeting import MAX_PICKED, TargetFilter


def open_wizard(draft: Draft, *, step: str = "command") -> HttpResponse:
    """Store the draft and go on with it."""
    return HttpResponseRedirect(reverse(f"admin:orchestrator_run_{step}", args=[drafts.add(draft)]))


class RunAction:
    """A list action for administrators' pages; ``target_field`` says what a row stands for."""

    target_field = "devices"

    @admin.action(description="Run a command on these…", permissions=["run"])
    def run_on_these(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        """Prepare a run on the ticked rows; nothing runs before its review."""
        return self._prepare(request, queryset)

    @admin.action(description="Test the connection", permissions=["run"])
    def test_these(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        """Prepare a login on the ticked rows that changes nothing: the review follows at once."""
        return self._prepare(request, queryset, command_type=CommandType.PING)

    def _prepare(self, request: HttpRequest, queryset: QuerySet[Any], command_type: str = "") -> HttpResponse | None:
        ids = list(queryset.order_by().values_list("pk", flat=True)[: MAX_PICKED + 1])
        if self.target_field != "devices" and len(ids) > 1:
            ids = self._devices_of(queryset)
            targets = TargetFilter(devices=tuple(ids))
        elif self.target_field != "devices":
            targets = TargetFilter(**{self.target_field: ids[0]})  # stays a filter, as the API would say it
        else:
            targets = TargetFilter(devices=tuple(ids))
        if len(ids) > MAX_PICKED:
            text = f"These are more than {MAX_PICKED:,} devices. Run on a group, a location or an organization instead."
            messages.error(request, text)
            return None
        if not ids:
            messages.warning(request, "There is no device in these: nothing to run on.")
            return None
        draft = Draft(owner=uuid.UUID(str(request.user.pk)), targets=targets, type=command_type)
        return open_wizard(draft, step="review" if command_type else "command")

    def _devices_of(self, rows: QuerySet[Any]) -> list[uuid.UUID]:
        lookup = {f"{self.target_field}__in": rows.order_by().values("pk")}
        return list(Device.objects.filter(**lookup).order_by("pk").values_list("pk", flat=True)[: MAX_PICKED + 1])
