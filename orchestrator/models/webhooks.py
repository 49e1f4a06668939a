"""Who is told of runs: webhooks, and what was sent to each."""

import base64
import secrets
import uuid
from datetime import timedelta
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q
from django.utils import timezone

from orchestrator.models.fleet import Named, Organization
from orchestrator.models.mass_commands import MassCommand
from orchestrator.models.sealed import SealedField, open_from, seal_into
from orchestrator.outbound import URL_LENGTH, Destination, OutboundError

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - how Standard Webhooks marks a secret
MOST_WEBHOOKS: Final = 20  # of one organization
_SECRET_BYTES: Final = 32
_OLD_SECRET: Final = timedelta(hours=24)  # that a replaced secret still signs


class WebhookEvent(models.TextChoices):
    """What is told."""

    RUN_FINISHED = "run.finished", "a run has ended"
    """However it ended."""
    RUN_FAILED = "run.failed", "a run has ended with errors"
    """A device failed, was unreachable, timed out or was lost; or none succeeded."""
    BUDGET_SPENT = "run.budget_spent", "a run has spent its error budget"
    """It has more errors than it may have: what was not started will not be."""
    TEST = "webhook.test", "a test"
    """Somebody wants to see whether it arrives."""


SUBSCRIBABLE: Final = tuple(event for event in WebhookEvent if event != WebhookEvent.TEST)


def validate_webhook_url(value: str) -> None:
    """A URL that requests may be sent to (outbound.py)."""
    try:
        Destination.of(value).check()
    except OutboundError as error:
        raise ValidationError(str(error)) from error


class Webhook(Named):
    """A URL that is told of the runs of an organization; without one: of all runs."""

    organization = models.ForeignKey(
        Organization, null=True, blank=True, on_delete=models.CASCADE, related_name="webhooks",
        help_text="Whose runs it is told of; empty: all runs, those over several organizations too.",
    )  # fmt: skip
    url = models.CharField("URL", max_length=URL_LENGTH, validators=(validate_webhook_url,))
    events = models.JSONField(default=list)
    enabled = models.BooleanField(default=True)
    sealed_secret = SealedField()
    replaced = models.DateTimeField(null=True, editable=False, help_text="When the last secret took its place.")
    told_since = models.DateTimeField(
        default=timezone.now, editable=False, help_text="It is told of what happened after this."
    )

    class Meta(Named.Meta):
        constraints = (
            models.UniqueConstraint(fields=("organization", "name"), name="webhook_name_unique"),
            models.UniqueConstraint(
                fields=("name",),
                name="webhook_system_name_unique",
                condition=Q(organization__isnull=True),
                violation_error_message="There is a webhook of this name for all runs.",
            ),
        )

    def clean(self) -> None:
        """Each end of a run is a delivery for each of them.

        Raises:
            ValidationError: the organization has as many as it may have.
        """
        others = Webhook.objects.filter(organization=self.organization_id).exclude(pk=self.pk)
        if self._state.adding and others.count() >= MOST_WEBHOOKS:
            raise ValidationError({"organization": f"There are {MOST_WEBHOOKS} webhooks already: delete one first."})

    def make_secret(self) -> str:
        """Seal a new secret into the row, and give it back; the caller saves it.

        The one before signs as well for a day: so a receiver can take the new one over without losing anything.
        """
        before = open_from(self, "sealed_secret").get("secret", "")
        secret = SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()
        seal_into(self, "sealed_secret", {"secret": secret, "before": before})
        self.replaced = timezone.now() if before else None
        return secret

    def signing_secrets(self) -> list[str]:
        """Those that sign at the moment, the current one first.

        Raises:
            SecretUnreadableError: no key of the ring opens them.
        """
        stored = open_from(self, "sealed_secret")
        names = ["secret"]
        if self.replaced and timezone.now() - self.replaced < _OLD_SECRET:
            names.append("before")
        return [stored[name] for name in names if name in stored]


class DeliveryStatus(models.TextChoices):
    """Where a delivery stands."""

    PENDING = "pending", "waits"
    """It is sent, or sent again, at ``next_attempt``."""
    DELIVERED = "delivered", "delivered"
    """The receiver has answered with a status of 200 to 299."""
    FAILED = "failed", "given up"
    """The receiver never did."""


class DeliveryQuerySet(models.QuerySet["WebhookDelivery"]):
    """The guarded writes of deliveries."""

    def claim(self, pk: uuid.UUID, *, attempts: int, lease: timedelta) -> bool:
        """Take one that is due, after so many attempts; False when another has, or it is over.

        It is due again when ``lease`` is over: who has claimed it may die.
        """
        changed = self.filter(pk=pk, status=DeliveryStatus.PENDING, attempts=attempts)
        return bool(changed.update(attempts=attempts + 1, next_attempt=timezone.now() + lease))

    def settle(self, pk: uuid.UUID, *, attempts: int, **outcome: Any) -> bool:
        """Write what became of an attempt; False when it was claimed again, or began anew."""
        return bool(self.filter(pk=pk, status=DeliveryStatus.PENDING, attempts=attempts).update(**outcome))

    def renew(self, pk: uuid.UUID) -> bool:
        """Send one again that is over."""
        over = self.filter(pk=pk).exclude(status=DeliveryStatus.PENDING)
        return bool(
            over.update(
                status=DeliveryStatus.PENDING, attempts=0, next_attempt=timezone.now(), finished=None, error="",
                http_status=None,
            )
        )  # fmt: skip


class WebhookDelivery(models.Model):
    """One event for one webhook.  Sent at least once; the receiver knows it again by its id."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    webhook = models.ForeignKey(Webhook, on_delete=models.CASCADE, related_name="deliveries")
    mass_command = models.ForeignKey(MassCommand, null=True, on_delete=models.SET_NULL, related_name="+")
    event = models.CharField(max_length=32, choices=WebhookEvent)
    body = models.TextField(help_text="JSON; each attempt sends the same bytes.")
    status = models.CharField(max_length=16, choices=DeliveryStatus, default=DeliveryStatus.PENDING)
    attempts = models.PositiveIntegerField(default=0)
    next_attempt = models.DateTimeField(null=True, default=timezone.now)
    http_status = models.PositiveSmallIntegerField(null=True, help_text="Of the last answer; empty: there was none.")
    error = models.CharField(max_length=400, blank=True, help_text="Why the last attempt did not succeed.")
    created = models.DateTimeField(auto_now_add=True)
    finished = models.DateTimeField(null=True)

    objects = DeliveryQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "webhook deliveries"
        ordering = ("-created", "-id")
        constraints = (
            # Any number of processes may look for what has happened: each tells it once.
            models.UniqueConstraint(fields=("webhook", "mass_command", "event"), name="webhook_delivery_once"),
            models.CheckConstraint(
                name="webhook_delivery_pending_is_due",
                condition=~Q(status=DeliveryStatus.PENDING) | Q(next_attempt__isnull=False),
            ),
            models.CheckConstraint(
                name="webhook_delivery_finished_has_time",
                condition=Q(status=DeliveryStatus.PENDING) | Q(finished__isnull=False),
            ),
        )
        indexes = (
            models.Index(fields=("webhook", "-created", "-id"), name="webhook_delivery_newest"),
            models.Index(
                fields=("next_attempt",), name="webhook_delivery_due", condition=Q(status=DeliveryStatus.PENDING)
            ),
        )

    def __str__(self) -> str:
        return f"{self.event}, {self.status}"
