"""A launch is safe to send again: with its Idempotency-Key it starts once, whatever happens in between."""

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from orchestrator.access import Role
from orchestrator.models import Device, IdempotencyKey, MassCommand, Membership
from orchestrator.recovery import forget
from tests import factories
from tests.integration.api_addresses import DEVICES, PREVIEW, RUNS, UPTIME, case, finish

pytestmark = [pytest.mark.django_db, pytest.mark.database, pytest.mark.usefixtures("outbox")]

KEY = {"Idempotency-Key": "d2a2b0f6 first try"}


@pytest.fixture
def body() -> dict[str, Any]:
    """A launch on an organization of two devices."""
    organization = factories.organization()
    for _ in range(2):
        factories.device(organization=organization)
    return {**UPTIME, "organization": str(organization.pk)}


@pytest.fixture
def root(api: Any) -> Any:
    """A superuser's."""
    return api(factories.superuser())


def test_the_same_launch_again_gets_the_same_run(root: Any, body: dict[str, Any]) -> None:
    first = root.post(RUNS, body, headers=KEY)
    again = root.post(RUNS, dict(reversed(body.items())), headers=KEY)
    assert (first.status_code, again.status_code) == (201, 201), again.content
    assert again.json() == first.json()
    assert again["Location"] == first["Location"]
    assert MassCommand.objects.count() == 1


def test_without_a_key_or_with_another_one_each_launch_is_a_run(root: Any, body: dict[str, Any]) -> None:
    for headers in ({}, {}, KEY, {"Idempotency-Key": "another"}):
        assert root.post(RUNS, body, headers=headers).status_code == 201
    assert MassCommand.objects.count() == 4


@pytest.mark.parametrize("change", [{"label": "another"}, {"check": False}, {"type": "nonsense"}])
def test_another_body_under_the_same_key_is_422(root: Any, body: dict[str, Any], change: dict[str, Any]) -> None:
    root.post(RUNS, body, headers=KEY)
    reply = root.post(RUNS, {**body, **change}, headers=KEY)
    assert (reply.status_code, reply.json()["code"]) == (422, "idempotency_key_reused")
    assert MassCommand.objects.count() == 1


@pytest.fixture
def ended(root: Any, body: dict[str, Any]) -> str:
    """The id of a run whose devices all failed."""
    pk: str = root.post(RUNS, body).json()["id"]
    finish(pk, "failed")
    return pk


def test_a_retry_that_is_sent_again_starts_nothing_again(root: Any, body: dict[str, Any], ended: str) -> None:
    address = f"{RUNS}{ended}/retry/"
    first, again = (root.post(address, {}, headers=KEY) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 201), again.content
    assert again.json() == first.json()
    assert again["Location"] == first["Location"]
    assert MassCommand.objects.filter(parent__pk=ended).count() == 1
    assert root.post(address, {"statuses": ["lost"]}, headers=KEY).json()["code"] == "idempotency_key_reused"
    other = root.post(RUNS, body).json()["id"]
    finish(other, "failed")
    assert root.post(f"{RUNS}{other}/retry/", {}, headers=KEY).status_code == 422
    assert root.post(RUNS, body, headers=KEY).status_code == 422


def test_a_refused_retry_does_not_use_its_key_up(root: Any, ended: str) -> None:
    address = f"{RUNS}{ended}/retry/"
    assert root.post(address, {"statuses": ["lost"]}, headers=KEY).status_code == 400
    assert root.post(address, {}, headers=KEY).status_code == 201


def test_a_command_for_a_device_that_is_sent_again_starts_nothing_again(root: Any, body: dict[str, Any]) -> None:
    one, other = Device.objects.all()
    address = f"{DEVICES}{one.pk}/command/"
    first, again = (root.post(address, UPTIME, headers=KEY) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 201), again.content
    assert again.json() == first.json()
    assert MassCommand.objects.count() == 1
    assert root.post(address, {"type": "reboot"}, headers=KEY).status_code == 422
    assert root.post(f"{DEVICES}{other.pk}/command/", UPTIME, headers=KEY).status_code == 422
    MassCommand.objects.all().delete()
    assert root.post(address, UPTIME, headers=KEY).json()["code"] == "run_deleted"


@pytest.mark.parametrize("kind", ["retry", "command"])
def test_a_key_whose_right_was_revoked_gets_nothing(api: Any, root: Any, body: Any, ended: str, kind: str) -> None:
    device = Device.objects.first()
    assert device
    user = factories.user(organization=device.organization)
    address = f"{RUNS}{ended}/retry/" if kind == "retry" else f"{DEVICES}{device.pk}/command/"
    sent = {} if kind == "retry" else UPTIME
    assert api(user).post(address, sent, headers=KEY).status_code == 201
    Membership.objects.update(role=Role.VIEWER)
    assert api(user).post(address, sent, headers=KEY).status_code == 403
    Membership.objects.all().delete()
    assert api(user).post(address, sent, headers=KEY).status_code == 404


def test_a_key_belongs_to_its_user(api: Any, root: Any, body: dict[str, Any]) -> None:
    first = root.post(RUNS, body, headers=KEY).json()
    second = api(factories.superuser()).post(RUNS, {**body, "label": "mine"}, headers=KEY)
    assert second.status_code == 201
    assert second.json()["id"] != first["id"]


def test_a_refused_launch_does_not_use_the_key_up(root: Any, body: dict[str, Any]) -> None:
    refused: list[dict[str, Any]] = [
        {"nonsense": 1}, {"input": {"command": ""}}, {"digest": "0" * 64}, {"expected_count": 3},
    ]  # fmt: skip
    for change in refused:
        assert root.post(RUNS, {**body, **change}, headers=KEY).status_code in (400, 409)
        assert not IdempotencyKey.objects.exists()
    assert root.post(RUNS, body, headers=KEY).status_code == 201


def test_a_moment_that_is_over_when_it_is_sent_again_does_no_harm(root: Any, body: dict[str, Any]) -> None:
    body["run_at"] = (timezone.now() + timedelta(seconds=1.5)).isoformat()
    first = root.post(RUNS, body, headers=KEY)
    assert first.status_code == 201, first.content
    threading.Event().wait(1.6)
    again = root.post(RUNS, body, headers=KEY)
    assert (again.status_code, again.json()["id"]) == (201, first.json()["id"])


def test_a_key_whose_run_was_deleted_starts_no_other(root: Any, body: dict[str, Any]) -> None:
    run = root.post(RUNS, body, headers=KEY).json()
    finish(run["id"])
    assert root.delete(f"{RUNS}{run['id']}/").status_code == 204
    reply = root.post(RUNS, body, headers=KEY)
    assert (reply.status_code, reply.json()["code"]) == (409, "run_deleted")


def test_a_revoked_right_ends_what_the_key_shows(api: Any, body: dict[str, Any]) -> None:
    user = factories.user()
    membership = Membership.objects.create(user=user, organization_id=body["organization"], role=Role.OPERATOR)
    assert api(user).post(RUNS, body, headers=KEY).status_code == 201
    factories.device(organization=factories.organization())
    Membership.objects.create(user=user, organization=factories.organization(), role=Role.OPERATOR)
    membership.delete()
    reply = api(user).post(RUNS, body, headers=KEY)
    assert (reply.status_code, reply.json()["code"]) == (403, "permission_denied")


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there", "ключ", "caf\u00e9", "\x7f"], ids=case)
def test_a_bad_key_is_named(root: Any, body: dict[str, Any], key: str) -> None:
    reply = root.post(RUNS, body, headers={"Idempotency-Key": key})
    assert (reply.status_code, list(reply.json())) == (400, ["Idempotency-Key"])
    assert not MassCommand.objects.exists()


def test_the_longest_key_is_taken(root: Any, body: dict[str, Any]) -> None:
    assert root.post(RUNS, body, headers={"Idempotency-Key": "~" * 255}).status_code == 201


def test_nobody_can_read_the_body_back_from_what_is_stored(root: Any, body: dict[str, Any]) -> None:
    secret = {"password": "guessable1", "confirm_password": "guessable1"}
    assert root.post(RUNS, {**body, "type": "change_password", "input": secret}, headers=KEY).status_code == 201
    stored = repr(IdempotencyKey.objects.values().get())
    assert "guessable1" not in stored


def test_keys_are_forgotten_after_a_day(root: Any, body: dict[str, Any]) -> None:
    root.post(RUNS, body, headers=KEY)
    IdempotencyKey.objects.update(created=timezone.now() - timedelta(hours=23))
    forget()
    assert IdempotencyKey.objects.exists()
    IdempotencyKey.objects.update(created=timezone.now() - timedelta(hours=25))
    forget()
    assert not IdempotencyKey.objects.exists()
    assert MassCommand.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_of_requests_at_once_one_starts_and_all_get_its_run(api: Any, body: dict[str, Any]) -> None:
    user, together, replies = factories.superuser(), threading.Barrier(4), []

    def send() -> None:
        try:
            together.wait(30)
            replies.append(api(user).post(RUNS, body, headers=KEY))
        finally:
            connection.close()

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [reply.status_code for reply in replies] == [201] * 4
    assert len({reply.json()["id"] for reply in replies}) == 1
    assert MassCommand.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_who_comes_between_the_look_and_the_start_gets_the_run_of_the_first(
    root: Any, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator import actions

    first = root.post(RUNS, body, headers=KEY).json()
    looks = [None]
    real = actions.launched
    monkeypatch.setattr(actions, "launched", lambda **given: looks.pop() if looks else real(**given))
    reply = root.post(RUNS, body, headers=KEY)
    assert (reply.status_code, reply.json()["id"]) == (201, first["id"])
    assert MassCommand.objects.count() == 1


@pytest.mark.parametrize(("count", "status"), [(2, 201), (None, 201), (1, 409), (3, 409), (0, 409)])
def test_the_expected_count_must_be_the_real_one(
    root: Any, body: dict[str, Any], count: int | None, status: int
) -> None:
    reply = root.post(RUNS, {**body, "expected_count": count})
    assert reply.status_code == status, reply.content
    if status == 409:
        assert {key: reply.json()[key] for key in ("code", "count")} == {"code": "count_changed", "count": 2}
    assert MassCommand.objects.count() == (status == 201)


@pytest.mark.parametrize("count", [-1, "2", 2.0, True, 2**31], ids=case)
def test_an_expected_count_that_is_none_is_named(root: Any, body: dict[str, Any], count: Any) -> None:
    reply = root.post(RUNS, {**body, "expected_count": count})
    assert (reply.status_code, list(reply.json())) == (400, ["expected_count"])


def test_all_devices_are_counted_and_must_be(root: Any, body: dict[str, Any]) -> None:
    everything = {**UPTIME, "all_devices": True}
    digest = root.post(PREVIEW, everything).json()["digest"]
    for uncounted in (everything, {**everything, "digest": digest}, {**everything, "platform": "openwrt"}):
        reply = root.post(RUNS, uncounted)
        assert reply.status_code == 400
        assert list(reply.json()) == ["expected_count"]
    assert root.post(RUNS, {**body, "all_devices": True}).status_code == 201  # of the organization only
    assert root.post(RUNS, {**everything, "expected_count": 3}).json()["count"] == 2
    assert root.post(RUNS, {**everything, "expected_count": 2}).status_code == 201
