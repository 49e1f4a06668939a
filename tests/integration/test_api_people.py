"""Users, roles, and who one is, through the API."""

from typing import Any

import pytest
from django.contrib.auth import authenticate

from orchestrator.access import Role
from orchestrator.models import Membership, Token, User
from tests import factories
from tests.integration.api_addresses import API, CONTROLLER, MISSING, case, post

pytestmark = [pytest.mark.django_db, pytest.mark.database]

USERS, ME, MEMBERSHIPS = API + "users/user/", API + "users/me/", CONTROLLER + "membership/"
PASSWORD = "a-long-Password-77"


@pytest.fixture
def boss(api: Any) -> Any:
    """A client of a superuser."""
    return api(factories.superuser())


def test_a_user_is_made_and_the_password_works_and_is_never_shown(boss: Any) -> None:
    reply = boss.post(USERS, {"username": "jo", "password": PASSWORD})
    assert reply.status_code == 201
    assert "password" not in reply.json()
    assert PASSWORD not in reply.content.decode()
    assert authenticate(username="jo", password=PASSWORD)


def test_another_password_ends_the_tokens_of_the_old_one(boss: Any) -> None:
    user = factories.user()
    Token.objects.issue(user=user, name="script")
    assert boss.patch(f"{USERS}{user.pk}/", {"first_name": "Jo"}).status_code == 200
    assert Token.objects.filter(user=user).exists()
    assert boss.patch(f"{USERS}{user.pk}/", {"password": PASSWORD}).status_code == 200
    assert not Token.objects.filter(user=user).exists()
    assert authenticate(username=user.username, password=PASSWORD)


BAD: dict[str, list[Any]] = {
    "username": ["", None, 1, "a b", "a\x00", "x" * 151, "taken", "\ud800"],
    "password": ["", None, 1, "short1!", "password123", "somebody-new", "a\x00bcdefghijk"],
    "email": ["x", None, 1],
    "is_superuser": ["true", 1, None],
    "is_active": ["true", 1, None],
    "groups": [[1]],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD.items() for value in values], ids=case
)
def test_what_is_wrong_is_named(boss: Any, name: str, value: Any) -> None:
    factories.user(username="taken")
    reply = post(boss, USERS, {"username": "somebody-new", "password": PASSWORD, name: value})
    assert (reply.status_code, list(reply.json())) == (400, [name]), reply.content


def test_nobody_locks_themselves_out(api: Any) -> None:
    user = factories.superuser()
    client, address = api(user), f"{USERS}{user.pk}/"
    for name in ("is_active", "is_superuser"):
        assert list(client.patch(address, {name: False}).json()) == [name]
    assert client.delete(address).status_code == 403
    assert User.objects.get(pk=user.pk).is_superuser


def test_who_am_i(api: Any) -> None:
    organization = factories.organization(name="North")
    user = factories.user(organization=organization, role=Role.VIEWER)
    shown = api(user).get(ME).json()
    assert (shown["id"], shown["is_superuser"]) == (str(user.pk), False)
    [role] = shown["memberships"]
    assert (role["organization"], role["organization_name"], role["role"]) == (str(organization.pk), "North", "viewer")
    assert api().get(ME).status_code == 401


@pytest.mark.parametrize("by", ["pk", "username"])
def test_an_administrator_gives_changes_and_ends_roles(api: Any, by: str) -> None:
    organization, user = factories.organization(), factories.user()
    admin = api(factories.user(organization=organization, role=Role.ADMINISTRATOR))
    body = {"organization": str(organization.pk), "user": str(getattr(user, by)), "role": "viewer"}
    made = admin.post(MEMBERSHIPS, body)
    assert made.status_code == 201
    assert (made.json()["user"], made.json()["username"]) == (str(user.pk), user.username)
    assert list(admin.post(MEMBERSHIPS, body).json()) == ["user"]
    address = f"{MEMBERSHIPS}{made.json()['id']}/"
    assert admin.patch(address, {"role": "operator"}).json()["role"] == "operator"
    assert admin.delete(address).status_code == 204
    assert not user.memberships.exists()


def test_an_administrator_gives_no_role_elsewhere(api: Any) -> None:
    home, other = factories.organization(), factories.organization()
    user = factories.user(organization=home, role=Role.ADMINISTRATOR)
    client, newcomer = api(user), factories.user()
    body = {"organization": str(other.pk), "user": newcomer.username, "role": "viewer"}
    assert list(client.post(MEMBERSHIPS, body).json()) == ["organization"]
    user.memberships.create(organization=other, role=Role.OPERATOR)
    assert client.post(MEMBERSHIPS, body).status_code == 403
    [own] = user.memberships.filter(organization=home)
    assert list(client.patch(f"{MEMBERSHIPS}{own.pk}/", {"organization": str(other.pk)}).json()) == ["organization"]
    assert client.get(MEMBERSHIPS).json()["count"] == 1
    foreign = user.memberships.get(organization=other)
    assert client.patch(f"{MEMBERSHIPS}{foreign.pk}/", {"role": "administrator"}).status_code == 404
    assert not newcomer.memberships.exists()


@pytest.mark.parametrize("user", [None, "", 1, "nobody", MISSING, [], {}, "a\x00", "\ud800"], ids=case)
def test_a_user_that_is_none_is_named(boss: Any, user: Any) -> None:
    body = {"organization": str(factories.organization().pk), "user": user, "role": "viewer"}
    reply = post(boss, MEMBERSHIPS, body)
    assert (reply.status_code, list(reply.json())) == (400, ["user"])
    assert not Membership.objects.exists()
