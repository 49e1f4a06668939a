"""API tokens: what a program signs in with, and what it is limited to."""

import uuid
from datetime import datetime, timedelta
from typing import Any, Final

from django.conf import settings
from django.core.validators import ProhibitNullCharactersValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone
from knox.models import get_digest_token
from knox.settings import CONSTANTS, knox_settings

from orchestrator.models.fleet import Organization
from orchestrator.models.users import User

NAME_LENGTH: Final = 64  # characters
_SHOWN: Final = 8  # characters of a token that tell it from the others of its user
_USE_WRITTEN: Final = timedelta(minutes=5)  # how exactly last_used is kept: no write at each request


class TokenQuerySet(models.QuerySet["Token"]):
    """Set reads and guarded writes."""

    def valid(self, now: datetime | None = None) -> "TokenQuerySet":
        """Those that have not expired."""
        return self.filter(Q(expiry=None) | Q(expiry__gt=now or timezone.now()))

    def held_by(self, user: User) -> "TokenQuerySet":
        """Those that the user may see and revoke; who signed in with a limited one finds its equals only.

        (Else it would tell of organizations that do not exist for it, and could put an end to stronger ones.)
        """
        rows = self.filter(user=user.pk)
        only = user.token and user.token.organization_id
        return rows.filter(organization=only) if only else rows

    def issue(self, *, user: User, name: str, expiry: datetime | None = None, **limits: Any) -> "tuple[Token, str]":
        """A new token of this user and its text, of which only the hash is stored; it expires as late as it may."""
        digest, text = get_digest_token()
        row = self.create(
            user=user,
            name=name,
            digest=digest,
            token_key=text[: CONSTANTS.TOKEN_KEY_LENGTH],
            expiry=expiry or timezone.now() + knox_settings.TOKEN_TTL,
            **limits,
        )
        return row, text


class Token(models.Model):
    """A token by its hash.  It gives its user's rights, or those of them that its limits leave (``Access.of``).

    The key is an id of its own: that of knox's model is the digest, which would stand in addresses and log entries.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="auth_token_set")
    digest = models.CharField(max_length=128, unique=True, editable=False)
    token_key = models.CharField(max_length=25, editable=False)
    name = models.CharField(max_length=NAME_LENGTH, validators=(ProhibitNullCharactersValidator(),))
    organization = models.ForeignKey(
        Organization, null=True, blank=True, on_delete=models.CASCADE, related_name="tokens",
        help_text="The only organization that exists for it; empty: all those of its user.",
    )  # fmt: skip
    read_only = models.BooleanField(default=False, help_text="Whether it may change nothing.")
    created = models.DateTimeField(auto_now_add=True)
    expiry = models.DateTimeField(null=True, blank=True)
    last_used = models.DateTimeField(null=True, editable=False)

    objects = TokenQuerySet.as_manager()

    class Meta:
        ordering = ("-created", "id")

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"

    @property
    def prefix(self) -> str:
        """The first characters of the token, which say nothing of the rest."""
        return str(self.token_key[:_SHOWN])

    def note_use(self) -> None:
        """Write down that it is used now, unless that was written some minutes ago."""
        now = timezone.now()
        if self.last_used is None or self.last_used < now - _USE_WRITTEN:
            Token.objects.filter(pk=self.pk).update(last_used=now)
