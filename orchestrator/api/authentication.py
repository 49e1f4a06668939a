"""Who asks: a bearer token (hashed at rest, expiring), or the admin's session."""

from knox.auth import TokenAuthentication
from rest_framework.authentication import SessionAuthentication


class BearerAuthentication(TokenAuthentication):
    """``Authorization: Bearer <token>`` with a token of /api/v1/users/token/."""


class BrowserAuthentication(SessionAuthentication):
    """The session of somebody who signed in to the admin; unsafe methods need the CSRF token."""
