"""The API in a browser: pages for who is signed in, which say what the JSON says, and JSON for everybody else."""

import html
import json
import re
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from orchestrator.models import Command, Organization
from tests import factories
from tests.integration.api_addresses import DEVICES, GROUPS, ORGANIZATIONS, PREVIEW, RUNS, launch, with_token
from tests.integration.test_api_tenancy import ROLES, TABLE, World

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("outbox")]

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8"}
PAGE = "text/html; charset=utf-8"
FILES = ("batch-command-events", "batch-command-export", "audit-export", "device-known-hosts")
READ = sorted(name for name, methods in TABLE.items() if "get" in methods and name not in FILES)


def signed_in(user: Any) -> Client:
    """A browser with the session of this user."""
    client = Client(enforce_csrf_checks=True)
    client.force_login(user)
    return client


def shown(page: Any) -> Any:
    """The JSON in a page."""
    assert page["Content-Type"] == PAGE
    [content] = re.findall(r"<pre[^>]*>(.*?)</pre>", page.content.decode(), re.DOTALL)
    return json.loads(html.unescape(content))


@pytest.mark.parametrize("role", ROLES)
def test_a_page_tells_each_role_what_the_json_tells(api: Any, role: str) -> None:
    world, foreign = World(api), World(api)
    browser = signed_in(world.member(role))
    for name in READ:
        for place, missing in ((world, False), (foreign, False), (world, True)):
            address = place.address(name, missing=missing)
            page, reply = browser.get(address, headers=BROWSER), browser.get(address)
            assert page.status_code == reply.status_code, address
            assert shown(page) == reply.json(), address
            assert reply["Content-Type"] == "application/json"


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_the_same_file_in_a_browser(api: Any, name: str) -> None:
    world = World(api)
    reply = signed_in(world.member("administrator")).get(world.address(name), headers=BROWSER)
    assert reply.status_code == 200
    assert not reply["Content-Type"].startswith("text/html")


def test_a_page_leads_on(api: Any) -> None:
    world = World(api)
    browser = signed_in(world.member("operator"))

    def links(address: str) -> set[str]:
        page = browser.get(address, headers=BROWSER).content.decode()
        return {html.unescape(link) for link in re.findall(r'<a[^>]* href="([^"]*)"', page)}

    runs = links(RUNS)
    assert {f"{RUNS}{world.run.pk}/", PREVIEW, DEVICES, reverse("docs"), f"{RUNS}?format=json"} <= runs
    assert {f"{RUNS}{world.run.pk}/{end}/" for end in ("commands", "cancel", "export")} <= links(
        f"{RUNS}{world.run.pk}/"
    )
    for _ in range(3):
        factories.group(organization=world.organization)
    assert "http://testserver" + f"{GROUPS}?page=3&page_size=1" in links(f"{GROUPS}?page_size=1&page=2")


def test_what_only_takes_a_post_has_a_form_for_it(api: Any) -> None:
    world = World(api)
    page = signed_in(world.member("operator")).get(PREVIEW, headers=BROWSER)
    assert (page.status_code, shown(page)["code"]) == (405, "method_not_allowed")
    assert "<option>POST</option>" in page.content.decode()


def test_who_is_not_signed_in_is_led_to_where_it_is_done() -> None:
    page = Client().get(f"{DEVICES}?page=1", headers=BROWSER)
    assert (page.status_code, shown(page)["code"]) == (401, "not_authenticated")
    assert 'href="/admin/login/?next=/api/v1/controller/device/%3Fpage%3D1"' in page.content.decode()
    assert "<form" not in page.content.decode()


def test_the_sign_in_leads_back(api: Any) -> None:
    factories.superuser(username="root", password="a-Password-1")
    form = {"username": "root", "password": "a-Password-1", "next": DEVICES}
    assert Client().post("/admin/login/", form)["Location"] == DEVICES


def test_a_program_never_gets_a_page(api: Any) -> None:
    client = with_token(factories.superuser())
    assert client.get(DEVICES, headers=BROWSER)["Content-Type"] == "application/json"
    for query, accept, status in (("", "text/html", 406), ("?format=html", "*/*", 404)):
        reply = client.get(DEVICES + query, headers={"Accept": accept})
        assert (reply.status_code, reply["Content-Type"]) == (status, "application/json")


def test_what_changes_something_answers_in_json_also_to_a_browser() -> None:
    browser = signed_in(factories.superuser())
    page = browser.get(ORGANIZATIONS, headers=BROWSER).content.decode()
    [token] = re.findall(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
    body = {"name": "North"}
    without = browser.post(ORGANIZATIONS, body, "application/json")
    assert (without.status_code, without.json()["code"]) == (403, "permission_denied")
    assert not Organization.objects.exists()
    reply = browser.post(ORGANIZATIONS, body, "application/json", headers={"X-CSRFToken": token} | BROWSER)
    assert (reply.status_code, reply["Content-Type"]) == (201, "application/json")
    form = browser.post(ORGANIZATIONS, {"name": "South"}, headers={"X-CSRFToken": token})
    assert form.status_code == 415
    address = f"{ORGANIZATIONS}{reply.json()['id']}/"
    page = browser.get(address, headers=BROWSER).content.decode()
    [body_of_form] = re.findall(r"<textarea[^>]*>(.*?)</textarea>", page, re.DOTALL)
    changed = html.unescape(body_of_form).replace("North", "West")  # sent back as it was shown
    assert browser.put(address, changed, "application/json", headers={"X-CSRFToken": token}).json()["name"] == "West"


def test_a_page_runs_nothing_that_a_device_has_said(api: Any) -> None:
    world = World(api)
    said = '</pre><script>alert(1)</script><img src=x onerror="alert(1)">\u202eexe'
    Command.objects.filter(mass_command=world.run).update(stdout=said)
    page = signed_in(world.member("viewer")).get(f"{RUNS}{world.run.pk}/", headers=BROWSER)
    assert shown(page)["commands"]["results"][0]["stdout"] == said
    assert said not in page.content.decode()
    assert "<script>" not in page.content.decode()
    assert "\u202e" not in page.content.decode()
    assert "unsafe" not in page["Content-Security-Policy"]
    assert not re.findall(r'(?:src|href)="(?!/|\?|http://testserver/)', page.content.decode())


def test_a_page_of_megabytes_is_cut(api: Any) -> None:
    world = World(api)
    Command.objects.filter(mass_command=world.run).update(stdout="x" * 2_000_000)
    page = signed_in(world.member("viewer")).get(f"{RUNS}{world.run.pk}/", headers=BROWSER).content
    assert b"The rest was left out here" in page
    assert len(page) < 600_000


@pytest.mark.parametrize(
    "name", ["device-list", "batch-command-list", "batch-command-detail", "batch-command-commands"]
)
def test_a_page_needs_no_more_queries_than_its_json(api: Any, name: str) -> None:
    world = World(api)
    for _ in range(5):
        device = factories.device(organization=world.organization)
        launch(api(factories.superuser()), devices=[str(device.pk)])
    browser = signed_in(world.member("operator"))
    needed = []
    for headers in ({}, BROWSER):
        with CaptureQueriesContext(connection) as captured:
            assert browser.get(world.address(name), headers=headers).status_code == 200
        needed.append(len(captured))
    assert needed[0] == needed[1]
