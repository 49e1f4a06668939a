"""Webhooks: each event is told once, signed, until it arrives, and to nobody whom it does not concern."""

import base64
import hashlib
import hmac
import http.server
import ipaddress
import json
import re
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from orchestrator import webhooks
from orchestrator.access import Role
from orchestrator.models import AuditEntry, MassCommand, Webhook, WebhookDelivery
from orchestrator.notifying import Notifier
from orchestrator.pacing import advance
from tests import factories
from tests.integration.api_addresses import CONTROLLER, MISSING, finish, launch

pytestmark = [pytest.mark.django_db, pytest.mark.database, pytest.mark.usefixtures("outbox")]

WEBHOOKS = CONTROLLER + "webhook/"
DELIVERIES = CONTROLLER + "webhook-delivery/"
API = Path(__file__).parents[2] / "docs" / "api.md"
EXAMPLES = re.compile(r"^```python\n(.*?)\n```$", re.DOTALL | re.MULTILINE)
ALL = ["run.finished", "run.failed", "run.budget_spent"]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What was sent: (URL, body), all of it answered with 200."""
    found: list[tuple[str, dict[str, Any]]] = []

    def post(url: str, body: bytes, headers: Any) -> int:
        found.append((url, json.loads(body)))
        return 200

    monkeypatch.setattr("orchestrator.notifying.post", post)
    return found


def ended(api: Any, status: str = "success", *, organization: Any = None, devices: int = 1, **body: Any) -> MassCommand:
    """A run of so many devices of the organization that has ended."""
    organization = organization or factories.organization()
    ids = [str(factories.device(organization=organization).pk) for _ in range(devices)]
    run = launch(api(factories.superuser()), devices=ids, **body)
    finish(run["id"], status)
    return MassCommand.objects.get(pk=run["id"])


def events() -> list[tuple[str, str]]:
    """(name of the webhook, event) of each delivery, in the order of the names."""
    return sorted(WebhookDelivery.objects.values_list("webhook__name", "event"))


# ---------------------------------------------------------------- what is told, and to whom


def test_the_end_of_a_run_is_told_once(api: Any, sent: Any) -> None:
    webhook = factories.webhook(url="https://receiver.example/hook?key=1")
    run = ended(api, organization=webhook.organization, label="Friday")
    for _ in range(3):
        Notifier().look()
    [(url, body)] = sent
    assert url == webhook.url
    assert body["type"] == "run.finished"
    assert body["data"] == {
        "id": str(run.pk), "url": f"/api/v1/controller/batch-command/{run.pk}/", "type": "custom", "playbook": "",
        "label": "Friday", "status": "success",
        "organization": {"id": str(run.organization_id), "name": str(run.organization)},
        "created_by": str(run.created_by), "schedule": None, "parent": None, "device_count": 1,
        "counts": {status: int(status == "success") for status in run.counts}, "started": None, "budget_spent": None,
        "created": body["data"]["created"], "finished": body["timestamp"],
    }  # fmt: skip
    delivery = WebhookDelivery.objects.get()
    assert (delivery.status, delivery.attempts, delivery.http_status, delivery.error) == ("delivered", 1, 200, "")


def test_nothing_that_was_given_to_the_run_is_told(api: Any, sent: Any) -> None:
    webhook = factories.webhook()
    password = "a-Secret-77"
    secret = {"password": password, "confirm_password": password}
    ended(api, organization=webhook.organization, type="change_password", input=secret, notes="for your eyes only")
    Notifier().look()
    assert len(sent) == 1
    assert password not in str(sent)
    assert "for your eyes only" not in str(sent)


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ("success", ["run.finished"]), ("cancelled", ["run.finished"]),
        ("failed", ["run.failed", "run.finished"]), ("lost", ["run.failed", "run.finished"]),
        ("unreachable", ["run.failed", "run.finished"]), ("timed_out", ["run.failed", "run.finished"]),
        ("terminated", ["run.failed", "run.finished"]),
    ],
)  # fmt: skip
def test_what_counts_as_failed(api: Any, sent: Any, status: str, told: list[str]) -> None:
    webhook = factories.webhook(events=ALL)
    ended(api, status, organization=webhook.organization)
    Notifier().look()
    assert sorted(body["type"] for _, body in sent) == told


def test_a_spent_budget_is_told_while_the_run_goes_on(api: Any, sent: Any) -> None:
    webhook = factories.webhook(events=ALL)
    ids = [str(factories.device(organization=webhook.organization).pk) for _ in range(3)]
    run = launch(api(factories.superuser()), devices=ids, max_errors=0)
    row = MassCommand.objects.get(pk=run["id"])
    command = row.commands.all()[:1].get()
    row.commands.filter(pk=command.pk).update(status="failed", finished=timezone.now())
    MassCommand.objects.count_moves(row.pk, {("queued", "failed"): 1})
    MassCommand.objects.spend_budget(row.pk)
    Notifier().look()
    assert [body["type"] for _, body in sent] == ["run.budget_spent"]
    assert sent[0][1]["data"]["status"] == "queued"


def test_a_failed_canary_spends_the_budget(api: Any, sent: Any) -> None:
    webhook = factories.webhook(event="run.budget_spent")
    ids = [str(factories.device(organization=webhook.organization).pk) for _ in range(3)]
    run = MassCommand.objects.get(pk=launch(api(factories.superuser()), devices=ids, canary=1)["id"])
    first = run.slices.get(wave=1)
    run.commands.filter(slice=first).update(status="failed", finished=timezone.now())
    MassCommand.objects.count_moves(run.pk, {("queued", "failed"): 1})
    run.slices.filter(pk=first.pk).update(status="finished")
    advance(run.pk)
    Notifier().look()
    assert [body["type"] for _, body in sent] == ["run.budget_spent"]


def test_only_those_are_told_whom_it_concerns(api: Any, sent: Any) -> None:
    one, other = factories.organization(), factories.organization()
    factories.webhook(name="own", organization=one)
    factories.webhook(name="foreign", organization=other)
    factories.webhook(name="off", organization=one, enabled=False)
    factories.webhook(name="deaf", organization=one, event="run.failed")
    factories.webhook(name="all", organization=None)
    ended(api, organization=one)
    Notifier().look()
    assert events() == [("all", "run.finished"), ("own", "run.finished")]


def test_a_run_over_several_organizations_is_the_whole_systems_alone(api: Any, sent: Any) -> None:
    devices = [factories.device() for _ in range(2)]
    for device in devices:
        factories.webhook(name=f"of {device.organization}", organization=device.organization)
    factories.webhook(name="all", organization=None)
    run = launch(api(factories.superuser()), devices=[str(device.pk) for device in devices])
    finish(run["id"])
    Notifier().look()
    assert events() == [("all", "run.finished")]


def test_what_was_before_a_webhook_is_not_told_and_what_it_missed_while_it_was_off_neither(api: Any, sent: Any) -> None:
    organization = factories.organization()
    ended(api, organization=organization)
    webhook = factories.webhook(organization=organization)
    client = api(factories.superuser())
    address = f"{WEBHOOKS}{webhook.pk}/"
    assert client.patch(address, {"enabled": False}).status_code == 200
    ended(api, organization=organization)
    assert client.patch(address, {"enabled": True}).status_code == 200
    Notifier().look()
    assert not sent


def test_what_happened_just_before_another_event_was_asked_for_is_told(api: Any, sent: Any) -> None:
    webhook = factories.webhook()
    ended(api, "failed", organization=webhook.organization)
    reply = api(factories.superuser()).patch(f"{WEBHOOKS}{webhook.pk}/", {"events": ["run.finished", "run.failed"]})
    assert reply.status_code == 200
    Notifier().look()
    assert [body["type"] for _, body in sent] == ["run.finished"]


def test_what_ended_while_nobody_looked_is_told_later(api: Any, sent: Any) -> None:
    webhook = factories.webhook()
    past = timezone.now() - timedelta(days=3)
    Webhook.objects.update(told_since=past - timedelta(days=1))
    runs = [ended(api, organization=webhook.organization) for _ in range(3)]
    MassCommand.objects.filter(pk=runs[0].pk).update(finished=past)
    MassCommand.objects.filter(pk=runs[1].pk).update(finished=past - timedelta(days=30))
    Notifier().look()
    assert {body["data"]["id"] for _, body in sent} == {str(runs[0].pk), str(runs[2].pk)}


def test_a_deleted_run_leaves_its_deliveries(api: Any, sent: Any) -> None:
    webhook = factories.webhook()
    run = ended(api, organization=webhook.organization)
    webhooks.collect(timezone.now() - timedelta(minutes=1))
    assert api(factories.superuser()).delete(f"{CONTROLLER}batch-command/{run.pk}/").status_code == 204
    Notifier().look()
    assert [body["data"]["id"] for _, body in sent] == [str(run.pk)]


def test_the_cost_of_looking_does_not_grow_with_the_webhooks(api: Any, django_assert_max_num_queries: Any) -> None:
    organization = factories.organization()
    for _ in range(3):
        ended(api, organization=organization)
    for _ in range(8):
        factories.webhook(organization=None)
    with django_assert_max_num_queries(10):  # those of a transaction are counted too
        webhooks.collect(timezone.now() - timedelta(minutes=1))
    assert not WebhookDelivery.objects.exists()  # the runs were before
    with django_assert_max_num_queries(4):
        webhooks.collect(timezone.now() - timedelta(minutes=1))


@pytest.mark.django_db(transaction=True)
def test_many_that_look_at_once_tell_it_once(api: Any, sent: Any) -> None:
    webhook = factories.webhook()
    for _ in range(6):
        ended(api, organization=webhook.organization)
    broken: list[Exception] = []

    def look() -> None:
        try:
            Notifier().look()
        except Exception as error:  # noqa: BLE001 - told below
            broken.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not broken
    ids = [body["data"]["id"] for _, body in sent]
    assert len(ids) == len(set(ids)) == 6


# ---------------------------------------------------------------- until it arrives


@pytest.fixture
def receiver(settings: Any) -> Iterator[Any]:
    """A server on loopback that answers with ``status`` and keeps what it got: (headers, body)."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            server.got.append((self.headers, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(server.status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    settings.WEBHOOK_NETWORKS = [ipaddress.ip_network("127.0.0.0/8")]
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.got, server.status = [], 200
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    server.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def signatures(secret: str, headers: Any, body: bytes) -> str:
    """The signature as Standard Webhooks 1.0.0 says, made without the service's code."""
    signed = b"%s.%s.%s" % (headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body)
    key = base64.b64decode(secret.removeprefix("whsec_"))
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


def documented() -> dict[str, Any]:
    """What the example of docs/api.md defines."""
    [example] = [text for text in EXAMPLES.findall(API.read_text()) if "def is_genuine" in text]
    defined: dict[str, Any] = {}
    exec(example, defined)  # noqa: S102 - our own page
    return defined


def test_what_arrives_is_signed(api: Any, receiver: Any) -> None:
    client = api(factories.superuser())
    body = {"organization": None, "name": "chat", "url": receiver.url, "events": ["run.finished"]}
    made = client.post(WEBHOOKS, body).json()
    assert made["secret"].startswith("whsec_")
    ended(api)
    Notifier().look()
    [(headers, body)] = receiver.got
    assert headers["webhook-signature"] == signatures(made["secret"], headers, body)
    is_genuine = documented()["is_genuine"]
    assert is_genuine(made["secret"], headers, body)
    assert not is_genuine(made["secret"], headers, body + b" ")
    assert not is_genuine("whsec_AAAA", headers, body)
    assert abs(int(headers["webhook-timestamp"]) - timezone.now().timestamp()) < 60
    delivery = WebhookDelivery.objects.get()
    assert headers["webhook-id"] == str(delivery.pk)
    assert headers["Content-Type"] == "application/json"
    assert json.loads(body) == client.get(f"{DELIVERIES}{delivery.pk}/").json()["payload"]


def test_a_new_secret_and_the_one_before_both_sign_for_a_day(api: Any, receiver: Any) -> None:
    client = api(factories.superuser())
    body = {"organization": None, "name": "chat", "url": receiver.url, "events": ["run.finished"]}
    made = client.post(WEBHOOKS, body).json()
    new = client.post(f"{WEBHOOKS}{made['id']}/secret/").json()["secret"]
    assert new != made["secret"]
    ended(api)
    Notifier().look()
    headers, sent = receiver.got[0]
    both = [signatures(secret, headers, sent) for secret in (new, made["secret"])]
    assert headers["webhook-signature"].split() == both
    Webhook.objects.update(replaced=timezone.now() - timedelta(days=1))
    ended(api)
    Notifier().look()
    headers, sent = receiver.got[1]
    assert headers["webhook-signature"] == signatures(new, headers, sent)


def test_it_is_tried_again_with_the_same_id_and_body_until_it_arrives(api: Any, receiver: Any) -> None:
    webhook = factories.webhook(url=receiver.url)
    ended(api, organization=webhook.organization)
    receiver.status = 500
    Notifier().look()
    delivery = WebhookDelivery.objects.get()
    assert (delivery.status, delivery.http_status) == ("pending", 500)
    assert delivery.error == "It answered with status 500."
    assert delivery.next_attempt
    wait = (delivery.next_attempt - timezone.now()).total_seconds()
    assert 5 < wait < 13
    Notifier().look()
    assert len(receiver.got) == 1  # not before its time
    receiver.status = 204
    WebhookDelivery.objects.update(next_attempt=timezone.now())
    Notifier().look()
    (first, body), (second, same) = receiver.got
    assert (first["webhook-id"], body) == (second["webhook-id"], same)
    delivery.refresh_from_db()
    assert (delivery.status, delivery.attempts, delivery.error) == ("delivered", 2, "")


def test_it_is_given_up_in_the_end_and_can_be_sent_again(api: Any, receiver: Any) -> None:
    webhook = factories.webhook(url=receiver.url)
    ended(api, organization=webhook.organization)
    receiver.status = 302
    for _ in range(webhooks.MOST_ATTEMPTS + 2):
        Notifier().look()
        WebhookDelivery.objects.filter(status="pending").update(next_attempt=timezone.now())
    delivery = WebhookDelivery.objects.get()
    assert len(receiver.got) == delivery.attempts == webhooks.MOST_ATTEMPTS
    assert (delivery.status, delivery.next_attempt) == ("failed", None)
    assert "not followed" in delivery.error
    receiver.status = 200
    client = api(factories.user(organization=webhook.organization, role=Role.ADMINISTRATOR))
    reply = client.post(f"{DELIVERIES}{delivery.pk}/send/")
    assert (reply.status_code, reply.json()["status"], reply.json()["attempts"]) == (202, "pending", 0)
    again = client.post(f"{DELIVERIES}{delivery.pk}/send/")
    assert (again.status_code, again.json()["code"]) == (409, "still_pending")
    Notifier().look()
    delivery.refresh_from_db()
    assert delivery.status == "delivered"
    assert AuditEntry.objects.filter(action="webhook.resend", object_id=str(webhook.pk)).count() == 1


def test_the_pauses_grow_to_six_hours_and_end_within_a_day() -> None:
    pauses = [webhooks.delay(attempts).total_seconds() for attempts in range(1, webhooks.MOST_ATTEMPTS)]
    for number, pause in enumerate(pauses):
        middle = min(10 * 4**number, 6 * 3_600)
        assert 0.75 * middle <= pause <= 1.25 * middle
    assert len({webhooks.delay(1) for _ in range(10)}) > 1


def test_who_dies_while_sending_leaves_it_to_another(api: Any, receiver: Any) -> None:
    webhook = factories.webhook(url=receiver.url)
    ended(api, organization=webhook.organization)
    webhooks.collect(timezone.now() - timedelta(minutes=1))
    [dead] = webhooks.claim(8)
    assert webhooks.claim(8) == []
    WebhookDelivery.objects.update(next_attempt=timezone.now())  # as if the lease had passed
    Notifier().look()
    delivery = WebhookDelivery.objects.get()
    assert (delivery.status, delivery.attempts) == ("delivered", 2)
    webhooks.settle(dead, status=None, error="too late")  # it was only slow
    delivery.refresh_from_db()
    assert (delivery.status, delivery.error) == ("delivered", "")


def test_a_receiver_that_fails_does_not_hold_up_the_others(api: Any, receiver: Any) -> None:
    organization = factories.organization()
    factories.webhook(name="bad", organization=organization, url="http://127.0.0.1:1/")
    factories.webhook(name="good", organization=organization, url=receiver.url)
    for _ in range(10):
        ended(api, organization=organization)
    Notifier().look()
    assert len(receiver.got) == 10
    bad = WebhookDelivery.objects.filter(webhook__name="bad")
    assert {row.error for row in bad} == {"The connection failed: [Errno 111] Connection refused."}


def test_what_the_operator_no_longer_allows_is_not_sent(api: Any, receiver: Any, settings: Any) -> None:
    webhook = factories.webhook(url=receiver.url)
    ended(api, organization=webhook.organization)
    settings.WEBHOOK_NETWORKS = []
    Notifier().look()
    assert not receiver.got
    assert "no public address" in WebhookDelivery.objects.get().error


def test_an_unreadable_secret_is_told_and_stops_nobody(api: Any, receiver: Any) -> None:
    organization = factories.organization()
    bad, good = (factories.webhook(organization=organization, url=receiver.url) for _ in range(2))
    Webhook.objects.filter(pk=bad.pk).update(sealed_secret=good.sealed_secret)
    ended(api, organization=organization)
    Notifier().look()
    assert len(receiver.got) == 1
    assert "can't be opened" in WebhookDelivery.objects.get(webhook=bad).error


def test_one_round_of_recovery_tells_too(api: Any, receiver: Any) -> None:
    webhook = factories.webhook(url=receiver.url)
    ended(api, organization=webhook.organization)
    call_command("recover")
    assert len(receiver.got) == 1


def test_old_deliveries_are_forgotten_and_not_told_again(api: Any, receiver: Any) -> None:
    webhook = factories.webhook(url=receiver.url)
    Webhook.objects.update(told_since=timezone.now() - timedelta(days=90))
    run = ended(api, organization=webhook.organization)
    Notifier().look()
    long_ago = timezone.now() - timedelta(days=31)
    WebhookDelivery.objects.update(finished=long_ago)
    MassCommand.objects.filter(pk=run.pk).update(finished=long_ago)
    Notifier().look()
    assert not WebhookDelivery.objects.exists()
    assert len(receiver.got) == 1


# ---------------------------------------------------------------- the API


def body(owner: Any, **fields: Any) -> dict[str, Any]:
    """A webhook in JSON."""
    pk = str(owner.pk) if owner else None
    given = {"organization": pk, "name": "chat", "url": "https://receiver.example/hook", "events": ["run.finished"]}
    return given | fields


def test_the_secret_is_shown_once(api: Any) -> None:
    organization = factories.organization()
    client = api(factories.user(organization=organization, role=Role.ADMINISTRATOR))
    reply = client.post(WEBHOOKS, body(organization))
    assert (reply.status_code, reply["Cache-Control"]) == (201, "no-store")
    made = reply.json()
    shown = client.get(f"{WEBHOOKS}{made['id']}/").json()
    assert shown == {name: value for name, value in made.items() if name != "secret"}
    assert made["secret"] not in client.get(WEBHOOKS).content.decode()
    assert made["secret"] not in str(list(AuditEntry.objects.values()))
    assert made["secret"] not in str(list(Webhook.objects.values()))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"url": "https://127.0.0.1/"}, "url"), ({"url": "http://receiver.example/"}, "url"), ({"url": 1}, "url"),
        ({"url": "https://a\u0000b/"}, "url"), ({"events": []}, "events"), ({"events": ["webhook.test"]}, "events"),
        ({"events": "run.finished"}, "events"), ({"name": ""}, "name"), ({"name": "a\nb"}, "name"),
        ({"enabled": "no"}, "enabled"), ({"secret": "whsec_AAAA"}, "secret"),
        ({"organization": MISSING}, "organization"),
    ],
)  # fmt: skip
def test_bad_input_is_named(api: Any, fields: Any, field: str) -> None:
    organization = factories.organization()
    client = api(factories.user(organization=organization, role=Role.ADMINISTRATOR))
    reply = client.post(WEBHOOKS, body(organization, **fields))
    assert reply.status_code == 400
    assert list(reply.json()) == [field]


def test_the_organization_must_be_said(api: Any) -> None:
    given = body(None)
    del given["organization"]
    assert list(api(factories.superuser()).post(WEBHOOKS, given).json()) == ["organization"]


def test_all_runs_are_for_superusers(api: Any) -> None:
    organization = factories.organization()
    client = api(factories.user(organization=organization, role=Role.ADMINISTRATOR))
    reply = client.post(WEBHOOKS, body(None))
    assert (reply.status_code, list(reply.json())) == (400, ["organization"])
    made = api(factories.superuser()).post(WEBHOOKS, body(None)).json()
    assert client.get(f"{WEBHOOKS}{made['id']}/").status_code == 404


def test_an_operator_elsewhere_makes_none_there(api: Any) -> None:
    here, there = factories.organization(), factories.organization()
    user = factories.user(organization=here, role=Role.ADMINISTRATOR)
    user.memberships.create(organization=there, role=Role.OPERATOR)
    assert api(user).post(WEBHOOKS, body(there)).status_code == 403


def test_names_are_unique_and_the_organization_stays(api: Any) -> None:
    one, other = factories.organization(), factories.organization()
    client = api(factories.superuser())
    made = client.post(WEBHOOKS, body(one)).json()
    for owner in (one, None):
        replies = [client.post(WEBHOOKS, body(owner)) for _ in range(2)]
        assert (replies[1].status_code, list(replies[1].json())) == (400, ["name"])
    reply = client.patch(f"{WEBHOOKS}{made['id']}/", {"organization": str(other.pk)})
    assert (reply.status_code, list(reply.json())) == (400, ["organization"])


def test_there_are_no_more_than_so_many(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.models.webhooks.MOST_WEBHOOKS", 2)
    organization, client = factories.organization(), api(factories.superuser())
    statuses = [client.post(WEBHOOKS, body(organization, name=name)).status_code for name in "abc"]
    assert statuses == [201, 201, 400]


def test_a_test_is_sent_even_while_the_webhook_is_off(api: Any, receiver: Any) -> None:
    webhook = factories.webhook(url=receiver.url, enabled=False)
    client = api(factories.user(organization=webhook.organization, role=Role.ADMINISTRATOR))
    reply = client.post(f"{WEBHOOKS}{webhook.pk}/test/")
    assert (reply.status_code, reply.json()["event"], reply.json()["status"]) == (202, "webhook.test", "pending")
    Notifier().look()
    assert json.loads(receiver.got[0][1])["type"] == "webhook.test"
    [row] = client.get(DELIVERIES, {"webhook": webhook.pk, "status": "delivered"}).json()["results"]
    assert row["id"] == reply.json()["id"]


def test_what_is_done_to_webhooks_is_in_the_audit_log(api: Any) -> None:
    client, organization = api(factories.superuser()), factories.organization()
    address = f"{WEBHOOKS}{client.post(WEBHOOKS, body(organization)).json()['id']}/"
    client.patch(address, {"enabled": False})
    client.patch(address, {"enabled": False})  # changes nothing
    client.post(address + "secret/")
    client.post(address + "test/")
    client.delete(address)
    entries = AuditEntry.objects.filter(object_type="webhook", organization_id=organization.pk).order_by("at")
    done = [(entry.action, entry.details) for entry in entries]
    assert [action for action, _ in done] == [f"webhook.{x}" for x in ("create", "change", "secret", "test", "delete")]
    assert done[1][1] == {"changes": {"enabled": [True, False]}}
