"""Who gets in: tokens, sessions, and nobody else."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from orchestrator.models import Token
from tests import factories
from tests.integration.api_addresses import DEVICES, MISSING, RUNS, TOKEN

pytestmark = [pytest.mark.django_db, pytest.mark.database]

PASSWORD = "a-Password-1"


def _token(username: str, password: str = PASSWORD) -> Any:
    return APIClient().post(TOKEN, {"username": username, "password": password})


def _bearer(token: str, prefix: str = "Bearer") -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"{prefix} {token}")
    return client


def test_a_name_and_a_password_give_a_token_that_opens_the_api() -> None:
    factories.superuser(username="root")
    reply = _token("root")
    assert reply.status_code == 200
    assert reply.json().keys() >= {"token", "expiry"}
    assert _bearer(reply.json()["token"]).get(DEVICES).status_code == 200


def test_a_token_is_stored_hashed_and_its_reply_is_not_cached() -> None:
    factories.superuser(username="root")
    reply = _token("root")
    stored = Token.objects.get()
    assert reply.json()["token"] not in (stored.digest, stored.token_key)
    assert len(stored.digest) == 128
    assert reply["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("username", "password"),
    [("root", "wrong"), ("nobody", PASSWORD), ("root", PASSWORD.upper()), ("root", PASSWORD + " ")],
)
def test_a_wrong_name_or_password_is_refused_without_saying_which(username: str, password: str) -> None:
    factories.superuser(username="root")
    reply = _token(username, password)
    assert reply.status_code == 401
    assert reply.json() == {
        "code": "authentication_failed",
        "detail": "The user name or the password is wrong.",
    }


def test_an_inactive_user_gets_no_token() -> None:
    factories.superuser(username="root", is_active=False)
    assert _token("root").status_code == 401


def test_a_token_ends_when_its_user_is_deactivated() -> None:
    user = factories.superuser(username="root")
    client = _bearer(_token("root").json()["token"])
    user.is_active = False
    user.save()
    assert client.get(DEVICES).status_code == 401


def test_an_expired_token_is_refused() -> None:
    factories.superuser(username="root")
    client = _bearer(_token("root").json()["token"])
    Token.objects.update(expiry=timezone.now() - timedelta(seconds=1))
    assert client.get(DEVICES).status_code == 401


def test_a_token_can_be_given_back() -> None:
    factories.superuser(username="root")
    kept, revoked = (_bearer(_token("root").json()["token"]) for _ in range(2))
    assert revoked.delete(TOKEN).status_code == 204
    assert revoked.get(DEVICES).status_code == 401
    assert kept.get(DEVICES).status_code == 200


def test_giving_back_a_token_needs_one() -> None:
    assert APIClient().delete(TOKEN).status_code == 401


@pytest.mark.parametrize("header", ["Bearer", "Bearer x", "Bearer x y", "Token x", "Basic cm9vdDpyb290", "Bearer é"])
def test_a_malformed_authorization_is_401(header: str) -> None:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=header)
    reply = client.get(DEVICES)
    assert reply.status_code == 401
    assert set(reply.json()) == {"code", "detail"}
    assert reply["WWW-Authenticate"].startswith("Bearer")


def test_signing_in_again_works_with_a_stale_token_in_the_header() -> None:
    factories.superuser(username="root")
    reply = _bearer("stale").post(TOKEN, {"username": "root", "password": PASSWORD})
    assert reply.status_code == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"password": "x"}, "username"),
        ({"username": "root"}, "password"),
        ({"username": "", "password": "x"}, "username"),
        ({"username": 1, "password": "x"}, "username"),
        ({"username": None, "password": "x"}, "username"),
        ({"username": ["root"], "password": "x"}, "username"),
        ({"username": "root", "password": {"$ne": ""}}, "password"),
        ({"username": "ro\x00ot", "password": "x"}, "username"),
        ({"username": "root", "password": "x\x00"}, "password"),
        ({"username": "r" * 151, "password": "x"}, "username"),
        ({"username": "root", "password": "x" * 1025}, "password"),
        ({"username": "root", "password": "x", "otp": "1"}, "otp"),
    ],
)
def test_a_malformed_sign_in_names_the_field(body: dict[str, Any], field: str) -> None:
    reply = APIClient().post(TOKEN, body)
    assert reply.status_code == 400
    assert field in reply.json()


def test_a_session_of_the_admin_reads_and_writes_with_its_csrf_token_only() -> None:
    user = factories.superuser()
    client = APIClient(enforce_csrf_checks=True)
    client.force_login(user)
    assert client.get(DEVICES).status_code == 200
    reply = client.post(RUNS, {})
    assert reply.status_code == 403
    assert reply.json()["code"] == "permission_denied"
    client.cookies["csrftoken"] = "a" * 32
    assert client.post(RUNS, {}, HTTP_X_CSRFTOKEN="a" * 32).status_code == 400


@pytest.mark.parametrize("method", ["get", "head", "options", "post", "put", "patch", "delete"])
@pytest.mark.parametrize("address", [DEVICES, RUNS, f"{RUNS}{MISSING}/", f"{DEVICES}{MISSING}/command/"])
def test_an_anonymous_request_is_401_whatever_it_asks(address: str, method: str) -> None:
    reply = getattr(APIClient(), method)(address)
    assert reply.status_code == 401
    if method != "head":
        assert reply.json()["code"] == "not_authenticated"


@pytest.mark.parametrize("address", ["schema/", "docs/"])
def test_the_description_of_the_api_is_open_to_all(address: str) -> None:
    assert APIClient().get(f"/api/v1/{address}").status_code == 200
