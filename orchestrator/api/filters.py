"""Query parameters of the lists."""

from typing import Any

import django_filters as filters

from orchestrator.models import Command, CommandType, Credential, Device, MassCommand, Platform
from orchestrator.states import CommandStatus, RunStatus


class MassCommandFilter(filters.FilterSet):
    """``?status=running&status=queued&type=reboot&organization=…&created_after=…&created_before=…``."""

    status = filters.MultipleChoiceFilter(choices=RunStatus.choices)
    type = filters.MultipleChoiceFilter(choices=CommandType.choices)
    organization = filters.UUIDFilter()
    group = filters.UUIDFilter()
    location = filters.UUIDFilter()
    created = filters.IsoDateTimeFromToRangeFilter()
    label = filters.CharFilter(lookup_expr="icontains")

    class Meta:
        model = MassCommand
        fields: tuple[str, ...] = ()


class CommandFilter(filters.FilterSet):
    """``?status=failed&device_name=ap-1``."""

    status = filters.MultipleChoiceFilter(choices=CommandStatus.choices)
    device = filters.UUIDFilter()
    device_name = filters.CharFilter(lookup_expr="icontains")

    class Meta:
        model = Command
        fields: tuple[str, ...] = ()


class DeviceCommandFilter(filters.FilterSet):
    """``?status=failed&type=custom``."""

    status = filters.MultipleChoiceFilter(choices=CommandStatus.choices)
    type = filters.MultipleChoiceFilter(choices=CommandType.choices)

    class Meta:
        model = Command
        fields: tuple[str, ...] = ()


class NamedFilter(filters.FilterSet):
    """``?name=north``."""

    name = filters.CharFilter(lookup_expr="icontains")


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
    """``?group=…&location=…&platform=openwrt&is_active=true&enrolled=false`` as well."""

    group = filters.UUIDFilter()
    location = filters.UUIDFilter()
    platform = filters.ChoiceFilter(choices=Platform.choices)
    is_active = filters.BooleanFilter()
    host = filters.CharFilter()
    enrolled = filters.BooleanFilter(method="by_enrolled", help_text="Whether a host key is pinned.")

    class Meta:
        model = Device
        fields: tuple[str, ...] = ()

    def by_enrolled(self, rows: Any, name: str, value: bool) -> Any:  # noqa: FBT001 - django-filter's signature
        """Devices with, or without, a pinned host key."""
        return rows.exclude(host_key="") if value else rows.filter(host_key="")
