"""A run: the mass command, one row per device, and the slices in which workers carry it out."""

import uuid
from collections.abc import Mapping
from functools import reduce
from operator import add
from typing import Any, Final

from django.conf import settings
from django.core.validators import ProhibitNullCharactersValidator
from django.db import models
from django.db.models import F, Q

from orchestrator.models.fleet import Device, DeviceGroup, Location, Organization
from orchestrator.models.playbooks import PLAYBOOK_NAME_LENGTH
from orchestrator.models.sealed import SealedField, open_from, seal_into
from orchestrator.querysets import CommandQuerySet, MassCommandQuerySet, SliceQuerySet
from orchestrator.states import OPEN, RUN_ACTIVE, CommandStatus, RunStatus

NOTES_LENGTH: Final = 10_000  # characters
LABEL_LENGTH: Final = 64  # characters


class CommandType(models.TextChoices):
    """What can be run; playbooks.py knows each one's input, and catalogue.py those of the users' own playbooks."""

    PING = "ping", "test connection"
    REBOOT = "reboot", "reboot"
    CHANGE_PASSWORD = "change_password", "change password"
    CUSTOM = "custom", "custom command"
    PLAYBOOK = "playbook", "playbook"


class OnConflict(models.TextChoices):
    """What to do with a device that another run holds."""

    QUEUE = "queue", "wait for it"
    SKIP = "skip", "skip it"
    FAIL = "fail", "fail it"


def _counter() -> Any:
    return models.PositiveIntegerField(default=0, editable=False)


class MassCommand(models.Model):
    """One command on many devices.  Its counters change together with the rows that they count."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    type = models.CharField(max_length=32, choices=CommandType)
    input = models.JSONField(default=dict, blank=True, help_text="What was asked for, secrets masked.")
    sealed_input = SealedField()
    playbook = models.CharField(max_length=PLAYBOOK_NAME_LENGTH, blank=True, help_text="Its name in the catalogue.")
    playbook_digest = models.CharField(
        max_length=64, blank=True, editable=False, help_text="SHA-256 of the playbook's directory as it was launched."
    )
    playbook_path = models.CharField(max_length=1_024, blank=True, editable=False, help_text="Within that directory.")
    playbook_directory = models.CharField(max_length=1_024, blank=True, editable=False)  # whose vaults it may open
    playbook_defaults = models.JSONField(default=dict, editable=False)  # what the input leaves out
    playbook_commit = models.CharField(max_length=64, blank=True, editable=False)
    label = models.CharField(max_length=LABEL_LENGTH, blank=True, validators=(ProhibitNullCharactersValidator(),))
    notes = models.TextField(max_length=NOTES_LENGTH, blank=True, validators=(ProhibitNullCharactersValidator(),))
    status = models.CharField(max_length=16, choices=RunStatus, default=RunStatus.QUEUED, editable=False)

    organization = models.ForeignKey(
        Organization, null=True, blank=True, on_delete=models.CASCADE, related_name="mass_commands",
        help_text="The organization of all its targets; empty for a run over several of them.",
    )  # fmt: skip
    group = models.ForeignKey(DeviceGroup, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    location = models.ForeignKey(Location, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    targets = models.JSONField(default=dict, editable=False, help_text="The filter as it was given.")
    digest = models.CharField(max_length=64, editable=False)

    parent = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.SET_NULL, related_name="retries",
        help_text="The run whose failed devices this one tries again.",
    )  # fmt: skip
    schedule = models.ForeignKey(
        "orchestrator.Schedule", null=True, blank=True, on_delete=models.SET_NULL, related_name="runs"
    )
    occurrence = models.DateTimeField(null=True, editable=False, help_text="The time of the schedule that started it.")
    controls = models.JSONField(default=dict, editable=False, help_text="How it is paced, as it was given.")
    max_concurrency = models.PositiveIntegerField(null=True, editable=False)  # devices in flight over all workers
    max_errors = models.PositiveIntegerField(null=True, editable=False)  # more than these end the run
    pause_seconds = models.FloatField(default=0.0, editable=False)  # between two waves
    pause_manual = models.BooleanField(default=False, editable=False)  # a person lets each next wave go
    connect_timeout = models.FloatField(null=True, editable=False)  # seconds
    execution_timeout = models.FloatField(null=True, editable=False)  # seconds, per device
    on_conflict = models.CharField(max_length=8, choices=OnConflict, default=OnConflict.QUEUE, editable=False)
    check_mode = models.BooleanField(default=False, editable=False)
    run_at = models.DateTimeField(null=True, editable=False)
    deadline_seconds = models.FloatField(null=True, editable=False)  # from the start
    deadline = models.DateTimeField(null=True, editable=False)
    offline_until = models.DateTimeField(null=True, editable=False)
    paused = models.DateTimeField(null=True, editable=False)
    budget_spent = models.DateTimeField(null=True, editable=False)
    wave = models.PositiveIntegerField(default=1, editable=False, help_text="The wave that may run.")
    wave_due = models.DateTimeField(null=True, editable=False, help_text="When the next wave may start.")

    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="mass_commands"
    )
    created = models.DateTimeField(auto_now_add=True)
    started = models.DateTimeField(null=True, editable=False)
    finished = models.DateTimeField(null=True, editable=False)
    cancel_requested = models.DateTimeField(null=True, editable=False)
    changes = models.PositiveBigIntegerField(
        default=0, editable=False, help_text="How often its rows have changed: the number of the last such write."
    )

    device_count = _counter()
    queued_count = _counter()
    running_count = _counter()
    success_count = _counter()
    failed_count = _counter()
    unreachable_count = _counter()
    timed_out_count = _counter()
    cancelled_count = _counter()
    terminated_count = _counter()
    lost_count = _counter()
    skipped_count = _counter()

    objects = MassCommandQuerySet.as_manager()

    class Meta:
        ordering = ("-created", "-id")
        indexes = (
            models.Index(fields=("-created", "-id"), name="mass_command_newest"),
            models.Index(fields=("organization", "-created"), name="mass_command_org_newest"),
            # What webhooks are told of: the newest, of all runs.
            models.Index(fields=("finished",), name="mass_command_finished", condition=Q(finished__isnull=False)),
            models.Index(fields=("budget_spent",), name="mass_command_budget", condition=Q(budget_spent__isnull=False)),
            # What recovery looks at: few rows of many.
            models.Index(fields=("status",), name="mass_command_active", condition=Q(status__in=sorted(RUN_ACTIVE))),
        )
        constraints = (
            # No device is counted twice or forgotten, whatever writes the counters.
            models.CheckConstraint(
                name="mass_command_counts_sum_up",
                condition=Q(device_count=reduce(add, (F(f"{status}_count") for status in CommandStatus))),
            ),
            models.CheckConstraint(
                name="mass_command_finished_has_time",
                condition=Q(status__in=sorted(RUN_ACTIVE)) | Q(finished__isnull=False),
            ),
            # Any number of schedulers may look: each occurrence starts one run.
            models.UniqueConstraint(fields=("schedule", "occurrence"), name="mass_command_occurrence_once"),
            # The secrets of a run end with it.
            models.CheckConstraint(
                name="mass_command_finished_has_no_secrets",
                condition=Q(status__in=sorted(RUN_ACTIVE)) | Q(sealed_input=""),
            ),
            # What was run is pinned: a playbook by its name and the digest of its directory.
            models.CheckConstraint(
                name="mass_command_playbook_pinned",
                condition=~Q(type=CommandType.PLAYBOOK) | (~Q(playbook="") & ~Q(playbook_digest="")),
            ),
        )

    def __str__(self) -> str:
        return self.label or f"{self.get_type_display()} on {self.device_count} devices"

    @property
    def counts(self) -> dict[str, int]:
        """Command status → number of devices; the sum is ``device_count``."""
        return {status.value: getattr(self, f"{status}_count") for status in CommandStatus}

    @property
    def progress(self) -> float:
        """The finished share of the devices, 0 to 1."""
        still_open = self.queued_count + self.running_count
        return round(1 - still_open / self.device_count, 4) if self.device_count else 1.0

    @property
    def is_active(self) -> bool:
        """Whether it has not ended yet."""
        return self.status in RUN_ACTIVE

    def set_secret_input(self, values: Mapping[str, str]) -> None:
        """Seal the secret part of the input into the row; the caller saves it."""
        seal_into(self, "sealed_input", values)

    def secret_input(self) -> dict[str, str]:
        """The secret part of the input in the open; empty once the run has ended.

        Raises:
            SecretUnreadableError: no key of the ring opens it.
        """
        return open_from(self, "sealed_input")


class SliceStatus(models.TextChoices):
    """Where a slice stands."""

    HELD = "held", "held"
    """Waits for its wave, its time, or a device that another run holds."""
    QUEUED = "queued", "queued"
    """A worker may take it."""
    RUNNING = "running", "running"
    FINISHED = "finished", "finished"


class TaskStatus(models.TextChoices):
    """What became of one task on one device."""

    OK = "ok", "ok"
    CHANGED = "changed", "changed"
    SKIPPED = "skipped", "skipped"
    FAILED = "failed", "failed"
    """The play goes on for this device only if a rescue follows."""
    IGNORED = "ignored", "failed, ignored"
    UNREACHABLE = "unreachable", "unreachable"


class Slice(models.Model):
    """The part of a run that one worker carries out in one go; taken by a lease with a fencing token.

    ``attempt`` counts the deliveries: a queue job for an earlier one does nothing.  ``spawned`` is set before
    Ansible starts: from then on a device of the slice may have received the command.  ``tries`` counts how often
    its devices were found offline, or held by another run.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    mass_command = models.ForeignKey(MassCommand, on_delete=models.CASCADE, related_name="slices")
    number = models.PositiveIntegerField()
    wave = models.PositiveIntegerField(default=1)
    size = models.PositiveIntegerField(default=0, help_text="Devices in it.")
    not_before = models.DateTimeField(null=True)
    tries = models.PositiveIntegerField(default=0)
    status = models.CharField(max_length=16, choices=SliceStatus, default=SliceStatus.HELD)
    attempt = models.PositiveIntegerField(default=1)
    enqueued = models.DateTimeField(auto_now_add=True)
    lease = models.UUIDField(null=True)
    lease_expires = models.DateTimeField(null=True)
    spawned = models.DateTimeField(null=True)
    worker = models.CharField(max_length=200, blank=True)

    objects = SliceQuerySet.as_manager()

    class Meta:
        ordering = ("mass_command", "number")
        constraints = (
            models.UniqueConstraint(fields=("mass_command", "number"), name="slice_number_unique"),
            models.CheckConstraint(
                name="slice_running_has_lease",
                condition=~Q(status=SliceStatus.RUNNING) | Q(lease__isnull=False, lease_expires__isnull=False),
            ),
        )
        indexes = (
            models.Index(
                fields=("status", "lease_expires"), name="slice_unfinished", condition=~Q(status=SliceStatus.FINISHED)
            ),
        )

    def __str__(self) -> str:
        return f"slice {self.number} of {self.mass_command_id}"


class Command(models.Model):
    """What became of one device in a run.  It outlives the run and the device, as the device's history."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    mass_command = models.ForeignKey(MassCommand, null=True, on_delete=models.SET_NULL, related_name="commands")
    slice = models.ForeignKey(Slice, null=True, on_delete=models.SET_NULL, related_name="commands")
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="commands")
    device = models.ForeignKey(Device, null=True, on_delete=models.SET_NULL, related_name="commands")
    device_name = models.CharField(max_length=128)
    type = models.CharField(max_length=32, choices=CommandType)
    playbook = models.CharField(max_length=PLAYBOOK_NAME_LENGTH, blank=True)
    input = models.JSONField(null=True, blank=True, help_text="Kept here only once its run was deleted.")
    status = models.CharField(max_length=16, choices=CommandStatus, default=CommandStatus.QUEUED)
    holds_device = models.BooleanField(default=False, editable=False)
    reason_code = models.CharField(max_length=32, blank=True)
    reason = models.TextField(blank=True)
    rc = models.IntegerField(null=True)
    stdout = models.TextField(blank=True)
    stderr = models.TextField(blank=True)
    recap = models.JSONField(null=True, help_text="Of a playbook: how many tasks were ok, changed, failed and so on.")
    truncated = models.BooleanField(default=False)
    bytes_total = models.BigIntegerField(default=0, help_text="Size of the whole output, before it was cut.")
    created = models.DateTimeField(auto_now_add=True)
    started = models.DateTimeField(null=True)
    finished = models.DateTimeField(null=True)
    cancel_requested = models.DateTimeField(null=True, editable=False, help_text="When this one device was cancelled.")
    change = models.PositiveBigIntegerField(
        default=0, editable=False, help_text="The write of its run that changed it last: MassCommand.changes of then."
    )

    objects = CommandQuerySet.as_manager()

    class Meta:
        ordering = ("device_name", "id")
        constraints = (
            # At most once: a run has one row for a device.
            models.UniqueConstraint(fields=("mass_command", "device"), name="command_device_once"),
            models.CheckConstraint(
                name="command_finished_has_time",
                condition=Q(status__in=sorted(OPEN)) | Q(finished__isnull=False),
            ),
            # Two runs never touch one device at once: the lock is a row of this index.
            models.UniqueConstraint(fields=("device",), name="command_device_lock", condition=Q(holds_device=True)),
            models.CheckConstraint(
                name="command_finished_holds_nothing",
                condition=Q(status__in=sorted(OPEN)) | Q(holds_device=False),
            ),
        )
        indexes = (
            models.Index(fields=("mass_command", "device_name", "id"), name="command_by_name"),
            models.Index(fields=("mass_command", "status"), name="command_by_status"),
            models.Index(fields=("device", "-created"), name="command_device_history"),
            models.Index(fields=("slice", "status"), name="command_of_slice"),
            # What workers and pacing look for: few rows of many.
            models.Index(
                fields=("mass_command",), name="command_to_cancel", condition=Q(cancel_requested__isnull=False)
            ),
            # What a stream reads: the rows of a run that have changed since some moment.
            models.Index(fields=("mass_command", "change", "id"), name="command_by_change"),
        )

    def __str__(self) -> str:
        return f"{self.type} on {self.device_name}: {self.status}"


class TaskResult(models.Model):
    """What one task of a playbook did on one device; texts are cut and redacted."""

    id = models.UUIDField(
        primary_key=True, editable=False
    )  # made of where it came from: one that is heard twice is one
    command = models.ForeignKey(Command, on_delete=models.CASCADE, related_name="tasks")
    number = models.PositiveIntegerField(help_text="Of the device's tasks in one start of the playbook, from 1.")
    play = models.TextField(blank=True)
    task = models.TextField(blank=True)
    module = models.CharField(max_length=128, blank=True)
    status = models.CharField(max_length=16, choices=TaskStatus)
    started = models.DateTimeField()
    duration = models.FloatField(help_text="Seconds.")
    message = models.TextField(blank=True)
    rc = models.IntegerField(null=True)
    stdout = models.TextField(blank=True)
    stderr = models.TextField(blank=True)
    diff = models.TextField(blank=True)
    truncated = models.BooleanField(default=False)

    class Meta:
        ordering = ("started", "number", "id")
        indexes = (models.Index(fields=("command", "started", "number"), name="task_result_of_command"),)

    def __str__(self) -> str:
        return f"{self.task}: {self.status}"


class Preview(models.Model):
    """What a digest stood for when it was shown, so that a launch can say what has changed since.

    ``members`` is zlib-compressed: 17 bytes a device, its id and b"+" (eligible) or b"-".
    """

    digest = models.CharField(primary_key=True, max_length=64)
    members = models.BinaryField()
    shown = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return self.digest
