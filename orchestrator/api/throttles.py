"""How often somebody may sign in or launch; more often is 429 with ``Retry-After``.  Counted by rates.py."""

from typing import ClassVar

from django.conf import settings
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from orchestrator.origin import client_address
from orchestrator.rates import SIGN_IN_ADDRESS, SIGN_IN_NAME, seconds_to_wait


class Throttle(BaseThrottle):
    """Counts requests by who sends them; lets them pass when nobody can count."""

    scope: ClassVar[str]
    _left: float | None = None

    def rate(self) -> tuple[int, int]:
        """Requests, and the seconds in which so many may come."""
        raise NotImplementedError

    def counted_by(self, request: Request) -> str | None:
        """Who sends the request; None lets it pass."""
        raise NotImplementedError

    def allow_request(self, request: Request, view: APIView) -> bool:
        """Count the request, and say whether it is not one too many."""
        who = self.counted_by(request)
        if who is None:
            return True
        self._left = seconds_to_wait(self.scope, who, self.rate())
        return self._left is None

    def wait(self) -> float | None:
        """The seconds until the next window."""
        return self._left


class SignInAddressThrottle(Throttle):
    """By the client's address (see ORCHESTRATOR_PROXIES)."""

    scope = SIGN_IN_ADDRESS

    def rate(self) -> tuple[int, int]:
        """ORCHESTRATOR_SIGN_IN_RATE."""
        return settings.SIGN_IN_RATE

    def counted_by(self, request: Request) -> str | None:
        """The address."""
        return client_address(request._request)


class SignInNameThrottle(SignInAddressThrottle):
    """By the user name: who has many addresses can't try many passwords either."""

    scope = SIGN_IN_NAME

    def counted_by(self, request: Request) -> str | None:
        """The name, without the spaces around it, which don't matter."""
        name = request.data.get("username") if isinstance(request.data, dict) else None
        return name.strip() if isinstance(name, str) else None


class LaunchThrottle(Throttle):
    """By the user."""

    scope = "launch"

    def rate(self) -> tuple[int, int]:
        """ORCHESTRATOR_LAUNCH_RATE."""
        return settings.LAUNCH_RATE

    def counted_by(self, request: Request) -> str | None:
        """The user's id."""
        return str(request.user.pk)
