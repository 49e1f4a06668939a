"""What the admin's forms and list actions do to the fleet, and to whom it is refused."""

from collections.abc import Callable
from typing import Any

import pytest
from django.urls import reverse

from orchestrator import host_keys
from orchestrator.access import Role
from orchestrator.exceptions import DeviceUnreachableError
from orchestrator.models import Credential, Device, Membership, Organization, Token, User, fingerprints
from tests import factories
from tests.integration.api_addresses import finish, launch

pytestmark = pytest.mark.django_db

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g"
OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICAfHh0cGxoZGBcWFRQTEhEQDw4NDAsKCQgHBgUEAwIB"
NO_LINKS = {
    "device_credentials-TOTAL_FORMS": "0", "device_credentials-INITIAL_FORMS": "0",
    "memberships-TOTAL_FORMS": "0", "memberships-INITIAL_FORMS": "0",
}  # fmt: skip


@pytest.fixture
def organization() -> Organization:
    return factories.organization()


@pytest.fixture
def administrator(organization: Organization) -> User:
    return factories.user(organization=organization, role=Role.ADMINISTRATOR, is_staff=True)


@pytest.fixture
def send(client: Any) -> Callable[..., Any]:
    """``send(user, name, *args, data=…)`` is the reply to a POST as this user."""

    def post(user: User, name: str, *args: Any, data: dict[str, Any]) -> Any:
        client.force_login(user)
        return client.post(reverse(name, args=args), data, follow=True)

    return post


def _device(organization: Organization, **fields: Any) -> dict[str, Any]:
    return {
        "organization": organization.pk, "name": "router", "host": "192.0.2.1", "port": 22, "platform": "openwrt",
        "is_active": "on", "tags": "", "host_key": "", **NO_LINKS, **fields,
    }  # fmt: skip


# ---------------------------------------------------------------- devices
def test_a_device_is_added_with_its_credentials_in_order(
    send: Any, organization: Organization, administrator: User
) -> None:
    first, second = (factories.credential(organization=organization) for _ in range(2))
    links = {
        "device_credentials-TOTAL_FORMS": "2",
        "device_credentials-0-position": "1", "device_credentials-0-credential": second.pk,
        "device_credentials-1-position": "0", "device_credentials-1-credential": first.pk,
    }  # fmt: skip
    data = _device(organization, tags="floor 1\nnorth, wing\nfloor 1", **links)
    assert send(administrator, "admin:orchestrator_device_add", data=data).status_code == 200
    device = Device.objects.get(name="router")
    assert device.tags == ["floor 1", "north, wing"]
    assert [link.credential for link in device.device_credentials.order_by("position")] == [first, second]


def test_tags_survive_a_form_that_does_not_touch_them(
    send: Any, organization: Organization, administrator: User
) -> None:
    device = factories.device(organization=organization, tags=["a, b", "c"], credentials=[])
    data = _device(organization, name="renamed", tags="a, b\r\nc")
    send(administrator, "admin:orchestrator_device_change", device.pk, data=data)
    device.refresh_from_db()
    assert (device.name, device.tags) == ("renamed", ["a, b", "c"])


def test_devices_are_found_by_name_host_and_tag(client: Any, organization: Organization, administrator: User) -> None:
    device = factories.device(organization=organization, name="lobby", host="192.0.2.77", tags=["floor one", "pilot"])
    factories.device(organization=organization, name="other", host="192.0.2.1", tags=[])
    client.force_login(administrator)
    for words in ("lobb", "2.77", "pilot", "Floor", "one"):
        found = client.get(reverse("admin:orchestrator_device_changelist"), {"q": words}).context["cl"].result_list
        assert list(found) == [device], words


@pytest.mark.parametrize("field", ["organization", "group", "location", "credential"])
def test_a_stranger_s_row_can_not_be_chosen(
    send: Any, organization: Organization, administrator: User, field: str
) -> None:
    stranger = {
        "organization": factories.organization, "group": factories.group, "location": factories.location,
        "credential": factories.credential,
    }[field]()  # fmt: skip
    if field == "credential":
        extra = {
            "device_credentials-TOTAL_FORMS": "1", "device_credentials-0-position": "0",
            "device_credentials-0-credential": stranger.pk,
        }  # fmt: skip
    else:
        extra = {field: stranger.pk}
    reply = send(administrator, "admin:orchestrator_device_add", data=_device(organization) | extra)
    assert "Select a valid choice" in reply.content.decode()
    assert not Device.objects.exists()


def test_a_superuser_can_not_mix_organizations_either(send: Any, organization: Organization) -> None:
    boss = factories.superuser()
    links = {
        "device_credentials-TOTAL_FORMS": "1", "device_credentials-0-position": "0",
        "device_credentials-0-credential": factories.credential().pk,
    }  # fmt: skip
    reply = send(boss, "admin:orchestrator_device_add", data=_device(organization, **links))
    assert "belongs to another organization" in reply.content.decode()
    reply = send(boss, "admin:orchestrator_device_add", data=_device(organization, group=factories.group().pk))
    assert "belongs to another organization" in reply.content.decode()
    assert not Device.objects.exists()


def test_autocompletion_offers_visible_rows_only(client: Any, organization: Organization, administrator: User) -> None:
    factories.credential(organization=organization, name="root of mine")
    factories.credential(name="root of theirs")
    client.force_login(administrator)
    query = {"app_label": "orchestrator", "model_name": "devicecredential", "field_name": "credential", "term": "root"}
    found = client.get("/admin/autocomplete/", query).json()["results"]
    assert [row["text"] for row in found] == ["root of mine"]


def _act(send: Any, user: User, action: str, *rows: Any, model: str = "device") -> str:
    data = {"action": action, "_selected_action": [str(row.pk) for row in rows]}
    return str(send(user, f"admin:orchestrator_{model}_changelist", data=data).content.decode())


def test_devices_are_deactivated_and_activated_by_administrators(
    send: Any, organization: Organization, administrator: User
) -> None:
    mine = factories.device(organization=organization)
    visible = factories.device()
    Membership.objects.create(user=administrator, organization=visible.organization, role=Role.VIEWER)
    page = _act(send, administrator, "deactivate", mine, visible)
    assert "1 devices deactivated." in page
    assert "1 devices were left alone" in page
    assert not Device.objects.get(pk=mine.pk).is_active
    assert Device.objects.get(pk=visible.pk).is_active
    _act(send, administrator, "activate", mine)
    assert Device.objects.get(pk=mine.pk).is_active


def test_an_operator_has_no_such_action(send: Any, organization: Organization) -> None:
    device = factories.device(organization=organization)
    operator = factories.user(organization=organization, role=Role.OPERATOR, is_staff=True)
    for action in ("deactivate", "scan_these", "accept_these", "delete_selected"):
        _act(send, operator, action, device)
    assert Device.objects.get(pk=device.pk).is_active


def test_host_keys_are_shown_then_accepted(
    send: Any, organization: Organization, administrator: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scan(host: str, port: int) -> str:
        if port == 2:
            raise DeviceUnreachableError
        return KEY

    monkeypatch.setattr(host_keys, "scan", scan)
    new = factories.device(organization=organization, name="new", port=1)
    silent = factories.device(organization=organization, name="silent", port=2)
    changed = factories.device(organization=organization, name="changed", port=3, host_key=OTHER_KEY)
    rows = (new, silent, changed)
    page = _act(send, administrator, "scan_these", *rows)
    shown = fingerprints(KEY)
    assert f"1 devices show a new key. Compare the fingerprints, then accept those shown: new ({shown})" in page
    assert "1 devices did not answer with a host key: silent." in page
    assert f"1 devices show another key than the pinned one. Look at each on its page: changed ({shown})" in page
    assert [Device.objects.get(pk=row.pk).host_key for row in rows] == ["", "", OTHER_KEY]
    monkeypatch.setattr(host_keys, "scan", lambda host, port: OTHER_KEY)  # what was shown is what is accepted
    page = _act(send, administrator, "accept_these", *rows)
    assert "1 devices have the shown key pinned now: new." in page
    assert [Device.objects.get(pk=row.pk).host_key for row in rows] == [KEY, "", OTHER_KEY]


def test_a_changed_key_is_marked_and_replaced_only_by_its_fingerprint(
    client: Any, send: Any, organization: Organization, administrator: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_keys, "scan", lambda host, port: KEY)
    device = factories.device(organization=organization, host_key=OTHER_KEY)
    enrol = ("admin:orchestrator_device_enrol", device.pk)
    page = send(administrator, *enrol, data={}).content.decode()
    assert device.fingerprint in page
    assert fingerprints(KEY) in page
    assert "Since" in client.get(reverse("admin:orchestrator_device_change", args=[device.pk])).content.decode()
    for state, listed in (("changed", True), ("no", False)):
        shown = client.get(reverse("admin:orchestrator_device_changelist"), {"pinned": state}).content.decode()
        assert (str(device.pk) in shown) is listed
    send(administrator, *enrol, data={"fingerprint": device.fingerprint})
    assert Device.objects.get(pk=device.pk).host_key == OTHER_KEY
    send(administrator, *enrol, data={"fingerprint": fingerprints(KEY)})
    device.refresh_from_db()
    assert (device.host_key, device.host_key_state, device.shown_key) == (KEY, "pinned", "")


def test_a_known_hosts_file_is_looked_at_then_accepted(
    send: Any, organization: Organization, administrator: User
) -> None:
    device = factories.device(organization=organization, name="attic", host="192.0.2.7")
    form = {"organization": str(organization.pk), "known_hosts": f"192.0.2.7 {KEY}\n@revoked * {KEY}"}
    address = "admin:orchestrator_device_known_hosts"
    page = send(administrator, address, data=form).content.decode()
    assert fingerprints(KEY) in page
    assert "2: Revoked keys are not supported" in page
    assert Device.objects.get(pk=device.pk).host_key == ""
    send(administrator, address, data=form | {"accept": "1"})
    assert Device.objects.get(pk=device.pk).host_key == KEY
    operator = factories.user(organization=organization, role=Role.OPERATOR, is_staff=True)
    assert send(operator, address, data=form).status_code == 403
    foreign = form | {"organization": str(factories.organization().pk), "accept": "1"}
    assert "Select a valid choice" in send(administrator, address, data=foreign).content.decode()


def test_only_administrators_enrol(send: Any, organization: Organization) -> None:
    device = factories.device(organization=organization)
    operator = factories.user(organization=organization, role=Role.OPERATOR, is_staff=True)
    stranger = factories.user(organization=factories.organization(), role=Role.ADMINISTRATOR, is_staff=True)
    assert send(operator, "admin:orchestrator_device_enrol", device.pk, data={}).status_code == 403
    assert send(stranger, "admin:orchestrator_device_enrol", device.pk, data={}).status_code == 404


def test_deleting_ticked_rows_needs_the_right_for_each(
    send: Any, organization: Organization, administrator: User
) -> None:
    visible = factories.location()
    Membership.objects.create(user=administrator, organization=visible.organization, role=Role.VIEWER)
    mine = factories.location(organization=organization)
    data = {"action": "delete_selected", "_selected_action": [mine.pk, visible.pk], "post": "yes"}
    reply = send(administrator, "admin:orchestrator_location_changelist", data=data)
    assert reply.status_code == 403
    assert type(visible).objects.filter(pk__in=[mine.pk, visible.pk]).count() == 2
    data["_selected_action"] = [mine.pk]
    send(administrator, "admin:orchestrator_location_changelist", data=data)
    assert not type(mine).objects.filter(pk=mine.pk).exists()


# ---------------------------------------------------------------- credentials
def _credential(organization: Organization, **fields: Any) -> dict[str, Any]:
    return {"organization": organization.pk, "name": "root", "username": "root", **fields}


def test_secrets_go_in_and_blank_keeps_them(send: Any, organization: Organization, administrator: User) -> None:
    data = _credential(organization, password="first-Secret1", become_password="sudo-Secret1")
    send(administrator, "admin:orchestrator_credential_add", data=data)
    row = Credential.objects.get()
    assert (row.has_password, row.has_private_key) == (True, False)
    change = ("admin:orchestrator_credential_change", row.pk)
    send(administrator, *change, data=_credential(organization, name="renamed"))
    row.refresh_from_db()
    assert (row.name, row.secrets().password, row.secrets().become_password) == (
        "renamed", "first-Secret1", "sudo-Secret1",
    )  # fmt: skip
    send(administrator, *change, data=_credential(organization, password=" blanks count ", forget="become_password"))
    row.refresh_from_db()
    assert (row.secrets().password, row.secrets().become_password) == (" blanks count ", "")


def test_an_error_does_not_show_what_was_typed(send: Any, organization: Organization, administrator: User) -> None:
    data = _credential(organization, password="typed-Secret1", private_key="typed-private-key", username="-bad")
    page = send(administrator, "admin:orchestrator_credential_add", data=data).content.decode()
    assert "This is no private key" in page
    assert "typed-Secret1" not in page
    assert "typed-private-key" not in page
    assert not Credential.objects.exists()


def test_a_credential_needs_a_password_or_a_key(send: Any, organization: Organization, administrator: User) -> None:
    page = send(administrator, "admin:orchestrator_credential_add", data=_credential(organization)).content.decode()
    assert "Give a password or a private key." in page
    row = factories.credential(organization=organization)
    data = _credential(organization, forget="password")
    page = send(administrator, "admin:orchestrator_credential_change", row.pk, data=data).content.decode()
    assert "Give a password or a private key." in page


def test_a_row_stays_in_its_organization_and_its_name_stays_unique(send: Any, organization: Organization) -> None:
    boss = factories.superuser()
    row = factories.credential(organization=organization)
    factories.credential(organization=organization, name="taken")
    other = factories.organization()
    send(boss, "admin:orchestrator_credential_change", row.pk, data=_credential(other, name="moved"))
    row.refresh_from_db()
    assert (row.organization, row.name) == (organization, "moved")
    reply = send(boss, "admin:orchestrator_credential_change", row.pk, data=_credential(organization, name="taken"))
    assert reply.status_code == 200
    assert "error" in reply.content.decode()
    row.refresh_from_db()
    assert row.name == "moved"


def test_a_credential_that_can_not_be_opened_can_be_given_anew(
    send: Any, organization: Organization, administrator: User
) -> None:
    row = factories.credential(organization=organization)
    Credential.objects.filter(pk=row.pk).update(sealed="1$lost-key$AAAA")
    data = _credential(organization, password="new-Secret1")
    send(administrator, "admin:orchestrator_credential_change", row.pk, data=data)
    row.refresh_from_db()
    assert row.secrets().password == "new-Secret1"


# ---------------------------------------------------------------- organizations and members
def test_administrators_give_roles_within_their_organization_only(
    send: Any, organization: Organization, administrator: User
) -> None:
    colleague = factories.user(organization=organization, role=Role.VIEWER)
    stranger = factories.user(organization=factories.organization())
    own = Membership.objects.get(user=administrator)
    theirs = Membership.objects.get(user=colleague)

    def save(user: User) -> Any:
        data = {
            "name": organization.name, "is_active": "on", "every_type": "on",
            "memberships-TOTAL_FORMS": "2", "memberships-INITIAL_FORMS": "2",
            "memberships-0-id": own.pk, "memberships-0-user": administrator.pk,
            "memberships-0-organization": organization.pk, "memberships-0-role": Role.ADMINISTRATOR,
            "memberships-1-id": theirs.pk, "memberships-1-user": user.pk,
            "memberships-1-organization": organization.pk, "memberships-1-role": Role.OPERATOR,
        }  # fmt: skip
        return send(administrator, "admin:orchestrator_organization_change", organization.pk, data=data)

    page = save(stranger).content.decode()
    assert "Select a valid choice" in page
    assert colleague.username in page
    save(colleague)
    theirs.refresh_from_db()
    assert (theirs.user, theirs.role) == (colleague, Role.OPERATOR)


def test_allowed_types_are_all_some_or_none(send: Any, organization: Organization, administrator: User) -> None:
    change = ("admin:orchestrator_organization_change", organization.pk)
    base = {"name": organization.name, "is_active": "on", **NO_LINKS}
    cases: list[tuple[dict[str, Any], Any]] = [
        ({"allowed_types": ["reboot"]}, ["reboot"]), ({}, []), ({"every_type": "on"}, None),
    ]  # fmt: skip
    for given, stored in cases:
        send(administrator, *change, data=base | given)
        organization.refresh_from_db()
        assert organization.allowed_types == stored


def test_an_organization_is_made_and_deleted_by_superusers(
    send: Any, organization: Organization, administrator: User
) -> None:
    assert send(administrator, "admin:orchestrator_organization_add", data={"name": "new"}).status_code == 403
    delete = ("admin:orchestrator_organization_delete", organization.pk)
    assert send(administrator, *delete, data={"post": "yes"}).status_code == 403
    factories.device(organization=organization)
    assert send(factories.superuser(), *delete, data={"post": "yes"}).status_code == 200
    assert not Organization.objects.filter(pk=organization.pk).exists()


@pytest.mark.usefixtures("outbox")
def test_an_organization_is_not_deleted_while_a_run_goes_on_there(
    send: Any, api: Any, organization: Organization
) -> None:
    root = factories.superuser()
    factories.device(organization=organization)
    run = launch(api(root), organization=str(organization.pk))
    one = ("admin:orchestrator_organization_delete", organization.pk)
    many = {"action": "delete_selected", "_selected_action": [organization.pk], "post": "yes"}
    for name, data in ((one, {"post": "yes"}), (("admin:orchestrator_organization_changelist",), many)):
        reply = send(root, *name, data=data)
        assert "a run goes on there" in reply.content.decode()
        assert Organization.objects.filter(pk=organization.pk).exists()
    finish(run["id"])
    send(root, "admin:orchestrator_organization_changelist", data=many)
    assert not Organization.objects.exists()


# ---------------------------------------------------------------- users and tokens
def test_a_superuser_adds_a_user(send: Any) -> None:
    data = {
        "username": "newcomer", "password1": "a-Password-1", "password2": "a-Password-1", "usable_password": "true",
        **NO_LINKS,
    }  # fmt: skip
    send(factories.superuser(), "admin:orchestrator_user_add", data=data)
    assert User.objects.get(username="newcomer").check_password("a-Password-1")


def test_tokens_are_revoked_by_their_owner_or_a_superuser(send: Any, administrator: User) -> None:
    other = factories.user(is_staff=True)
    for owner, actor, status in [(administrator, administrator, 200), (other, administrator, 404)]:
        token, _ = Token.objects.issue(user=owner, name="script")
        revoke = ("admin:orchestrator_token_revoke", token.pk)
        assert send(actor, *revoke, data={}).status_code == status
        assert Token.objects.filter(pk=token.pk).exists() == (status == 404)
    left = Token.objects.get()
    send(factories.superuser(), "admin:orchestrator_token_revoke", left.pk, data={})
    assert not Token.objects.exists()
