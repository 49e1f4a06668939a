"""The fleet: organizations, where devices stand, how to log in to them, and the devices."""

import base64
import binascii
import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, ProhibitNullCharactersValidator
from django.db import models

from orchestrator.models import lookups  # noqa: F401 - registers itself
from orchestrator.models.addresses import validate_host, validate_host_key, validate_tags, validate_username
from orchestrator.models.references import Source, overlap, validate_folder, validate_references
from orchestrator.models.sealed import SealedField, open_from, seal_into


class Platform(models.TextChoices):
    """What runs on a device; decides how the shipped playbooks speak to it."""

    OPENWRT = "openwrt", "OpenWrt"
    LINUX = "linux", "Linux"


class Named(models.Model):
    """A row with an id of its own, a name and its dates."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=128, validators=(ProhibitNullCharactersValidator(),))
    created = models.DateTimeField(auto_now_add=True)
    modified = models.DateTimeField(auto_now=True)

    class Meta:
        abstract = True
        ordering = ("name", "id")

    def __str__(self) -> str:
        return self.name


class Organization(Named):
    """A tenant: its devices and runs do not exist for anybody else."""

    is_active = models.BooleanField(default=True)
    allowed_types = models.JSONField(
        null=True, blank=True, help_text="Command types that may run on its devices; empty: all of them."
    )
    allowed_playbooks = models.JSONField(
        null=True, blank=True, help_text="Names of the playbooks that may run on its devices; empty: all of them."
    )
    keep_days = models.PositiveIntegerField(
        null=True, blank=True, help_text="Days that finished mass commands and their results are kept; empty: for ever."
    )

    secret_folder = models.CharField(
        max_length=255, blank=True, validators=(validate_folder,),
        help_text="Folder of an external store of secrets that its credentials may refer to; superusers give it.",
    )  # fmt: skip

    class Meta(Named.Meta):
        constraints = (
            models.UniqueConstraint(fields=("name",), name="organization_name_unique"),
            models.UniqueConstraint(
                fields=("secret_folder",), name="organization_folder_unique", condition=~models.Q(secret_folder="")
            ),
        )

    def clean(self) -> None:
        """No organization reads another one's secrets.

        Raises:
            ValidationError: the folder overlaps another organization's.
        """
        others = (
            Organization.objects.exclude(pk=self.pk).exclude(secret_folder="").values_list("secret_folder", flat=True)
        )
        if self.secret_folder and any(overlap(self.secret_folder, other) for other in others):
            raise ValidationError({"secret_folder": "Another organization has this folder, or one above or in it."})

    def allows(self, command_type: str) -> bool:
        """Whether commands of this type may run on its devices."""
        return self.allowed_types is None or command_type in self.allowed_types

    def allows_playbook(self, name: str) -> bool:
        """Whether this playbook may run on its devices; the name of none ("") is no playbook, and allowed."""
        return not name or self.allowed_playbooks is None or name in self.allowed_playbooks


class OrganizationOwned(Named):
    """A named row of one organization."""

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="%(class)ss")

    class Meta(Named.Meta):
        abstract = True


class Location(OrganizationOwned):
    """A place where devices stand."""

    class Meta(OrganizationOwned.Meta):
        constraints = (models.UniqueConstraint(fields=("organization", "name"), name="location_name_unique"),)


class DeviceGroup(OrganizationOwned):
    """Devices that belong together."""

    class Meta(OrganizationOwned.Meta):
        constraints = (models.UniqueConstraint(fields=("organization", "name"), name="group_name_unique"),)


@dataclass(frozen=True, slots=True)
class CredentialSecrets:
    """The secret parts of a credential; empty means absent.  The repr shows none of them."""

    password: str = ""
    private_key: str = ""
    passphrase: str = ""
    become_password: str = ""

    def __repr__(self) -> str:
        return "CredentialSecrets(…)"

    def with_readable_key(self) -> "CredentialSecrets":
        """The same, with the private key as ssh reads it; no key stays no key.

        Raises:
            ValidationError: it is no private key, or the passphrase does not open it; the message repeats neither.
        """
        text = self.private_key.replace("\r\n", "\n").strip()
        if not text:
            return self
        key = text + "\n"
        load = load_ssh_private_key if "OPENSSH PRIVATE KEY" in key else load_pem_private_key
        try:
            load(key.encode(), self.passphrase.encode() or None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise ValidationError(
                "This is no private key in OpenSSH or PEM format, or its passphrase is another one."
            ) from error
        return replace(self, private_key=key)


class Credential(OrganizationOwned):
    """How to log in: a user name with a password, a private key, or both.  Secrets are sealed at rest."""

    username = models.CharField(max_length=64, default="root", validators=(validate_username,))
    source = models.CharField(max_length=8, choices=Source, default=Source.STORED)
    references = models.JSONField(
        default=dict, blank=True, help_text="Secret name → where it is in the source, below the organization's folder."
    )
    sealed = SealedField()
    has_password = models.BooleanField(default=False, editable=False)
    has_private_key = models.BooleanField(default=False, editable=False)

    class Meta(OrganizationOwned.Meta):
        constraints = (
            models.UniqueConstraint(fields=("organization", "name"), name="credential_name_unique"),
            # What is looked up elsewhere is never stored here.
            models.CheckConstraint(
                name="credential_stored_or_referred", condition=models.Q(source=Source.STORED) | models.Q(sealed="")
            ),
        )

    def secrets(self) -> CredentialSecrets:
        """The stored secrets in the open; of another source: none (secret_stores.py looks them up).

        Raises:
            SecretUnreadableError: no key of the ring opens them.
        """
        return CredentialSecrets(**open_from(self, "sealed"))

    def set_secrets(self, secrets: CredentialSecrets) -> None:
        """Seal these secrets into the row; the caller saves it."""
        seal_into(self, "sealed", asdict(secrets))
        self.source, self.references = Source.STORED, {}
        self.has_password = bool(secrets.password)
        self.has_private_key = bool(secrets.private_key)

    def refer(self, source: str, references: Mapping[str, str]) -> None:
        """Let the secrets be looked up elsewhere, and forget those that were stored; the caller saves it.

        Raises:
            ValidationError: a reference is not valid, or the organization has no folder there.
        """
        validate_references(source, references)
        if not self.organization.secret_folder:
            raise ValidationError("The organization has no folder in an external store; a superuser can give it one.")
        self.source, self.references, self.sealed = source, dict(references), ""
        self.has_password, self.has_private_key = "password" in references, "private_key" in references


def fingerprints(host_keys: str) -> str:
    """SHA-256 fingerprints of keys as ``type base64``, one a line; what is no key has none."""
    shown = []
    for line in host_keys.splitlines():
        try:
            digest = hashlib.sha256(base64.b64decode(line.split()[1])).digest()
        except (IndexError, binascii.Error):
            continue
        shown.append("SHA256:" + base64.b64encode(digest).decode().rstrip("="))
    return "\n".join(shown)


class Device(OrganizationOwned):
    """A router or server that is reached by SSH."""

    group = models.ForeignKey(DeviceGroup, null=True, blank=True, on_delete=models.SET_NULL, related_name="devices")
    location = models.ForeignKey(Location, null=True, blank=True, on_delete=models.SET_NULL, related_name="devices")
    host = models.CharField(
        max_length=253, validators=(validate_host,), help_text="A host name, an IPv4 or an IPv6 address."
    )
    port = models.PositiveIntegerField(default=22, validators=(MinValueValidator(1), MaxValueValidator(65_535)))
    platform = models.CharField(max_length=16, choices=Platform, default=Platform.LINUX)
    credentials: Any = models.ManyToManyField(Credential, through="DeviceCredential", related_name="devices")
    is_active = models.BooleanField(default=True)
    tags = models.JSONField(default=list, blank=True, validators=(validate_tags,))
    host_key = models.TextField(
        blank=True,
        validators=(validate_host_key,),
        help_text='The pinned SSH host key, "type base64", one a line; empty until the device is enrolled.',
    )
    shown_key = models.TextField(
        blank=True, editable=False, help_text="A key that it has shown and that is not pinned: to be compared."
    )
    key_changed = models.DateTimeField(
        null=True, editable=False, help_text="Since when it does not show the pinned key."
    )

    class Meta(OrganizationOwned.Meta):
        constraints = (models.UniqueConstraint(fields=("organization", "name"), name="device_name_unique"),)

    def clean(self) -> None:
        """A device stays within its organization.

        Raises:
            ValidationError: the group or location is another organization's.
        """
        for name in ("group", "location"):
            row = getattr(self, name)
            if row is not None and row.organization_id != self.organization_id:
                raise ValidationError({name: f"This {name} belongs to another organization."})

    @property
    def fingerprint(self) -> str:
        """SHA-256 fingerprints of the pinned keys, as ``ssh-keygen -l`` shows them; empty when none is pinned."""
        return fingerprints(self.host_key)

    @property
    def shown_fingerprint(self) -> str:
        """Of the key that it has shown and that is not pinned."""
        return fingerprints(self.shown_key)

    @property
    def host_key_state(self) -> str:
        """``none`` is pinned, ``pinned``, or ``changed``: it did not show the pinned one."""
        if not self.host_key:
            return "none"
        return "changed" if self.key_changed else "pinned"


class DeviceCredential(models.Model):
    """A credential of a device; those of a device are tried in the order of ``position``."""

    device = models.ForeignKey(Device, on_delete=models.CASCADE, related_name="device_credentials")
    credential = models.ForeignKey(Credential, on_delete=models.CASCADE, related_name="device_credentials")
    position = models.PositiveSmallIntegerField(default=0)

    class Meta:
        ordering = ("device", "position")
        constraints = (models.UniqueConstraint(fields=("device", "credential"), name="device_credential_once"),)

    def __str__(self) -> str:
        return f"{self.device}: {self.credential}"
