"""Devices: their logins in order, their pinned host keys, and what can be done to many of them at once."""

from typing import Any, Final

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from unfold.decorators import display

from orchestrator import audit
from orchestrator.access import Right
from orchestrator.admin.contact import contact_of, with_last
from orchestrator.admin.device_filters import LastResultFilter, LoginFilter, PinnedFilter, SeenFilter
from orchestrator.admin.device_import import import_view
from orchestrator.admin.enrolment import EnrolmentPages
from orchestrator.admin.labels import COMMAND_LABELS, local_time
from orchestrator.admin.running import RunAction
from orchestrator.admin.scoped import (
    OrganizationScopedAdmin,
    RowForm,
    RowFormSet,
    UnfoldInline,
    VisibleFilter,
    access_of,
    log_changes,
)
from orchestrator.admin.tags import TagsField
from orchestrator.models import AuditAction, Device, DeviceCredential

_STATES: Final = {"none": "not enrolled", "pinned": "pinned", "changed": "changed"}
_STATE_LABELS: Final = {"none": "info", "pinned": "success", "changed": "danger"}


class DeviceForm(RowForm):
    """A device."""

    tags = TagsField()

    class Meta:
        model = Device
        fields = (
            "organization", "name", "group", "location", "host", "port", "platform", "is_active", "tags", "host_key",
        )  # fmt: skip

    def save(self, commit: bool = True) -> Any:
        """A key that was seen is compared with what is pinned now."""
        if "host_key" in self.changed_data:
            self.instance.shown_key, self.instance.key_changed = "", None
        return super().save(commit)


class CredentialFormSet(RowFormSet):
    """The logins of a device, of its own organization."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        for name in ("request", "per_page", "count", "count_variant", "provided_queryset"):
            kwargs.pop(name, None)  # unfold's, for pages within a form
        super().__init__(*args, **kwargs)

    def clean(self) -> None:
        """No login of another organization: its secrets would be sent to a stranger's device."""
        super().clean()
        for form in self.forms:
            credential = getattr(form, "cleaned_data", {}).get("credential")
            if credential is not None and credential.organization_id != self.instance.organization_id:
                raise ValidationError("A credential belongs to another organization than the device.")


class DeviceCredentialInline(UnfoldInline):
    """Credentials in the order in which they are tried."""

    model = DeviceCredential
    formset = CredentialFormSet
    fields = ("position", "credential")
    ordering = ("position",)
    autocomplete_fields = ("credential",)
    extra = 0
    verbose_name_plural = "credentials, tried in the order of their position"

    def _may(self, right: Right, request: HttpRequest, obj: Any) -> bool:
        access = access_of(request)
        return access.can_anywhere(right) if obj is None else access.can(right, obj.organization_id)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """As for the device."""
        return self._may(Right.VIEW, request, obj)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """As for the device."""
        return self._may(Right.MANAGE, request, obj)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """As for the device."""
        return self._may(Right.MANAGE, request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """As for the device."""
        return self._may(Right.MANAGE, request, obj)

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Credentials that exist for the user."""
        model = db_field.remote_field.model
        kwargs["queryset"] = access_of(request).visible(model.objects.all())
        return super().formfield_for_foreignkey(db_field, request, **kwargs)


@admin.register(Device)
class DeviceAdmin(EnrolmentPages, RunAction, OrganizationScopedAdmin):
    """Devices."""

    form = DeviceForm
    inlines = (DeviceCredentialInline,)
    list_display = (
        "name", "organization", "group", "location", "address", "platform", "words", "is_active", "key",
        "last", "seen",
    )  # fmt: skip
    list_filter = (
        ("organization", VisibleFilter), ("group", VisibleFilter), ("location", VisibleFilter),
        "platform", "is_active", PinnedFilter, LoginFilter, LastResultFilter, SeenFilter,
    )  # fmt: skip
    list_select_related = ("organization", "group", "location")
    search_fields = ("name", "host", "tags")
    search_help_text = "Name, host or tag"
    autocomplete_fields = ("group", "location")
    readonly_fields = ("fingerprints", "standing")
    list_before_template = "orchestrator/device_list_tools.html"
    change_form_outer_before_template = "orchestrator/device_tools.html"
    actions = (
        "run_on_these", "test_these", "activate", "deactivate", "scan_these", "accept_these",
    )  # fmt: skip
    fieldsets = (
        (None, {"fields": ("name", "organization", "group", "location", "is_active", "tags", "standing")}),
        ("How to reach it", {"fields": (("host", "port"), "platform")}),
        ("Host key", {"fields": ("fingerprints", "host_key")}),
    )

    def get_queryset(self, request: HttpRequest) -> Any:
        """With the last result and the last contact, where the user may see them."""
        return with_last(super().get_queryset(request))

    def get_urls(self) -> list[URLPattern]:
        """The page to enrol a device, before Django's own addresses."""
        contact = self.admin_site.admin_view(self.contact_view)
        return [
            path("import/", self.admin_site.admin_view(import_view), name="orchestrator_device_import"),
            path("contact/", contact, name="orchestrator_device_contact"),
            *self.enrolment_addresses(),
            *super().get_urls(),
        ]

    def contact_view(self, request: HttpRequest) -> HttpResponse:
        """Devices by last result and last contact: their whole history is looked at, so the dashboard asks later."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        context: dict[str, Any] = {"contact": contact_of(access_of(request).visible(Device.objects.all()))}
        if "fragment" in request.GET:
            return TemplateResponse(request, "orchestrator/contact.html", context)
        context |= {**self.admin_site.each_context(request), "title": "How the devices stand"}
        return TemplateResponse(request, "orchestrator/contact_page.html", context)

    @admin.display(description="address", ordering="host")
    def address(self, device: Device) -> str:
        """Host and port."""
        host = f"[{device.host}]" if ":" in device.host else device.host
        return f"{host}:{device.port}"

    @display(description="host key", label=_STATE_LABELS, ordering="key_changed")  # type: ignore[untyped-decorator]
    def key(self, device: Device) -> tuple[str, str]:
        """Whether its host key is pinned, and whether it shows that one."""
        return device.host_key_state, _STATES[device.host_key_state]

    @display(description="last result", label=COMMAND_LABELS, ordering="last_status")  # type: ignore[untyped-decorator]
    def last(self, device: Any) -> str:
        """The status of its last command."""
        return device.last_status or ""

    @admin.display(description="last seen", ordering="last_seen", empty_value="never")
    def seen(self, device: Any) -> str | None:
        """When it was last logged in to."""
        return local_time(device.last_seen) if device.last_seen else None

    @admin.display(description="tags")
    def words(self, device: Device) -> str:
        """Its tags."""
        return ", ".join(device.tags)

    @admin.display(description="Last command")
    def standing(self, device: Any) -> str:
        """What became of its last command, and why."""
        row = device.commands.filter(organization=device.organization_id).order_by("-created").first()
        if row is None:
            return "None yet. Test the connection: it proves that address, host key and credential are right."
        address = reverse("admin:orchestrator_command_change", args=[row.pk])
        return format_html(
            '<a class="o-link" href="{}">{}: {}</a> {} {}',
            address, row.get_type_display(), row.get_status_display(), local_time(row.finished or row.created),
            row.reason,
        )  # fmt: skip

    @admin.display(description="Fingerprint")
    def fingerprints(self, device: Device) -> str:
        """Of the pinned key, as ssh-keygen shows it."""
        if not device.fingerprint:
            return "None: the device can't be reached until it is enrolled."
        pinned = format_html('<span class="o-mono o-wrap">{}</span>', device.fingerprint)
        if not device.key_changed:
            return pinned
        return format_html(
            '{}<p class="o-alert o-alert-danger">Since {} it shows another one: <span class="o-mono o-wrap">{}</span> '
            'Either it was set up anew, or somebody else answers at its address. <a class="o-link" href="{}">Look at '
            "it</a></p>",
            pinned, local_time(device.key_changed),
            device.shown_fingerprint or "unknown", reverse("admin:orchestrator_device_enrol", args=[device.pk]),
        )  # fmt: skip

    @admin.action(description="Activate", permissions=["manage"])
    def activate(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Let commands run on these devices again."""
        self._set_active(request, queryset, active=True)

    @admin.action(description="Deactivate", permissions=["manage"])
    def deactivate(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Let no command run on these devices."""
        self._set_active(request, queryset, active=False)

    def _set_active(self, request: HttpRequest, rows: QuerySet[Any], *, active: bool) -> None:
        own = self.manageable(request, rows)
        foreign = rows.count() - own.count()
        word = "activated" if active else "deactivated"
        changing = Device.objects.filter(pk__in=list(own.exclude(is_active=active).values_list("pk", flat=True)))
        actor: Any = request.user
        with transaction.atomic():
            log_changes(request, changing, f"{word.capitalize()}.")
            details = {"changes": {"is_active": [not active, active]}}
            rows_changed = changing.select_related("organization")
            audit.record_each(AuditAction.DEVICE_CHANGE, actor=actor, rows=rows_changed, details=details)
            changed = changing.update(is_active=active, modified=timezone.now())
        messages.success(request, f"{changed:,} of {own.count() :,} devices {word}; the others were so already."
                         if changed != own.count() else f"{changed:,} devices {word}.")  # fmt: skip
        if foreign:
            messages.warning(request, f"{foreign:,} devices were left alone: you don't administrate them.")
