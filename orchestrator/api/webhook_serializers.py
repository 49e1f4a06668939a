"""Webhooks and their deliveries in JSON."""

import json
from typing import Any, Final

from django.core.exceptions import ValidationError
from rest_framework import serializers

from orchestrator import webhooks
from orchestrator.access import Right
from orchestrator.api.fields import (
    LineField,
    ShortListField,
    StrictBooleanField,
    TextField,
    VisibleRelatedField,
    WordField,
)
from orchestrator.api.fleet_serializers import RowSerializer
from orchestrator.api.permissions import access_of
from orchestrator.exceptions import NotPermittedError
from orchestrator.models import Organization, Webhook, WebhookDelivery
from orchestrator.models.webhooks import SUBSCRIBABLE
from orchestrator.outbound import URL_LENGTH

_DATES: Final = ("created", "modified")


class WebhookSerializer(RowSerializer):
    """A URL that is told of the runs of an organization; null: of all runs, for superusers."""

    organization = VisibleRelatedField(
        queryset=Organization.objects.all(), organization="pk", allow_null=True, help_text="It stays."
    )
    name = LineField(max_length=128)
    url = TextField(max_length=URL_LENGTH, help_text="https://…; plain http only where the operator allows it.")
    events = ShortListField(
        child=WordField(choices=[(event.value, event.label) for event in SUBSCRIBABLE]),
        max_length=len(SUBSCRIBABLE), allow_empty=False,
    )  # fmt: skip
    enabled = StrictBooleanField(required=False, default=True)

    secret = ""  # of a webhook that was made just now

    class Meta:
        model = Webhook
        fields: tuple[str, ...] = ("id", "organization", "name", "url", "events", "enabled", *_DATES)
        read_only_fields: tuple[str, ...] = _DATES
        validators: tuple[Any, ...] = ()

    def validate_url(self, value: str) -> str:
        """One that requests may be sent to."""
        Webhook._meta.get_field("url").run_validators(value)
        return value

    def validate_events(self, value: list[str]) -> list[str]:
        """Each once."""
        return list(dict.fromkeys(value))

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """The right to do it there, and the name's uniqueness."""
        row = self.instance if isinstance(self.instance, Webhook) else None
        organization: Organization | None = row.organization if row else attrs["organization"]
        if attrs.get("organization", organization) != organization:
            raise serializers.ValidationError({"organization": ["This stays. Make another webhook there."]})
        access = access_of(self.context["request"])
        if organization is None and not access.everything:
            raise serializers.ValidationError({"organization": ["Name one: only superusers are told of all runs."]})
        if not access.can(Right.MANAGE, organization.pk if organization else None):
            raise NotPermittedError("Only administrators of the organization may do this.")
        same = Webhook.objects.filter(organization=organization, name=attrs.get("name", row and row.name))
        if any(pk != getattr(row, "pk", None) for pk in same.values_list("pk", flat=True)):
            raise serializers.ValidationError({"name": ["There is a webhook of this name."]})
        try:
            (row or Webhook(organization=organization)).clean()
        except ValidationError as error:
            raise serializers.ValidationError(error.message_dict) from error
        return attrs

    def create(self, validated_data: dict[str, Any]) -> Webhook:
        """Insert, with a secret."""
        row = Webhook(**validated_data)
        self.secret = webhooks.store(row)
        return row

    def update(self, instance: Webhook, validated_data: dict[str, Any]) -> Webhook:
        """Update."""
        for name, value in validated_data.items():
            setattr(instance, name, value)
        webhooks.store(instance)
        return instance


class NewWebhookSerializer(WebhookSerializer):
    """A webhook with its secret, which is shown this once."""

    secret: Any = serializers.SerializerMethodField(help_text="It signs what is sent; shown this once.")

    class Meta(WebhookSerializer.Meta):
        fields = ("secret", *WebhookSerializer.Meta.fields)
        read_only_fields = fields

    def get_secret(self, row: Webhook) -> str:
        """What the view has put into the context."""
        text: str = self.context["secret"]
        return text


class DeliverySerializer(serializers.ModelSerializer[WebhookDelivery]):
    """What a webhook was told, and whether it arrived."""

    run = serializers.UUIDField(
        source="mass_command_id", allow_null=True, read_only=True, help_text="Null: a test, or the run was deleted."
    )
    payload = serializers.SerializerMethodField(help_text="The body that is sent.")

    class Meta:
        model = WebhookDelivery
        fields = (
            "id", "webhook", "run", "event", "status", "attempts", "next_attempt", "http_status", "error", "created",
            "finished", "payload",
        )  # fmt: skip
        read_only_fields = fields

    def get_payload(self, row: WebhookDelivery) -> dict[str, Any]:
        """As JSON."""
        payload: dict[str, Any] = json.loads(row.body)
        return payload
