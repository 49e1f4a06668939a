"""Saved target sets: the filter as a form."""

from typing import Any, Final

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from unfold.widgets import (
    UnfoldAdminSelectMultipleWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
)

from orchestrator.access import Access, Right
from orchestrator.admin.scoped import OrganizationScopedAdmin, OwnedForm, VisibleFilter, access_of
from orchestrator.admin.tags import TagsField
from orchestrator.exceptions import InvalidFieldError, NotPermittedError
from orchestrator.models import Device, DeviceGroup, Location, Organization, Platform, SavedTargets
from orchestrator.targeting import TargetFilter, check_saved

_PLACES: Final[dict[str, Any]] = {"group": DeviceGroup, "location": Location}


class NamesField(forms.CharField):
    """Devices by name, one a line; the form turns the names into devices of its organization."""

    def __init__(self, **options: Any) -> None:
        super().__init__(required=False, widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}), **options)

    def to_python(self, value: Any) -> Any:
        """The lines as a list."""
        return list(dict.fromkeys(filter(None, (line.strip() for line in str(value or "").splitlines()))))


def _place(model: Any) -> "forms.ModelChoiceField[Any]":
    widget = UnfoldAdminSelectWidget()
    return forms.ModelChoiceField(model.objects.none(), required=False, empty_label="Any", widget=widget)


class SavedTargetsForm(OwnedForm):
    """All fields of the filter; those left blank are no part of it."""

    everything = forms.BooleanField(
        required=False, label="All devices of the organization", help_text="Unless something below says less."
    )
    group = _place(DeviceGroup)
    location = _place(Location)
    platform = forms.ChoiceField(
        choices=(("", "Any"), *Platform.choices), required=False, widget=UnfoldAdminSelectWidget()
    )
    device_name = forms.CharField(
        max_length=128, required=False, widget=UnfoldAdminTextInputWidget(),
        help_text="The whole name, in any case: * is any text, ? is one character.",
    )  # fmt: skip
    tags = TagsField()
    devices = NamesField(label="Only these devices", help_text="Names, one a line.")
    exclude_devices = NamesField(label="Never these devices", help_text="Names, one a line.")
    exclude_groups = forms.ModelMultipleChoiceField(
        DeviceGroup.objects.none(), required=False, label="Never these groups",
        widget=UnfoldAdminSelectMultipleWidget(),
    )  # fmt: skip

    access = Access()  # of who looks at the form; set by the page

    class Meta:
        model = SavedTargets
        fields = ("organization", "name")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        filter_ = TargetFilter.from_json(self.instance.targets)
        for name, model in (*_PLACES.items(), ("exclude_groups", DeviceGroup)):
            field: Any = self.fields.get(name)
            if field is not None:  # not for those who may only look
                field.queryset = self._offered(model)
                self.initial[name] = getattr(filter_, name)
        self.initial.update(
            platform=filter_.platform, device_name=filter_.name, tags=list(filter_.tags),
            everything=filter_.organization is not None,
        )  # fmt: skip
        for name in ("devices", "exclude_devices"):
            self.initial[name] = "\n".join(
                Device.objects.filter(pk__in=getattr(filter_, name) or ()).values_list("name", flat=True)
            )

    def _offered(self, model: Any) -> Any:
        rows = self.access.visible(model.objects.select_related("organization"))
        known = self.instance.organization_id
        return rows.filter(organization=known) if known else rows

    def clean(self) -> dict[str, Any]:
        """As the API does."""
        values = super().clean() or {}
        organization: Organization | None = values.get("organization") or getattr(self.instance, "organization", None)
        if self.errors or organization is None:
            return values
        targets = TargetFilter(
            group=getattr(values["group"], "pk", None), location=getattr(values["location"], "pk", None),
            organization=organization.pk if values["everything"] else None,
            platform=values["platform"], name=values["device_name"], tags=tuple(values["tags"]),
            devices=self._named("devices", organization) or None,
            exclude_devices=self._named("exclude_devices", organization),
            exclude_groups=tuple(row.pk for row in values["exclude_groups"]),
        )  # fmt: skip
        if self.errors:
            return values
        try:
            check_saved(targets, organization=organization, access=self.access)
        except InvalidFieldError as error:
            field = {"name": "device_name", "exclude": "exclude_groups"}.get(error.field, error.field)
            self.add_error(field if field in self.fields else None, str(error.message))
        except NotPermittedError as error:
            self.add_error("organization", error.detail)
        self.instance.targets = targets.as_json()
        return values

    def _named(self, field: str, organization: Organization) -> tuple[Any, ...]:
        """The devices of these names."""
        names = self.cleaned_data[field]
        found = dict(Device.objects.filter(organization=organization, name__in=names).values_list("name", "pk"))
        if missing := [name for name in names if name not in found]:
            self.add_error(field, f"The organization has no such device: {', '.join(missing[:5])}.")
        return tuple(found.values())


@admin.register(SavedTargets)
class SavedTargetsAdmin(OrganizationScopedAdmin):
    """Saved target sets, for whoever may run commands in their organization."""

    form = SavedTargetsForm
    list_display = ("name", "organization", "modified")
    list_filter = (("organization", VisibleFilter),)
    list_select_related = ("organization",)
    search_fields = ("name",)
    readonly_fields = ("meaning",)

    @admin.display(description="filter")
    def meaning(self, row: SavedTargets) -> str:
        """The filter in words."""
        return "; ".join(_words(TargetFilter.from_json(row.targets))) or "all devices of the organization"

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """A form that offers what exists for the user."""
        made: Any = super().get_form(request, obj, change, **kwargs)
        return type(made.__name__, (made,), {"access": access_of(request)})

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """The form; only what it says for those who may only look."""
        if obj is not None and not self.has_change_permission(request, obj):
            return ("organization", "name", "meaning")
        return (
            "organization", "name", "everything", "group", "location", "platform", "device_name", "tags", "devices",
            "exclude_devices", "exclude_groups",
        )  # fmt: skip

    def get_list_filter(self, request: HttpRequest) -> Any:
        """Only whoever sees several organizations has to tell them apart."""
        return self.list_filter if access_of(request).spans_several() else ()

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Operators too."""
        return access_of(request).can_anywhere(Right.RUN)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Operators too."""
        return self._may(Right.RUN, request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Operators too."""
        return self._may(Right.RUN, request, obj)

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Organizations in which the user may run commands."""
        allowed = access_of(request).visible(Organization.objects.all(), organization="pk", right=Right.RUN)
        return super().formfield_for_foreignkey(db_field, request, **kwargs | {"queryset": allowed})


def _words(targets: TargetFilter) -> list[str]:
    """A line for each part of the filter."""
    lines = [f"{name}: {value}" for name in ("platform", "name") if (value := getattr(targets, name))]
    lines += [f"tags: {', '.join(targets.tags)}"] if targets.tags else []
    for name, model in _PLACES.items():
        lines += [f"{name}: {row}" for row in model._default_manager.filter(pk=getattr(targets, name))]
    spared = DeviceGroup.objects.filter(pk__in=targets.exclude_groups)
    lines += [f"never group: {row}" for row in spared]
    lines += [f"only {len(targets.devices)} devices"] if targets.devices else []
    return lines + ([f"never {len(targets.exclude_devices)} devices"] if targets.exclude_devices else [])
