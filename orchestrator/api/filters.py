"""Query parameters of the lists.  One that a list doesn't know is refused: a misspelt filter must not show all rows."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import django_filters as filters
from django import forms
from django_filters.fields import IsoDateTimeField
from django_filters.rest_framework import DjangoFilterBackend
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.settings import api_settings
from rest_framework.views import APIView

from orchestrator.access import Role
from orchestrator.models import (
    AuditAction,
    AuditEntry,
    Command,
    CommandType,
    Credential,
    DeliveryStatus,
    Device,
    MassCommand,
    Membership,
    Platform,
    Playbook,
    PlaybookStatus,
    SavedTargets,
    Schedule,
    TaskResult,
    TaskStatus,
    User,
    Webhook,
    WebhookDelivery,
    WebhookEvent,
)
from orchestrator.origin import Door
from orchestrator.states import CommandStatus, RunStatus

_BOOLEANS: Final = {"true": True, "false": False}


def refuse_parameters(request: Request, *known: str) -> None:
    """For all but lists: who sends ``?dry_run=true`` must not learn by surprise that there is none.

    Raises:
        ValidationError: the address has a parameter that is not known there.
    """
    taken = {*known, str(api_settings.URL_FORMAT_OVERRIDE)}
    if unknown := sorted(set(request.query_params) - taken):
        there = f" There are: {', '.join(sorted(known))}." if known else " This address has none."
        raise ValidationError({name: [f"Unknown parameter.{there}"] for name in unknown})


class StrictFilterBackend(DjangoFilterBackend):  # type: ignore[misc]
    """Filters lists, and only lists; refuses parameters that the list doesn't have."""

    def filter_queryset(self, request: Request, queryset: Any, view: APIView) -> Any:
        """The rows that the parameters ask for.

        Raises:
            ValidationError: a parameter is unknown, or its value is not valid.
        """
        if "pk" in view.kwargs and getattr(view, "detail", False):  # one row, found by its id alone
            refuse_parameters(request)
            return queryset
        known = set(self._parameters(view, queryset))
        unknown = {name for name in request.query_params if name not in known}
        if unknown:
            raise ValidationError(
                {name: [f"Unknown parameter. There are: {', '.join(sorted(known))}."] for name in sorted(unknown)}
            )
        return super().filter_queryset(request, queryset, view)

    def _parameters(self, view: Any, queryset: Any) -> Iterator[str]:
        if pages := view.paginator:
            yield from (pages.page_query_param, pages.page_size_query_param)
        if api_settings.URL_FORMAT_OVERRIDE:
            yield api_settings.URL_FORMAT_OVERRIDE
        if filterset := self.get_filterset_class(view, queryset):
            yield from filterset.base_filters


class _MomentField(IsoDateTimeField):  # type: ignore[misc]
    def to_python(self, value: Any) -> datetime | None:
        """The moment in UTC: databases can't hold one that falls off the calendar there."""
        moment: datetime | None = super().to_python(value)
        try:
            return moment and moment.astimezone(UTC)
        except OverflowError as error:
            raise forms.ValidationError(self.error_messages["invalid"], code="invalid") from error


class MomentFilter(filters.IsoDateTimeFilter):  # type: ignore[misc]
    """A moment in ISO 8601, of UTC unless it says otherwise."""

    field_class = _MomentField


class _FlagField(forms.Field):
    def to_python(self, value: Any) -> bool | None:
        """DRF-like booleans would read any other word as "not given"."""
        if value in self.empty_values:
            return None
        try:
            return _BOOLEANS[str(value).lower()]
        except KeyError as error:
            raise forms.ValidationError('Enter "true" or "false".', code="invalid") from error


class FlagFilter(filters.BooleanFilter):  # type: ignore[misc]
    """``true`` or ``false``."""

    field_class = _FlagField

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, widget=forms.TextInput, **kwargs)


class MassCommandFilter(filters.FilterSet):  # type: ignore[misc]
    """``?status=running&status=queued&type=reboot&organization=…&created_after=…&created_before=…``."""

    status = filters.MultipleChoiceFilter(choices=RunStatus.choices)
    type = filters.MultipleChoiceFilter(choices=CommandType.choices)
    organization = filters.UUIDFilter()
    group = filters.UUIDFilter()
    location = filters.UUIDFilter()
    created_after = MomentFilter(field_name="created", lookup_expr="gte")
    created_before = MomentFilter(field_name="created", lookup_expr="lte")
    label = filters.CharFilter(lookup_expr="icontains")
    playbook = filters.CharFilter()

    class Meta:
        model = MassCommand
        fields: tuple[str, ...] = ()


class CommandFilter(filters.FilterSet):  # type: ignore[misc]
    """``?status=failed&device_name=ap-1``."""

    status = filters.MultipleChoiceFilter(choices=CommandStatus.choices)
    device = filters.UUIDFilter()
    device_name = filters.CharFilter(lookup_expr="icontains")

    class Meta:
        model = Command
        fields: tuple[str, ...] = ()


class TaskResultFilter(filters.FilterSet):  # type: ignore[misc]
    """``?status=failed&status=changed&task=install``."""

    status = filters.MultipleChoiceFilter(choices=TaskStatus.choices)
    task = filters.CharFilter(lookup_expr="icontains")

    class Meta:
        model = TaskResult
        fields: tuple[str, ...] = ()


class DeviceCommandFilter(filters.FilterSet):  # type: ignore[misc]
    """``?status=failed&type=custom``."""

    status = filters.MultipleChoiceFilter(choices=CommandStatus.choices)
    type = filters.MultipleChoiceFilter(choices=CommandType.choices)

    class Meta:
        model = Command
        fields: tuple[str, ...] = ()


class NamedFilter(filters.FilterSet):  # type: ignore[misc]
    """``?name=north``."""

    name = filters.CharFilter(lookup_expr="icontains")


class PlaybookFilter(NamedFilter):
    """``?name=site&status=broken``."""

    status = filters.MultipleChoiceFilter(choices=PlaybookStatus.choices)

    class Meta:
        model = Playbook
        fields: tuple[str, ...] = ()


class OwnedFilter(NamedFilter):
    """``?organization=…&name=north``."""

    organization = filters.UUIDFilter()


class CredentialFilter(OwnedFilter):
    """``?username=root`` as well."""

    username = filters.CharFilter()

    class Meta:
        model = Credential
        fields: tuple[str, ...] = ()


class DeviceFilter(OwnedFilter):
    """``?group=…&location=…&platform=openwrt&is_active=true&enrolled=false&host_key_state=changed``."""

    group = filters.UUIDFilter()
    location = filters.UUIDFilter()
    platform = filters.ChoiceFilter(choices=Platform.choices)
    is_active = FlagFilter()
    host = filters.CharFilter()
    host_key_state = filters.ChoiceFilter(
        choices=[(word, word) for word in ("none", "pinned", "changed")], method="by_host_key_state"
    )
    enrolled = FlagFilter(method="by_enrolled", help_text="Whether a host key is pinned.")

    class Meta:
        model = Device
        fields: tuple[str, ...] = ()

    def by_host_key_state(self, rows: Any, name: str, value: str) -> Any:
        """Devices without a pinned key, with one, or that did not show it."""
        if value == "none":
            return rows.filter(host_key="")
        return rows.exclude(host_key="").filter(key_changed__isnull=value == "pinned")

    def by_enrolled(self, rows: Any, name: str, value: bool) -> Any:
        """Devices with, or without, a pinned host key."""
        return rows.exclude(host_key="") if value else rows.filter(host_key="")


class SavedTargetsFilter(OwnedFilter):
    """``?organization=…&name=roof``."""

    class Meta:
        model = SavedTargets
        fields: tuple[str, ...] = ()


class ScheduleFilter(OwnedFilter):
    """``?organization=…&name=nightly&type=custom&enabled=true``."""

    type = filters.MultipleChoiceFilter(choices=CommandType.choices)
    enabled = FlagFilter()

    class Meta:
        model = Schedule
        fields: tuple[str, ...] = ()


class WebhookFilter(OwnedFilter):
    """``?organization=…&name=chat&enabled=true``."""

    enabled = FlagFilter()

    class Meta:
        model = Webhook
        fields: tuple[str, ...] = ()


class WebhookDeliveryFilter(filters.FilterSet):  # type: ignore[misc]
    """``?webhook=…&run=…&status=failed&event=run.finished``."""

    webhook = filters.UUIDFilter()
    run = filters.UUIDFilter(field_name="mass_command")
    status = filters.MultipleChoiceFilter(choices=DeliveryStatus.choices)
    event = filters.MultipleChoiceFilter(choices=WebhookEvent.choices)

    class Meta:
        model = WebhookDelivery
        fields: tuple[str, ...] = ()


class AuditFilter(filters.FilterSet):  # type: ignore[misc]
    """``?action=run.launch&action=run.cancel&actor_name=jo&object=…&at_after=…&at_before=…``."""

    action = filters.MultipleChoiceFilter(choices=AuditAction.choices)
    organization = filters.UUIDFilter(field_name="organization_id")
    actor = filters.UUIDFilter(field_name="actor_id")
    actor_name = filters.CharFilter(lookup_expr="icontains")
    object_type = filters.CharFilter()
    object = filters.CharFilter(field_name="object_id")
    object_name = filters.CharFilter(lookup_expr="icontains")
    door = filters.MultipleChoiceFilter(choices=[(door.value, door.value) for door in Door])
    address = filters.CharFilter()
    at_after = MomentFilter(field_name="at", lookup_expr="gte")
    at_before = MomentFilter(field_name="at", lookup_expr="lt")

    class Meta:
        model = AuditEntry
        fields: tuple[str, ...] = ()


class MembershipFilter(filters.FilterSet):  # type: ignore[misc]
    """``?organization=…&user=…&role=operator``."""

    organization = filters.UUIDFilter()
    user = filters.UUIDFilter()
    role = filters.MultipleChoiceFilter(choices=Role.choices)

    class Meta:
        model = Membership
        fields: tuple[str, ...] = ()


class UserFilter(filters.FilterSet):  # type: ignore[misc]
    """``?username=jo&is_active=true&is_superuser=false``."""

    username = filters.CharFilter(lookup_expr="icontains")
    is_active = FlagFilter()
    is_superuser = FlagFilter()

    class Meta:
        model = User
        fields: tuple[str, ...] = ()
