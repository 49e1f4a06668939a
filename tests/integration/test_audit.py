"""The audit log: nothing that people do is missing from it, nothing of it can be changed, and no secret is in it."""

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import Error as DatabaseError
from django.db import connection, transaction
from django.test import Client, override_settings
from django.urls import URLPattern, get_resolver, reverse
from django.utils import timezone
from rest_framework.viewsets import ModelViewSet

from orchestrator import audit, origin
from orchestrator.access import Role
from orchestrator.models import AuditAction, AuditEntry, Credential, Device, User
from orchestrator.retention import delete_old_entries
from tests import audit_triggers, factories
from tests.integration.api_addresses import launch

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("outbox")]

SECRETS = ("first-Secret-71", "second-Secret-72", "a-long-Password-77")


@pytest.fixture
def guarded() -> Iterator[None]:
    """The triggers, as a migrated database has them."""
    audit_triggers.put_in()
    yield
    audit_triggers.take_away()


def entries(**fields: Any) -> list[tuple[str, str]]:
    """Action and name of the object of each entry, in their order."""
    rows = AuditEntry.objects.filter(**fields).order_by("at")
    return [(row.action, row.object_name) for row in rows]


def last(action: str) -> AuditEntry:
    """The newest entry of an action."""
    return AuditEntry.objects.filter(action=action).latest("at")


@pytest.mark.database
@pytest.mark.usefixtures("guarded")
def test_the_database_refuses_to_change_or_delete_an_entry() -> None:
    audit.record("run.launch", actor=factories.user())
    for statement in ("UPDATE orchestrator_auditentry SET action = 'x'", "DELETE FROM orchestrator_auditentry"):
        with pytest.raises(DatabaseError, match="never changed"), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement)
    assert AuditEntry.objects.count() == 1


@pytest.mark.database
@pytest.mark.usefixtures("guarded")
def test_retention_alone_ends_the_time_of_entries_and_says_so() -> None:
    now = timezone.now()
    audit.record("run.launch", details={"number": "new"})
    for days in (89, 91, 400):
        AuditEntry(action="run.launch", at=now - timedelta(days=days), door="api").signed().save()
    assert delete_old_entries(days=90) == 2
    assert entries() == [("run.launch", ""), ("run.launch", ""), ("audit.delete", "")]
    assert last("audit.delete").details["count"] == 2
    assert delete_old_entries(days=90) == 0
    with pytest.raises(DatabaseError, match="never changed"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("DELETE FROM orchestrator_auditentry")
    with pytest.raises(ValueError, match="30 days"):
        delete_old_entries(days=29)


def test_the_models_refuse_as_well() -> None:
    audit.record("run.launch")
    entry, rows = AuditEntry.objects.get(), AuditEntry.objects.all()
    for attempt in (entry.save, entry.delete, rows.delete, lambda: rows.update(action="x")):
        with pytest.raises(TypeError, match="never changed"):
            attempt()
    with pytest.raises(TypeError, match="never changed"):
        AuditEntry.objects.bulk_update([entry], ["action"])


@pytest.mark.database
def test_an_altered_entry_is_not_genuine() -> None:
    audit.record("run.launch", actor=factories.user(), details={"n": 1.5, "big": 1e22, "list": [1, None, "ä"]})
    assert AuditEntry.objects.get().is_genuine()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE orchestrator_auditentry SET actor_name = 'somebody else'")
    assert AuditEntry.objects.get().is_genuine() is False
    with override_settings(SECRET_KEY_RING={"other": bytes(32)}):
        assert AuditEntry.objects.get().is_genuine() is None


def test_an_entry_stands_or_falls_with_its_change() -> None:
    try:
        with transaction.atomic():
            audit.record("run.launch")
            raise LookupError
    except LookupError:
        pass
    assert not AuditEntry.objects.exists()


def test_what_a_person_does_with_a_run_is_written_down(api: Any) -> None:
    device = factories.device(host_key="ssh-ed25519 AAAA")
    user = factories.user(organization=device.organization, role=Role.ADMINISTRATOR)
    client = api(user)
    body = {
        "type": "change_password",
        "input": {"password": SECRETS[0], "confirm_password": SECRETS[0]},
        "label": "new passwords",
    }
    run = launch(client, devices=[str(device.pk)], **body)
    for verb in ("pause", "resume", "cancel", "cancel"):
        client.post(reverse(f"batch-command-{verb}", args=[run["id"]]))
    client.post(
        reverse("batch-command-retry", args=[run["id"]]),
        {"statuses": ["cancelled"], "input": {"password": SECRETS[1], "confirm_password": SECRETS[1]}},
    )
    assert b"".join(client.get(reverse("batch-command-export", args=[run["id"]])))
    client.delete(reverse("batch-command-detail", args=[run["id"]]))
    verbs = ["launch", "pause", "resume", "cancel", "retry", "export", "delete"]
    assert entries() == [(f"run.{verb}", "new passwords") for verb in verbs]
    first = AuditEntry.objects.earliest("at")
    assert (first.actor_id, first.actor_name) == (user.pk, user.username)
    assert (first.organization_id, first.object_id) == (device.organization.pk, run["id"])
    assert first.details["device_count"] == 1
    assert first.details["input"]["password"] == "********"
    assert last("run.retry").details["retry_of"] == run["id"]


def test_no_secret_is_in_any_entry(api: Any) -> None:
    organization = factories.organization()
    client = api(factories.superuser())
    made = client.post(
        reverse("credential-list"), {"organization": str(organization.pk), "name": "root", "password": SECRETS[0]}
    ).json()
    client.patch(reverse("credential-detail", args=[made["id"]]), {"password": SECRETS[1]})
    client.patch(reverse("credential-detail", args=[made["id"]]), {"password": SECRETS[1], "name": "admin"})
    client.post(reverse("user-list"), {"username": "jo", "password": SECRETS[2]})
    client.post(reverse("token"), {"username": "jo", "password": SECRETS[2]})
    assert entries(object_type="credential") == [
        ("credential.create", "root"), ("credential.change", "root"), ("credential.change", "admin")
    ]  # fmt: skip
    changes = [row.details.get("changes") for row in AuditEntry.objects.filter(object_type="credential").order_by("at")]
    assert changes == [None, {"password": ["********", "********"]}, {"name": ["root", "admin"]}]
    dump = json.dumps(list(AuditEntry.objects.values()), default=str)
    stored = [Credential.objects.get().sealed, User.objects.get(username="jo").password]
    assert not [secret for secret in (*SECRETS, *stored) if secret in dump]


def test_an_entry_outlives_what_it_is_about(api: Any) -> None:
    device = factories.device(name="attic", organization=factories.organization(name="North"))
    admin = factories.user(username="jo", organization=device.organization, role=Role.ADMINISTRATOR)
    api(admin).patch(reverse("device-detail", args=[device.pk]), {"host": "192.0.2.7", "tags": ["roof"]})
    root = factories.superuser()
    api(root).delete(reverse("user-detail", args=[admin.pk]))
    api(root).delete(reverse("organization-detail", args=[device.organization.pk]))
    assert not Device.objects.exists()
    row = last("device.change")
    assert (row.actor_name, row.object_name, row.organization_name) == ("jo", "attic", "North")
    assert row.details["changes"] == {"host": ["127.0.0.1", "192.0.2.7"], "tags": [[], ["roof"]]}
    assert entries()[1:] == [("user.delete", "jo"), ("organization.delete", "North")]


def test_signing_in_and_out_is_written_down_with_where_from(client: Client) -> None:
    user = factories.superuser(username="jo", password=SECRETS[0])
    for password in ("wrong", SECRETS[0]):
        client.post(
            reverse("admin:login"), {"username": "jo", "password": password}, headers={"User-Agent": "firefox\n\x00"}
        )
    client.post(reverse("admin:password_change"), {"old_password": SECRETS[0], "new_password1": SECRETS[1],
                                                   "new_password2": SECRETS[1]})  # fmt: skip
    client.post(reverse("admin:logout"))
    assert [action for action, _ in entries()] == [
        "session.sign_in_failed", "session.sign_in", "user.change", "session.sign_out",
    ]  # fmt: skip
    failed, success = AuditEntry.objects.order_by("at")[:2]
    assert (failed.actor_id, failed.actor_name, failed.object_id) == (None, "jo", str(user.pk))
    assert (success.actor_id, success.door, success.address, success.user_agent) == (
        user.pk, "admin", "127.0.0.1", "firefox",
    )  # fmt: skip


def test_the_api_writes_which_token_was_used(api: Any) -> None:
    factories.superuser(username="jo", password=SECRETS[0])
    client = api()
    assert client.post(reverse("token"), {"username": "nobody\x07", "password": "x"}).status_code in (400, 401)
    token = client.post(reverse("token"), {"username": "jo", "password": SECRETS[0]}).json()["token"]
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {token}")
    client.post(reverse("organization-list"), {"name": "North"})
    client.delete(reverse("token"))
    assert last("organization.create").token == token[:8] == last("session.sign_in").details["token"]
    assert last("session.sign_out").door == "api"
    assert token not in json.dumps(list(AuditEntry.objects.values()), default=str)


@pytest.mark.parametrize(
    ("proxies", "forwarded", "address"),
    [
        (0, "203.0.113.9", "192.0.2.1"),
        (1, "198.51.100.7, 203.0.113.9", "203.0.113.9"),
        (2, "198.51.100.7, 203.0.113.9", "198.51.100.7"),
        (1, "", "192.0.2.1"),
        (1, "<script>", ""),
        (1, "::ffff:203.0.113.9", "203.0.113.9"),
    ],
)
def test_a_forwarded_address_is_believed_as_far_as_the_operator_said(
    client: Client, settings: Any, proxies: int, forwarded: str, address: str
) -> None:
    settings.REST_FRAMEWORK = settings.REST_FRAMEWORK | {"NUM_PROXIES": proxies}
    headers = {"X-Forwarded-For": forwarded} if forwarded else {}
    client.post(reverse("admin:login"), {"username": "x", "password": "y"}, headers=headers, REMOTE_ADDR="192.0.2.1")
    assert last("session.sign_in_failed").address == address


def test_what_the_admin_changes_is_written_down(client: Client) -> None:
    root = factories.superuser()
    client.force_login(root)
    organization = factories.organization(name="North")
    group = factories.group(organization=organization, name="roofs")
    member = factories.user(username="jo")
    inline = {"memberships-TOTAL_FORMS": "1", "memberships-INITIAL_FORMS": "0", "memberships-0-user": str(member.pk),
              "memberships-0-role": "viewer"}  # fmt: skip
    address = reverse("admin:orchestrator_organization_change", args=[organization.pk])
    client.post(address, {"name": "South", "is_active": "on", "every_type": "on", "every_playbook": "on", **inline})
    client.post(reverse("admin:orchestrator_devicegroup_change", args=[group.pk]), {"name": "cellars"})
    client.post(reverse("admin:orchestrator_devicegroup_delete", args=[group.pk]), {"post": "yes"})
    new = {"username": "kim", "password1": SECRETS[2], "password2": SECRETS[2], "usable_password": "true",
           "memberships-TOTAL_FORMS": "0", "memberships-INITIAL_FORMS": "0"}  # fmt: skip
    client.post(reverse("admin:orchestrator_user_add"), new)
    kim = User.objects.get(username="kim")
    client.post(
        reverse("admin:auth_user_password_change", args=[kim.pk]),
        {"password1": SECRETS[1], "password2": SECRETS[1], "usable_password": "true"},
    )
    assert entries() == [
        ("membership.create", "jo is viewer of South"), ("organization.change", "South"), ("group.change", "cellars"),
        ("group.delete", "cellars"), ("user.create", "kim"), ("user.change", "kim"),
    ]  # fmt: skip
    assert last("organization.change").details == {"changes": {"name": ["North", "South"]}}
    assert last("user.change").details == {"changes": {"password": ["********", "********"]}}
    assert {row.actor_id for row in AuditEntry.objects.all()} == {root.pk}
    assert {row.door for row in AuditEntry.objects.all()} == {"admin"}


def test_doors_are_told_apart() -> None:
    audit.record("run.launch")
    with origin.through(origin.Door.SCHEDULER):
        audit.record("run.launch")
    assert [(row.door, bool(row.actor_name)) for row in AuditEntry.objects.order_by("at")] == [
        ("cli", True), ("scheduler", False)
    ]  # fmt: skip


def test_a_user_of_one_organization_signs_in_under_the_eyes_of_its_administrators(api: Any) -> None:
    organization = factories.organization()
    user = factories.user(organization=organization, password=SECRETS[0])
    api().post(reverse("token"), {"username": user.username, "password": SECRETS[0]})
    assert last("session.sign_in").organization_id == organization.pk
    user.memberships.create(organization=factories.organization(), role=Role.VIEWER)
    api().post(reverse("token"), {"username": user.username, "password": "wrong"})
    assert last("session.sign_in_failed").organization_id is None


def exported(reply: Any) -> list[dict[str, Any]]:
    """The entries of a file."""
    return [json.loads(line) for line in b"".join(reply.streaming_content).splitlines()]


def test_administrators_see_and_export_the_entries_of_their_organization(api: Any) -> None:
    north, south = (factories.organization(name=name) for name in ("North", "South"))
    jo = factories.user(username="jo", organization=north, role=Role.ADMINISTRATOR)
    for organization in (north, south):
        audit.created(factories.group(organization=organization, name="roofs"), actor=jo)
    audit.record("audit.delete")
    client, root = api(jo), api(factories.superuser())
    assert [row["organization_name"] for row in client.get(reverse("audit-list")).json()["results"]] == ["North"]
    assert root.get(reverse("audit-list")).json()["count"] == 3
    file = client.get(reverse("audit-export"), {"object_type": "group"})
    assert file["Content-Type"] == "application/x-ndjson"
    assert [row["organization_name"] for row in exported(file)] == ["North"]
    assert last("audit.export").details == {"filters": {"object_type": "group"}}
    assert last("audit.export").organization_id == north.pk  # and so North's administrators see who exported it
    system = exported(root.get(reverse("audit-export")))
    assert [row["action"] for row in system] == [
        "group.create", "group.create", "audit.delete", "audit.export", "audit.export"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"action": ["group.create", "group.delete"]}, 2),
        ({"action": "group.delete"}, 1),
        ({"actor_name": "J"}, 2),
        ({"object_name": "ROOF"}, 2),
        ({"door": "cli"}, 2),
        ({"door": "api"}, 0),
        ({"at_after": "2999-01-01T00:00:00Z"}, 0),
        ({"at_before": "2999-01-01T00:00:00Z"}, 2),
        ({"object_type": "device"}, 0),
        ({"address": "192.0.2.1"}, 0),
    ],
)
def test_entries_are_found_by_what_they_say(api: Any, query: dict[str, Any], found: int) -> None:
    jo, group = factories.user(username="jo"), factories.group(name="roofs")
    audit.created(group, actor=jo)
    audit.deleted(group, actor=jo)
    address, client = reverse("audit-list"), api(factories.superuser())
    assert client.get(address, query).json()["count"] == found
    assert client.get(address, query | {"object": str(group.pk), "actor": str(jo.pk)}).json()["count"] == found


@pytest.mark.parametrize(
    "query", [{"action": "x"}, {"door": "x"}, {"at_after": "x"}, {"organization": "x"}, {"q": "x"}]
)
def test_a_filter_that_makes_no_sense_is_refused(api: Any, query: dict[str, str]) -> None:
    client = api(factories.superuser())
    for name in ("audit-list", "audit-export"):
        reply = client.get(reverse(name), query)
        assert (reply.status_code, list(reply.json())) == (400, list(query))


def test_the_page_of_an_entry_escapes_what_it_shows_and_changes_nothing(client: Client) -> None:
    organization = factories.organization(name="<i>North</i>")
    audit.created(organization, actor=factories.user(username="jo"))
    entry = AuditEntry.objects.get()
    address = reverse("admin:orchestrator_auditentry_change", args=[entry.pk])
    for role, status in ((Role.ADMINISTRATOR, 200), (Role.OPERATOR, 403)):
        client.force_login(factories.user(organization=organization, role=role, is_staff=True))
        assert client.get(reverse("admin:orchestrator_auditentry_changelist")).status_code == status
    client.force_login(factories.user(organization=factories.organization(), role=Role.ADMINISTRATOR, is_staff=True))
    assert client.get(address).status_code == 404
    client.force_login(factories.superuser())
    page = client.get(address).content.decode()
    assert "<i>North</i>" not in page
    assert "&lt;i&gt;North&lt;/i&gt;" in page
    for action in ("change", "delete"):
        here = reverse(f"admin:orchestrator_auditentry_{action}", args=[entry.pk])
        assert client.post(here, {"post": "yes"}).status_code == 403
    assert client.get(reverse("admin:orchestrator_auditentry_changelist"), {"action": "run.launch"}).status_code == 200
    assert AuditEntry.objects.get().is_genuine()


@pytest.mark.database
def test_verify_audit_finds_altered_entries_and_missing_triggers(capsys: Any) -> None:
    for name in ("jo", "kim"):
        audit.record("run.launch", actor=factories.user(username=name))
    with pytest.raises(CommandError, match="^The triggers that refuse changes are missing.$"):
        call_command("verify_audit")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE orchestrator_auditentry SET door = 'api' WHERE actor_name = 'kim'")
    audit_triggers.put_in()
    with pytest.raises(CommandError, match="^Altered entries: 1.$"):
        call_command("verify_audit")
    audit_triggers.take_away()
    assert str(AuditEntry.objects.get(actor_name="kim").pk) in capsys.readouterr().out


@pytest.mark.usefixtures("guarded")
def test_delete_old_keeps_the_audit_log_unless_told(settings: Any, capsys: Any) -> None:
    AuditEntry(action="run.launch", at=timezone.now() - timedelta(days=31), door="api").signed().save()
    call_command("delete_old")
    assert entries() == [("run.launch", "")]
    settings.AUDIT_DAYS = 30
    call_command("delete_old")
    assert entries() == [("audit.delete", "")]
    call_command("verify_audit")
    assert "1 entries are as they were written." in capsys.readouterr().out


def test_each_row_that_pages_change_has_its_actions() -> None:
    viewsets = {callback.cls for callback in _views(get_resolver().url_patterns) if hasattr(callback, "cls")}
    models = {view.queryset.model for view in viewsets if issubclass(view, ModelViewSet)}
    kinds = {audit.kind_of(model()) for model in models}
    assert {"device", "group", "membership"} <= kinds
    wanted = {f"{kind}.{verb}" for kind in kinds for verb in ("create", "change", "delete")}
    assert wanted <= set(AuditAction.values)


def _views(patterns: Any) -> Iterator[Any]:
    for entry in patterns:
        if isinstance(entry, URLPattern):
            yield entry.callback
        else:
            yield from _views(entry.url_patterns)
