"""How often somebody may sign in or launch; more often is 429 with ``Retry-After``.

Counted in windows of the rate's length, over all web processes, by an atomic increment: of many requests at once none
slips through.  Around the border of two windows up to twice the rate may pass.
"""

import hashlib
import logging
import time
from typing import ClassVar

from django.conf import settings
from django.core.cache import cache
from redis.exceptions import RedisError
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

log = logging.getLogger(__name__)


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
        most, seconds = self.rate()
        window, passed = divmod(time.time(), seconds)
        name = hashlib.sha256(who.encode(errors="replace")).hexdigest()  # whatever a user name is made of
        try:
            allowed = _count(f"rate:{self.scope}:{name}:{window:.0f}", keep=2 * seconds) <= most
        except (RedisError, OSError, ValueError) as error:
            # ValueError: what was added a moment ago is gone, as the cache is full or starts again.
            log.warning("Requests can't be counted, so they pass: %s", error)
            return True
        self._left = None if allowed else seconds - passed
        return allowed

    def wait(self) -> float | None:
        """The seconds until the next window."""
        return self._left


def _count(key: str, *, keep: int) -> int:
    cache.add(key, 0, keep)
    return cache.incr(key)


class SignInAddressThrottle(Throttle):
    """By the client's address (see ORCHESTRATOR_PROXIES)."""

    scope = "sign-in-address"

    def rate(self) -> tuple[int, int]:
        """ORCHESTRATOR_SIGN_IN_RATE."""
        return settings.SIGN_IN_RATE

    def counted_by(self, request: Request) -> str | None:
        """The address."""
        return self.get_ident(request)


class SignInNameThrottle(SignInAddressThrottle):
    """By the user name: who has many addresses can't try many passwords either."""

    scope = "sign-in-name"

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
