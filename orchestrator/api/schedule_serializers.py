"""Recurring mass commands in JSON: validated as a launch is, with the rights of who saves them."""

from typing import Any, Final

from croniter import CroniterBadDateError
from django.utils import timezone
from rest_framework import serializers

from orchestrator import catalogue
from orchestrator.access import Access
from orchestrator.api.control_serializers import ControlsSerializer, controls_of
from orchestrator.api.fields import LineField, StrictBooleanField, VisibleRelatedField, WordField
from orchestrator.api.fleet_serializers import RowSerializer
from orchestrator.api.permissions import access_of
from orchestrator.api.run_serializers import PlaybookNameField
from orchestrator.api.target_serializers import TargetsSerializer, filter_of
from orchestrator.exceptions import InvalidFieldError
from orchestrator.models import CommandType, Organization, Overlap, Schedule
from orchestrator.models.mass_commands import LABEL_LENGTH
from orchestrator.playbooks import CheckedInput
from orchestrator.scheduling import next_occurrence, store
from orchestrator.secrets import MASK
from orchestrator.targeting import TargetFilter, resolve

_READ_ONLY: Final = ("next_run", "last_run", "last_result", "created_by", "created", "modified")
_RUN: Final = frozenset({"type", "targets"})  # what decides on which devices it may start


class RecurringControlsSerializer(ControlsSerializer):
    """How each run is paced; a moment would be over after the first one."""

    run_at: Any = None
    wait_for_offline_until: Any = None


class ScheduleSerializer(RowSerializer):
    """A mass command for each time that the expression names.  It runs with the rights of who saved it last."""

    name: Any = LineField(max_length=LABEL_LENGTH)
    organization = VisibleRelatedField(
        queryset=Organization.objects.all(), organization="pk", required=False, allow_null=True,
        help_text="That of the targets; null where they span several.",
    )  # fmt: skip
    type = WordField(choices=CommandType.choices)
    playbook = PlaybookNameField()
    input = serializers.JSONField(
        required=False, allow_null=True, help_text="As for a launch. Secrets are shown masked; sent masked, they stay."
    )
    targets = TargetsSerializer(help_text="The target filter of a launch; resolved at each start.")
    controls = RecurringControlsSerializer(required=False, default=dict)
    cron = LineField(max_length=128, help_text="Minute, hour, day of month, month, day of week.")
    timezone = LineField(max_length=64, required=False, default="UTC", help_text="Such as Europe/Vienna.")
    enabled = StrictBooleanField(required=False, default=True)
    overlap = WordField(choices=Overlap.choices, required=False, default=Overlap.SKIP)
    created_by = serializers.CharField(source="created_by.username", default=None, read_only=True, allow_null=True)

    class Meta:
        model = Schedule
        fields = (
            "id", "name", "organization", "type", "playbook", "input", "targets", "controls", "cron", "timezone",
            "enabled", "overlap", *_READ_ONLY,
        )  # fmt: skip
        read_only_fields = _READ_ONLY
        validators: tuple[Any, ...] = ()

    def to_representation(self, instance: Schedule) -> dict[str, Any]:
        """Targets and controls as they were given, without what was left out."""
        return {**super().to_representation(instance), "targets": instance.targets, "controls": instance.controls}

    def validate_cron(self, value: str) -> str:
        """Five fields."""
        Schedule._meta.get_field("cron").run_validators(value)
        return value

    def validate_timezone(self, value: str) -> str:
        """One that there is."""
        Schedule._meta.get_field("timezone").run_validators(value)
        return value

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """What a launch would refuse is refused now, not at night."""
        row = self.instance if isinstance(self.instance, Schedule) else None
        self._check_time(attrs, row)
        if "targets" in attrs:
            attrs["targets"] = filter_of(attrs["targets"]).as_json()
        if "controls" in attrs:
            attrs["controls"] = controls_of(attrs["controls"]).as_json()
        if row is None or not self.partial or attrs.keys() & {"type", "playbook", "input"}:
            kind, playbook = self._what(attrs, row)
            attrs["playbook"] = playbook
            access = access_of(self.context["request"])
            attrs["input"] = _checked(kind, playbook, attrs.get("input"), row, access=access)
        enabled = attrs.get("enabled", row.enabled if row else True)
        if row is None or enabled or attrs.keys() & _RUN:  # one whose targets are gone can still be switched off
            attrs["organization"] = self._owner(attrs, row)
        else:
            attrs.pop("organization", None)
        self._check_name(attrs, row)
        return attrs

    def _check_time(self, attrs: dict[str, Any], row: Schedule | None) -> None:
        cron = attrs.get("cron") or (row.cron if row else "")
        zone = attrs.get("timezone") or (row.timezone if row else "UTC")
        try:
            next_occurrence(cron, zone, after=timezone.now())
        except CroniterBadDateError as error:
            raise serializers.ValidationError({"cron": ["There is no such day in any year."]}) from error

    def _owner(self, attrs: dict[str, Any], row: Schedule | None) -> Organization | None:
        """The organization of the targets, in which the user must be allowed to run them."""
        targets = TargetFilter.from_json(attrs["targets"] if "targets" in attrs or row is None else row.targets)
        kind, playbook = self._what(attrs, row)
        access = access_of(self.context["request"])
        try:
            owner = resolve(targets, access=access, command_type=kind, playbook=playbook).organization
        except InvalidFieldError as error:
            if error.field in ("type", "playbook"):
                raise
            message = [error.message]
            inner = message if error.field == "targets" else {error.field: message}
            raise serializers.ValidationError({"targets": inner}) from error
        given = attrs.get("organization", owner)
        if given != owner and (given is not None or not self.partial):
            if given is None:
                return owner
            raise serializers.ValidationError({"organization": ["The targets are not this organization's."]})
        return owner

    def _what(self, attrs: dict[str, Any], row: Schedule | None) -> tuple[str, str]:
        """The type and the playbook that it is to have; another type has no playbook unless it is given."""
        kind = attrs.get("type") or (row.type if row else "")
        same = row is not None and row.type == kind
        return kind, attrs.get("playbook", row.playbook if row and same else "")

    def _check_name(self, attrs: dict[str, Any], row: Schedule | None) -> None:
        old: Any = row
        owner = attrs.get("organization", old and old.organization)
        same = Schedule.objects.filter(organization=owner, name=attrs.get("name", old and old.name))
        if any(pk != getattr(row, "pk", None) for pk in same.values_list("pk", flat=True)):
            raise serializers.ValidationError({"name": ["There is a schedule of this name."]})

    def create(self, validated_data: dict[str, Any]) -> Schedule:
        """Insert, with its first time."""
        return self._stored(Schedule(), validated_data)

    def update(self, instance: Schedule, validated_data: dict[str, Any]) -> Schedule:
        """Update; the time of the next run is told anew only where it may have changed."""
        return self._stored(instance, validated_data)

    def _stored(self, row: Schedule, values: dict[str, Any]) -> Schedule:
        checked: CheckedInput | None = values.pop("input", None)
        store(row, values, actor=self.context["request"].user, checked=checked)
        return row


def _checked(kind: str, playbook: str, given: Any, row: Schedule | None, *, access: Access) -> CheckedInput:
    """The input as a launch takes it; a secret that comes back as it was shown stands for the stored one."""
    if isinstance(given, dict):
        shown = {name for name in catalogue.secret_names(kind, playbook) if given.get(name) == MASK}
        stored = row.secret_input() if row and (row.type, row.playbook) == (kind, playbook) and shown else {}
        if shown - stored.keys():
            said = ["This is the mask, not the value."]
            raise InvalidFieldError("input", dict.fromkeys(sorted(shown - stored.keys()), said))
        given = given | {name: stored[name] for name in shown}
    return catalogue.check_input(kind, given, access=access, playbook=playbook)
