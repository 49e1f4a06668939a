"""Serializers and fields that take nothing silently: no unknown field, no text for a boolean, no foreign row."""

from collections.abc import Mapping
from typing import Any

from rest_framework import serializers

from orchestrator.access import Access


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses fields that it doesn't know; its own read-only fields may be sent back and are ignored."""

    def to_internal_value(self, data: Any) -> Any:
        """The validated values.

        Raises:
            ValidationError: some field is unknown or not valid.
        """
        unknown: list[str] = []
        if isinstance(data, Mapping):
            unknown = [str(name) for name in data if name not in self.fields]
        try:
            values = super().to_internal_value(data)
        except serializers.ValidationError as error:
            if unknown and isinstance(error.detail, dict):
                raise serializers.ValidationError({**_unknown(unknown), **error.detail}) from error
            raise
        if unknown:
            raise serializers.ValidationError(_unknown(unknown))
        return values


def _unknown(names: list[str]) -> dict[str, list[str]]:
    return {_printable(name): ["Unknown field."] for name in names}


def _printable(name: str) -> str:
    return name.encode(errors="replace").decode()[:100]


class StrictBooleanField(serializers.BooleanField):
    """``true`` or ``false``: a text such as "no" must never widen a run to all devices."""

    def to_internal_value(self, data: Any) -> bool:
        """The value.

        Raises:
            ValidationError: it is no JSON boolean.
        """
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class TextField(serializers.CharField):
    """A text: DRF's own would take a number for one."""

    def to_internal_value(self, data: Any) -> str:
        """The value.

        Raises:
            ValidationError: it is no JSON string.
        """
        if not isinstance(data, str):
            self.fail("invalid")
        return str(super().to_internal_value(data))


class VisibleRelatedField(serializers.PrimaryKeyRelatedField[Any]):
    """A row that exists for the user; another organization's does not."""

    def __init__(self, *, organization: str = "organization", **options: Any) -> None:
        self.organization = organization
        super().__init__(pk_field=serializers.UUIDField(), **options)

    def get_queryset(self) -> Any:
        """Only rows that the user may see."""
        rows = super().get_queryset()
        if rows is None or "request" not in self.context:
            return rows
        return Access.of(self.context["request"].user).visible(rows, organization=self.organization)
