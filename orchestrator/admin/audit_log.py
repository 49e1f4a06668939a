"""The audit log, to be read: nothing in it is ever changed."""

import json
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import Http404, HttpRequest
from django.utils.html import format_html
from unfold.decorators import display

from orchestrator.access import Right
from orchestrator.admin.scoped import OrganizationScopedAdmin, ReadOnlyAdmin, access_of
from orchestrator.models import AuditAction, AuditEntry
from orchestrator.origin import Door


class ActionFilter(admin.SimpleListFilter):
    """What was done."""

    title = parameter_name = "action"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        """All that there is."""
        return AuditAction.choices

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Entries of this action."""
        return queryset.filter(action=self.value()) if self.value() in AuditAction.values else queryset


class DoorFilter(admin.SimpleListFilter):
    """By which way."""

    title = parameter_name = "door"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        """All that there are."""
        return [(door.value, door.value) for door in Door]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Entries through this door."""
        return queryset.filter(door=self.value()) if self.value() in set(Door) else queryset


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin, OrganizationScopedAdmin):
    """Who did what, for the administrators of each organization."""

    list_display = ("at", "who", "did", "object_name", "organization_name", "door", "address")
    list_filter = (ActionFilter, DoorFilter)
    search_fields = ("actor_name", "object_name", "object_id", "address")
    search_help_text = "Who, what, an id or an address"
    ordering = ("-at", "-id")
    actions = None
    fieldsets = (
        ("Who, and from where", {"fields": ("at", "who", "door", "address", "user_agent", "token")}),
        ("What", {"fields": ("did", "object_type", "object_name", "object_id", "organization_name", "what")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Those of the organizations that the user administrates; all of them for superusers."""
        return AuditEntry.objects.visible_to(access_of(request)).order_by(*self.ordering)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """All of them."""
        return [name for _, options in self.fieldsets for name in options["fields"]]

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Administrators."""
        return access_of(request).can_anywhere(Right.VIEW_AUDIT)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Administrators, of their organization."""
        return self._may(Right.VIEW_AUDIT, request, obj)

    def history_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """There is none: nothing changes."""
        raise Http404

    @display(description="who", ordering="actor_name")  # type: ignore[untyped-decorator]
    def who(self, entry: AuditEntry) -> str:
        """The name of then."""
        return entry.actor_name or "the service"

    @display(description="what", ordering="action")  # type: ignore[untyped-decorator]
    def did(self, entry: AuditEntry) -> str:
        """In words; the name alone of an action that is no longer known."""
        return AuditAction(entry.action).label if entry.action in AuditAction.values else entry.action

    @admin.display(description="details")
    def what(self, entry: AuditEntry) -> str:
        """As JSON, for people."""
        return format_html(
            '<pre class="o-mono o-wrap">{}</pre>', json.dumps(entry.details, indent=2, ensure_ascii=False)
        )
