"""Mass commands and per-device results in JSON."""

from typing import Any

from drf_spectacular.utils import OpenApiExample, extend_schema_field, extend_schema_serializer
from rest_framework import serializers

from orchestrator.actions import LaunchRequest
from orchestrator.api.control_serializers import ControlsSerializer
from orchestrator.api.fields import LineField, TextField, WholeNumberField, WordField
from orchestrator.api.target_serializers import TargetsSerializer
from orchestrator.models import Command, CommandType, MassCommand, TaskResult
from orchestrator.models.mass_commands import LABEL_LENGTH, NOTES_LENGTH
from orchestrator.models.playbooks import PLAYBOOK_NAME_LENGTH
from orchestrator.pacing import waits_for
from orchestrator.playbooks import SHIPPED, specification
from orchestrator.states import CommandStatus
from orchestrator.targeting import TargetFilter

_MOST = 2**31 - 1  # devices
_INPUT_HELP = (
    'custom: {"command": one line}; change_password: {"password", "confirm_password", optionally "username"}; '
    "reboot: nothing; playbook: what the schema of the playbook says"
)


class PlaybookNameField(LineField):
    """The name of a playbook of the catalogue."""

    def __init__(self, **options: Any) -> None:
        told: dict[str, Any] = {"max_length": PLAYBOOK_NAME_LENGTH, "help_text": 'Its name, with the type "playbook".'}
        super().__init__(required=False, allow_blank=True, default="", **told | options)


def _input_examples() -> list[OpenApiExample]:
    return [
        OpenApiExample(
            command_type.label,
            value={
                "organization": "3fa85f64-5717-4562-b3fc-2c963f66afa6",
                "type": command_type.value,
                "input": dict(specification(command_type).example),
                "label": f"{command_type.label} everywhere",
            },
            request_only=True,
        )
        for command_type in SHIPPED
    ]


@extend_schema_serializer(examples=_input_examples())
class ConfirmationRequestSerializer(ControlsSerializer, TargetsSerializer):
    """What a launch would be asked for; with ``type``, eligibility for that type is told."""

    type = WordField(choices=CommandType.choices, required=False)
    playbook = PlaybookNameField()
    input = serializers.JSONField(required=False, allow_null=True, help_text=_INPUT_HELP)
    label: Any = LineField(max_length=LABEL_LENGTH, required=False)
    notes = TextField(max_length=NOTES_LENGTH, required=False, allow_blank=True)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """An input means nothing without its type."""
        attrs = super().validate(attrs)
        if attrs.get("input") is not None and "type" not in attrs:
            raise serializers.ValidationError({"type": ["Name the type that the input is for."]})
        if attrs.get("playbook") and "type" not in attrs:
            raise serializers.ValidationError({"type": ['Name the type: "playbook".']})
        return attrs


@extend_schema_serializer(examples=_input_examples())
class LaunchSerializer(ControlsSerializer, TargetsSerializer):
    """A mass command to start."""

    type = WordField(choices=CommandType.choices)
    playbook = PlaybookNameField()
    input = serializers.JSONField(required=False, allow_null=True, default=None, help_text=_INPUT_HELP)
    label: Any = LineField(max_length=LABEL_LENGTH, required=False, default="")
    notes = TextField(max_length=NOTES_LENGTH, required=False, allow_blank=True, default="")
    digest = serializers.RegexField(
        r"^[0-9a-f]{64}\Z", required=False, default="", trim_whitespace=False,
        help_text="That of the preview: 409 if the set has changed.",
    )  # fmt: skip
    expected_count = WholeNumberField(
        required=False, allow_null=True, default=None, min_value=0, max_value=_MOST,
        help_text="How many devices the targets are: 409 if it is another number. Required with all_devices.",
    )  # fmt: skip

    def request(self) -> LaunchRequest:
        """The request, once the data was found valid."""
        values = self.validated_data
        return LaunchRequest(
            type=values["type"], playbook=values["playbook"], input=values["input"],
            targets=self.target_filter(), label=values["label"], notes=values["notes"],
            digest=values["digest"], expected_count=values["expected_count"],
            must_count=True, controls=self.controls(),
        )  # fmt: skip


class DeviceCommandRequestSerializer(ControlsSerializer):
    """One command for one device."""

    type = WordField(choices=CommandType.choices)
    playbook = PlaybookNameField()
    input = serializers.JSONField(required=False, allow_null=True, default=None, help_text=_INPUT_HELP)
    label: Any = LineField(max_length=LABEL_LENGTH, required=False, default="")
    notes = TextField(max_length=NOTES_LENGTH, required=False, allow_blank=True, default="")

    def request(self, device: Any) -> LaunchRequest:
        """The request, once the data was found valid."""
        given = {name: self.validated_data[name] for name in ("type", "playbook", "input", "label", "notes")}
        return LaunchRequest(targets=TargetFilter(devices=(device.pk,)), controls=self.controls(), **given)


_COUNTS_SCHEMA = {
    "type": "object",
    "properties": {status.value: {"type": "integer"} for status in CommandStatus},
    "required": [status.value for status in CommandStatus],
    "example": {status.value: 0 for status in CommandStatus} | {"success": 21, "unreachable": 1},
}


class MassCommandSerializer(serializers.ModelSerializer[MassCommand]):
    """A mass command with its counters."""

    created_by = serializers.CharField(source="created_by.username", default=None, read_only=True, allow_null=True)
    counts = serializers.SerializerMethodField()
    progress = serializers.FloatField(read_only=True, min_value=0, max_value=1)
    input = serializers.JSONField(read_only=True, help_text="As given, secrets masked.")
    controls = serializers.JSONField(read_only=True, help_text="How it is paced, as given; only what was given.")
    paused = serializers.SerializerMethodField()
    deadline = serializers.DateTimeField(read_only=True, allow_null=True, help_text="Known once it has started.")

    class Meta:
        model = MassCommand
        fields: tuple[str, ...] = (
            "id", "type", "playbook", "playbook_digest", "playbook_commit", "input", "status", "label", "notes",
            "organization", "group", "location", "created_by", "created",
            "started", "finished", "device_count", "counts", "progress", "controls", "parent", "paused",
            "run_at", "deadline",
        )  # fmt: skip
        read_only_fields = fields

    @extend_schema_field(_COUNTS_SCHEMA)
    def get_counts(self, run: MassCommand) -> dict[str, int]:
        """Status → number of devices."""
        return run.counts

    def get_paused(self, run: MassCommand) -> bool:
        """Whether a person has paused it."""
        return run.paused is not None


@extend_schema_field({"type": "object", "additionalProperties": {"type": "integer"}, "nullable": True})
class RecapField(serializers.JSONField):
    """How many tasks of a playbook were ok, changed, unreachable, failed, skipped, rescued, ignored."""


class CommandSerializer(serializers.ModelSerializer[Command]):
    """What became of one device."""

    recap = RecapField(read_only=True, help_text="Of a playbook: its recap for the device, else null.")

    mass_command = serializers.PrimaryKeyRelatedField[Any](
        read_only=True, allow_null=True, pk_field=serializers.UUIDField()
    )

    class Meta:
        model = Command
        fields: tuple[str, ...] = (
            "id", "mass_command", "device", "device_name", "type", "playbook", "status", "reason", "rc", "recap",
            "stdout", "stderr", "truncated", "bytes_total", "created", "started", "finished",
        )  # fmt: skip
        read_only_fields = fields


class TaskResultSerializer(serializers.ModelSerializer[TaskResult]):
    """What one task of a playbook did on a device."""

    class Meta:
        model = TaskResult
        fields: tuple[str, ...] = (
            "id", "number", "play", "task", "module", "status", "started", "duration", "message", "rc", "stdout",
            "stderr", "diff", "truncated",
        )  # fmt: skip
        read_only_fields = fields


class DeviceCommandSerializer(CommandSerializer):
    """The same in a device's history, with what was run."""

    input = serializers.SerializerMethodField()

    class Meta(CommandSerializer.Meta):
        fields = (*CommandSerializer.Meta.fields, "input")
        read_only_fields = fields

    def get_input(self, row: Command) -> dict[str, Any]:
        """As given, secrets masked."""
        return (row.mass_command.input if row.mass_command else row.input) or {}


class CommandPageSerializer(serializers.Serializer[Any]):
    """The first page of the per-device rows, and where they all are."""

    url = serializers.URLField()
    count = serializers.IntegerField()
    next = serializers.URLField(allow_null=True)
    previous = serializers.URLField(allow_null=True)
    results = CommandSerializer(many=True)


class WaitSerializer(serializers.Serializer[Any]):
    """What a run waits for: its start, a resume after a pause, an approval between waves, or the pause between them."""

    what = serializers.ChoiceField(choices=["start", "resume", "approval", "pause"])
    until = serializers.DateTimeField(allow_null=True, help_text="null: until a person says so, with resume/.")


class MassCommandDetailSerializer(MassCommandSerializer):
    """A mass command with what it waits for, its targets and the first page of results."""

    waits_for = serializers.SerializerMethodField()
    commands = serializers.SerializerMethodField()

    class Meta(MassCommandSerializer.Meta):
        fields = (*MassCommandSerializer.Meta.fields, "waits_for", "targets", "digest", "commands")
        read_only_fields = fields

    @extend_schema_field(WaitSerializer(allow_null=True))
    def get_waits_for(self, run: MassCommand) -> dict[str, Any] | None:
        """Why nothing more starts at the moment."""
        wait = waits_for(run)
        return WaitSerializer(wait).data if wait else None

    @extend_schema_field(CommandPageSerializer)
    def get_commands(self, run: MassCommand) -> dict[str, Any]:
        """What the view has put into the context."""
        page: dict[str, Any] = self.context["commands"]
        return page


class BreakdownRowSerializer(serializers.Serializer[Any]):
    """Devices of one organization, group or location; null stands for those without."""

    id = serializers.UUIDField(allow_null=True)
    name = serializers.CharField(allow_null=True)
    count = serializers.IntegerField()
    eligible_count = serializers.IntegerField()


class BreakdownSerializer(serializers.Serializer[Any]):
    """The targets counted in three ways."""

    organization = BreakdownRowSerializer(many=True)
    group = BreakdownRowSerializer(many=True)
    location = BreakdownRowSerializer(many=True)


class PreviewedDeviceSerializer(serializers.Serializer[Any]):
    """A target, and why it would be skipped if it would."""

    device = serializers.UUIDField()
    name = serializers.CharField()
    organization = serializers.UUIDField()
    eligible = serializers.BooleanField()
    reason = serializers.CharField(allow_blank=True)


class ConfirmationSerializer(serializers.Serializer[Any]):
    """A preview: what a launch would run on."""

    count = serializers.IntegerField()
    eligible_count = serializers.IntegerField()
    ineligible_count = serializers.IntegerField()
    digest = serializers.CharField()
    breakdown = BreakdownSerializer()
    next = serializers.URLField(allow_null=True)
    previous = serializers.URLField(allow_null=True)
    results = PreviewedDeviceSerializer(many=True)


class TargetsChangedSerializer(serializers.Serializer[Any]):
    """Why a launch was refused: ``targets_changed``, ``count_changed`` or ``run_deleted``.

    The lists name up to 1,000 devices, null when no longer known.
    """

    code = serializers.CharField()
    detail = serializers.CharField()
    added = serializers.ListField(child=serializers.UUIDField(), allow_null=True, required=False)
    removed = serializers.ListField(child=serializers.UUIDField(), allow_null=True, required=False)
    added_count = serializers.IntegerField(required=False)
    removed_count = serializers.IntegerField(required=False)
    count = serializers.IntegerField(required=False, help_text="How many devices the targets are now.")


class ErrorSerializer(serializers.Serializer[Any]):
    """An error that belongs to no field."""

    code = serializers.CharField()
    detail = serializers.CharField()
