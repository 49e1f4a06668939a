"""A run as it happens: nothing is lost, rights end at once, and listeners cost the database nothing."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore
from django.db import connection, connections, transaction
from django.db.backends.utils import CursorWrapper
from django.utils import timezone

from orchestrator.models import Command, MassCommand, Token, User
from orchestrator.settling import skip
from orchestrator.states import CommandStatus as Status
from orchestrator.streaming import feed, hub
from orchestrator.streaming.feed import Position
from tests import factories, run_rows
from tests.integration.api_addresses import MISSING, RUNS
from tests.integration.event_client import Browser, Stream, browser

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database, pytest.mark.usefixtures("outbox")]

ACCEPT = {"Accept": "text/event-stream"}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes a second takes a tenth."""
    monkeypatch.setattr(hub, "TICK", 0.1)


@pytest.fixture
def organization() -> Any:
    """Whose run it is."""
    return factories.organization()


@pytest.fixture
def run(organization: Any) -> MassCommand:
    """Three devices run, two wait."""
    return run_rows.run({Status.RUNNING: 3, Status.QUEUED: 2}, organization=organization)


@pytest.fixture
def viewer(organization: Any) -> User:
    """Its viewer."""
    return factories.user(organization=organization, role="viewer")


def bearer(user: User, **limits: Any) -> dict[str, str]:
    """The headers of a client with a token of this user."""
    _, token = Token.objects.issue(user=user, name="watcher", **limits)
    return {**ACCEPT, "Authorization": f"Bearer {token}"}


def cookie(user: User) -> dict[str, str]:
    """The headers of a browser in which the user has signed in."""
    session = SessionStore()
    session[SESSION_KEY], session[BACKEND_SESSION_KEY] = str(user.pk), settings.AUTHENTICATION_BACKENDS[0]
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    return {**ACCEPT, "Cookie": f"{settings.SESSION_COOKIE_NAME}={session.session_key}"}


def end(run: MassCommand, source: Status, target: Status, *, number: int | None = None) -> None:
    """End some of the rows as a worker does."""
    with transaction.atomic():
        change = MassCommand.objects.next_change(run.pk)
        rows = Command.objects.filter(mass_command=run, status=source)
        rows = Command.objects.filter(pk__in=list(rows.values_list("pk", flat=True)[:number]))
        moved = rows.end(source=source, target=target, code="", reason="", change=change)
        MassCommand.objects.count_moves(run.pk, {(source, target): moved})
    MassCommand.objects.finish_if_done(run.pk)


def address(run: MassCommand, query: str = "") -> str:
    """Of its events."""
    return f"{RUNS}{run.pk}/events/{query}"


def listen(story: Callable[[Browser], Coroutine[Any, Any, Any]]) -> None:
    """Let a story happen in an event loop; what its threads opened is closed."""

    async def play() -> None:
        async with browser() as opened:
            await story(opened)
        await sync_to_async(connections.close_all)()

    asyncio.run(play())


in_database = sync_to_async


def statuses(stream: Stream) -> dict[str, str]:
    """Device name → status, as a listener knows it."""
    return {name: row["status"] for name, row in stream.rows().items()}


def truth(run: MassCommand) -> dict[str, str]:
    """Device name → status, as it is."""
    return dict(Command.objects.filter(mass_command=run).values_list("device_name", "status"))


def _knows(stream: Stream, known: dict[str, str]) -> bool:
    return statuses(stream) == known


def test_a_run_is_told_from_its_snapshot_to_its_end(run: MassCommand, viewer: User) -> None:
    headers = bearer(viewer)

    async def story(at: Browser) -> None:
        stream = await at.open(address(run), headers).until("changes")
        assert stream.status == 200
        assert stream.headers["content-type"] == "text/event-stream"
        assert (stream.headers["cache-control"], stream.headers["x-accel-buffering"]) == ("no-store", "no")
        assert "content-length" not in stream.headers
        first, rows = stream.events()
        assert (first[0], first[1], first[2]["run"]["counts"]["running"]) == ("snapshot", "", 3)
        assert len(rows[2]["commands"]) == 5
        await in_database(end)(run, Status.RUNNING, Status.SUCCESS, number=2)
        await stream.until("changes", 2)
        name, position, data = stream.events()[-1]
        assert (name, position) == ("changes", "1")
        assert [row["status"] for row in data["commands"]] == ["success", "success"]
        assert data["run"]["counts"]["success"] == 2
        await in_database(end)(run, Status.RUNNING, Status.FAILED)
        await in_database(end)(run, Status.QUEUED, Status.CANCELLED)
        await stream.until_closed()
        assert stream.events()[-1][0] == "end"
        assert stream.events()[-1][2]["run"]["status"] == "cancelled"
        assert statuses(stream) == await in_database(truth)(run)
        again = at.open(address(run), {**headers, "Last-Event-ID": stream.last_id()})
        assert ((await again.until_closed()).status, again.text) == (204, "")

    listen(story)


def test_what_happens_to_the_run_alone_is_told_too(run: MassCommand, viewer: User) -> None:
    headers = bearer(viewer)

    async def story(at: Browser) -> None:
        plain, light = at.open(address(run), headers), at.open(address(run, "?rows=none"), headers)
        await plain.until("changes")
        await light.until("snapshot")
        await in_database(MassCommand.objects.filter(pk=run.pk).update)(paused=timezone.now())
        await plain.until("changes", 2)
        await light.until("changes")
        for stream in (plain, light):
            assert stream.events()[-1][2]["run"]["paused"] is True
            assert stream.events()[-1][2]["commands"] == []
        await in_database(end)(run, Status.RUNNING, Status.SUCCESS)
        assert (await light.until("changes", 2)).events()[-1][2]["run"]["counts"]["success"] == 3
        assert light.rows() == {}

    listen(story)


@pytest.mark.parametrize("page", [1, 2, 1_000])
def test_a_listener_goes_on_from_any_event_in_another_process(
    run: MassCommand, viewer: User, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(feed, "PAGE", page)
    headers = bearer(viewer)
    taken: list[Any] = []

    async def before(at: Browser) -> None:
        stream = await at.open(address(run), headers).until("changes", max(1, 5 // page))
        await in_database(end)(run, Status.RUNNING, Status.UNREACHABLE, number=2)
        await stream.wait_for(lambda: list(statuses(stream).values()).count("unreachable") == 2)
        taken.extend(found for found in stream.events() if found[1])

    async def after(at: Browser) -> None:
        for number, (_, position, _) in enumerate(taken, start=1):
            query = number % 2
            again = at.open(
                address(run, f"?after={position}" if query else ""),
                headers if query else {**headers, "Last-Event-ID": position},
            )
            await again.until_closed()
            known = {row["device_name"]: row for _, _, data in taken[:number] for row in data["commands"]}
            told = again.rows()
            assert {name: row["status"] for name, row in (known | told).items()} == await in_database(truth)(run)
            unchanged = [name for name, row in told.items() if known.get(name) == row]
            assert unchanged == [], "a row was told again that had not changed"

    listen(before)
    end(run, Status.RUNNING, Status.SUCCESS)
    end(run, Status.QUEUED, Status.LOST)
    listen(after)


def test_a_position_that_the_database_never_saw_begins_anew(run: MassCommand, viewer: User) -> None:
    headers = {**bearer(viewer), "Last-Event-ID": "77"}

    async def story(at: Browser) -> None:
        assert len((await at.open(address(run), headers).until("changes")).rows()) == 5

    listen(story)


def test_writes_become_visible_in_the_order_of_their_numbers(run: MassCommand) -> None:
    first, second = Command.objects.filter(mass_command=run, status=Status.QUEUED)
    verdict = (Status.SKIPPED, "busy", "Another run is on this device.")
    held, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def slow() -> None:
        try:
            with transaction.atomic():
                skip(run.pk, {first.pk: verdict})
                held.set()
                go_on.wait(10)
        finally:
            connection.close()

    def quick() -> None:
        try:
            held.wait(10)
            skip(run.pk, {second.pk: verdict})
            done.set()
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for work in (slow, quick)]
    for thread in threads:
        thread.start()
    held.wait(10)
    assert not done.wait(0.5), "the later number was visible before the earlier one"
    state = feed.read_states([run.pk])[run.pk]
    page = feed.read_page(run.pk, state, Position(0))
    assert (page.rows, page.position) == (0, Position(0))
    go_on.set()
    for thread in threads:
        thread.join(10)
    page = feed.read_page(run.pk, feed.read_states([run.pk])[run.pk], page.position)
    assert (page.rows, page.position) == (2, Position(2))


@pytest.fixture
def queries(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each query of any thread."""
    seen: list[str] = []
    execute = CursorWrapper.execute

    def counted(self: Any, sql: Any, params: Any = None) -> Any:
        seen.append(str(sql))
        return execute(self, sql, params)

    monkeypatch.setattr(CursorWrapper, "execute", counted)
    return seen


def test_fifty_listeners_cost_the_database_as_much_as_one(
    organization: Any, monkeypatch: pytest.MonkeyPatch, queries: list[str]
) -> None:
    monkeypatch.setattr(hub, "TICK", 0.25)
    run = run_rows.run({Status.QUEUED: 1_000}, organization=organization)
    users = [factories.user(organization=organization, role="viewer") for _ in range(50)]
    everybody = [bearer(user) for user in users[:25]] + [cookie(user) for user in users[25:]]
    costs: dict[int, float] = {}

    def story(number: int) -> Callable[[Browser], Coroutine[Any, Any, None]]:
        async def play(at: Browser) -> None:
            streams = [at.open(address(run), headers) for headers in everybody[-number:]]
            for stream in streams:
                await stream.until("changes")
            queries.clear()
            for _ in range(4):
                await in_database(end)(run, Status.QUEUED, Status.SUCCESS, number=100)
                await asyncio.sleep(0.25)
            costs[number] = len(queries)
            threads = {thread.name for thread in threading.enumerate() if thread.name.startswith("streams")}
            assert len(threads) == 1
            known = await in_database(truth)(run)
            for stream in streams:
                await stream.wait_for(partial(_knows, stream, known))

        return play

    listen(story(1))
    listen(story(50))
    # Writes and waits are the same; two more: one look at another moment, and the tokens beside the sessions.
    assert costs[50] <= costs[1] + 10, costs


def test_a_crowd_that_comes_at_once_shares_its_reads(
    organization: Any, viewer: User, monkeypatch: pytest.MonkeyPatch, queries: list[str]
) -> None:
    monkeypatch.setattr(feed, "PAGE", 100)
    run = run_rows.run({Status.SUCCESS: 950}, organization=organization)
    headers = bearer(viewer)

    async def story(at: Browser) -> None:
        streams = [at.open(address(run), headers) for _ in range(30)]
        for stream in streams:
            assert len((await stream.until_closed()).rows()) == 950
        assert 10 <= sum('"change" <= ' in sql for sql in queries) <= 12

    listen(story)


def _expire(user: User) -> None:
    Token.objects.filter(user=user).update(expiry=timezone.now() - timedelta(seconds=1))


def _change_password(user: User) -> None:
    user.set_password("another-Password-2")
    user.save()


def _sign_out(user: User) -> None:
    from django.contrib.sessions.models import Session

    Session.objects.all().delete()


LOSSES: dict[str, tuple[Callable[[User], dict[str, str]], Callable[[User], Any]]] = {
    "the membership": (bearer, lambda user: user.memberships.all().delete()),
    "the user": (bearer, lambda user: User.objects.filter(pk=user.pk).update(is_active=False)),
    "the user's row": (cookie, lambda user: User.objects.filter(pk=user.pk).delete()),
    "the token": (bearer, lambda user: Token.objects.filter(user=user).delete()),
    "the token's time": (bearer, _expire),
    "the session": (cookie, _sign_out),
    "the password": (cookie, _change_password),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_whoever_loses_the_right_is_cut_off(run: MassCommand, viewer: User, organization: Any, loss: str) -> None:
    sign_in, lose = LOSSES[loss]
    headers = sign_in(viewer)
    other = bearer(factories.user(organization=organization, role="viewer"))

    async def story(at: Browser) -> None:
        stream, stays = at.open(address(run), headers), at.open(address(run), other)
        await stream.until("changes")
        await stays.until("changes")
        async with asyncio.timeout(2):
            await in_database(lose)(viewer)
            await stream.until_closed()
        await in_database(end)(run, Status.RUNNING, Status.SUCCESS)
        await stays.until("changes", 2)
        assert [name for name, _, _ in stream.events()] == ["snapshot", "changes"]
        again = await at.open(address(run), headers).until_closed()
        assert again.status in (401, 403, 404)

    listen(story)


def test_a_deleted_run_closes_its_streams(run: MassCommand, viewer: User) -> None:
    headers = bearer(viewer)

    async def story(at: Browser) -> None:
        stream = await at.open(address(run), headers).until("changes")
        await in_database(MassCommand.objects.filter(pk=run.pk).delete)()
        assert "end" not in [name for name, _, _ in (await stream.until_closed()).events()]

    listen(story)


def test_who_hangs_up_leaves_nothing_behind(run: MassCommand, viewer: User) -> None:
    headers = bearer(viewer)

    async def story(at: Browser) -> None:
        stream = await at.open(address(run), headers).until("changes")
        before = asyncio.all_tasks()
        [center] = at.application._hubs.values()
        assert center.count(viewer.pk) == 1
        stream.leave()
        await asyncio.gather(*(task for _, task in at.tasks))
        await asyncio.sleep(0)
        assert center.count(viewer.pk) == 0
        assert {task.get_name() for task in before - asyncio.all_tasks()} >= {"streams"}
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("streams") and _stays(thread)]

    listen(story)


def _stays(thread: threading.Thread) -> bool:
    thread.join(5)
    return thread.is_alive()


def test_who_takes_nothing_holds_nothing_up_and_is_closed(
    run: MassCommand, viewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.streaming.asgi._SEND_LIMIT", 1.0)
    headers = bearer(viewer)

    async def story(at: Browser) -> None:
        slow, other = at.open(address(run), headers), at.open(address(run), headers)
        await slow.until("changes")
        slow.taking.clear()
        for status in (Status.SUCCESS, Status.FAILED, Status.LOST):
            await in_database(end)(run, Status.RUNNING, status, number=1)
            await other.until("changes", 2 + (Status.SUCCESS, Status.FAILED, Status.LOST).index(status))
        slow.taking.set()  # and gets what has piled up as one
        await slow.until("changes", 3)
        assert statuses(slow) == statuses(other)
        assert len(slow.events()) < len(other.events())
        slow.taking.clear()
        await in_database(end)(run, Status.QUEUED, Status.SUCCESS, number=1)
        async with asyncio.timeout(5):
            await at.tasks[0][1]
        assert not slow.closed

    listen(story)


def test_a_server_that_stops_ends_its_streams(run: MassCommand, viewer: User) -> None:
    headers = bearer(viewer)

    async def story(at: Browser) -> None:
        stream = await at.open(address(run), headers).until("changes")
        [center] = at.application._hubs.values()
        center.stop()
        await stream.until_closed()
        assert (await at.open(address(run), headers).until_closed()).events() == []

    listen(story)


def test_a_heartbeat_comes_when_nothing_happens(
    run: MassCommand, viewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "HEARTBEAT", 0.1)
    headers = bearer(viewer)

    async def story(at: Browser) -> None:
        stream = await at.open(address(run), headers).until("changes")
        await stream.wait_for(lambda: stream.text.count(": heartbeat\n\n") >= 3)
        assert len(stream.events()) == 2

    listen(story)


def test_a_database_that_is_away_ends_no_stream(
    run: MassCommand, viewer: User, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from django.db import OperationalError

    headers = bearer(viewer)
    real, away = feed.read_states, threading.Event()

    def read(runs: Any) -> Any:
        if away.is_set():
            raise OperationalError("gone")
        return real(runs)

    monkeypatch.setattr(hub, "read_states", read)

    async def story(at: Browser) -> None:
        stream = await at.open(address(run), headers).until("changes")
        away.set()
        await in_database(end)(run, Status.RUNNING, Status.SUCCESS)
        await asyncio.sleep(0.4)
        away.clear()
        assert statuses(await stream.until("changes", 2)) == await in_database(truth)(run)

    listen(story)
    assert "trying again" in caplog.text


def test_a_server_that_holds_nothing_open_tells_what_there_is(api: Any, run: MassCommand, viewer: User) -> None:
    reply = api(viewer).get(address(run), headers=ACCEPT)
    text = reply.getvalue().decode()
    assert text.count("event: ") == 2
    end(run, Status.RUNNING, Status.SUCCESS)
    end(run, Status.QUEUED, Status.SUCCESS)
    reply = api(viewer).get(address(run), headers={**ACCEPT, "Last-Event-ID": "1"})
    assert reply.getvalue().decode().count('"status":"success"') == 2 + 3  # rows, and the run three times


@pytest.mark.parametrize(
    ("query", "header", "field"),
    [("?after=x", "", "after"), ("?rows=some", "", "rows"), ("?color=red", "", "color"), ("", "1-", "Last-Event-ID"),
     ("", "-1", "Last-Event-ID"), ("?after=1", "1;drop", "Last-Event-ID"), ("?format=json", "", "format")],
)  # fmt: skip
def test_a_wrong_parameter_is_named(
    api: Any, run: MassCommand, viewer: User, query: str, header: str, field: str
) -> None:
    reply = api(viewer).get(address(run, query), headers={**ACCEPT, "Last-Event-ID": header})
    assert (reply.status_code, list(reply.json())) == (400, [field])


def test_who_takes_no_events_is_told(api: Any, run: MassCommand, viewer: User) -> None:
    reply = api(viewer).get(address(run), headers={"Accept": "application/json"})
    assert (reply.status_code, reply.json()["code"]) == (406, "not_acceptable")
    reply = api(viewer).get(f"{RUNS}{MISSING}/events/", headers=ACCEPT)
    assert (reply.status_code, reply["Content-Type"]) == (404, "application/json")


def test_a_system_wide_run_is_told_to_superusers_only(viewer: User) -> None:
    run = run_rows.run({Status.RUNNING: 1})
    MassCommand.objects.filter(pk=run.pk).update(organization=None)
    person, administrator = bearer(viewer), bearer(factories.superuser())

    async def story(at: Browser) -> None:
        assert (await at.open(address(run), person).until_closed()).status == 404
        await at.open(address(run), administrator).until("changes")

    listen(story)


def test_a_token_that_is_limited_elsewhere_sees_nothing_here(run: MassCommand, organization: Any) -> None:
    person = factories.superuser()
    here, elsewhere = (
        bearer(person, organization=organization, read_only=True),
        bearer(person, organization=factories.organization()),
    )

    async def story(at: Browser) -> None:
        assert (await at.open(address(run), elsewhere).until_closed()).status == 404
        stream = await at.open(address(run), here).until("changes")
        moved = Token.objects.filter(organization=organization)
        await in_database(moved.update)(organization=await in_database(factories.organization)())
        await stream.until_closed()

    listen(story)


def test_nobody_opens_streams_without_end(run: MassCommand, viewer: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.api.event_views._MOST", 2)
    headers = bearer(viewer)

    async def story(at: Browser) -> None:
        for _ in range(2):
            await at.open(address(run), headers).until("snapshot")
        refused = await at.open(address(run), headers).until_closed()
        assert (refused.status, refused.headers["retry-after"]) == (429, "10")

    listen(story)


@pytest.mark.parametrize("text", ["7", "0", "12-" + 32 * "a", "9-end"])
def test_an_id_is_a_position(text: str) -> None:
    assert str(Position.parse(text)) == text
