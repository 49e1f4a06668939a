"""What a hostile page or client tries: every address of the admin and the API is walked, also those to come."""

import re
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client
from django.urls import URLResolver, get_resolver

from tests import factories

pytestmark = pytest.mark.django_db

PASSWORD = "a-Password-1"


def routes(patterns: Any, prefix: str = "") -> Iterator[str]:
    """The routes of all addresses."""
    for entry in patterns:
        route = prefix + str(entry.pattern)
        yield from routes(entry.url_patterns, route) if isinstance(entry, URLResolver) else (route,)


def addresses(top: str, pk: str) -> list[str]:
    """All addresses below one, with this id in each; those that are no plain routes are left out."""
    found = set()
    for route in routes(get_resolver().url_patterns):
        plain = re.sub(r"<path:\w+>|\(\?P<pk>[^)]*\)", pk, route).replace("\\Z", "")
        plain = re.sub(r"<uuid:\w+>", str(uuid.uuid4()), plain)
        plain = re.sub(r"<int:\w+>", "1", re.sub(r"<(str:)?\w+>", "x", plain))
        found.add("/" + plain.replace("^", "").replace("$", ""))
    return sorted(address for address in found if address.startswith(top) and not set("()[]?*\\") & set(address))


def test_no_page_of_the_admin_takes_a_form_that_another_site_sends() -> None:
    user, taken = factories.superuser(), []
    everything = addresses("/admin/", str(uuid.uuid4()))
    for address in everything:
        client = Client(enforce_csrf_checks=True)
        client.force_login(user)
        taken += [address] if client.post(address, {}).status_code != 403 else []
    assert taken == []
    assert len(everything) > 100


def test_no_address_of_the_api_takes_a_session_from_another_site() -> None:
    user, codes = factories.superuser(), set()
    for address in addresses("/api/", str(uuid.uuid4())):
        client = Client(enforce_csrf_checks=True)
        client.force_login(user)
        for method in ("post", "put", "patch", "delete"):
            codes.add(getattr(client, method)(address, data="{}", content_type="application/json").status_code)
    assert codes <= {401, 403, 404, 405}
    assert 403 in codes


def test_what_is_no_id_is_nowhere(client: Client) -> None:
    client.force_login(factories.superuser())
    for address in addresses("/admin/orchestrator/", "no-id"):
        reply = client.get(address)
        assert reply.status_code < 500, address
        assert "Content-Security-Policy" in reply


@pytest.mark.parametrize("target", [
    "//evil.example", "https://evil.example/", "/\\evil.example", "///evil.example", "http:evil.example",
    "javascript:alert(1)", "\t//evil.example",
])  # fmt: skip
def test_signing_in_leads_to_no_other_site(client: Client, target: str) -> None:
    factories.superuser(username="root", password=PASSWORD)
    cache.clear()
    form = {"username": "root", "password": PASSWORD, "next": target}
    reply = client.post("/admin/login/", form, QUERY_STRING=f"next={target}")
    assert (reply.status_code, reply["Location"]) == (302, "/admin/")


def test_a_session_that_somebody_else_has_chosen_is_not_signed_in(client: Client) -> None:
    factories.superuser(username="root", password=PASSWORD)
    cache.clear()
    client.cookies["sessionid"] = chosen = "chosen0123456789abcdefghijklmnop"
    client.post("/admin/login/", {"username": "root", "password": PASSWORD})
    cookie = client.cookies["sessionid"]
    assert cookie.value != chosen
    assert (cookie["httponly"], cookie["samesite"]) == (True, "Lax")
    client.post("/admin/logout/")
    client.cookies["sessionid"] = cookie.value
    assert client.get("/admin/").status_code == 302


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "localhost@evil.example"])
def test_another_hosts_name_is_refused(client: Client, host: str) -> None:
    for address in ("/admin/login/", "/api/v1/schema/", "/api/v1/controller/device/"):
        assert client.get(address, HTTP_HOST=host).status_code == 400
    assert "evil" not in client.get("/admin/", HTTP_X_FORWARDED_HOST=host)["Location"]
