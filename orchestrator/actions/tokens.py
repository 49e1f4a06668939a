"""Make and revoke API tokens."""

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import transaction
from django.utils import timezone
from knox.settings import knox_settings

from orchestrator import audit
from orchestrator.access import Access
from orchestrator.exceptions import InvalidFieldError
from orchestrator.models import AuditAction, Organization, Token, User


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """A token as it was asked for; without an ``expiry`` it lives as long as ORCHESTRATOR_TOKEN_HOURS allows."""

    name: str
    organization: uuid.UUID | None = None
    read_only: bool = False
    expiry: datetime | None = None


def create_token(*, actor: User, request: TokenRequest, signs_in: bool = False) -> tuple[Token, str]:
    """A token of this user, and its text, which nobody can tell later.

    One that is made with another token (``actor.token``) is never stronger: it has the same organization, and does
    not outlive it.  ``signs_in``: the user has just shown the password for it, which the audit log tells apart.

    Raises:
        InvalidFieldError: the organization does not exist for the user, or the expiry is too far ahead.
    """
    held = actor.token
    organization = _organization(actor, request.organization)
    if organization is None and held:
        organization = held.organization
    latest = timezone.now() + knox_settings.TOKEN_TTL
    if held and held.expiry:
        latest = min(latest, held.expiry)
    if request.expiry and request.expiry > latest:
        raise InvalidFieldError("expiry", f"Name a moment until {latest:%Y-%m-%dT%H:%M:%SZ}.")
    with transaction.atomic():
        token, text = Token.objects.issue(
            user=actor,
            name=request.name,
            organization=organization,
            read_only=request.read_only or bool(held and held.read_only),
            expiry=request.expiry or latest,
        )
        if signs_in:
            audit.record(AuditAction.SIGN_IN, actor=actor, about=actor, details=_told(token))
        else:
            audit.record(AuditAction.TOKEN_CREATE, actor=actor, about=token, details=_told(token))
    return token, text


def _told(token: Token) -> dict[str, Any]:
    """What an audit entry says of a token: enough to know it again."""
    return {"token": token.prefix, "name": token.name, "expiry": token.expiry, "read_only": token.read_only}


def _organization(actor: User, pk: uuid.UUID | None) -> Organization | None:
    if pk is None:
        return None
    rows = Access.of(actor).visible(Organization.objects.filter(pk=pk), organization="pk")
    found = rows.first()
    if found is None:
        raise InvalidFieldError("organization", "There is no such organization.")
    return found


def revoke_token(*, actor: User, token: Token, signs_out: bool = False) -> None:
    """End a token: the next request with it is refused, and what streams to its holder breaks off."""
    with transaction.atomic():
        if signs_out:
            audit.record(AuditAction.SIGN_OUT, actor=actor, about=actor, details=_told(token))
        else:
            audit.record(AuditAction.TOKEN_REVOKE, actor=actor, about=token, details=_told(token))
        token.delete()
