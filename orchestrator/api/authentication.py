"""Who asks: a bearer token (hashed at rest, expiring), or the admin's session."""

from knox.auth import TokenAuthentication
from knox.crypto import hash_token
from rest_framework.authentication import SessionAuthentication
from rest_framework.exceptions import AuthenticationFailed, PermissionDenied
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request

from orchestrator.models import Token, User
from orchestrator.origin import by_token


class BearerAuthentication(TokenAuthentication):  # type: ignore[misc]
    """``Authorization: Bearer <token>`` with a token of /api/v1/users/token/."""

    def authenticate(self, request: Request) -> tuple[User, Token] | None:
        """The user and the token's row, or None where no token was sent.

        A token that is limited to reading is refused here, before any view: none can forget it.

        Raises:
            AuthenticationFailed: there is no such token, it has expired, or its user is inactive.
            PermissionDenied: it is read-only, and this request would change something.
        """
        found: tuple[User, Token] | None = super().authenticate(request)
        harmless = (*SAFE_METHODS, *getattr(request.parser_context["view"], "methods_for_read_only_tokens", ()))
        if found and found[1].read_only and request.method not in harmless:
            raise PermissionDenied("This token is read-only. Use one that may make changes.")
        return found

    def authenticate_credentials(self, token: bytes) -> tuple[User, Token]:
        """The user and the token's row, found by the digest in one query: knox's own also looks for, and deletes,
        whatever other tokens of the user have expired.

        Raises:
            AuthenticationFailed: there is no such token, it has expired, or its user is inactive.
        """
        if not token.isascii():
            raise AuthenticationFailed("Invalid token.")
        digest = hash_token(token.decode())
        row: Token | None = Token.objects.valid().select_related("user").filter(digest=digest).first()
        if row is None:
            raise AuthenticationFailed("Invalid token.")
        user: User
        user, _ = self.validate_user(row)
        user.token = row
        row.note_use()
        by_token(row.prefix)
        return user, row


class BrowserAuthentication(SessionAuthentication):
    """The session of somebody who signed in to the admin; unsafe methods need the CSRF token."""
