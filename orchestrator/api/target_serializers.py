"""The target filter in JSON: the same for previews, launches and schedules."""

from collections.abc import Mapping
from typing import Any, Final

from orchestrator.api.fields import IdField, LineField, ShortListField, StrictBooleanField, StrictSerializer, WordField
from orchestrator.models import Platform
from orchestrator.targeting import MAX_PICKED, TargetFilter

_MOST_GROUPS: Final = 1_000
_MOST_TAGS: Final = 64
_NAMED: Final = ("organization", "group", "location", "saved")


class ExcludeSerializer(StrictSerializer):
    """What is never a target, whatever else holds."""

    devices = ShortListField(child=IdField(), required=False, allow_null=True, max_length=MAX_PICKED)
    groups = ShortListField(child=IdField(), required=False, allow_null=True, max_length=_MOST_GROUPS)


class TargetsSerializer(StrictSerializer):
    """The target filter: all that is given must hold; ``devices`` are taken as given."""

    organization = IdField(required=False, allow_null=True)
    group = IdField(required=False, allow_null=True)
    location = IdField(required=False, allow_null=True)
    saved: Any = IdField(required=False, allow_null=True, help_text="A saved target set; it means what it means now.")
    devices = ShortListField(
        child=IdField(), required=False, allow_null=True, max_length=MAX_PICKED,
        help_text="Picked devices. An empty list is an error, never all devices.",
    )  # fmt: skip
    all_devices = StrictBooleanField(required=False, default=False, help_text="The whole system; superusers only.")
    platform = WordField(choices=Platform.choices, required=False, allow_null=True)
    name: Any = LineField(
        max_length=128, required=False, allow_null=True,
        help_text="A pattern for the whole name, in any case: * is any text, ? is one character.",
    )  # fmt: skip
    tags = ShortListField(
        child=LineField(max_length=64), required=False, allow_null=True, allow_empty=False, max_length=_MOST_TAGS,
        help_text="A device must have all of them.",
    )  # fmt: skip
    exclude = ExcludeSerializer(required=False, allow_null=True)

    def target_filter(self) -> TargetFilter:
        """The filter, once the data was found valid."""
        return filter_of(self.validated_data)


def filter_of(values: Mapping[str, Any]) -> TargetFilter:
    """The filter of data that was found valid."""
    given = {name: values.get(name) for name in _NAMED}
    devices, excluded = values.get("devices"), values.get("exclude") or {}
    return TargetFilter(
        **given,
        all_devices=values.get("all_devices", False),
        devices=None if devices is None else tuple(devices),
        platform=values.get("platform") or "",
        name=values.get("name") or "",
        tags=tuple(values.get("tags") or ()),
        exclude_devices=tuple(excluded.get("devices") or ()),
        exclude_groups=tuple(excluded.get("groups") or ()),
    )
