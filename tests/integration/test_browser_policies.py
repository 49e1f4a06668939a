"""What replies tell the browser to allow: nothing inline on our pages; and signing in is limited in the admin too."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client
from django.urls import reverse

from orchestrator.models import AuditEntry
from orchestrator.settings import BASE_DIR
from tests import factories
from tests.integration.api_addresses import TOKEN

pytestmark = pytest.mark.django_db

HOUR = 3_600
PAGES = (
    "/admin/", "/admin/orchestrator/device/", "/admin/orchestrator/masscommand/", "/admin/orchestrator/auditentry/",
    "/admin/login/", "/api/v1/docs/", "/api/v1/users/me/", "/healthz", "/nothing/", "/api/v1/nothing/",
)  # fmt: skip


def directives(reply: Any) -> dict[str, list[str]]:
    """The policy by its names."""
    parts = (part.split() for part in reply["Content-Security-Policy"].split(";"))
    return {part[0]: part[1:] for part in parts}


@pytest.mark.parametrize("path", PAGES)
def test_no_page_of_ours_allows_anything_inline_or_from_elsewhere(client: Client, path: str) -> None:
    client.force_login(factories.superuser())
    reply = client.get(path)
    policy = directives(reply)
    assert "unsafe-inline" not in reply["Content-Security-Policy"]
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == ["'none'"]
    assert not [source for sources in policy.values() for source in sources if "http" in source or "*" in source]
    drawn_by_unfold = b"unfold-theme-colors" in reply.content
    assert ("'unsafe-eval'" in policy["script-src"]) is drawn_by_unfold
    assert reply["X-Frame-Options"] in ("DENY", "SAMEORIGIN")  # unfold's word for lists; the policy above is stricter
    assert reply["X-Content-Type-Options"] == "nosniff"
    assert reply["Referrer-Policy"] == "same-origin"
    assert ("no-store" in reply.get("Cache-Control", "")) is path.startswith(("/admin/", "/api/"))


def test_the_description_of_the_api_has_its_script_in_a_file(client: Client) -> None:
    page = client.get("/api/v1/docs/").content.decode()
    assert "<script>" not in page
    assert "<style" not in page
    assert client.get("/api/v1/docs/?script=")["Content-Type"] == "application/javascript"


def test_a_style_that_somebody_names_like_the_colours_is_not_allowed(client: Client) -> None:
    client.force_login(factories.superuser())
    injected = '<style id="unfold-theme-colors">body{display:none}</style>'
    factories.device(name=injected[:128])
    reply = client.get("/admin/orchestrator/device/")
    assert injected not in reply.content.decode()


@pytest.fixture
def few_attempts(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Three an hour, counted from zero, on a clock that stands still."""
    settings.SIGN_IN_RATE = (3, HOUR)
    clock = time.time() // HOUR * HOUR + 600
    monkeypatch.setattr(time, "time", lambda: clock)
    cache.clear()
    yield
    cache.clear()


def _try(client: Client, username: str, password: str = "wrong", address: str = "192.0.2.1") -> Any:
    form = {"username": username, "password": password}
    return client.post(reverse("admin:login"), form, REMOTE_ADDR=address)


@pytest.mark.usefixtures("few_attempts")
@pytest.mark.parametrize("names", [("a", "b", "c", "root"), ("root", "root ", " root", "root")])
def test_the_admin_limits_attempts_by_address_and_by_name(client: Client, names: tuple[str, ...]) -> None:
    factories.superuser(username="root", password="a-Password-1")
    one_address = len(set(names)) == 4 and names[0] == "a"
    for number, name in enumerate(names[:3]):
        reply = _try(client, name, address="192.0.2.1" if one_address else f"192.0.2.{number}")
        assert reply.status_code == 200
    refused = _try(client, names[3], "a-Password-1", address="192.0.2.1" if one_address else "192.0.2.9")
    assert (refused.status_code, refused["Retry-After"]) == (429, str(HOUR - 600))
    assert f"Wait {HOUR - 600} seconds" in refused.content.decode()
    assert not AuditEntry.objects.filter(action="session.sign_in").exists()
    assert client.get(reverse("admin:login")).status_code == 200  # the form itself is not limited


@pytest.mark.usefixtures("few_attempts")
def test_both_doors_count_together(client: Client, api: Any) -> None:
    for number in range(2):
        _try(client, "root", address=f"192.0.2.{number}")
    body = {"username": "root", "password": "wrong"}
    assert api().post(TOKEN, body, REMOTE_ADDR="192.0.2.3").status_code == 401
    assert api().post(TOKEN, body, REMOTE_ADDR="192.0.2.4").status_code == 429
    assert _try(client, "root", address="192.0.2.5").status_code == 429


@pytest.mark.parametrize("program", [["manage.py", "check"], ["-c", "import orchestrator.asgi"]])
def test_production_without_a_key_says_so_in_one_line(program: list[str], tmp_path: Any) -> None:
    environment = {"PATH": os.environ["PATH"], "ORCHESTRATOR_PRODUCTION": "1", "ORCHESTRATOR_DATA_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, *program], cwd=BASE_DIR, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == (
        "The service is not set up: DJANGO_SECRET_KEY must be set when ORCHESTRATOR_PRODUCTION is on\n"
    )
    assert not list(tmp_path.iterdir())
