"""Webhooks in the admin: made, tested, looked after, by administrators alone."""

from typing import Any

import pytest
from django.urls import reverse

from orchestrator.access import Role
from orchestrator.models import AuditEntry, Webhook, WebhookDelivery
from orchestrator.notifying import Notifier
from tests import factories

pytestmark = pytest.mark.django_db

LIST = "admin:orchestrator_webhook_changelist"
ADD = "admin:orchestrator_webhook_add"
CHANGE = "admin:orchestrator_webhook_change"
URL = "https://receiver.example/a-secret-path"


@pytest.fixture
def webhook() -> Webhook:
    return factories.webhook(name="Chat", url=URL)


@pytest.fixture
def administrator(client: Any, webhook: Webhook) -> Any:
    """A browser in which an administrator of the webhook's organization is signed in."""
    user = factories.user(organization=webhook.organization, role=Role.ADMINISTRATOR, is_staff=True)
    client.force_login(user)
    return client


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the receiver answers to each delivery, to be changed by the test."""
    answer = {"status": 200}
    monkeypatch.setattr("orchestrator.notifying.post", lambda *_: answer["status"])
    return answer


def test_it_is_made_with_a_secret_that_is_shown_once(administrator: Any, webhook: Webhook) -> None:
    values = {
        "organization": webhook.organization_id,
        "name": "Pager",
        "url": "https://pager.example/",
        "enabled": "on",
    }
    reply = administrator.post(reverse(ADD), values | {"events": ["run.failed", "run.budget_spent"]})
    assert reply.status_code == 200
    assert "no-store" in reply["Cache-Control"]
    made = Webhook.objects.get(name="Pager")
    [secret] = made.signing_secrets()
    assert secret in reply.content.decode()
    assert secret not in administrator.get(reverse(CHANGE, args=[made.pk])).content.decode()
    assert made.events == ["run.failed", "run.budget_spent"]
    assert AuditEntry.objects.get(action="webhook.create").object_id == str(made.pk)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("url", "https://127.0.0.1/", "no public address"), ("url", "http://pager.example/", "Use https"),
        ("organization", "", "required"), ("name", "Chat", "already exists"), ("events", [], "required"),
    ],
)  # fmt: skip
def test_bad_input_is_told_beside_its_field(
    administrator: Any, webhook: Webhook, field: str, value: Any, reason: str
) -> None:
    values = {"organization": webhook.organization_id, "name": "Pager", "url": URL, "events": ["run.failed"]}
    reply = administrator.post(reverse(ADD), values | {field: value})
    errors = reply.context["adminform"].form.errors
    assert reason in str(errors.get(field) or errors["__all__"])
    assert Webhook.objects.count() == 1


def test_a_change_is_written_down_and_switching_on_does_not_tell_the_past(administrator: Any, webhook: Webhook) -> None:
    values = {"name": "Chat", "url": URL, "events": ["run.finished"]}
    assert administrator.post(reverse(CHANGE, args=[webhook.pk]), values).status_code == 302
    before = webhook.told_since
    assert administrator.post(reverse(CHANGE, args=[webhook.pk]), values | {"enabled": "on"}).status_code == 302
    webhook.refresh_from_db()
    assert webhook.told_since > before
    changes = [entry.details for entry in AuditEntry.objects.filter(action="webhook.change").order_by("at")]
    assert changes == [{"changes": {"enabled": [True, False]}}, {"changes": {"enabled": [False, True]}}]


def test_a_test_is_sent_and_its_fate_is_on_the_page(administrator: Any, webhook: Webhook, answered: Any) -> None:
    answered["status"] = 500
    administrator.post(reverse("admin:orchestrator_webhook_test", args=[webhook.pk]))
    Notifier().look()
    page = administrator.get(reverse(CHANGE, args=[webhook.pk])).content.decode()
    assert "It answered with status 500." in page
    assert "again at" in page
    WebhookDelivery.objects.update(status="failed", finished="2026-11-27T00:00:00Z", next_attempt=None)
    answered["status"] = 204
    [delivery] = WebhookDelivery.objects.all()
    for _ in range(2):  # the second time it is on its way already
        reply = administrator.post(reverse("admin:orchestrator_webhook_send", args=[delivery.pk]))
        assert reply.status_code == 302
    Notifier().look()
    page = administrator.get(reverse(CHANGE, args=[webhook.pk])).content.decode()
    assert "delivered" in page
    assert "status 500" not in page
    assert "delivered" in administrator.get(reverse(LIST)).content.decode()


def test_a_new_secret_is_asked_for_and_shown(administrator: Any, webhook: Webhook) -> None:
    address = reverse("admin:orchestrator_webhook_secret", args=[webhook.pk])
    assert "Give Chat a new secret?" in administrator.get(address).content.decode()
    [before] = webhook.signing_secrets()
    reply = administrator.post(address)
    webhook.refresh_from_db()
    assert webhook.signing_secrets()[1:] == [before]
    assert webhook.signing_secrets()[0] in reply.content.decode()
    assert "no-store" in reply["Cache-Control"]


def test_the_list_shows_no_path(administrator: Any, webhook: Webhook) -> None:
    page = administrator.get(reverse(LIST)).content.decode()
    assert "receiver.example" in page
    assert "a-secret-path" not in page


def test_nobody_else_sees_them(client: Any, webhook: Webhook) -> None:
    for role, there, listed in (
        (Role.OPERATOR, webhook.organization, 403), (Role.VIEWER, webhook.organization, 403),
        (Role.ADMINISTRATOR, factories.organization(), 200),
    ):  # fmt: skip
        client.force_login(factories.user(organization=there, role=role, is_staff=True))
        assert client.get(reverse(LIST)).status_code == listed
        assert client.get(reverse(CHANGE, args=[webhook.pk])).status_code in {403, 404}
        for name in ("test", "secret"):
            assert client.post(reverse(f"admin:orchestrator_webhook_{name}", args=[webhook.pk])).status_code in {
                403,
                404,
            }
    assert not WebhookDelivery.objects.exists()


def test_those_for_all_runs_are_for_superusers(administrator: Any, client: Any) -> None:
    hook = factories.webhook(organization=None, name="Everything")
    assert administrator.get(reverse(CHANGE, args=[hook.pk])).status_code == 404
    client.force_login(factories.superuser())
    assert "all organizations" in client.get(reverse(LIST)).content.decode()
    values = {"organization": "", "name": "All", "url": URL, "events": ["run.failed"], "enabled": "on"}
    assert client.post(reverse(ADD), values).status_code == 200
    assert Webhook.objects.get(name="All").organization is None


def test_the_list_takes_few_queries(administrator: Any, webhook: Webhook, django_assert_max_num_queries: Any) -> None:
    for _ in range(10):
        factories.webhook(organization=webhook.organization)
    with django_assert_max_num_queries(12):
        administrator.get(reverse(LIST))
