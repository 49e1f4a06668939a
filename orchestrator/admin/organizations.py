"""Tenants and what structures their fleets: organizations, locations, device groups."""

from typing import Any, cast

from django import forms
from django.contrib import admin
from django.db.models import Count
from django.http import HttpRequest
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget, UnfoldBooleanSwitchWidget

from orchestrator import actions
from orchestrator.admin.running import RunAction
from orchestrator.admin.scoped import OrganizationScopedAdmin, OwnedForm, RowForm, VisibleFilter, access_of
from orchestrator.admin.users import MembershipInline
from orchestrator.models import (
    Command,
    CommandType,
    Credential,
    Device,
    DeviceGroup,
    Location,
    MassCommand,
    Organization,
    Playbook,
    User,
)


class OrganizationForm(RowForm):
    """``allowed_types``, ``allowed_playbooks``: all (null), or a list that may be empty and then allows nothing."""

    every_type = forms.BooleanField(
        label="Every command type", required=False, widget=UnfoldBooleanSwitchWidget,
        help_text="Also those that are added later. Otherwise only the types ticked below.",
    )  # fmt: skip
    allowed_types = forms.MultipleChoiceField(
        label="Allowed types",
        choices=CommandType.choices,
        required=False,
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
    )
    every_playbook = forms.BooleanField(
        label="Every playbook", required=False, widget=UnfoldBooleanSwitchWidget,
        help_text="Also those that are added to the catalogue later. Otherwise only the ones ticked below.",
    )  # fmt: skip
    allowed_playbooks = forms.MultipleChoiceField(
        label="Allowed playbooks", required=False, widget=UnfoldAdminCheckboxSelectMultipleWidget
    )

    class Meta:
        model = Organization
        fields = ("name", "is_active", "allowed_types", "allowed_playbooks", "keep_days", "secret_folder")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "every_type" in self.fields:  # not for those who may only look
            self.fields["every_type"].initial = self.instance.allowed_types is None
            self.fields["every_playbook"].initial = self.instance.allowed_playbooks is None
            # All, as whoever may change this may allow all; and what is allowed but not there at the moment.
            names = {*Playbook.objects.values_list("name", flat=True), *(self.instance.allowed_playbooks or ())}
            choices = [(name, name) for name in sorted(names)]
            self.fields["allowed_playbooks"].choices = choices  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        """Every type, and every playbook, is stored as null."""
        values = super().clean() or {}
        for switch, name in (("every_type", "allowed_types"), ("every_playbook", "allowed_playbooks")):
            if values.get(switch):
                values[name] = None
        return values


@admin.register(Organization)
class OrganizationAdmin(OrganizationScopedAdmin):
    """Made and deleted by superusers, changed by their administrators."""

    organization_lookup = "pk"
    form = OrganizationForm
    inlines = (MembershipInline,)
    list_display = ("name", "is_active", "device_count", "types")
    list_filter = ("is_active",)
    ordering = ("name", "pk")  # a counting query does not take the model's own
    search_fields = ("name",)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """The switch stands for a stored null, so those who may only look see the outcome instead."""
        shown: tuple[str, ...] = ("every_type", "allowed_types", "every_playbook", "allowed_playbooks")
        if obj is not None and not self.has_change_permission(request, obj):
            shown = ("types", "playbooks")
        about = ("name", "is_active", "keep_days", "secret_folder")
        return ((None, {"fields": about}), ("Commands on its devices", {"fields": shown}))

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """See ``get_fieldsets``; superusers alone say which secrets an organization may refer to."""
        shown = () if obj is None or self.has_change_permission(request, obj) else ("types", "playbooks")
        return shown if access_of(request).everything else (*shown, "secret_folder")

    def get_queryset(self, request: HttpRequest) -> Any:
        """With the number of devices."""
        return super().get_queryset(request).annotate(devices_total=Count("devices"))

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Superusers."""
        return access_of(request).everything

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Superusers."""
        return access_of(request).everything

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Organizations in which a run goes on are protected."""
        rows = list(objs)
        shown, counted, lacking, _ = super().get_deleted_objects(rows, request)
        return shown, counted, lacking, [f"{row} (a run goes on there)" for row in actions.busy_organizations(rows)]

    def delete_model(self, request: HttpRequest, obj: Organization) -> None:
        """As the API does."""
        actions.delete_organization(actor=cast("User", request.user), organization=obj)

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        """One after the other."""
        for row in queryset:
            self.delete_model(request, row)

    def consequences(self, rows: list[Any]) -> dict[str, int]:
        """With all that is theirs."""
        models: tuple[Any, ...] = (Device, DeviceGroup, Location, Credential, MassCommand, Command)
        owned = {
            str(model._meta.verbose_name_plural): model.objects.filter(organization__in=rows).count()
            for model in models
        }
        return super().consequences(rows) | owned

    @admin.display(description="devices", ordering="devices_total")
    def device_count(self, row: Any) -> int:
        """How many it has."""
        return int(row.devices_total)

    @admin.display(description="allowed types")
    def types(self, row: Organization) -> str:
        """Which command types may run on its devices."""
        if row.allowed_types is None:
            return "all"
        return ", ".join(str(CommandType(name).label) for name in row.allowed_types) or "none"

    @admin.display(description="allowed playbooks")
    def playbooks(self, row: Organization) -> str:
        """Which playbooks may run on its devices."""
        return "all" if row.allowed_playbooks is None else ", ".join(row.allowed_playbooks) or "none"


class PartAdmin(RunAction, OrganizationScopedAdmin):
    """A location or a group."""

    form = OwnedForm
    fields = ("organization", "name")
    list_display = ("name", "organization", "device_count")
    list_filter = (("organization", VisibleFilter),)
    list_select_related = ("organization",)
    search_fields = ("name",)
    ordering = ("name", "pk")  # a counting query does not take the model's own
    actions = ("run_on_these",)

    def get_queryset(self, request: HttpRequest) -> Any:
        """With the number of devices."""
        return super().get_queryset(request).annotate(devices_total=Count("devices"))

    def get_list_filter(self, request: HttpRequest) -> Any:
        """Only whoever sees several organizations has to tell them apart."""
        return self.list_filter if access_of(request).spans_several() else ()

    @admin.display(description="devices", ordering="devices_total")
    def device_count(self, row: Any) -> int:
        """How many it has."""
        return int(row.devices_total)


@admin.register(Location)
class LocationAdmin(PartAdmin):
    """Places."""

    target_field = "location"


@admin.register(DeviceGroup)
class DeviceGroupAdmin(PartAdmin):
    """Groups."""

    target_field = "group"
