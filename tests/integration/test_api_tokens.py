"""Tokens are named, expire, can be limited, and are revoked; what a limited one leaves of its user's rights."""

from collections.abc import Callable
from datetime import timedelta
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
from django.apps import apps
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from knox.crypto import hash_token
from rest_framework.test import APIClient

from orchestrator.access import Access, Right, Role
from orchestrator.models import Schedule, Token, User
from orchestrator.recovery import forget
from tests import factories
from tests.integration.api_addresses import (
    API,
    CONTROLLER,
    DEVICES,
    ORGANIZATIONS,
    PREVIEW,
    RUNS,
    TOKEN,
    UPTIME,
    finish,
    launch,
    names,
    with_token,
)

pytestmark = [pytest.mark.django_db, pytest.mark.database, pytest.mark.usefixtures("outbox")]

ME = API + "users/me/"


def _bearer(text: str) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {text}")
    return client


def _address(token: Token) -> str:
    return f"{TOKEN}{token.pk}/"


# ---------------------------------------------------------------- make, list, revoke
def test_who_is_signed_in_makes_a_named_token_whose_text_is_shown_once() -> None:
    user = factories.superuser()
    client = with_token(user)
    reply = client.post(TOKEN, {"name": "nightly backup"})
    assert reply.status_code == 201, reply.content
    made = reply.json()
    assert made["name"] == "nightly backup"
    assert made["token"].startswith(made["prefix"])
    assert reply["Location"].endswith(_address(Token.objects.get(name="nightly backup")))
    assert _bearer(made["token"]).get(DEVICES).status_code == 200
    listed = client.get(TOKEN)
    assert names(listed) == ["nightly backup", "limited"]
    assert [row["current"] for row in listed.json()["results"]] == [False, True]
    shown = listed.content.decode() + client.get(f"{TOKEN}{made['id']}/").content.decode()
    assert made["token"] not in shown
    assert Token.objects.get(name="nightly backup").digest not in shown


def test_signing_in_may_name_and_limit_the_token() -> None:
    organization = factories.organization()
    factories.superuser(username="root")
    body = {"username": "root", "password": "a-Password-1", "name": "ci", "read_only": True}
    reply = APIClient().post(TOKEN, body | {"organization": str(organization.pk)})
    assert reply.status_code == 200
    assert (reply.json()["name"], reply.json()["read_only"]) == ("ci", True)
    assert reply.json()["organization"] == str(organization.pk)


def test_a_session_of_the_admin_makes_a_token_with_its_csrf_token_only() -> None:
    client = APIClient(enforce_csrf_checks=True)
    client.force_login(factories.superuser())
    assert client.post(TOKEN, {"name": "script"}).status_code == 403
    client.cookies["csrftoken"] = "a" * 32
    assert client.post(TOKEN, {"name": "script"}, HTTP_X_CSRFTOKEN="a" * 32).status_code == 201


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": 1}, "name"),
        ({"name": "two\nlines"}, "name"),
        ({"name": "n" * 65}, "name"),
        ({"name": "x", "organization": "all"}, "organization"),
        ({"name": "x", "organization": "00000000-0000-4000-8000-000000000000"}, "organization"),
        ({"name": "x", "read_only": "yes"}, "read_only"),
        ({"name": "x", "expiry": "never"}, "expiry"),
        ({"name": "x", "expiry": "2001-01-01T00:00:00Z"}, "expiry"),
        ({"name": "x", "expiry": (timezone.now() + timedelta(days=365)).isoformat()}, "expiry"),
        ({"name": "x", "scope": "all"}, "scope"),
    ],
)
def test_a_malformed_token_names_the_field(body: dict[str, Any], field: str) -> None:
    reply = with_token(factories.superuser()).post(TOKEN, body)
    assert reply.status_code == 400
    assert set(reply.json()) == {field}


def test_a_foreign_organization_is_as_unknown_as_a_missing_one() -> None:
    user = factories.user(organization=factories.organization())
    reply = with_token(user).post(TOKEN, {"name": "x", "organization": str(factories.organization().pk)})
    assert reply.json() == {"organization": ["There is no such organization."]}


def test_a_token_ends_when_it_was_told_to() -> None:
    end = timezone.now() + timedelta(hours=2)
    made = with_token(factories.superuser()).post(TOKEN, {"name": "x", "expiry": end.isoformat()}).json()
    assert Token.objects.get(pk=made["id"]).expiry == end


def test_a_token_is_revoked_at_once_by_its_owner_and_by_nobody_else() -> None:
    user, other = factories.superuser(), factories.superuser()
    token, text = Token.objects.issue(user=user, name="lost")
    foreign, missing = with_token(other).delete(_address(token)), with_token(other).delete(f"{TOKEN}{other.pk}/")
    assert (foreign.status_code, foreign.content) == (404, missing.content)
    assert with_token(other).get(_address(token)).status_code == 404
    assert _bearer(text).get(DEVICES).status_code == 200
    assert with_token(user).delete(_address(token)).status_code == 204
    assert _bearer(text).get(DEVICES).status_code == 401


def test_an_expired_token_is_listed_for_some_days_and_then_forgotten() -> None:
    user = factories.superuser()
    client = with_token(user)
    for days in (1, 8):
        Token.objects.issue(user=user, name=f"{days} days ago", expiry=timezone.now() - timedelta(days=days))
    forget()
    assert set(names(client.get(TOKEN))) == {"1 days ago", "limited"}


def test_the_last_use_is_written_down_but_not_at_each_request() -> None:
    client = with_token(factories.superuser())
    client.get(DEVICES)
    token = Token.objects.get()
    assert token.last_used is not None
    with CaptureQueriesContext(connection) as captured:
        client.get(DEVICES)
    assert not [query for query in captured if query["sql"].startswith(("UPDATE", "INSERT", "DELETE"))]
    earlier = timezone.now() - timedelta(minutes=6)
    Token.objects.update(last_used=earlier)
    client.get(DEVICES)
    assert Token.objects.filter(last_used__gt=earlier).exists()


# ---------------------------------------------------------------- limited to reading
@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
@pytest.mark.parametrize("address", [RUNS, PREVIEW, DEVICES, TOKEN + "00000000-0000-4000-8000-000000000000/", ME])
def test_a_read_only_token_changes_nothing_and_says_why(address: str, method: str) -> None:
    client = with_token(factories.superuser(), read_only=True)
    reply = getattr(client, method)(address, {})
    assert reply.status_code == 403
    assert reply.json() == {
        "code": "permission_denied", "detail": "This token is read-only. Use one that may make changes.",
    }  # fmt: skip


def test_a_read_only_token_reads_and_can_give_itself_back() -> None:
    client = with_token(factories.superuser(), read_only=True)
    assert client.get(DEVICES).status_code == 200
    assert client.get(ME).json()["token"]["read_only"] is True
    assert client.delete(TOKEN).status_code == 204
    assert client.get(DEVICES).status_code == 401


def test_a_read_only_token_has_no_right_but_to_view_wherever_it_is_asked_for() -> None:
    organization = factories.organization()
    for user in (factories.superuser(), factories.user(organization=organization, role=Role.ADMINISTRATOR)):
        user.token = Token.objects.issue(user=user, name="x", read_only=True)[0]
        access = Access.of(user)
        assert access.can(Right.VIEW, organization.pk)
        assert not any(access.can(right, organization.pk) for right in (Right.RUN, Right.MANAGE))
        assert not any(access.can_anywhere(right) for right in (Right.RUN, Right.MANAGE))
        assert not access.organizations(Right.RUN)


# ---------------------------------------------------------------- limited to an organization
@pytest.fixture
def two() -> Any:
    """Two organizations with a device in each, and a superuser."""
    own, other = factories.organization(name="own"), factories.organization(name="other")
    for organization in (own, other):
        factories.device(organization=organization, name=f"of {organization}")
    return own, other, factories.superuser()


def test_only_the_organization_of_the_token_exists_for_it(api: Any, two: Any) -> None:
    own, other, user = two
    for targets in (
        {"organization": str(own.pk)},
        {"organization": str(other.pk)},
        {"all_devices": True, "expected_count": 2},
    ):
        launch(api(user), **targets)
    client = with_token(user, organization=own)
    assert names(client.get(DEVICES)) == ["of own"]
    assert names(client.get(ORGANIZATIONS)) == ["own"]
    assert [row["organization"] for row in client.get(RUNS).json()["results"]] == [str(own.pk)]
    me = client.get(ME).json()
    assert (me["is_superuser"], me["token"]["organization"]) == (False, str(own.pk))


@pytest.mark.parametrize(
    ("targets", "field"),
    [
        ({"all_devices": True}, "all_devices"),
        ({"organization": "other"}, "organization"),
        ({"devices": ["other"]}, "devices"),
    ],
)
def test_a_token_of_an_organization_runs_nothing_elsewhere(two: Any, targets: Any, field: str) -> None:
    _, other, user = two
    known = {"organization": str(other.pk), "devices": [str(other.devices.get().pk)]}
    body = {name: known.get(name, value) for name, value in targets.items()}
    client = with_token(user, organization=two[0])
    for address, more in ((PREVIEW, {}), (RUNS, {"expected_count": 1})):
        reply = client.post(address, {**UPTIME, **body, **more})
        assert reply.status_code == 400
        assert field in reply.json()
    assert client.post(f"{DEVICES}{other.devices.get().pk}/command/", UPTIME).status_code == 404


def test_a_token_of_an_organization_gives_no_more_than_the_role_there(two: Any) -> None:
    own, other, _ = two
    user = factories.user(organization=own, role=Role.VIEWER)
    other.memberships.create(user=user, role=Role.ADMINISTRATOR)
    client = with_token(user, organization=own)
    assert client.post(RUNS, {**UPTIME, "organization": str(own.pk)}).status_code == 403
    assert names(client.get(DEVICES)) == ["of own"]
    assert [row["organization_name"] for row in client.get(ME).json()["memberships"]] == ["own"]
    own.memberships.all().delete()
    assert names(client.get(DEVICES)) == []


def test_what_a_superuser_alone_may_do_a_token_of_an_organization_may_not(two: Any) -> None:
    own, _, user = two
    client = with_token(user, organization=own)
    assert client.post(ORGANIZATIONS, {"name": "third"}).status_code == 403
    assert client.get(API + "users/user/").status_code == 403
    assert client.delete(f"{ORGANIZATIONS}{own.pk}/").status_code == 403


def test_a_schedule_made_with_a_token_of_an_organization_stays_there(two: Any) -> None:
    own, other, user = two
    client = with_token(user, organization=own)
    body = {**UPTIME, "name": "nightly", "cron": "0 3 * * *"}
    foreign = client.post(CONTROLLER + "schedule/", body | {"targets": {"organization": str(other.pk)}})
    assert foreign.status_code == 400
    made = client.post(CONTROLLER + "schedule/", body | {"targets": {"organization": str(own.pk)}})
    assert made.status_code == 201, made.content
    assert Schedule.objects.get().organization == own


def test_a_token_makes_none_that_is_stronger(two: Any) -> None:
    own, other, user = two
    client = with_token(user, organization=own, expiry=timezone.now() + timedelta(hours=1))
    made = client.post(TOKEN, {"name": "child"}).json()
    assert Token.objects.get(name="child").organization == own
    assert made["expiry"] == client.get(ME).json()["token"]["expiry"]
    assert "organization" in client.post(TOKEN, {"name": "child", "organization": str(other.pk)}).json()
    later = (timezone.now() + timedelta(hours=2)).isoformat()
    assert "expiry" in client.post(TOKEN, {"name": "child", "expiry": later}).json()


def test_a_limited_token_neither_sees_nor_ends_the_others_of_its_user(two: Any) -> None:
    own, _, user = two
    strong, _ = Token.objects.issue(user=user, name="strong")
    client = with_token(user, organization=own)
    assert names(client.get(TOKEN)) == ["limited"]
    assert client.delete(_address(strong)).status_code == 404


# ---------------------------------------------------------------- revoked while something goes on
@pytest.mark.parametrize("end", ["revoked", "expired", "user deactivated", "user deleted"])
def test_an_export_breaks_off_when_its_token_ends(
    api: Any, two: Any, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    own, _, user = two
    factories.device(organization=own)
    run = launch(api(user), organization=str(own.pk))["id"]
    finish(run)
    monkeypatch.setattr("orchestrator.api.export_views._CHUNK", 1)
    reader = factories.user(organization=own)
    parts: Any = iter(with_token(reader).get(f"{RUNS}{run}/export/?format=ndjson").streaming_content)
    next(parts)
    ends: dict[str, Callable[[], Any]] = {
        "revoked": Token.objects.all().delete,
        "expired": lambda: Token.objects.update(expiry=timezone.now()),
        "user deactivated": lambda: User.objects.filter(pk=reader.pk).update(is_active=False),
        "user deleted": reader.delete,
    }
    ends[end]()
    with pytest.raises(Exception, match="right"):
        next(parts)


# ---------------------------------------------------------------- an older database
def test_tokens_of_an_older_database_go_on_working() -> None:
    user, text = factories.superuser(), "ab" * 32
    own = User._meta.pk.get_db_prep_value(user.pk, connection)
    now = connection.ops.adapt_datetimefield_value(timezone.now())
    with connection.cursor() as cursor:
        kind = "uuid" if connection.vendor == "postgresql" else "char(32)"
        time = "timestamptz" if connection.vendor == "postgresql" else "datetime"
        cursor.execute(
            "CREATE TABLE knox_authtoken (digest varchar(128) PRIMARY KEY, token_key varchar(25), "
            f"user_id {kind} REFERENCES orchestrator_user (id), created {time}, expiry {time})"
        )
        values = [hash_token(text), text[:15], own, now, None]
        cursor.execute("INSERT INTO knox_authtoken VALUES (%s, %s, %s, %s, %s)", values)
    migration = import_module("orchestrator.migrations.0003_tokens")
    migration.move(apps, SimpleNamespace(connection=connection))
    assert _bearer(text).get(DEVICES).status_code == 200
    assert "knox_authtoken" not in connection.introspection.table_names()
