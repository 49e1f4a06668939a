"""How the list of devices can be narrowed down, beside its columns."""

from typing import Any

from django.contrib import admin
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.http import HttpRequest

from orchestrator.admin.contact import NEVER, SEEN, seen_within
from orchestrator.admin.labels import BAR_ORDER
from orchestrator.models import DeviceCredential
from orchestrator.states import CommandStatus


class PinnedFilter(admin.SimpleListFilter):
    """Whether the device was enrolled."""

    title = "host key"
    parameter_name = "pinned"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """The answers."""
        return [("yes", "Pinned"), ("no", "Not enrolled yet"), ("changed", "Changed: another one is shown")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """The rows with that answer."""
        if self.value() == "changed":
            return queryset.filter(key_changed__isnull=False)
        if self.value() not in {"yes", "no"}:
            return queryset
        return queryset.filter(~Q(host_key="") if self.value() == "yes" else Q(host_key=""))


class LoginFilter(admin.SimpleListFilter):
    """Whether the device has a credential."""

    title = "credential"
    parameter_name = "login"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """The two answers."""
        return [("yes", "Has one"), ("no", "Has none")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """The rows with that answer."""
        has = Exists(DeviceCredential.objects.filter(device=OuterRef("pk")))
        return queryset.filter({"yes": has, "no": ~has}.get(str(self.value()), Q()))


class LastResultFilter(admin.SimpleListFilter):
    """What became of the last command."""

    title = "last result"
    parameter_name = "last_result"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Each status, and no command at all."""
        return [*((status.value, str(status.label)) for status in BAR_ORDER), (NEVER, "No command yet")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """The rows with that answer."""
        if self.value() == NEVER:
            return queryset.filter(last_status=None)
        return queryset.filter(last_status=self.value()) if self.value() in CommandStatus.values else queryset


class SeenFilter(admin.SimpleListFilter):
    """When the device was last logged in to."""

    title = "last seen"
    parameter_name = "seen"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Each span of time, and never."""
        return [*((name, label) for name, (label, _) in SEEN.items()), (NEVER, "Never")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """The rows with that answer."""
        value = str(self.value())
        return seen_within(queryset, value) if value == NEVER or value in SEEN else queryset
