"""Launches that were sent with an ``Idempotency-Key``: sent again, they start nothing."""

from dataclasses import dataclass

from django.conf import settings
from django.db import models

from orchestrator.models.mass_commands import MassCommand


@dataclass(frozen=True, slots=True)
class Once:
    """The key under which a user launches once, and the fingerprint of what is asked for."""

    key: str
    fingerprint: str


class IdempotencyKey(models.Model):
    """Which run a user's key has started, and a keyed hash of what was asked for: it may hold a password."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    key = models.CharField(max_length=255)
    fingerprint = models.CharField(max_length=64)
    # Kept when its run is deleted: a request that is sent again late must not start another one.
    mass_command = models.ForeignKey(MassCommand, null=True, on_delete=models.SET_NULL, related_name="+")
    created = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        constraints = (
            # Of two requests at once, one inserts, and the other gets the run of the first.
            models.UniqueConstraint(fields=("user", "key"), name="idempotency_key_once"),
        )

    def __str__(self) -> str:
        return self.key
