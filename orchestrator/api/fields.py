"""Serializers and fields that take nothing silently: no unknown field, no text for a boolean, no foreign row."""

import re
import unicodedata
import uuid
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from rest_framework import serializers
from rest_framework.relations import MANY_RELATION_KWARGS

from orchestrator.api.permissions import access_of

# RFC 9562 section 4; uuid.UUID() alone would also take "{…}", "urn:uuid:…" and numbers.
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z", re.IGNORECASE)
_NAMED: Final = 20  # unknown fields told at once
_BREAKING: Final = frozenset({"Cc", "Zl", "Zp"})  # control characters, line and paragraph separators

_MOST_ROWS: Final = 32  # credentials of one device


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
    return {name: ["Unknown field."] for name in names[:_NAMED]}


class ShortListField(serializers.ListField):
    """A list of at most ``max_length`` items.

    DRF's own looks at each item before it counts them: a small body with a million wrong ones would cost a gigabyte.
    """

    def __init__(self, *, max_length: int, **options: Any) -> None:
        super().__init__(max_length=max_length, **options)

    def to_internal_value(self, data: Any) -> list[Any]:
        """The values.

        Raises:
            ValidationError: it is no list, is too long, or an item is not valid.
        """
        if isinstance(data, list) and len(data) > (self.max_length or 0):
            raise serializers.ValidationError(f"Give at most {self.max_length} items.")
        return super().to_internal_value(data)


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


class LineField(TextField):
    """A text of one line, such as a name: it stands in tables, logs and exports."""

    def to_internal_value(self, data: Any) -> str:
        """The value.

        Raises:
            ValidationError: it holds a line break or another control character.
        """
        value = super().to_internal_value(data)
        if any(unicodedata.category(character) in _BREAKING for character in value):
            raise serializers.ValidationError("Enter one line without control characters.")
        return value


class WholeNumberField(serializers.IntegerField):
    """A JSON number without a fraction: DRF's own would take "22" and 22.0 for one."""

    def to_internal_value(self, data: Any) -> int:
        """The value.

        Raises:
            ValidationError: it is no JSON integer.
        """
        if not isinstance(data, int) or isinstance(data, bool):
            self.fail("invalid")
        return data


class IdField(serializers.UUIDField):
    """A UUID in its usual spelling."""

    def to_internal_value(self, data: Any) -> uuid.UUID:
        """The value.

        Raises:
            ValidationError: it is none.
        """
        if not isinstance(data, str) or not _UUID.match(data):
            self.fail("invalid", value=data)
        return uuid.UUID(data)


class WordField(serializers.ChoiceField):
    """One of some words: DRF's own would look a number or a list up by its text."""

    def to_internal_value(self, data: Any) -> Any:
        """The value.

        Raises:
            ValidationError: it is no text, or none of the words.
        """
        if not isinstance(data, str):
            raise serializers.ValidationError("Not a valid string.")
        return super().to_internal_value(data)


class RowsField(serializers.ManyRelatedField):
    """A JSON list of some rows: DRF's own would take an object for one, and ask the database for each of thousands."""

    def to_internal_value(self, data: Any) -> list[Any]:
        """The rows.

        Raises:
            ValidationError: it is no list, a long one, or one of the rows does not exist for the user.
        """
        if not isinstance(data, list):
            self.fail("not_a_list", input_type=type(data).__name__)
        if len(data) > _MOST_ROWS:
            raise serializers.ValidationError(f"Name at most {_MOST_ROWS}.")
        return list(super().to_internal_value(data))


class VisibleRelatedField(serializers.PrimaryKeyRelatedField[Any]):
    """A row that exists for the user; another organization's does not."""

    list_field: ClassVar[type[RowsField]] = RowsField

    def __init__(self, *, organization: str = "organization", **options: Any) -> None:
        self.organization = organization
        super().__init__(pk_field=IdField(), **options)

    @classmethod
    def many_init(cls, *args: Any, **kwargs: Any) -> serializers.ManyRelatedField:
        """A list of such rows."""
        of_the_list = {name: value for name, value in kwargs.items() if name in MANY_RELATION_KWARGS}
        return cls.list_field(child_relation=cls(*args, **kwargs), **of_the_list)

    def get_queryset(self) -> Any:
        """Only rows that the user may see."""
        rows = super().get_queryset()
        if rows is None or "request" not in self.context:
            return rows
        return access_of(self.context["request"]).visible(rows, organization=self.organization)
