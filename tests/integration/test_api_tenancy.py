"""Every route × method × role × (own, foreign, missing), walked from the URLconf: a new route must join the table."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import transaction
from django.urls import URLPattern, get_resolver, reverse
from django.utils import timezone

from orchestrator.access import Role
from orchestrator.models import AuditEntry, Device, MassCommand, Organization, Schedule, WebhookDelivery
from tests import factories
from tests.integration.api_addresses import MISSING, UPTIME, finish, launch, with_token

pytestmark = [pytest.mark.django_db, pytest.mark.database, pytest.mark.usefixtures("outbox")]

ROLES = ["superuser", "administrator", "operator", "viewer"]
READ = (200, 200, 200, 200)

# Route → method → the statuses of ROLES on their own organization's row.
TABLE: dict[str, dict[str, tuple[int, int, int, int]]] = {
    "batch-command-list": {"get": READ, "post": (201, 201, 201, 403)},
    "batch-command-confirmation": {"post": (200, 200, 200, 403)},
    "batch-command-detail": {"get": READ, "delete": (204, 204, 403, 403)},
    "batch-command-commands": {"get": READ},
    "batch-command-events": {"get": READ},
    "batch-command-export": {"get": READ},
    "batch-command-cancel": {"post": (202, 202, 202, 403)},
    "batch-command-pause": {"post": (200, 200, 200, 403)},
    "batch-command-resume": {"post": (200, 200, 200, 403)},
    "batch-command-retry": {"post": (201, 201, 201, 403)},
    "organization-list": {"get": READ, "post": (201, 403, 403, 403)},
    "organization-detail": {
        "get": READ, "put": (200, 200, 403, 403), "patch": (200, 200, 403, 403), "delete": (204, 403, 403, 403),
    },
    "device-inventory": {"get": READ},
    "device-known-hosts": {"get": READ, "post": (200, 200, 403, 403)},
    "device-host-keys": {"post": (200, 200, 403, 403)},
    "device-host-key": {"post": (200, 200, 403, 403)},
    "device-command": {"get": READ, "post": (201, 201, 201, 403)},
    "command-tasks": {"get": READ},
    "playbook-list": {"get": READ},
    "playbook-detail": {"get": READ},
    "schedule-list": {"get": READ, "post": (201, 201, 201, 403)},
    "schedule-detail": {
        "get": READ, "put": (200, 200, 200, 403), "patch": (200, 200, 200, 403), "delete": (204, 204, 204, 403),
    },
    "saved-targets-list": {"get": READ, "post": (201, 201, 201, 403)},
    "saved-targets-detail": {
        "get": READ, "put": (200, 200, 200, 403), "patch": (200, 200, 200, 403), "delete": (204, 204, 204, 403),
    },
    # Who may not change people and roles does not see them either.
    "membership-list": {"get": (200, 200, 403, 403), "post": (201, 201, 403, 403)},
    "membership-detail": {
        "get": (200, 200, 404, 404), "put": (200, 200, 404, 404), "patch": (200, 200, 404, 404),
        "delete": (204, 204, 404, 404),
    },
    # Nor webhooks: their URLs are often secrets.
    "webhook-list": {"get": (200, 200, 403, 403), "post": (201, 201, 403, 403)},
    "webhook-detail": {
        "get": (200, 200, 404, 404), "put": (200, 200, 404, 404), "patch": (200, 200, 404, 404),
        "delete": (204, 204, 404, 404),
    },
    "webhook-secret": {"post": (200, 200, 404, 404)},
    "webhook-test": {"post": (202, 202, 404, 404)},
    "webhook-delivery-list": {"get": (200, 200, 403, 403)},
    "webhook-delivery-detail": {"get": (200, 200, 404, 404)},
    "webhook-delivery-send": {"post": (202, 202, 404, 404)},
    "user-list": {"get": (200, 403, 403, 403), "post": (201, 403, 403, 403)},
    "user-detail": {
        "get": (200, 404, 404, 404), "put": (200, 404, 404, 404), "patch": (200, 404, 404, 404),
        "delete": (204, 404, 404, 404),
    },
    "user-me": {"get": READ},
    "audit-list": {"get": (200, 200, 403, 403)},
    "audit-detail": {"get": (200, 200, 404, 404)},
    "audit-export": {"get": (200, 200, 403, 403)},
}  # fmt: skip
KINDS = ("location", "group", "credential", "device")
TABLE |= {f"{kind}-list": {"get": READ, "post": (201, 201, 403, 403)} for kind in KINDS}
TABLE |= {
    f"{kind}-detail": {
        "get": READ, "put": (200, 200, 403, 403), "patch": (200, 200, 403, 403), "delete": (204, 204, 403, 403),
    }
    for kind in KINDS
}  # fmt: skip
# What says nothing of anybody's rows: the description of the API.
OF_NOBODY: dict[str, set[str]] = {"schema": {"get"}, "docs": {"get"}, "without-slash": set()}
# Everybody's own, whatever the role; test_api_tokens.py has own, foreign and missing ones.
OF_ONESELF = {"token": {"get", "post", "delete"}, "token-detail": {"get", "delete"}}

FINISHED = {("batch-command-detail", "delete"), ("batch-command-retry", "post"), ("organization-detail", "delete")}


def _patterns(patterns: Any, prefix: str = "") -> Iterator[tuple[str, URLPattern]]:
    for entry in patterns:
        route = prefix + str(entry.pattern)
        if isinstance(entry, URLPattern):
            yield route, entry
        else:
            yield from _patterns(entry.url_patterns, route)


def _methods(entry: URLPattern) -> set[str]:
    view: Any = entry.callback
    if found := getattr(view, "actions", None):
        return {method for method in found if method != "head"}
    cls = getattr(view, "cls", None)
    if cls is None:
        return set()
    return {name for name in cls.http_method_names if hasattr(cls, name)} - {"options", "head"}


def test_the_table_names_every_route_and_method() -> None:
    walked: dict[str, set[str]] = {}
    for route, entry in _patterns(get_resolver().url_patterns):
        if route.startswith("api/"):
            walked.setdefault(entry.name or route, set()).update(_methods(entry))
    assert walked == {name: set(methods) for name, methods in TABLE.items()} | OF_NOBODY | OF_ONESELF


WITHOUT_ID = (
    "-list",
    "-confirmation",
    "user-me",
    "device-inventory",
    "device-known-hosts",
    "device-host-keys",
    "audit-export",
)
EVERY = [(name, method) for name, methods in sorted(TABLE.items()) for method in methods]
ADDRESSED = [(name, method) for name, method in EVERY if not name.endswith(WITHOUT_ID)]


class World:
    """One organization with one of everything."""

    def __init__(self, api: Any, *, finished: bool = False) -> None:
        self.playbook = factories.playbook()
        self.organization: Organization = factories.organization(allowed_playbooks=[self.playbook.name])
        own: dict[str, Any] = {"organization": self.organization}
        self.group, self.location = factories.group(**own), factories.location(**own)
        self.credential = factories.credential(**own)
        self.device: Device = factories.device(
            credentials=[self.credential], group=self.group, location=self.location, host_key="ssh-ed25519 AAAA", **own
        )
        run = launch(api(factories.superuser()), devices=[str(self.device.pk)])
        if finished:
            finish(run["id"], "failed")
        self.run = MassCommand.objects.get(pk=run["id"])
        self.command = self.run.commands.get()
        self.user = factories.user(organization=self.organization, role=Role.VIEWER)
        self.membership = self.user.memberships.get()
        self.audit = AuditEntry.objects.get(object_id=run["id"])
        self.newcomer = factories.user()
        self.saved = factories.saved_targets(targets={"platform": "openwrt"}, **own)
        self.schedule = Schedule.objects.create(
            name="nightly", type="custom", input=UPTIME["input"], targets={"organization": str(self.organization.pk)},
            cron="0 3 * * *", next_run=timezone.now(), **own,
        )  # fmt: skip
        self.webhook = factories.webhook(**own)
        self.delivery = WebhookDelivery.objects.create(
            webhook=self.webhook, event="webhook.test", body="{}", status="delivered", finished=timezone.now()
        )

    def address(self, name: str, *, missing: bool = False) -> str:
        """The address of the route for the world's row, or for one that does not exist."""
        if name.endswith(WITHOUT_ID):
            return reverse(name)
        others = {"batch-command": "run", "webhook-delivery": "delivery"}
        kind = others.get(name.rpartition("-")[0]) or name.split("-", maxsplit=1)[0]
        return reverse(name, args=[MISSING if missing else getattr(self, kind).pk])

    def body(self, name: str, method: str) -> Any:
        """A body that the route takes."""
        owner = str(self.organization.pk)
        hook = {"url": "https://receiver.example/other", "events": ["run.failed"]}
        exact: dict[str, Any] = {
            "device-host-keys": {"devices": [str(self.device.pk)]},
            "device-known-hosts": {"organization": owner, "known_hosts": "127.0.0.1 ssh-ed25519 AAAA"},
            "device-host-key": {},
            "device-command": UPTIME,
            "batch-command-list": {**UPTIME, "organization": owner},
            "batch-command-confirmation": {**UPTIME, "organization": owner},
            "webhook-secret": {},
            "webhook-test": {},
            "webhook-delivery-send": {},
        }
        if name in exact:
            return exact[name]
        if name.startswith("batch-command"):
            return {}
        if name.startswith("schedule"):
            return {**UPTIME, "name": "weekly", "targets": {"organization": owner}, "cron": "0 4 * * 0"}
        if name.startswith("membership"):
            user = self.newcomer if method == "post" else self.user
            return {"organization": owner, "user": str(user.pk), "role": "operator"}
        if name.startswith("user"):
            return {"username": "somebody-else", "password": "a-long-Password-77"}
        secret, host, saved = {"password": "a-Secret"}, {"host": "192.0.2.9"}, {"targets": {"platform": "linux"}}
        kinds: dict[str, Any] = {"credential": secret, "device": host, "saved": saved, "webhook": hook}
        more = kinds.get(name.split("-", maxsplit=1)[0], {})
        body = {"name": "another", **more}
        return body if name.startswith("organization") else {**body, "organization": owner}

    def member(self, role: str) -> Any:
        """A user with this role here."""
        return factories.superuser() if role == "superuser" else factories.user(
            organization=self.organization, role=Role(role)
        )  # fmt: skip


@pytest.fixture(autouse=True)
def scanned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices show the key that is pinned."""
    monkeypatch.setattr("orchestrator.host_keys.scan", lambda host, port: "ssh-ed25519 AAAA")


@contextmanager
def undone() -> Iterator[None]:
    """What happens to the rows here is undone, so that each role finds the same world: to make one takes its time."""
    before = transaction.savepoint_create()
    yield
    transaction.savepoint_rollback(before)


def _call(client: Any, method: str, address: str, body: Any) -> Any:
    return getattr(client, method)(address) if method in ("get", "delete") else getattr(client, method)(address, body)


@pytest.mark.parametrize(("name", "method"), EVERY)
def test_what_a_role_may_do_in_its_organization(api: Any, name: str, method: str) -> None:
    world = World(api, finished=(name, method) in FINISHED)
    for role, status in zip(ROLES, TABLE[name][method], strict=True):
        with undone():
            reply = _call(api(world.member(role)), method, world.address(name), world.body(name, method))
            assert reply.status_code == status, (role, reply.content)
            if status == 403:
                assert reply.json()["code"] == "permission_denied", role


@pytest.mark.parametrize(("name", "method"), EVERY)
def test_a_superusers_token_for_an_organization_is_no_more_than_an_administrator_there(
    api: Any, name: str, method: str
) -> None:
    world, foreign = (World(api, finished=(name, method) in FINISHED) for _ in range(2))
    client = with_token(factories.superuser(), organization=world.organization)
    if not name.endswith(WITHOUT_ID):
        replies = [_call(client, method, foreign.address(name, missing=missing), {}) for missing in (False, True)]
        assert [reply.status_code for reply in replies] == [404, 404]
        assert replies[0].content == replies[1].content
    reply = _call(client, method, world.address(name), world.body(name, method))
    assert reply.status_code == dict(zip(ROLES, TABLE[name][method], strict=True))["administrator"], reply.content
    if name.endswith("-list") and method == "get" and reply.status_code == 200:
        assert str(foreign.organization.pk) not in reply.content.decode()


def test_a_superusers_read_only_token_reads_everything_and_changes_nothing(api: Any) -> None:
    world = World(api)
    client = with_token(factories.superuser(), read_only=True)
    for name, method in EVERY:
        reply = _call(client, method, world.address(name), world.body(name, method))
        assert reply.status_code == (200 if method == "get" else 403), (name, method)
        assert method == "get" or "read-only" in reply.json()["detail"]


@pytest.mark.parametrize(("name", "method"), ADDRESSED)
def test_a_foreign_row_is_as_missing_as_one_that_never_was(api: Any, name: str, method: str) -> None:
    world, foreign = World(api), World(api, finished=(name, method) in FINISHED)
    for role, status in zip(ROLES, TABLE[name][method], strict=True):
        with undone():
            client, body = api(world.member(role)), world.body(name, method)
            missing = _call(client, method, world.address(name, missing=True), body)
            assert missing.status_code == 404, role
            if role == "superuser":
                reply = _call(client, method, foreign.address(name), foreign.body(name, method))
                assert reply.status_code == status
            else:
                reply = _call(client, method, foreign.address(name), body)
                assert (reply.status_code, reply.content) == (404, missing.content), role


def test_anonymous_is_401_for_rows_that_exist_and_for_those_that_do_not(api: Any) -> None:
    world = World(api)
    for name, method in EVERY:
        replies = [_call(api(), method, world.address(name, missing=missing), {}) for missing in (False, True)]
        assert [reply.status_code for reply in replies] == [401, 401], (name, method)
        assert replies[0].content == replies[1].content


@pytest.mark.parametrize("name", sorted(name for name in TABLE if name.endswith("-list")))
def test_lists_hold_nothing_foreign(api: Any, name: str) -> None:
    world, foreign = World(api), World(api)
    for role in (role for role, status in zip(ROLES, TABLE[name]["get"], strict=True) if status == 200):
        shown = {row["id"] for row in api(world.member(role)).get(reverse(name)).json()["results"]}
        pk = foreign.address(name.replace("-list", "-detail")).rstrip("/").rsplit("/", 1)[1]
        assert (pk in shown) == (role == "superuser")
        assert shown


@pytest.mark.parametrize("name", sorted({name for name, _ in ADDRESSED}))
def test_options_say_the_same_of_foreign_and_missing_rows(api: Any, name: str) -> None:
    world, foreign = World(api), World(api)
    client = api(world.member("administrator"))
    replies = [client.options(foreign.address(name, missing=missing)) for missing in (False, True)]
    assert replies[0].status_code == replies[1].status_code
    assert replies[0].content == replies[1].content
