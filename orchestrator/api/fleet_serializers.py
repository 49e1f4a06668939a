"""The fleet in JSON: organizations, locations, groups, credentials, devices."""

import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from rest_framework import serializers

from orchestrator.access import Right
from orchestrator.api.fields import (
    LineField,
    RowsField,
    ShortListField,
    StrictBooleanField,
    StrictSerializer,
    TextField,
    VisibleRelatedField,
    WholeNumberField,
    WordField,
)
from orchestrator.api.permissions import access_of
from orchestrator.exceptions import NotPermittedError
from orchestrator.models import (
    CommandType,
    Credential,
    CredentialSecrets,
    Device,
    DeviceCredential,
    DeviceGroup,
    Location,
    Organization,
    Platform,
    Source,
)
from orchestrator.models.playbooks import PLAYBOOK_NAME_LENGTH
from orchestrator.secret_stores import configured

_DATES = ("created", "modified")
_MOST_PLAYBOOKS = 1_000  # of an organization's list


def _pk(row: Any) -> Any:
    """The id of a row that may not exist yet."""
    return getattr(row, "pk", None)


class RowSerializer(StrictSerializer, serializers.ModelSerializer[Any]):
    """A row of the fleet."""


class OrganizationSerializer(RowSerializer):
    """A tenant; null means all command types, all playbooks, and that results are kept for ever."""

    name = LineField(max_length=128)
    is_active = StrictBooleanField(required=False, default=True)
    allowed_types = ShortListField(
        child=WordField(choices=CommandType.choices), max_length=len(CommandType), allow_null=True, required=False,
        default=None,
    )  # fmt: skip
    allowed_playbooks = ShortListField(
        child=LineField(max_length=PLAYBOOK_NAME_LENGTH), max_length=_MOST_PLAYBOOKS, allow_null=True, required=False,
        default=None,
    )  # fmt: skip
    keep_days = WholeNumberField(min_value=1, max_value=36_500, allow_null=True, required=False, default=None)
    secret_folder = TextField(max_length=255, required=False, allow_blank=True)

    class Meta:
        model = Organization
        fields = (
            "id",
            "name",
            "is_active",
            "allowed_types",
            "allowed_playbooks",
            "keep_days",
            "secret_folder",
            *_DATES,
        )
        read_only_fields = _DATES

    def validate_name(self, value: str) -> str:
        """Unique."""
        same = Organization.objects.filter(name=value)
        if same.exclude(pk=_pk(self.instance)).exists():
            raise serializers.ValidationError("There is an organization of this name.")
        return value

    def validate_secret_folder(self, value: str) -> str:
        """Superusers alone say which secrets an organization's administrators may refer to."""
        if value == getattr(self.instance, "secret_folder", ""):
            return value
        if not access_of(self.context["request"]).everything:
            raise NotPermittedError("Only superusers may change the secret_folder of an organization.")
        if value:
            Organization._meta.get_field("secret_folder").run_validators(value)
            try:
                Organization(pk=_pk(self.instance) or uuid.uuid4(), secret_folder=value).clean()
            except ValidationError as error:
                raise serializers.ValidationError(error.messages) from error
        return value


class OwnedSerializer(RowSerializer):
    """A named row of an organization, in which the user must be administrator."""

    organization = VisibleRelatedField(queryset=Organization.objects.all(), organization="pk")
    name = LineField(max_length=128)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """The right to write there, and the name's uniqueness within the organization."""
        organization = attrs.get("organization") or getattr(self.instance, "organization", None)
        if organization is None:
            return attrs
        if not access_of(self.context["request"]).can(Right.MANAGE, organization.pk):
            raise NotPermittedError("Only administrators of the organization may do this.")
        name = attrs.get("name", getattr(self.instance, "name", None))
        model: Any = self.Meta.model
        same = model.objects.filter(organization=organization, name=name)
        if same.exclude(pk=_pk(self.instance)).exists():
            raise serializers.ValidationError({"name": ["The organization has one of this name."]})
        return attrs


class LocationSerializer(OwnedSerializer):
    """A place."""

    class Meta:
        model = Location
        fields = ("id", "organization", "name", *_DATES)
        read_only_fields = _DATES
        validators: Sequence[Any] = ()


class DeviceGroupSerializer(OwnedSerializer):
    """Devices that belong together."""

    class Meta:
        model = DeviceGroup
        fields = ("id", "organization", "name", *_DATES)
        read_only_fields = _DATES
        validators: Sequence[Any] = ()


_SECRETS = ("password", "private_key", "passphrase", "become_password")


def _secret(help_text: str, max_length: int = 1_024) -> TextField:
    return TextField(
        write_only=True, required=False, allow_blank=True, trim_whitespace=False, max_length=max_length,
        help_text=help_text,
    )  # fmt: skip


def _reference(help_text: str) -> TextField:
    return TextField(required=False, max_length=1_024, help_text=help_text)


class ReferencesSerializer(StrictSerializer):
    """Where the secrets of a credential are, below its organization's folder."""

    password = _reference("`path#field` in Vault, or the name of a file.")
    private_key = _reference("Likewise.")
    passphrase = _reference("Likewise.")
    become_password = _reference("Likewise.")


class CredentialSerializer(OwnedSerializer):
    """How to log in.  The secrets can be written and never read; ``has_…`` tells which are there."""

    source = WordField(choices=Source.choices, required=False)  # type: ignore[assignment]  # the metaclass takes it
    references = ReferencesSerializer(required=False)
    username = TextField(max_length=64, required=False, default="root")
    password = _secret("The login password.")
    private_key = _secret("An SSH private key in OpenSSH or PEM format.", max_length=32_768)
    passphrase = _secret("The passphrase of the private key.")
    become_password = _secret("The password for sudo, where it is not the login password.")

    class Meta:
        model = Credential
        fields = (
            "id", "organization", "name", "username", "source", "references", *_SECRETS,
            "has_password", "has_private_key", *_DATES,
        )  # fmt: skip
        read_only_fields = ("has_password", "has_private_key", *_DATES)
        validators: Sequence[Any] = ()

    def validate_username(self, value: str) -> str:
        """As the model does."""
        Credential._meta.get_field("username").run_validators(value)
        return value

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """A password or a key must be left, each fit for its use."""
        attrs = super().validate(attrs)
        given = {name: attrs.pop(name) for name in _SECRETS if name in attrs}
        row = self.instance if isinstance(self.instance, Credential) else None
        if row and attrs.get("organization", row.organization) != row.organization:
            raise serializers.ValidationError({"organization": ["A credential stays in its organization."]})
        old_source = row.source if row else Source.STORED
        if attrs.setdefault("source", old_source) != Source.STORED:
            return self._referring(attrs, given, row)
        if attrs.pop("references", None):
            raise serializers.ValidationError({"references": ["Give the source of the secrets with it."]})
        return self._storing(attrs, given, row)

    def _referring(self, attrs: dict[str, Any], given: dict[str, str], row: Credential | None) -> dict[str, Any]:
        """The secrets are somewhere else, below the organization's folder there."""
        if not configured(attrs["source"]):
            raise serializers.ValidationError({"source": ["The settings of this service name no store of this kind."]})
        if stored := [name for name, value in given.items() if value]:
            raise serializers.ValidationError({stored[0]: ['It is looked up elsewhere; or give "source": "stored".']})
        same = row is not None and row.source == attrs["source"]
        attrs.setdefault("references", row.references if row and same else {})
        organization: Any = attrs.get("organization") or (row and row.organization)
        try:
            Credential(organization=organization).refer(attrs["source"], attrs["references"])
        except ValidationError as error:
            raise serializers.ValidationError({"references": error.messages}) from error
        return attrs

    def _storing(self, attrs: dict[str, Any], given: dict[str, str], row: Credential | None) -> dict[str, Any]:
        """The secrets are sealed in the row."""
        for name in ("password", "passphrase", "become_password"):
            if not given.get(name, "").isprintable():
                raise serializers.ValidationError({name: ["Only printable characters can be entered at a login."]})
        old = row.secrets() if row else CredentialSecrets()
        if not given.get("private_key", "-").strip():
            given["private_key"] = ""
        secrets = replace(old, **given)
        if not secrets.password and not secrets.private_key:
            raise serializers.ValidationError({"password": ["Give a password or a private key."]})
        if "private_key" in given or "passphrase" in given:
            secrets = _readable(secrets)
        attrs["secrets"] = secrets
        return attrs

    def create(self, validated_data: dict[str, Any]) -> Credential:
        """Insert, secrets sealed."""
        secrets, where = _popped(validated_data)
        row = Credential(**validated_data)
        _set(row, secrets, where)
        row.save(force_insert=True)
        return row

    def update(self, instance: Credential, validated_data: dict[str, Any]) -> Credential:
        """Update, secrets sealed again."""
        _set(instance, *_popped(validated_data))
        updated: Credential = super().update(instance, validated_data)
        return updated


type Where = tuple[str, dict[str, str]]  # source and references


def _popped(values: dict[str, Any]) -> tuple[CredentialSecrets | None, Where]:
    """The secrets, None where they are somewhere else, and where."""
    return values.pop("secrets", None), (values.pop("source"), values.pop("references", {}))


def _set(row: Credential, secrets: CredentialSecrets | None, where: Where) -> None:
    row.refer(*where) if secrets is None else row.set_secrets(secrets)


def _readable(secrets: CredentialSecrets) -> CredentialSecrets:
    try:
        return secrets.with_readable_key()
    except ValidationError as error:
        raise serializers.ValidationError({"private_key": error.messages}) from error


class CredentialsField(RowsField):
    """The credentials of a device in the order of trying, from what was prefetched of the device."""

    def get_attribute(self, instance: Device) -> list[str]:
        """Their ids."""
        links = sorted(instance.device_credentials.all(), key=lambda link: link.position)
        return [str(link.credential_id) for link in links]

    def to_representation(self, value: Any) -> list[Any]:
        """As they are."""
        return list(value)


class CredentialField(VisibleRelatedField):
    """One of them."""

    list_field = CredentialsField


class DeviceSerializer(OwnedSerializer):
    """A device; its credentials are tried in the order given."""

    group = VisibleRelatedField(queryset=DeviceGroup.objects.all(), allow_null=True, required=False, default=None)
    location = VisibleRelatedField(queryset=Location.objects.all(), allow_null=True, required=False, default=None)
    host = TextField(max_length=253)
    port = WholeNumberField(min_value=1, max_value=65_535, required=False, default=22)
    platform = WordField(choices=Platform.choices, required=False, default=Platform.LINUX)
    credentials = CredentialField(queryset=Credential.objects.all(), many=True, required=False, default=list)
    is_active = StrictBooleanField(required=False, default=True)
    tags = ShortListField(child=LineField(max_length=64), required=False, default=list, max_length=64)
    host_key = TextField(required=False, allow_blank=True, default="", max_length=16_384)
    fingerprint = serializers.CharField(read_only=True, help_text="SHA-256 of the pinned host key.")
    host_key_state = serializers.ChoiceField(
        choices=("none", "pinned", "changed"), read_only=True, help_text="changed: it did not show the pinned key."
    )
    shown_fingerprint = serializers.CharField(
        read_only=True, help_text="SHA-256 of a key that it has shown and that is not pinned."
    )

    class Meta:
        model = Device
        fields = (
            "id", "organization", "name", "group", "location", "host", "port", "platform", "credentials",
            "is_active", "tags", "host_key", "fingerprint", "host_key_state", "shown_fingerprint", *_DATES,
        )  # fmt: skip
        read_only_fields = ("fingerprint", "host_key_state", "shown_fingerprint", *_DATES)
        validators: Sequence[Any] = ()

    def validate_host(self, value: str) -> str:
        """As the model does."""
        Device._meta.get_field("host").run_validators(value)
        return value

    def validate_host_key(self, value: str) -> str:
        """As the model does; an empty one is not enrolled."""
        if value:
            Device._meta.get_field("host_key").run_validators(value)
        return value

    def validate_tags(self, value: list[str]) -> list[str]:
        """As the model does."""
        if value:
            Device._meta.get_field("tags").run_validators(value)
        return value

    def validate_credentials(self, value: list[Credential]) -> list[Credential]:
        """Each once."""
        if len({row.pk for row in value}) != len(value):
            raise serializers.ValidationError("A credential is named twice.")
        return value

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Group, location and credentials are of the device's organization."""
        attrs = super().validate(attrs)
        device = self.instance if isinstance(self.instance, Device) else None
        organization: Any = attrs.get("organization") or (device and device.organization)
        for name in ("group", "location"):
            row = attrs[name] if name in attrs else getattr(device, name, None)
            if row is not None and row.organization_id != organization.pk:
                raise serializers.ValidationError({name: [f"This {name} belongs to another organization."]})
        rows = attrs["credentials"] if "credentials" in attrs else (device.credentials.all() if device else [])
        if any(row.organization_id != organization.pk for row in rows):
            raise serializers.ValidationError({"credentials": ["A credential belongs to another organization."]})
        return attrs

    def create(self, validated_data: dict[str, Any]) -> Device:
        """Insert, with its credentials."""
        credentials = validated_data.pop("credentials", [])
        with transaction.atomic():
            device = Device.objects.create(**validated_data)
            _link(device, credentials)
        return device

    def update(self, instance: Device, validated_data: dict[str, Any]) -> Device:
        """Update, with its credentials if they were given."""
        credentials = validated_data.pop("credentials", None)
        if validated_data.get("host_key", instance.host_key) != instance.host_key:
            validated_data |= {"shown_key": "", "key_changed": None}  # what was seen is compared with the new one
        with transaction.atomic():
            device: Device = super().update(instance, validated_data)
            if credentials is not None:
                DeviceCredential.objects.filter(device=device).delete()
                _link(device, credentials)
        return device


def _link(device: Device, credentials: list[Credential]) -> None:
    DeviceCredential.objects.bulk_create(
        DeviceCredential(device=device, credential=credential, position=position)
        for position, credential in enumerate(credentials)
    )
    device.__dict__.get("_prefetched_objects_cache", {}).clear()  # what was read before is no longer true
