"""What webhooks are told, and of what: the rows of the runs are the truth, and deliveries are made of them.

No writer of a run's end has to think of webhooks, and nothing is lost between two writes: whatever has ended and has no
delivery yet gets one.  Signed as Standard Webhooks 1.0.0 says (https://www.standardwebhooks.com), so that receivers can
take a library of theirs.
"""

import base64
import hashlib
import hmac
import json
import logging
import random
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from django.core.serializers.json import DjangoJSONEncoder
from django.db import transaction
from django.db.models import F, Q, Window
from django.db.models.functions import RowNumber
from django.utils import timezone

from orchestrator import audit
from orchestrator.models import AuditAction, DeliveryStatus, MassCommand, User, Webhook, WebhookDelivery, WebhookEvent
from orchestrator.models.webhooks import SECRET_PREFIX
from orchestrator.states import ERRORS, RunStatus

log = logging.getLogger(__name__)

KEPT: Final = timedelta(days=30)  # of a delivery that is over
REMEMBERED: Final = timedelta(days=7)  # that a run may have ended before it is told; shorter than KEPT, or told twice
MOST_ATTEMPTS: Final = 10  # within about 22 hours
LEASE: Final = timedelta(minutes=2)  # longer than an attempt can take
AT_ONCE: Final = 4  # deliveries of one webhook: a slow receiver holds up its own
_FIRST_DELAY: Final = 10.0  # seconds
_LONGEST_DELAY: Final = 6 * 3_600.0  # seconds
_JITTER: Final = 0.25
_CHUNK: Final = 500  # runs looked at in one go


def collect(since: datetime) -> int:
    """Make the deliveries for what has happened since then, for each webhook that is to be told; how many were made."""
    webhooks = list(Webhook.objects.filter(enabled=True))
    made = 0
    for runs in _changed(since) if webhooks else ():
        known = set(
            WebhookDelivery.objects.filter(mass_command__in=runs).values_list("webhook", "mass_command", "event")
        )
        missing = [
            WebhookDelivery(webhook=webhook, mass_command=run, event=event, body=_body(event, run, moment))
            for run in runs
            for event, moment in _events(run)
            for webhook in webhooks
            if _hears(webhook, run, event, moment) and (webhook.pk, run.pk, event) not in known
        ]
        # Another process may have been faster: then the constraint leaves these out.
        WebhookDelivery.objects.bulk_create(missing, ignore_conflicts=True)
        made += len(missing)
    return made


def _changed(since: datetime) -> Iterator[list[MassCommand]]:
    """The runs that have ended or spent their budget since then, some at a time."""
    rows = MassCommand.objects.filter(Q(finished__gte=since) | Q(budget_spent__gte=since))
    rows = rows.select_related("organization", "created_by").defer("sealed_input", "targets", "notes").order_by("pk")
    chunk = list(rows[:_CHUNK])
    while chunk:
        yield chunk
        chunk = list(rows.filter(pk__gt=chunk[-1].pk)[:_CHUNK])


def _events(run: MassCommand) -> Iterator[tuple[WebhookEvent, datetime]]:
    """What has happened to a run, and when."""
    if run.budget_spent:
        yield WebhookEvent.BUDGET_SPENT, run.budget_spent
    if run.finished:
        yield WebhookEvent.RUN_FINISHED, run.finished
        if run.status == RunStatus.FAILED or any(run.counts[status] for status in ERRORS):
            yield WebhookEvent.RUN_FAILED, run.finished


def _hears(webhook: Webhook, run: MassCommand, event: str, moment: datetime) -> bool:
    if webhook.organization_id not in (None, run.organization_id):
        return False  # a run over several organizations is the whole system's, and nobody else's
    return event in webhook.events and moment > webhook.told_since


def _body(event: WebhookEvent, run: MassCommand, moment: datetime) -> str:
    """The body of a delivery: what the run was and what became of it, and nothing that was given to it."""
    owner, by = run.organization, run.created_by
    data = {
        "id": run.pk,
        "url": f"/api/v1/controller/batch-command/{run.pk}/",
        "type": run.type,
        "playbook": run.playbook,
        "label": run.label,
        "status": run.status,
        "organization": owner and {"id": owner.pk, "name": owner.name},
        "created_by": by and by.get_username(),
        "schedule": run.schedule_id,
        "parent": run.parent_id,
        "created": run.created,
        "started": run.started,
        "finished": run.finished,
        "budget_spent": run.budget_spent,
        "device_count": run.device_count,
        "counts": run.counts,
    }
    return _json({"type": event, "timestamp": moment, "data": data})


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, cls=DjangoJSONEncoder, ensure_ascii=False, separators=(",", ":"))


# ---------------------------------------------------------------- what people do


def store(webhook: Webhook) -> str:
    """Save a webhook that was made or changed; the secret of a new one, which nobody can tell later, or "".

    What is switched on, or asked for in addition, is told from now on; the caller has a transaction.
    """
    before = Webhook.objects.filter(pk=webhook.pk).first()
    if before is None:
        secret = webhook.make_secret()
        webhook.save(force_insert=True)
        return secret
    if (webhook.enabled and not before.enabled) or set(webhook.events) - set(before.events):
        collect(timezone.now() - timedelta(minutes=1))  # what was asked for until now is not forgotten
        webhook.told_since = timezone.now()
    webhook.save()
    return ""


def replace_secret(webhook: Webhook, *, actor: User) -> str:
    """A new secret, told once; the old one signs as well for a day.

    Raises:
        SecretUnreadableError: no key of the ring opens the old one.
    """
    with transaction.atomic():
        row = Webhook.objects.select_for_update().get(pk=webhook.pk)
        secret = row.make_secret()
        row.save(update_fields=("sealed_secret", "replaced", "modified"))
        audit.record(AuditAction.WEBHOOK_SECRET, actor=actor, about=row)
    return secret


def test(webhook: Webhook, *, actor: User) -> WebhookDelivery:
    """Send something that stands for nothing, to see whether it arrives."""
    now = timezone.now()
    body = _json({"type": WebhookEvent.TEST, "timestamp": now, "data": {"webhook": webhook.name}})
    with transaction.atomic():
        audit.record(AuditAction.WEBHOOK_TEST, actor=actor, about=webhook)
        return WebhookDelivery.objects.create(webhook=webhook, event=WebhookEvent.TEST, body=body)


def send_again(delivery: WebhookDelivery, *, actor: User) -> bool:
    """Send a delivery that is over once more, under the same id; False when it is still on its way."""
    with transaction.atomic():
        if not WebhookDelivery.objects.renew(delivery.pk):
            return False
        about = {"delivery": delivery.pk, "event": delivery.event}
        audit.record(AuditAction.WEBHOOK_RESEND, actor=actor, about=delivery.webhook, details=about)
    return True


# ---------------------------------------------------------------- on their way


def claim(most: int) -> list[WebhookDelivery]:
    """Deliveries that are due and now ours for ``LEASE``: of each webhook ``AT_ONCE``, the longest overdue first."""
    place = Window(RowNumber(), partition_by=F("webhook"), order_by=(F("next_attempt"), F("pk")))
    wanted = Q(webhook__enabled=True) | Q(event=WebhookEvent.TEST)
    due = WebhookDelivery.objects.filter(wanted, status=DeliveryStatus.PENDING, next_attempt__lte=timezone.now())
    rows = due.annotate(place=place).filter(place__lte=AT_ONCE).select_related("webhook").order_by("next_attempt", "pk")
    ours = [row for row in rows[:most] if WebhookDelivery.objects.claim(row.pk, attempts=row.attempts, lease=LEASE)]
    for row in ours:
        row.attempts += 1
    return ours


def signed(delivery: WebhookDelivery, body: bytes, moment: datetime) -> dict[str, str]:
    """The headers of a delivery: its id, the time, and for each secret a keyed hash of both and of the body.

    Raises:
        SecretUnreadableError: no key of the ring opens the secrets.
    """
    stamp = str(int(moment.timestamp()))
    content = b".".join((str(delivery.pk).encode(), stamp.encode(), body))
    signatures = [
        "v1," + base64.b64encode(hmac.new(_key(secret), content, hashlib.sha256).digest()).decode()
        for secret in delivery.webhook.signing_secrets()
    ]
    return {
        "Content-Type": "application/json",
        "User-Agent": "orchestrator-webhook",
        "webhook-id": str(delivery.pk),
        "webhook-timestamp": stamp,
        "webhook-signature": " ".join(signatures),
    }


def _key(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix(SECRET_PREFIX))


def settle(delivery: WebhookDelivery, *, status: int | None, error: str) -> None:
    """Write what became of an attempt; one that did not succeed is tried again later, a limited number of times."""
    now = timezone.now()
    outcome: dict[str, Any] = {"http_status": status, "error": error[:400]}
    if not error:
        outcome |= {"status": DeliveryStatus.DELIVERED, "finished": now, "next_attempt": None}
    elif delivery.attempts >= MOST_ATTEMPTS:
        outcome |= {"status": DeliveryStatus.FAILED, "finished": now, "next_attempt": None}
        log.warning("The webhook %s was told %d times in vain: %s", delivery.webhook_id, delivery.attempts, error)
    else:
        outcome["next_attempt"] = now + delay(delivery.attempts)
    WebhookDelivery.objects.settle(delivery.pk, attempts=delivery.attempts, **outcome)


def delay(attempts: int) -> timedelta:
    """The time until the next attempt after so many: ten seconds, four times as long each time, at most six hours."""
    seconds = min(_FIRST_DELAY * 4.0 ** (attempts - 1), _LONGEST_DELAY)
    return timedelta(seconds=seconds * random.uniform(1 - _JITTER, 1 + _JITTER))  # noqa: S311 - no secret


def forget() -> None:
    """Delete the deliveries that have been over for long."""
    over = WebhookDelivery.objects.exclude(status=DeliveryStatus.PENDING)
    over.filter(finished__lt=timezone.now() - KEPT).delete()
