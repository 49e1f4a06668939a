"""What the page of a run draws: cells, timeline, what devices printed, and how that differs."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from orchestrator.access import Role
from orchestrator.admin import grid
from orchestrator.admin.grid import cell_of, grid_of
from orchestrator.admin.terminal import colored, plain
from orchestrator.admin.timeline import timeline_of
from orchestrator.models import Command, MassCommand, Organization, Slice, User
from orchestrator.states import CommandStatus
from tests import factories, run_rows

pytestmark = pytest.mark.django_db
C = CommandStatus


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


def _words(drawn: dict[str, Any]) -> list[str]:
    return [drawn["statuses"][int(letter)] for letter in drawn["cells"]]


def test_each_device_is_a_cell_in_the_order_of_names(client: Any, organization: Organization, member: Any) -> None:
    member(Role.VIEWER)
    run = run_rows.run({C.FAILED: 1, C.SUCCESS: 2, C.UNREACHABLE: 1}, organization=organization)
    drawn = client.get(_address("grid", run)).json()
    assert _words(drawn) == ["failed", "success", "success", "unreachable"]
    cell = client.get(_address("grid", run), {"cell": "3"}).json()
    assert (cell["name"], cell["label"], cell["reason"]) == ("unreachable-00000", "unreachable", "Connection refused.")
    assert client.get(cell["address"]).status_code == 200
    assert client.get(_address("grid", run), {"cell": "4"}).json() == {}
    for nonsense in ("-1", "x", "²", "99999999"):
        assert client.get(_address("grid", run), {"cell": nonsense}).status_code == 404
    client.force_login(factories.user(organization=factories.organization(), is_staff=True))
    assert client.get(_address("grid", run)).status_code == 404


def test_many_devices_share_cells_that_show_the_worst(
    organization: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid, "CELLS", 3)
    run = run_rows.run({C.FAILED: 1, C.QUEUED: 1, C.SUCCESS: 5}, organization=organization)
    drawn = grid_of(run)
    assert drawn["devices_in_a_cell"] == 3
    assert _words(drawn) == ["failed", "success", "success"]
    assert (cell_of(run, 0)["name"], cell_of(run, 0)["last"]) == ("failed-00000", "success-00000")
    assert cell_of(run, 2)["count"] == 1


@pytest.mark.database
def test_the_timeline_counts_devices_by_when_they_ended(organization: Organization) -> None:
    run = run_rows.run({C.SUCCESS: 3, C.FAILED: 1, C.SKIPPED: 1}, organization=organization)
    start = timezone.now() - timedelta(minutes=10)
    MassCommand.objects.filter(pk=run.pk).update(started=start, finished=start + timedelta(seconds=100.5))
    for row, seconds in zip(run.commands.exclude(status=C.SKIPPED), (0.2, 55.0, 55.9, 100.5), strict=True):
        Command.objects.filter(pk=row.pk).update(finished=start + timedelta(seconds=seconds))
    run.commands.filter(status=C.SKIPPED).update(finished=start - timedelta(seconds=1))
    run.refresh_from_db()
    found = timeline_of(run)
    assert (found.seconds, found.step, len(found.columns), found.most) == (2, "2 seconds", 51, 2)
    ended = [(round((column.start - start).total_seconds()), column.words) for column in found.filled]
    assert ended == [(0, "1 failed"), (54, "2 success"), (100, "1 success")]
    assert [text for _, text in found.moments] == [
        "Started: a worker took the first slice", f"Ended: {run.get_status_display()}", "Created by a deleted user",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("length", "step"), [(0.1, "second"), (59, "second"), (7_200, "2 minutes"), (86_400, "30 minutes"), (9e6, "2 days")]
)
def test_a_timeline_has_few_columns_however_long_the_run(organization: Organization, length: float, step: str) -> None:
    run = run_rows.run({C.SUCCESS: 1}, organization=organization)
    run.started = timezone.now() - timedelta(days=200)
    run.finished = run.started + timedelta(seconds=length)
    Command.objects.update(finished=run.finished)
    found = timeline_of(run)
    assert found.step == step
    assert 1 <= len(found.columns) <= 60
    assert sum(column.count for column in found.columns) == 1


def test_the_timeline_tells_of_waves_and_of_a_run_that_has_not_started(organization: Organization) -> None:
    run = run_rows.run({C.QUEUED: 3}, organization=organization, started=None)
    assert timeline_of(run).columns == ()
    for wave in (1, 2):
        Slice.objects.create(mass_command=run, number=wave, wave=wave, size=wave, spawned=timezone.now())
    told = [text for _, text in timeline_of(run).moments]
    assert "Wave 2 began: 2 devices" in told


def test_ten_thousand_devices_open_within_a_second(
    client: Any, organization: Organization, member: Any, django_assert_max_num_queries: Any
) -> None:
    member(Role.OPERATOR)
    run = run_rows.run({C.SUCCESS: 9_000, C.FAILED: 500, C.RUNNING: 500}, organization=organization)
    parts: list[tuple[str, dict[str, Any], int]] = [
        (_address("change", run), {"page": 150}, 9),
        (_address("change", run), {"fragment": "results", "status": "failed", "q": "9"}, 6),
        (_address("change", run), {"fragment": "timeline"}, 6),
        (_address("grid", run), {}, 5),
        (_address("grid", run), {"cell": "9999"}, 5),
        (_address("progress", run), {}, 4),
    ]
    for address, query, most in parts:
        started = time.process_time()
        with django_assert_max_num_queries(most):
            page = client.get(address, query)
        assert time.process_time() - started < 1.0, (address, query)
        assert page.status_code == 200
        assert "page" not in query or "7,451 to 7,500 of 10,000" in page.content.decode()


def test_exports_hold_what_is_filtered(client: Any, organization: Organization, member: Any) -> None:
    member(Role.VIEWER)
    run = run_rows.run({C.SUCCESS: 3, C.FAILED: 2}, organization=organization)
    page = client.get(_address("change", run), {"status": "failed", "q": "00001"})
    for kind, address in page.context["exports"]:
        assert f'href="{address.replace("&", "&amp;")}"' in page.content.decode()
        text = b"".join(client.get(address).streaming_content).decode()
        assert "failed-00001" in text, kind
        assert "failed-00000" not in text
        assert "success" not in text


def test_what_a_device_printed_is_a_file_as_it_came(client: Any, organization: Organization, member: Any) -> None:
    member(Role.VIEWER)
    run_rows.run({C.SUCCESS: 1}, organization=organization)
    Command.objects.update(stdout="\x1b[31mé\r\n", stderr="oops", device_name='a"/../b\n')
    here = reverse("admin:orchestrator_command_output", args=[Command.objects.get().pk])
    reply = client.get(here)
    assert reply.content == "\x1b[31mé\r\n".encode()
    assert reply["Content-Disposition"] == 'attachment; filename="a__.._b_-stdout.txt"'
    assert reply["X-Content-Type-Options"] == "nosniff"
    assert client.get(here, {"stream": "stderr"}).content == b"oops"
    assert client.get(here, {"stream": "sealed_input"}).status_code == 404
    client.force_login(factories.user(organization=factories.organization(), is_staff=True))
    assert client.get(here).status_code == 404


@pytest.mark.parametrize(
    ("printed", "html"),
    [
        ("exe.\u202egnp\u2066", "exe.&lt;U+202E&gt;gnp&lt;U+2066&gt;"),
        ("a\x1b[31mb\x1b[0mc", 'a<span class="o-ansi-red">b</span>c'),
        ("\x1b[1;97m<b>", '<span class="o-ansi-bold o-ansi-white">&lt;b&gt;</span>'),
        ("\x1b[1;97;44m\x1b[22;39m&", '<span class="o-ansi-on-blue">&amp;</span>'),
        ("\x1b[38;5;196mx\x1b[38;2;1;2;31my\x1b[4mz", 'xy<span class="o-ansi-underline">z</span>'),
        ("\x1b]0;title\x07\x1b[2J\x1b[Hok\x07\x00\x9b", "ok"),
        ("10%\r20%\r\nend", "10%\n20%\nend"),
        ("\x1b[999999999999999m\x1b[mx\x1b[", "x["),
    ],
)  # fmt: skip
def test_colours_become_classes_and_all_else_text(printed: str, html: str) -> None:
    assert colored(printed) == html
    assert "\x1b" not in plain(printed)


def test_outputs_are_compared_with_what_most_devices_said(client: Any, organization: Organization, member: Any) -> None:
    member(Role.VIEWER)
    run = run_rows.run({C.SUCCESS: 5, C.UNREACHABLE: 9}, organization=organization)
    Command.objects.filter(status=C.SUCCESS).update(stdout="model A\nkernel 5.15\nfine\n")
    Command.objects.filter(device_name="success-00003").update(stdout="model A\nkernel <5.10>\nfine\n")
    Command.objects.filter(device_name="success-00004").update(stdout="panic\n")
    page = client.get(_address("outputs", run))
    changes = [[(change.sign, change.text) for change in group.changes] for group in page.context["groups"]]
    same = [(" ", "model A"), ("-", "kernel 5.15"), ("+", "kernel <5.10>"), (" ", "fine")]
    assert sorted(changes) == [[], [], [], same]  # the silent ones are the most, and nothing to compare with
    assert "kernel &lt;5.10&gt;" in page.content.decode()
    assert page.context["summary"] == "9 devices said the same, 5 differ, in 3 ways."
