"""Signing in and launching are limited: 429 with the seconds to wait; a dead Redis limits nothing, stops nothing."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings as configured
from django.core.cache import cache, caches
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from orchestrator import settings as orchestrator_settings
from orchestrator.settings import _rate
from tests import factories
from tests.integration.api_addresses import DEVICES, PREVIEW, RUNS, TOKEN, UPTIME, finish, launch

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("outbox")]

HOUR = 3_600
PASSWORD = "a-Password-1"


@pytest.fixture(autouse=True)
def counters(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Few requests an hour, counted from zero, on a clock that stands still."""
    settings.SIGN_IN_RATE, settings.LAUNCH_RATE = (3, HOUR), (2, HOUR)
    clock = time.time() // HOUR * HOUR + 600
    monkeypatch.setattr(time, "time", lambda: clock)
    cache.clear()
    yield
    cache.clear()


def _sign_in(api: Any, username: Any, password: str = "wrong", address: str = "192.0.2.1") -> Any:
    return api().post(TOKEN, {"username": username, "password": password}, REMOTE_ADDR=address)


def _is_refused(reply: Any) -> None:
    assert reply.status_code == 429, reply.content
    assert set(reply.json()) == {"code", "detail"}
    assert reply.json()["code"] == "throttled"
    assert reply["Retry-After"] == str(HOUR - 600)


def test_an_address_may_not_try_many_names(api: Any) -> None:
    for number in range(3):
        assert _sign_in(api, f"nobody{number}").status_code == 401
    _is_refused(_sign_in(api, "another"))
    assert _sign_in(api, "another", address="192.0.2.2").status_code == 401


@pytest.mark.parametrize("spelling", ["root", " root\n"])
def test_many_addresses_may_not_try_one_name(api: Any, spelling: str) -> None:
    factories.superuser(username="root")
    for number in range(3):
        assert _sign_in(api, "root", address=f"192.0.2.{number}").status_code == 401
    _is_refused(_sign_in(api, spelling, PASSWORD, address="192.0.2.9"))


@pytest.mark.parametrize("username", [None, 1, [], {"a": 1}, "", "\ud800"], ids=ascii)
def test_what_is_no_name_is_400_as_ever_and_counts_for_the_address(api: Any, username: Any) -> None:
    import json

    body = json.dumps({"username": username, "password": "x"})
    replies = [api().generic("POST", TOKEN, body, "application/json").status_code for _ in range(4)]
    assert replies == [400, 400, 400, 429]


def test_giving_a_token_back_is_not_counted(api: Any) -> None:
    factories.superuser(username="root")
    tokens = [_sign_in(api, "root", PASSWORD).json()["token"] for _ in range(3)]
    for token in tokens:
        assert api().delete(TOKEN, headers={"Authorization": f"Bearer {token}"}).status_code == 204


def test_a_user_may_not_launch_at_will_and_others_do_not_suffer(api: Any) -> None:
    device = str(factories.device().pk)
    one, other = api(factories.superuser()), api(factories.superuser())
    run = launch(one, devices=[device])
    finish(run["id"], "failed")
    assert one.post(f"{RUNS}{run['id']}/retry/", {}).status_code == 201
    _is_refused(one.post(RUNS, {**UPTIME, "devices": [device]}))
    _is_refused(one.post(f"{RUNS}{run['id']}/retry/", {}))
    _is_refused(one.post(f"{DEVICES}{device}/command/", UPTIME))
    assert one.get(RUNS).status_code == one.get(f"{DEVICES}{device}/command/").status_code == 200
    assert one.post(PREVIEW, {"devices": [device]}).status_code == 200
    assert one.post(f"{RUNS}{run['id']}/cancel/", {}).status_code == 409
    assert other.post(RUNS, {**UPTIME, "devices": [device]}).status_code == 201


def test_the_next_window_lets_in_again(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        _sign_in(api, "nobody")
    _is_refused(_sign_in(api, "nobody"))
    later = time.time() + HOUR
    monkeypatch.setattr(time, "time", lambda: later)
    assert _sign_in(api, "nobody").status_code == 401


def test_a_dead_redis_lets_requests_pass_and_is_logged(api: Any, caplog: Any) -> None:
    """The cache that the service itself has; nothing listens on its unix socket here."""
    with override_settings(CACHES=orchestrator_settings.CACHES):
        assert "redis" in configured.CACHES["default"]["BACKEND"]
        started = time.monotonic()
        assert [_sign_in(api, "nobody").status_code for _ in range(5)] == [401] * 5
        assert time.monotonic() - started < 5
        caches.close_all()
    assert "can't be counted" in caplog.text


@pytest.mark.parametrize("text", ["", "20", "20/", "/min", "0/min", "-1/min", "1.5/min", "²/min", "20/fortnight"])
def test_a_rate_that_is_none_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="ORCHESTRATOR_LAUNCH_RATE"):
        _rate("ORCHESTRATOR_LAUNCH_RATE", text)


def test_a_rate_is_read() -> None:
    assert _rate("x", "20/min") == (20, 60)
