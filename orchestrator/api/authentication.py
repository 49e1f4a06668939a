"""Who asks: a bearer token (hashed at rest, expiring), or the admin's session."""

from typing import Any

from knox.auth import TokenAuthentication
from rest_framework.authentication import SessionAuthentication
from rest_framework.exceptions import AuthenticationFailed


class BearerAuthentication(TokenAuthentication):  # type: ignore[misc]
    """``Authorization: Bearer <token>`` with a token of /api/v1/users/token/."""

    def authenticate_credentials(self, token: bytes) -> Any:
        """The user and the token's row.

        Raises:
            AuthenticationFailed: there is no such token, it has expired, or its user is inactive.
        """
        if not token.isascii():  # knox would stumble over bytes that are no UTF-8
            raise AuthenticationFailed("Invalid token.")
        return super().authenticate_credentials(token)


class BrowserAuthentication(SessionAuthentication):
    """The session of somebody who signed in to the admin; unsafe methods need the CSRF token."""
