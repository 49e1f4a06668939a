"""The rows: users, fleet, mass commands."""

from orchestrator.models.addresses import validate_host_key
from orchestrator.models.audit import AuditAction, AuditEntry
from orchestrator.models.fleet import (
    Credential,
    CredentialSecrets,
    Device,
    DeviceCredential,
    DeviceGroup,
    Location,
    Organization,
    Platform,
    fingerprints,
)
from orchestrator.models.idempotency import IdempotencyKey
from orchestrator.models.mass_commands import (
    Command,
    CommandType,
    MassCommand,
    OnConflict,
    Preview,
    Slice,
    SliceStatus,
    TaskResult,
    TaskStatus,
)
from orchestrator.models.playbooks import Playbook, PlaybookStatus
from orchestrator.models.references import Source
from orchestrator.models.saved_targets import SavedTargets
from orchestrator.models.schedules import Overlap, Schedule
from orchestrator.models.tokens import Token
from orchestrator.models.users import Membership, User
from orchestrator.models.webhooks import DeliveryStatus, Webhook, WebhookDelivery, WebhookEvent

__all__ = (
    "AuditAction",
    "AuditEntry",
    "Command",
    "CommandType",
    "Credential",
    "CredentialSecrets",
    "DeliveryStatus",
    "Device",
    "DeviceCredential",
    "DeviceGroup",
    "IdempotencyKey",
    "Location",
    "MassCommand",
    "Membership",
    "OnConflict",
    "Organization",
    "Overlap",
    "Platform",
    "Playbook",
    "PlaybookStatus",
    "Preview",
    "SavedTargets",
    "Schedule",
    "Slice",
    "SliceStatus",
    "Source",
    "TaskResult",
    "TaskStatus",
    "Token",
    "User",
    "Webhook",
    "WebhookDelivery",
    "WebhookEvent",
    "fingerprints",
    "validate_host_key",
)
