"""Tells webhooks: looks for what has happened, sends what is due, and notes what became of it.

Any number of these may run, anywhere: a delivery is made once, and sent by who has claimed it.
"""

import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Final

from django.utils import timezone

from orchestrator import webhooks
from orchestrator.exceptions import SecretUnreadableError
from orchestrator.models import WebhookDelivery
from orchestrator.outbound import OutboundError, post

log = logging.getLogger(__name__)

_SENDERS: Final = 8  # requests at once
_ROUND: Final = 20.0  # seconds of sending before it looks again for what has happened
_OVERLAP: Final = timedelta(minutes=2)  # that a run's row may be visible later than the time in it says
_WHOLE: Final = timedelta(minutes=10)  # between two looks at all that could still be told


class Notifier:
    """One round after the other; remembers what it has looked at."""

    def __init__(self) -> None:
        now = timezone.now()
        self._since, self._whole = now - webhooks.REMEMBERED, now

    def look(self) -> int:
        """Make the deliveries that are missing, and send those that are due; how many were sent."""
        now = timezone.now()
        if now >= self._whole:
            self._since, self._whole = now - webhooks.REMEMBERED, now + _WHOLE
            webhooks.forget()
        webhooks.collect(self._since)
        self._since = now - _OVERLAP
        sent, end = 0, time.monotonic() + _ROUND
        while time.monotonic() < end and (due := webhooks.claim(_SENDERS)):
            self._send(due)
            sent += len(due)
        return sent

    def _send(self, due: Sequence[WebhookDelivery]) -> None:
        """Send side by side; this thread alone speaks to the database."""
        with ThreadPoolExecutor(min(_SENDERS, len(due)), thread_name_prefix="webhook") as senders:
            for delivery, (status, error) in zip(due, senders.map(_attempt, due), strict=True):
                webhooks.settle(delivery, status=status, error=error)


def _attempt(delivery: WebhookDelivery) -> tuple[int | None, str]:
    """The status of the answer, and why that is no success."""
    body = delivery.body.encode()
    try:
        status = post(delivery.webhook.url, body, webhooks.signed(delivery, body, timezone.now()))
    except OutboundError as error:
        return None, str(error)
    except SecretUnreadableError as error:
        return None, error.detail
    except Exception:  # a defect in one delivery must not stop the others
        log.exception("The delivery %s could not be sent", delivery.pk)
        return None, "The service could not send it; its log tells why."
    if 200 <= status < 300:
        return status, ""
    if 300 <= status < 400:
        return status, f"It answered with a redirect ({status}); these are not followed."
    return status, f"It answered with status {status}."
