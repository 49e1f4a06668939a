"""The audit log: who did what, when, to what, and from where.  Entries are made and never changed.

They refer to nothing by a foreign key: an entry stays, with the names of then, when what it is about is deleted.  The
database refuses changes by triggers (its migration); only what a retention has announced by an entry of its own can go.
"""

import hashlib
import hmac
import json
import uuid
from datetime import UTC
from typing import Any, Final, NoReturn, Self

from django.conf import settings
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.utils import timezone

from orchestrator.access import Access, Right

NAME_LENGTH: Final = 256  # characters of a name; longer ones are cut


class AuditAction(models.TextChoices):
    """What was done: the kind of the object, and the verb."""

    RUN_LAUNCH = "run.launch", "launched a run"
    RUN_RETRY = "run.retry", "retried a run"
    RUN_CANCEL = "run.cancel", "cancelled a run"
    RUN_PAUSE = "run.pause", "paused a run"
    RUN_RESUME = "run.resume", "resumed a run"
    RUN_DELETE = "run.delete", "deleted a run"
    RUN_EXPORT = "run.export", "exported a run's results"
    SIGN_IN = "session.sign_in", "signed in"
    SIGN_IN_FAILED = "session.sign_in_failed", "failed to sign in"
    SIGN_OUT = "session.sign_out", "signed out"
    TOKEN_CREATE = "token.create", "made an API token"
    TOKEN_REVOKE = "token.revoke", "revoked an API token"
    ORGANIZATION_CREATE = "organization.create", "made an organization"
    ORGANIZATION_CHANGE = "organization.change", "changed an organization"
    ORGANIZATION_DELETE = "organization.delete", "deleted an organization"
    LOCATION_CREATE = "location.create", "made a location"
    LOCATION_CHANGE = "location.change", "changed a location"
    LOCATION_DELETE = "location.delete", "deleted a location"
    GROUP_CREATE = "group.create", "made a device group"
    GROUP_CHANGE = "group.change", "changed a device group"
    GROUP_DELETE = "group.delete", "deleted a device group"
    CREDENTIAL_CREATE = "credential.create", "made a credential"
    CREDENTIAL_CHANGE = "credential.change", "changed a credential"
    CREDENTIAL_DELETE = "credential.delete", "deleted a credential"
    DEVICE_CREATE = "device.create", "made a device"
    DEVICE_CHANGE = "device.change", "changed a device"
    DEVICE_DELETE = "device.delete", "deleted a device"
    DEVICE_ENROL = "device.enrol", "pinned a host key"
    DEVICE_KEY_CHANGED = "device.host_key_changed", "saw another host key than the pinned one"
    USER_CREATE = "user.create", "made a user"
    USER_CHANGE = "user.change", "changed a user"
    USER_DELETE = "user.delete", "deleted a user"
    MEMBERSHIP_CREATE = "membership.create", "gave a role"
    MEMBERSHIP_CHANGE = "membership.change", "changed a role"
    MEMBERSHIP_DELETE = "membership.delete", "took a role away"
    SAVED_CREATE = "saved_targets.create", "made a saved target set"
    SAVED_CHANGE = "saved_targets.change", "changed a saved target set"
    SAVED_DELETE = "saved_targets.delete", "deleted a saved target set"
    SCHEDULE_CREATE = "schedule.create", "made a schedule"
    SCHEDULE_CHANGE = "schedule.change", "changed a schedule"
    SCHEDULE_DELETE = "schedule.delete", "deleted a schedule"
    WEBHOOK_CREATE = "webhook.create", "made a webhook"
    WEBHOOK_CHANGE = "webhook.change", "changed a webhook"
    WEBHOOK_DELETE = "webhook.delete", "deleted a webhook"
    WEBHOOK_SECRET = "webhook.secret", "gave a webhook a new secret"
    WEBHOOK_TEST = "webhook.test", "tested a webhook"
    WEBHOOK_RESEND = "webhook.resend", "sent a webhook's delivery again"
    CATALOGUE_CHANGE = "catalogue.change", "found changed playbooks"
    CATALOGUE_PULL = "catalogue.pull", "pulled a repository of playbooks"
    CATALOGUE_REMOVE = "catalogue.remove", "removed a repository of playbooks"
    AUDIT_EXPORT = "audit.export", "exported the audit log"
    AUDIT_DELETE = "audit.delete", "deleted old audit entries"
    KEYS_ROTATE = "keys.rotate", "sealed the stored secrets anew"
    RETENTION = "retention.delete", "deleted old runs and results"


def _refuse() -> NoReturn:
    raise TypeError("Audit entries are never changed or deleted; retention.delete_old_entries ends their time.")


class AuditEntryQuerySet(models.QuerySet["AuditEntry"]):
    """Rows that are only ever added."""

    def visible_to(self, access: Access) -> "AuditEntryQuerySet":
        """Those of the organizations that the user administrates; with the whole system's for superusers."""
        return self if access.everything else self.filter(organization_id__in=access.organizations(Right.VIEW_AUDIT))

    def update(self, **kwargs: Any) -> NoReturn:
        """Refused."""
        _refuse()

    def delete(self) -> NoReturn:
        """Refused."""
        _refuse()

    def bulk_update(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused."""
        _refuse()


class AuditEntry(models.Model):
    """One thing that somebody did."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    at = models.DateTimeField(default=timezone.now)
    # no choices: an action that a later version adds needs no migration
    action = models.CharField(max_length=64)
    organization_id = models.UUIDField(null=True, help_text="Of the object; empty: of the whole system.")
    organization_name = models.CharField(max_length=NAME_LENGTH, blank=True)
    actor_id = models.UUIDField(null=True, help_text="The user who did it; empty: the service itself, or nobody known.")
    actor_name = models.CharField(max_length=NAME_LENGTH, blank=True)
    door = models.CharField(max_length=16)
    address = models.CharField(max_length=45, blank=True)
    user_agent = models.CharField(max_length=NAME_LENGTH, blank=True)
    token = models.CharField(max_length=16, blank=True, help_text="The beginning of the API token that was used.")
    object_type = models.CharField(max_length=32, blank=True)
    object_id = models.CharField(max_length=64, blank=True)
    object_name = models.CharField(max_length=NAME_LENGTH, blank=True)
    details = models.JSONField(default=dict, help_text="What exactly; secrets masked.")
    # Set by an entry of action audit.delete: the triggers let go what is older.
    removed_before = models.DateTimeField(null=True)
    mac = models.CharField(max_length=128, help_text="Keyed hash of the entry: a later change of it shows.")

    objects = AuditEntryQuerySet.as_manager()

    class Meta:
        ordering = ("-at", "-id")
        verbose_name_plural = "audit entries"
        indexes = (
            models.Index(fields=("-at", "-id"), name="audit_newest"),
            models.Index(fields=("organization_id", "-at"), name="audit_org_newest"),
            models.Index(fields=("object_id", "-at"), name="audit_of_object"),
            models.Index(fields=("actor_id", "-at"), name="audit_of_actor"),
            models.Index(
                fields=("removed_before",), name="audit_removals", condition=models.Q(removed_before__isnull=False)
            ),
        )

    def __str__(self) -> str:
        return f"{self.actor_name or 'the service'}: {self.action} {self.object_name}".strip()

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Insert; a row that is there already is never written again."""
        if not self._state.adding:
            _refuse()
        super().save(*args, **kwargs | {"force_insert": True})

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused."""
        _refuse()

    def signed(self) -> Self:
        """The same with its keyed hash, by the first key of the ring."""
        key_id, key = next(iter(settings.SECRET_KEY_RING.items()))
        self.mac = f"{key_id}${self._hash(key)}"
        return self

    def is_genuine(self) -> bool | None:
        """Whether it is as it was written; None where its key is no longer in the ring."""
        key_id, _, told = self.mac.rpartition("$")
        key = settings.SECRET_KEY_RING.get(key_id)
        return None if key is None else hmac.compare_digest(told, self._hash(key))

    def _hash(self, key: bytes) -> str:
        own = hmac.new(key, b"orchestrator audit", hashlib.sha256).digest()  # a key for this use alone
        values = [
            value.astimezone(UTC).isoformat() if hasattr(value, "isoformat") else value
            for value in (getattr(self, field.attname) for field in self._meta.concrete_fields if field.name != "mac")
        ]
        text = json.dumps(values, cls=DjangoJSONEncoder, sort_keys=True)
        return hmac.new(own, text.encode(), hashlib.sha256).hexdigest()
