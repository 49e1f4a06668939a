"""How a run is paced and controlled, in JSON.  Each control has an error under its own key."""

import math
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from django.utils import timezone
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from orchestrator.api.fields import (
    IdField,
    LineField,
    ShortListField,
    StrictBooleanField,
    StrictSerializer,
    WholeNumberField,
    WordField,
)
from orchestrator.models import OnConflict
from orchestrator.pacing import Controls
from orchestrator.states import ERRORS, FINISHED, CommandStatus
from orchestrator.targeting import MAX_PICKED

_DAY: Final = 86_400  # seconds
_LONGEST: Final = 30 * _DAY
_FARTHEST: Final = timedelta(days=366)  # how far ahead a run can be planned
_MOST: Final = 1_000_000  # devices
_MOST_TAGS: Final = 64
_PERCENT: Final = r"(100(\.0{1,3})?|[0-9]{1,2}(\.[0-9]{1,3})?)%"
_ZERO: Final = re.compile(r"0{1,2}(\.0{1,3})?%")
_WITH_TIME: Final = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:", re.ASCII)
_RETRIABLE: Final = sorted(FINISHED - {CommandStatus.SUCCESS})


def _amount_schema(minimum: int) -> dict[str, Any]:
    return {
        "oneOf": [
            {"type": "integer", "minimum": minimum, "maximum": _MOST},
            {"type": "string", "pattern": f"^{_PERCENT}$"},
        ],
        "nullable": True,
    }


class AmountField(serializers.Field[Any, Any, Any, Any]):
    """A number of devices, or a percentage of the eligible ones such as "10%"."""

    def __init__(self, *, least: int, **options: Any) -> None:
        self.least = least
        super().__init__(required=False, allow_null=True, default=None, **options)

    def to_internal_value(self, data: Any) -> int | str:
        """The amount, as pacing.py takes it.

        Raises:
            ValidationError: it is neither, or out of range.
        """
        if isinstance(data, int) and not isinstance(data, bool):
            if self.least <= data <= _MOST:
                return data
            raise serializers.ValidationError(f"Enter a number from {self.least} to {_MOST}, or a percentage.")
        if isinstance(data, str) and re.fullmatch(_PERCENT, data, re.ASCII):
            if self.least and _ZERO.fullmatch(data):
                raise serializers.ValidationError("Enter more than 0%.")
            return data
        raise serializers.ValidationError(f'Enter a number of at least {self.least}, or a percentage such as "10%".')

    def to_representation(self, value: Any) -> Any:
        """As it is."""
        return value


@extend_schema_field(_amount_schema(0))
class ErrorAmountField(AmountField):
    """How many errors are allowed: none at all may be."""

    def __init__(self, **options: Any) -> None:
        super().__init__(least=0, **options)


@extend_schema_field(_amount_schema(1))
class DeviceAmountField(AmountField):
    """How many devices: at least one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(least=1, **options)


class SecondsField(serializers.FloatField):
    """A JSON number of seconds: DRF's own would take "5", true and infinity for one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(required=False, allow_null=True, default=None, **options)

    def to_internal_value(self, data: Any) -> float:
        """The value.

        Raises:
            ValidationError: it is no finite JSON number.
        """
        if not isinstance(data, int | float) or isinstance(data, bool):
            self.fail("invalid")
        try:
            value = float(data)
        except OverflowError:
            value = math.inf
        if not math.isfinite(value):
            self.fail("invalid")
        return value


@extend_schema_field(
    {
        "oneOf": [{"type": "number", "minimum": 0, "maximum": _DAY}, {"type": "string", "enum": ["manual"]}],
        "nullable": True,
    }
)
class PauseField(SecondsField):
    """Seconds, or "manual"."""

    def to_internal_value(self, data: Any) -> Any:
        """The value.

        Raises:
            ValidationError: it is neither.
        """
        if data == "manual":
            return data
        if isinstance(data, str):
            raise serializers.ValidationError('Enter seconds, or "manual".')
        value = super().to_internal_value(data)
        if not 0 <= value <= _DAY:
            raise serializers.ValidationError(f'Enter 0 to {_DAY} seconds, or "manual".')
        return value


class FutureField(serializers.DateTimeField):
    """A moment to come, in ISO 8601; of UTC unless it says otherwise."""

    def __init__(self, **options: Any) -> None:
        super().__init__(required=False, allow_null=True, default=None, **options)

    def to_internal_value(self, value: Any) -> datetime:
        """The value.

        Raises:
            ValidationError: it is no moment, or not within the coming year.
        """
        if not isinstance(value, str) or not _WITH_TIME.match(value):  # a day alone leaves the hour to guess
            self.fail("invalid", format="YYYY-MM-DDThh:mm[:ss][+HH:MM|-HH:MM|Z]")
        moment = super().to_internal_value(value)
        if moment <= timezone.now():
            raise serializers.ValidationError("This moment is over; name one in the future.")
        if moment > timezone.now() + _FARTHEST:
            raise serializers.ValidationError(f"Name a moment within {_FARTHEST.days} days.")
        return moment


class TagField(LineField):
    """A tag of Ansible's, which separates them by commas."""

    def to_internal_value(self, data: Any) -> str:
        """The value.

        Raises:
            ValidationError: it holds a comma.
        """
        value = super().to_internal_value(data)
        if "," in value:
            raise serializers.ValidationError("Give each tag by itself, without commas.")
        return value


class TagsField(ShortListField):
    """Tags of tasks."""

    def __init__(self, **options: Any) -> None:
        tags: dict[str, Any] = {"child": TagField(max_length=64), "max_length": _MOST_TAGS}
        super().__init__(required=False, allow_null=True, allow_empty=False, default=None, **tags | options)


class ControlsSerializer(StrictSerializer):
    """How a run is paced.  All of it is optional; null is the same as leaving it out."""

    max_concurrency = DeviceAmountField(help_text="Devices in flight at most, over all workers: a number or percent.")
    ramp = StrictBooleanField(
        required=False, default=False, help_text="Begin with waves of 1, 2, 4, … devices, up to max_concurrency."
    )
    max_errors = ErrorAmountField(help_text="More failed devices than this end the run: the rest is terminated.")
    canary = DeviceAmountField(help_text="A first wave, all of which must succeed before the rest starts.")
    pause = PauseField(help_text='Seconds between two waves; "manual" waits for resume/.')
    connect_timeout = SecondsField(min_value=0.1, max_value=600, help_text="Seconds until logged in.")
    execution_timeout = SecondsField(min_value=1, max_value=_DAY, help_text="Seconds, for each device.")
    deadline = SecondsField(min_value=1, max_value=_LONGEST, help_text="Seconds for the whole run, from its start.")
    on_conflict = WordField(
        choices=OnConflict.choices, required=False, default=OnConflict.QUEUE,
        help_text="What to do with a device that another run is on.",
    )  # fmt: skip
    run_at = FutureField(help_text="Start then.")
    wait_for_offline_until = FutureField(help_text="Until then, devices that don't answer are tried again.")
    check = StrictBooleanField(
        required=False, default=False, help_text="Change nothing, where the playbook of the type supports that."
    )

    diff = StrictBooleanField(required=False, default=False, help_text="Playbooks: keep what changes in files.")
    job_tags = TagsField(help_text="Playbooks: only tasks with one of these tags.")
    skip_tags = TagsField(help_text="Playbooks: no task with one of these tags.")
    verbosity = WholeNumberField(
        required=False, allow_null=True, default=None, min_value=0, max_value=4,
        help_text="Playbooks: how much modules tell, as with -v to -vvvv.",
    )  # fmt: skip

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Waiting ends after the start."""
        start, until = attrs.get("run_at"), attrs.get("wait_for_offline_until")
        if start and until and until <= start:
            raise serializers.ValidationError({"wait_for_offline_until": ["Name a moment after run_at."]})
        return attrs

    def controls(self) -> Controls:
        """The controls, once the data was found valid."""
        return controls_of(self.validated_data)


def controls_of(values: Mapping[str, Any]) -> Controls:
    """The controls of data that was found valid."""
    return Controls(**{name: values[name] for name in Controls.__slots__ if name in values})


class CancelSerializer(StrictSerializer):
    """What to stop: the whole run, or some of its devices."""

    devices = ShortListField(
        child=IdField(), required=False, allow_null=True, allow_empty=False, max_length=MAX_PICKED,
        help_text="Devices of the run; left out: the whole run.",
    )  # fmt: skip


class RetrySerializer(StrictSerializer):
    """Which devices to try again."""

    statuses = ShortListField(
        child=WordField(choices=[(status.value, status.label) for status in _RETRIABLE]),
        required=False, allow_empty=False, max_length=len(_RETRIABLE),
        default=lambda: sorted(ERRORS),
        help_text="How they ended; failed, unreachable, timed_out and lost unless told.",
    )  # fmt: skip
    input = serializers.JSONField(
        required=False, allow_null=True, default=None,
        help_text="Another input; needed where it holds secrets, which are wiped when a run ends.",
    )  # fmt: skip


class NothingSerializer(StrictSerializer):
    """A body without fields."""
