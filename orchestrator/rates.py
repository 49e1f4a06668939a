"""How often something may be asked for, over all web processes; lets everything pass when nobody can count.

Counted in windows of the rate's length by an atomic increment: of many requests at once none slips through.  Around
the border of two windows up to twice the rate may pass.
"""

import hashlib
import logging
import time
from typing import Final

from django.conf import settings
from django.core.cache import cache
from redis.exceptions import RedisError

log = logging.getLogger(__name__)

SIGN_IN_ADDRESS: Final = "sign-in-address"
SIGN_IN_NAME: Final = "sign-in-name"


def seconds_to_wait(scope: str, who: str, rate: tuple[int, int]) -> float | None:
    """Count a request of somebody; None when it is not one too many, else the seconds until the next window.

    ``rate``: requests, and the seconds in which so many may come.
    """
    most, seconds = rate
    window, passed = divmod(time.time(), seconds)
    name = hashlib.sha256(who.encode(errors="replace")).hexdigest()  # whatever a user name is made of
    try:
        allowed = _count(f"rate:{scope}:{name}:{window:.0f}", keep=2 * seconds) <= most
    except (RedisError, OSError, ValueError) as error:
        # ValueError: what was added a moment ago is gone, as the cache is full or starts again.
        log.warning("Requests can't be counted, so they pass: %s", error)
        return None
    return None if allowed else seconds - passed


def sign_in_wait(*, address: str, username: str) -> float | None:
    """The same for an attempt to sign in: by address, and by name, as who has many addresses could try many passwords.

    The spaces around a name don't matter.
    """
    waits = (
        seconds_to_wait(SIGN_IN_ADDRESS, address, settings.SIGN_IN_RATE),
        seconds_to_wait(SIGN_IN_NAME, username.strip(), settings.SIGN_IN_RATE),
    )
    return max((wait for wait in waits if wait is not None), default=None)


def _count(key: str, *, keep: int) -> int:
    cache.add(key, 0, keep)
    return cache.incr(key)
