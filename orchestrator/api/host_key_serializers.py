"""Host keys in JSON: what is accepted, and what became of each device."""

import re
from typing import Any, Final

from rest_framework import serializers

from orchestrator.actions import Enrolment
from orchestrator.api.fields import (
    IdField,
    ShortListField,
    StrictBooleanField,
    StrictSerializer,
    TextField,
    VisibleRelatedField,
)
from orchestrator.host_keys import Outcome
from orchestrator.models import Organization

_FINGERPRINT: Final = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
_FILE: Final = 2 * 1024 * 1024  # characters of a known_hosts file
_AT_ONCE: Final = 100  # devices asked in one request: some seconds each where they don't answer, twenty at a time


class AcceptanceSerializer(StrictSerializer):
    """Whether what is shown is to be pinned."""

    accept = StrictBooleanField(required=False, default=False, help_text="Pin it where none is pinned yet.")
    replace = StrictBooleanField(required=False, default=False, help_text="Pin it, also where another one is pinned.")


class HostKeySerializer(AcceptanceSerializer):
    """Which key of one device is accepted; nothing: show it, and pin nothing."""

    fingerprint = TextField(
        required=False, default="", max_length=50,
        help_text="The compared one, as ssh-keygen -l shows it: that key is pinned, be another one pinned or not.",
    )  # fmt: skip

    def validate_fingerprint(self, value: str) -> str:
        """SHA-256 in base64, without padding."""
        if value and not _FINGERPRINT.fullmatch(value):
            raise serializers.ValidationError('Enter "SHA256:" and 43 characters, as ssh-keygen -l shows it.')
        return value


class HostKeysSerializer(AcceptanceSerializer):
    """The same for several devices."""

    devices = ShortListField(child=IdField(), max_length=_AT_ONCE, allow_empty=False)


class KnownHostsSerializer(AcceptanceSerializer):
    """A known_hosts file, for the devices of an organization."""

    organization = VisibleRelatedField(queryset=Organization.objects.all(), organization="pk")
    known_hosts = TextField(max_length=_FILE, trim_whitespace=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """To replace is to accept."""
        return {**attrs, "accept": attrs["accept"] or attrs["replace"]}


class EnrolmentSerializer(serializers.Serializer[Enrolment]):
    """What became of one device."""

    device = serializers.UUIDField(source="device.pk")
    name = serializers.CharField(source="device.name")
    outcome = serializers.ChoiceField(choices=[outcome.value for outcome in Outcome])
    fingerprint = serializers.CharField(help_text="Of the key that it shows, or that the file has; empty: no answer.")
    pinned_fingerprint = serializers.CharField(source="device.fingerprint", help_text="Of what is pinned now.")


class EnrolmentsSerializer(serializers.Serializer[Any]):
    """What became of each."""

    results = EnrolmentSerializer(many=True)


class IgnoredSerializer(serializers.Serializer[Any]):
    """A line of the file that was not taken."""

    line = serializers.IntegerField()
    reason = serializers.CharField()


class KnownHostsImportSerializer(EnrolmentsSerializer):
    """What became of each device that the file knows, and of the lines that say nothing."""

    ignored = IgnoredSerializer(many=True)
