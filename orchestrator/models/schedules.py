"""Mass commands that start again and again."""

import uuid
import zoneinfo
from collections.abc import Mapping

from croniter import croniter
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q

from orchestrator.models.fleet import Organization
from orchestrator.models.mass_commands import LABEL_LENGTH, CommandType
from orchestrator.models.playbooks import PLAYBOOK_NAME_LENGTH
from orchestrator.models.sealed import SealedField, open_from, seal_into


def validate_cron(value: str) -> None:
    """Five fields of crontab(5): minute, hour, day of month, month, day of week."""
    if len(value.split()) != 5 or not croniter.is_valid(value):
        raise ValidationError("Enter five fields: minute, hour, day of month, month, day of week.")


def validate_timezone(value: str) -> None:
    """A name of the IANA time zone database."""
    if value not in zoneinfo.available_timezones():
        raise ValidationError("Enter a time zone such as Europe/Vienna or UTC.")


class Overlap(models.TextChoices):
    """What to do when the previous run of a schedule has not ended."""

    SKIP = "skip", "leave this one out"
    START = "start", "start all the same"


class Schedule(models.Model):
    """A mass command for each time that a cron expression names; targets are resolved at each start."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=LABEL_LENGTH)
    organization = models.ForeignKey(
        Organization, null=True, blank=True, on_delete=models.CASCADE, related_name="schedules"
    )
    type = models.CharField(max_length=32, choices=CommandType)
    playbook = models.CharField(max_length=PLAYBOOK_NAME_LENGTH, blank=True)
    input = models.JSONField(default=dict, blank=True)
    sealed_input = SealedField()
    targets = models.JSONField(default=dict)
    controls = models.JSONField(default=dict, blank=True)
    cron = models.CharField(max_length=128, validators=(validate_cron,))
    timezone = models.CharField(max_length=64, default="UTC", validators=(validate_timezone,))
    enabled = models.BooleanField(default=True)
    overlap = models.CharField(max_length=8, choices=Overlap, default=Overlap.SKIP)
    next_run = models.DateTimeField(null=True, editable=False)
    last_run = models.DateTimeField(null=True, editable=False)
    last_result = models.TextField(blank=True, editable=False, help_text="Why the last occurrence started no run.")
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="schedules"
    )
    created = models.DateTimeField(auto_now_add=True)
    modified = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ("name", "id")
        constraints = (
            models.UniqueConstraint(fields=("organization", "name"), name="schedule_name_unique"),
            models.CheckConstraint(
                name="schedule_enabled_has_time", condition=Q(enabled=False) | Q(next_run__isnull=False)
            ),
        )

    def __str__(self) -> str:
        return self.name

    def set_secret_input(self, values: Mapping[str, str]) -> None:
        """Seal the secret part of the input into the row; the caller saves it."""
        seal_into(self, "sealed_input", values)

    def secret_input(self) -> dict[str, str]:
        """The secret part of the input in the open.

        Raises:
            SecretUnreadableError: no key of the ring opens it.
        """
        return open_from(self, "sealed_input")
