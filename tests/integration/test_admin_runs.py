"""The page of a run: its results, its progress, and what can be done to it by whom."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from orchestrator.access import Role
from orchestrator.admin.runs import progress_of
from orchestrator.models import Command, MassCommand, Organization, User
from orchestrator.states import CommandStatus, RunStatus
from tests import factories, run_rows

pytestmark = pytest.mark.django_db

MIXED = {CommandStatus.SUCCESS: 60, CommandStatus.FAILED: 3, CommandStatus.UNREACHABLE: 2}
HALF = {CommandStatus.SUCCESS: 2, CommandStatus.RUNNING: 1, CommandStatus.QUEUED: 3}


@pytest.fixture
def organization() -> Organization:
    return factories.organization()


@pytest.fixture
def member(client: Any, organization: Organization) -> Callable[[Role], User]:
    """``member(role)`` is signed in."""

    def sign_in(role: Role) -> User:
        user = factories.user(organization=organization, role=role, is_staff=True)
        client.force_login(user)
        return user

    return sign_in


def _address(name: str, run: MassCommand) -> str:
    return reverse(f"admin:orchestrator_masscommand_{name}", args=[run.pk])


def test_results_come_in_pages_and_by_status_and_name(client: Any, organization: Organization, member: Any) -> None:
    member(Role.VIEWER)
    run = run_rows.run(MIXED, organization=organization)
    here = _address("change", run)
    page = client.get(here)
    assert "1 to 50 of 65" in page.content.decode()
    assert "51 to 65 of 65" in client.get(here, {"page": 2}).content.decode()
    failed = client.get(here, {"status": "failed"})
    assert [row.device_name for row in failed.context["results"].rows] == [f"failed-{n:05}" for n in range(3)]
    found = client.get(here, {"q": "UNREACHABLE-00001"})
    assert [row.device_name for row in found.context["results"].rows] == ["unreachable-00001"]
    for nonsense in ({"status": "?"}, {"page": "x"}, {"page": "999"}, {"q": "\x00"}):
        assert client.get(here, nonsense).status_code == 200
    fragment = client.get(here, {"fragment": "results", "status": "failed"}).content.decode()
    assert "<html" not in fragment
    assert "failed-00002" in fragment


def test_progress_is_told_to_members_only(client: Any, organization: Organization, member: Any) -> None:
    run = run_rows.run(HALF, organization=organization)
    member(Role.VIEWER)
    told = client.get(_address("progress", run)).json()
    assert (told["status"], told["active"], told["percent"], told["finished_count"]) == ("running", True, 33, 2)
    assert sum(told["counts"].values()) == told["device_count"] == 6
    assert told["left"] > 0
    client.force_login(factories.user(organization=factories.organization(), is_staff=True))
    assert client.get(_address("progress", run)).status_code == 404
    client.logout()
    assert client.get(_address("progress", run)).status_code == 302


def test_devices_that_said_the_same_stand_together(
    client: Any, organization: Organization, member: Any, django_assert_max_num_queries: Any
) -> None:
    member(Role.VIEWER)
    counts = {**MIXED, CommandStatus.QUEUED: 2}
    run = run_rows.run(counts, organization=organization)
    Command.objects.filter(device_name="success-00007").update(stdout="<b>another</b>")
    with django_assert_max_num_queries(12):
        page = client.get(_address("outputs", run))
    assert [group.count for group in page.context["groups"]] == [59, 3, 2, 1]
    assert page.context["groups"][3].names == ("success-00007",)
    assert "&lt;b&gt;another" in page.content.decode()
    assert "and 54 more" in page.content.decode()
    client.force_login(factories.user(organization=factories.organization(), is_staff=True))
    assert client.get(_address("outputs", run)).status_code == 404


def test_many_different_outputs_are_cut(client: Any, organization: Organization, member: Any) -> None:
    member(Role.VIEWER)
    run = run_rows.run({CommandStatus.SUCCESS: 30}, organization=organization)
    for row in run.commands.all():
        Command.objects.filter(pk=row.pk).update(stdout=row.device_name)
    page = client.get(_address("outputs", run))
    assert (len(page.context["groups"]), page.context["total"]) == (20, 30)
    assert "the largest of 30 different outcomes" in page.content.decode()


def test_output_is_text(client: Any, organization: Organization, member: Any) -> None:
    member(Role.VIEWER)
    run = run_rows.run({CommandStatus.SUCCESS: 1}, organization=organization)
    hostile = "<script>alert(1)</script>\x1b[31mred\x1b[0m \x1b]0;title\x07{{ 7*7 }}"
    Command.objects.update(stdout=hostile, device_name='"><script>alert(2)</script>', reason="")
    row = Command.objects.get()
    pages = [
        client.get(_address("change", run)),
        client.get(reverse("admin:orchestrator_command_change", args=[row.pk])),
        client.get(reverse("admin:orchestrator_command_change", args=[row.pk]), {"fragment": "1"}),
    ]
    for page in pages:
        text = page.content.decode()
        assert "<script>alert" not in text
        assert "&lt;script&gt;alert(1)" in text
    assert '<span class="o-ansi-red">red</span> {{ 7*7 }}' in pages[1].content.decode()


@pytest.mark.parametrize("role", list(Role))
def test_operators_cancel(client: Any, organization: Organization, member: Any, role: Role) -> None:
    member(role)
    run = run_rows.run({CommandStatus.RUNNING: 1, CommandStatus.QUEUED: 1}, organization=organization)
    allowed = role != Role.VIEWER
    assert (_address("cancel", run) in client.get(_address("change", run)).content.decode()) == allowed
    assert client.get(_address("cancel", run)).status_code == (200 if allowed else 403)
    run.refresh_from_db()
    assert run.cancel_requested is None
    assert client.post(_address("cancel", run)).status_code == (302 if allowed else 403)
    run.refresh_from_db()
    assert (run.status == RunStatus.CANCELLING) == allowed


@pytest.mark.parametrize("role", list(Role))
def test_operators_pause_and_go_on(client: Any, organization: Organization, member: Any, role: Role) -> None:
    member(role)
    run = run_rows.run({CommandStatus.RUNNING: 1, CommandStatus.QUEUED: 1}, organization=organization)
    allowed = role != Role.VIEWER
    assert client.get(_address("pause", run)).status_code == 403  # a link changes nothing
    for field, paused in (("pause", True), ("resume", False)):
        reply = client.post(_address("pause", run), {field: "1"})
        assert reply.status_code == (302 if allowed else 403)
        run.refresh_from_db()
        assert (run.paused is not None) == (paused and allowed)
        assert ("Paused." in client.get(_address("change", run)).content.decode()) == (paused and allowed)
    ended = run_rows.run({CommandStatus.SUCCESS: 1}, organization=organization)
    assert client.post(_address("pause", ended), {"pause": "1"}).status_code == (302 if allowed else 403)


@pytest.mark.parametrize(
    ("finished", "seconds", "words"),
    [(10, 5, "2.0 a second, about 45 s left"), (10, 100, "6.0 a minute, about 15 min left"), (0, 5, "")],
)
def test_the_pace_is_said_in_words(
    organization: Organization, monkeypatch: pytest.MonkeyPatch, finished: int, seconds: int, words: str
) -> None:
    counts = {CommandStatus.SUCCESS: finished, CommandStatus.QUEUED: 90}
    moment = timezone.now()
    run = run_rows.run(counts, organization=organization, started=moment - timedelta(seconds=seconds))
    monkeypatch.setattr(timezone, "now", lambda: moment)
    assert progress_of(run)["pace"] == words


def test_what_has_ended_is_not_cancelled(client: Any, organization: Organization, member: Any) -> None:
    member(Role.OPERATOR)
    run = run_rows.run({CommandStatus.SUCCESS: 1}, organization=organization)
    assert "ended already" in client.post(_address("cancel", run), follow=True).content.decode()


@pytest.mark.parametrize("role", list(Role))
def test_administrators_delete_what_has_ended(client: Any, organization: Organization, member: Any, role: Role) -> None:
    member(role)
    allowed = role == Role.ADMINISTRATOR
    active = run_rows.run(HALF, organization=organization)
    reply = client.post(_address("delete", active), follow=True)
    assert ("has not finished" in reply.content.decode()) == allowed
    ended = run_rows.run({CommandStatus.SUCCESS: 2}, organization=organization)
    assert (_address("delete", ended) in client.get(_address("change", ended)).content.decode()) == allowed
    client.get(_address("delete", ended))
    assert MassCommand.objects.filter(pk=ended.pk).exists()
    assert client.post(_address("delete", ended)).status_code == (302 if allowed else 403)
    assert MassCommand.objects.filter(pk=active.pk).exists()
    assert MassCommand.objects.filter(pk=ended.pk).exists() != allowed
    assert Command.objects.filter(mass_command=None).count() == (2 if allowed else 0)


def test_a_run_can_not_be_changed_or_added_by_form(client: Any, organization: Organization, member: Any) -> None:
    run = run_rows.run({CommandStatus.SUCCESS: 1}, organization=organization)
    client.force_login(factories.superuser())
    client.post(_address("change", run), {"label": "forged"})
    run.refresh_from_db()
    assert run.label == ""
    assert client.post("/admin/orchestrator/masscommand/add/", {}).status_code == 403
    row = run.commands.get()
    client.post(reverse("admin:orchestrator_command_change", args=[row.pk]), {"stdout": "forged"})
    row.refresh_from_db()
    assert "forged" not in row.stdout
    assert client.post(reverse("admin:orchestrator_command_delete", args=[row.pk]), {"post": "yes"}).status_code == 403


def test_a_run_is_prepared_again_for_those_that_did_not_succeed(
    client: Any, organization: Organization, member: Any
) -> None:
    member(Role.OPERATOR)
    counts = {CommandStatus.SUCCESS: 2, CommandStatus.FAILED: 1, CommandStatus.UNREACHABLE: 2, CommandStatus.SKIPPED: 1}
    run = run_rows.run(counts, organization=organization, with_devices=True, label="again")
    page = client.get(_address("change", run)).content.decode()
    assert "Run on the 3 that did not succeed" in page
    review = client.post(_address("again", run), {"which": "unsuccessful"}, follow=True)
    assert review.context["eligible"] == 3
    assert {row["name"][:3] for row in review.context["rows"]} == {"fai", "unr"}
    assert client.post(_address("again", run), {"which": "all"}, follow=True).context["eligible"] == 6
    assert MassCommand.objects.count() == 1  # nothing runs before its review


def test_a_password_must_be_typed_again(client: Any, organization: Organization, member: Any) -> None:
    member(Role.OPERATOR)
    masked = {"password": "********", "confirm_password": "********", "username": "admin"}
    run = run_rows.run(
        {CommandStatus.SUCCESS: 1}, organization=organization, with_devices=True, type="change_password", input=masked
    )
    reply = client.post(_address("again", run), {"which": "all"}, follow=True)
    assert reply.redirect_chain[-1][0].endswith("/command/")
    pk = reply.context["draft"].id
    page = client.post(reverse("admin:orchestrator_run_command", args=[pk]), {"type": "change_password"})
    assert "Enter 6 to 128 characters." in page.content.decode()


def test_viewers_do_not_run_again(client: Any, organization: Organization, member: Any) -> None:
    member(Role.VIEWER)
    run = run_rows.run({CommandStatus.FAILED: 1}, organization=organization)
    assert "Run again" not in client.get(_address("change", run)).content.decode()
    assert client.post(_address("again", run), {"which": "all"}).status_code == 403


def test_a_device_links_to_its_own_history(client: Any, organization: Organization, member: Any) -> None:
    member(Role.VIEWER)
    run = run_rows.run({CommandStatus.SUCCESS: 2}, organization=organization, with_devices=True)
    device: Any = run.commands.all()[0].device
    page = client.get(reverse("admin:orchestrator_command_changelist"), {"device__exact": str(device.pk)})
    assert page.status_code == 200
    assert [row.device for row in page.context["cl"].result_list] == [device]
