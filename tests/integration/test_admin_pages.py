"""Every page of the admin, for every role: who sees it, how many queries it takes, and that no secret is on it."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib import admin
from django.urls import reverse

from orchestrator.access import Role
from orchestrator.admin.queue import addresses
from orchestrator.models import Token, User
from orchestrator.states import CommandStatus
from tests import factories, run_rows

pytestmark = pytest.mark.django_db

MODELS = ("membership", "organization", "location", "devicegroup", "credential", "device", "masscommand", "command")
PASSWORD = "an-unmistakable-Secret7"


@pytest.fixture
def page(client: Any) -> Callable[..., Any]:
    """``page(user, name, *args)`` is the reply to a GET as this user."""

    def get(user: User, name: str, *args: Any, **query: Any) -> Any:
        client.force_login(user)
        return client.get(reverse(name, args=args), query)

    return get


class World:
    """Two organizations, with one row of each kind in the first."""

    def __init__(self) -> None:
        self.organization = factories.organization(name="unmistakably mine")
        self.other = factories.organization(name="theirs")
        self.location = factories.location(organization=self.organization)
        self.group = factories.group(organization=self.organization)
        self.credential = factories.credential(organization=self.organization, password=PASSWORD)
        self.device = factories.device(
            organization=self.organization, credentials=[self.credential], group=self.group, location=self.location
        )
        self.run = run_rows.run({CommandStatus.SUCCESS: 2, CommandStatus.FAILED: 1}, organization=self.organization)
        self.command = self.run.commands.first()
        self.rows: dict[str, Any] = {
            "organization": self.organization, "location": self.location, "devicegroup": self.group,
            "credential": self.credential, "device": self.device, "masscommand": self.run, "command": self.command,
            "savedtargets": factories.saved_targets(organization=self.organization, targets={"platform": "linux"}),
        }  # fmt: skip

    def staff(self, role: Role | None, *, stranger: bool = False) -> User:
        """A staff user with this role; a stranger has it in the other organization."""
        organization = None if role is None else self.other if stranger else self.organization
        return factories.user(organization=organization, role=role or Role.VIEWER, is_staff=True)


@pytest.fixture
def world(db: Any) -> World:
    return World()


LISTS = [f"admin:orchestrator_{name}_changelist" for name in MODELS if name != "membership"]
ALL_PAGES = [*LISTS, "admin:index", "admin:orchestrator_token_changelist", "admin:orchestrator_playbook_changelist"]


@pytest.mark.parametrize("name", ALL_PAGES)
@pytest.mark.parametrize("role", list(Role))
def test_each_list_opens_for_each_role(page: Any, world: World, role: Role, name: str) -> None:
    assert page(world.staff(role), name).status_code == 200


@pytest.mark.parametrize("name", [*ALL_PAGES, "admin:orchestrator_user_changelist", "admin:orchestrator_user_add"])
def test_each_list_opens_for_superusers(page: Any, world: World, name: str) -> None:
    assert page(factories.superuser(), name).status_code == 200


@pytest.mark.parametrize("model", [name for name in MODELS if name != "membership"])
def test_a_row_opens_for_members_and_does_not_exist_for_strangers(page: Any, world: World, model: str) -> None:
    row = world.rows[model]
    name = f"admin:orchestrator_{model}_change"
    for role in Role:
        assert page(world.staff(role), name, row.pk).status_code == 200
        reply = page(world.staff(role, stranger=True), name, row.pk)
        assert reply.status_code == 404
        listed = page(world.staff(role, stranger=True), f"admin:orchestrator_{model}_changelist")
        assert str(row.pk) not in listed.content.decode()


@pytest.mark.parametrize("model", ["location", "devicegroup", "credential", "device"])
@pytest.mark.parametrize(("role", "status"), [(Role.VIEWER, 403), (Role.OPERATOR, 403), (Role.ADMINISTRATOR, 200)])
def test_only_administrators_add_and_delete(page: Any, world: World, model: str, role: Role, status: int) -> None:
    staff = world.staff(role)
    assert page(staff, f"admin:orchestrator_{model}_add").status_code == status
    assert page(staff, f"admin:orchestrator_{model}_delete", world.rows[model].pk).status_code == status


def test_staff_without_membership_see_an_empty_house(page: Any, world: World) -> None:
    nobody = world.staff(None)
    assert "no organization yet" in page(nobody, "admin:index").content.decode()
    assert page(nobody, "admin:orchestrator_device_changelist").status_code == 403


def test_a_django_permission_changes_nothing(page: Any, world: World) -> None:
    from django.contrib.auth.models import Permission

    viewer = world.staff(Role.VIEWER)
    viewer.user_permissions.set(Permission.objects.all())
    assert page(viewer, "admin:orchestrator_device_add").status_code == 403
    assert page(viewer, "admin:orchestrator_user_changelist").status_code == 403
    assert page(world.staff(Role.VIEWER, stranger=True), "admin:orchestrator_device_change", world.device.pk)


def test_users_are_for_superusers(page: Any, world: World) -> None:
    boss = factories.superuser()
    administrator = world.staff(Role.ADMINISTRATOR)
    assert page(administrator, "admin:orchestrator_user_changelist").status_code == 403
    assert page(administrator, "admin:orchestrator_user_change", boss.pk).status_code in {403, 404}
    assert page(boss, "admin:orchestrator_user_change", administrator.pk).status_code == 200
    assert page(boss, "admin:auth_user_password_change", administrator.pk).status_code == 200


def test_a_stranger_meets_no_name_and_no_id_of_others(page: Any, world: World) -> None:
    stranger = world.staff(Role.ADMINISTRATOR, stranger=True)
    forms = [f"admin:orchestrator_{name}_add" for name in ("location", "devicegroup", "credential", "device")]
    for name in [*ALL_PAGES, *forms, "admin:orchestrator_run_new"]:
        text = page(stranger, name).content.decode()
        for row in world.rows.values():
            assert str(row.pk) not in text, (name, row)
            assert getattr(row, "name", "\0") not in text, (name, row)


def test_a_system_wide_run_is_for_superusers(page: Any, world: World) -> None:
    run = run_rows.run({CommandStatus.SUCCESS: 1})
    administrator = world.staff(Role.ADMINISTRATOR)
    change = "admin:orchestrator_masscommand_change"
    assert page(administrator, change, run.pk).status_code == 404
    assert page(administrator, "admin:orchestrator_masscommand_progress", run.pk).status_code == 404
    assert str(run.pk) not in page(administrator, "admin:index").content.decode()
    assert page(factories.superuser(), change, run.pk).status_code == 200


def test_no_page_shows_a_secret(page: Any, world: World) -> None:
    boss = factories.superuser()
    token, text = Token.objects.issue(user=boss, name="script")
    secrets = [PASSWORD, world.credential.sealed, token.digest, text, boss.password]
    pages = [page(boss, name) for name in [*ALL_PAGES, "admin:orchestrator_user_changelist"]]
    for model, row in world.rows.items():
        pages += [page(boss, f"admin:orchestrator_{model}_change", row.pk)]
        if model != "command":
            pages += [page(boss, f"admin:orchestrator_{model}_history", row.pk)]
    pages += [page(boss, "admin:orchestrator_user_change", boss.pk)]
    pages += [page(boss, "admin:orchestrator_token_revoke", token.pk)]
    for reply in pages:
        assert reply.status_code == 200, reply.request["PATH_INFO"]
        for secret in secrets:
            assert secret not in reply.content.decode(), reply.request["PATH_INFO"]


def test_lists_take_a_bounded_number_of_queries(client: Any, world: World, django_assert_max_num_queries: Any) -> None:
    for _ in range(10):
        factories.device(organization=world.organization)
        run_rows.run({CommandStatus.SUCCESS: 1}, organization=world.organization)
    client.force_login(world.staff(Role.ADMINISTRATOR))
    for name in ALL_PAGES:
        with django_assert_max_num_queries(20):
            assert client.get(reverse(name)).status_code == 200


def test_the_dashboard_survives_a_dead_queue(page: Any, world: World) -> None:
    html = page(factories.superuser(), "admin:index").content.decode()
    assert "The queue can't be reached" in html.replace("&#x27;", "'")


def test_an_empty_install_says_what_to_do_next(page: Any) -> None:
    assert "Add an organization" in page(factories.superuser(), "admin:index").content.decode()


# ---------------------------------------------------------------- the queue's pages
def _queue_addresses() -> list[str]:
    patterns, _ = addresses()
    found = []
    for pattern in patterns:
        route = str(pattern.pattern).replace("^", "").replace("/?$", "").replace("(?P<token>[\\w]+)?", "abc")
        route = re.sub(r"<int:\w+>", "0", route)
        found.append("/admin/django-rq/" + re.sub(r"<\w+:\w+>", "abc", route))
    return found


def test_there_are_queue_addresses_to_gate() -> None:
    assert len(_queue_addresses()) > 20
    assert not any("<" in address or "(" in address for address in _queue_addresses())


@pytest.mark.parametrize("address", _queue_addresses())
def test_queue_pages_exist_for_superusers_only(client: Any, world: World, address: str) -> None:
    visitors = [
        None,
        world.staff(Role.ADMINISTRATOR),
        factories.user(is_superuser=True, is_staff=True, is_active=False),
    ]
    for visitor in visitors:
        client.logout()
        if visitor is not None:
            client.force_login(visitor)
        for send in (client.get, client.post):
            assert send(address, headers={"Authorization": "Bearer x"}).status_code == 404, address


def test_there_is_no_second_door_to_the_queue(client: Any) -> None:
    client.force_login(factories.superuser())
    assert client.get("/admin/django_rq/dashboard/").status_code == 404
    assert not any(model._meta.app_label == "django_rq" for model in admin.site._registry)


def test_the_queue_is_in_the_menu_of_superusers_only(page: Any, world: World) -> None:
    link = 'href="/admin/django-rq/"'
    assert link in page(factories.superuser(), "admin:index").content.decode()
    assert link not in page(world.staff(Role.ADMINISTRATOR), "admin:index").content.decode()


def test_each_type_has_an_explanation() -> None:
    from orchestrator.admin.wizard_command import TYPE_HELP
    from orchestrator.models import CommandType

    assert set(TYPE_HELP) == set(CommandType)
