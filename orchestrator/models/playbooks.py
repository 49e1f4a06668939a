"""The catalogue: what playbooks there are, as they were found at the last refresh."""

import uuid
from typing import Any, Final

from django.db import models

PLAYBOOK_NAME_LENGTH: Final = 255  # characters


class PlaybookStatus(models.TextChoices):
    """Whether a playbook can be launched."""

    OK = "ok", "ok"
    BROKEN = "broken", "broken"
    """Ansible can't read it, or its inputs can't be told; ``message`` says why."""


class Playbook(models.Model):
    """One playbook of the catalogue.  A run keeps its name and digest, so that rows may come and go."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=PLAYBOOK_NAME_LENGTH, unique=True, help_text="Its path without the suffix.")
    description = models.TextField(blank=True)
    status = models.CharField(max_length=8, choices=PlaybookStatus, default=PlaybookStatus.OK)
    message = models.TextField(blank=True, help_text="What Ansible's parser says of a broken one.")
    schema = models.JSONField(default=dict, help_text="JSON Schema of its input; writeOnly properties are secrets.")
    defaults = models.JSONField(default=dict, help_text="What it is given where the input leaves something out.")
    check_mode = models.BooleanField(default=True, help_text="Whether it may be run in check mode.")
    hosts = models.JSONField(default=list, help_text="The host patterns of its plays.")
    digest = models.CharField(max_length=64, help_text="SHA-256 of the directory that it was found in.")
    path = models.CharField(max_length=1_024, help_text="Within that directory.")
    directory = models.CharField(max_length=1_024)
    url = models.CharField(max_length=1_024, blank=True, help_text="The git repository that it comes from.")
    commit = models.CharField(max_length=64, blank=True)
    refreshed = models.DateTimeField(help_text="When its present version was found.")

    class Meta:
        ordering = ("name", "id")

    def __str__(self) -> str:
        return self.name

    @property
    def broken(self) -> bool:
        """Whether it can't be launched."""
        return self.status == PlaybookStatus.BROKEN

    @property
    def secret_names(self) -> frozenset[str]:
        """The inputs that are sealed, and never shown."""
        properties: dict[str, Any] = self.schema.get("properties", {})
        return frozenset(name for name, about in properties.items() if is_secret(about))


def is_secret(about: Any) -> bool:
    """Whether a JSON Schema of a property says that its value is a secret."""
    return isinstance(about, dict) and (about.get("writeOnly") is True or about.get("format") == "password")
