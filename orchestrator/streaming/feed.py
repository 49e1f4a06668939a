"""What a stream reads of the database, and its events as bytes.

Nothing is lost, because the writes to a run's rows are numbered in the order in which they become visible: each takes
its number (``MassCommandQuerySet.next_change``) by an UPDATE of the run's row, whose lock it keeps until it commits.
So whoever sees number n in the run's row sees every row of the numbers up to n (PostgreSQL: a later statement sees
what was committed before it; SQLite: one writer at a time), and no number up to n will turn up later.  A position is
such a number; to go on from there is to read the rows with a higher one.  A row that changes again meanwhile has a
higher number again, so it comes later, never not at all.
"""

import json
import re
import uuid
from collections.abc import Collection, Iterator
from copy import copy
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self

from django.contrib.sessions.models import Session
from django.db.models import Q
from django.utils import timezone

from orchestrator.access import Access, Right
from orchestrator.models import Command, MassCommand, Token, User
from orchestrator.states import RUN_FINISHED

PAGE: Final = 1_000  # rows in one event
RETRY: Final = 2_000  # milliseconds until a browser connects again
_COLUMNS: Final = ("id", "device", "device_name", "status", "reason", "rc", "started", "finished")
_POSITION: Final = re.compile(r"(?P<change>[0-9]{1,18})(?:-(?P<row>[0-9a-f]{32})|(?P<end>-end))?\Z")


@dataclass(frozen=True, slots=True)
class Position:
    """How far a listener is: all rows of the changes before ``change``, and of it those up to ``row`` (None: all)."""

    change: int = -1
    row: uuid.UUID | None = None
    end: bool = False  # the final event was sent: nothing follows

    @classmethod
    def parse(cls, text: str) -> Self:
        """The position of an event's id.

        Raises:
            ValueError: no event has such an id.
        """
        found = _POSITION.match(text)
        if not found:
            raise ValueError(text)
        row = found["row"]
        return cls(int(found["change"]), uuid.UUID(row) if row else None, end=bool(found["end"]))

    def __str__(self) -> str:
        if self.end:
            return f"{self.change}-end"
        return f"{self.change}-{self.row.hex}" if self.row else str(self.change)


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who listens, and by what: the token, or the session, must go on to be valid."""

    user: uuid.UUID
    token: uuid.UUID | None = None
    session: str = ""
    session_hash: str = ""  # it changes with the password


@dataclass(frozen=True, slots=True)
class Subscription:
    """A stream that was asked for; ``position`` is where it goes on, ``rows`` whether devices are told too."""

    run: uuid.UUID
    organization: uuid.UUID | None
    viewer: Viewer
    position: Position = Position()
    rows: bool = True


@dataclass(frozen=True, slots=True)
class RunState:
    """A run at one moment: what is told of it, and the number of the last change to its rows."""

    shown: dict[str, Any]
    change: int
    finished: bool


@dataclass(frozen=True, slots=True)
class Page:
    """An event with the run's state and the rows after some position, and the position after it."""

    event: bytes
    rows: int
    state: RunState
    position: Position
    complete: bool  # no row is left up to the state's change


def read_states(runs: Collection[uuid.UUID]) -> dict[uuid.UUID, RunState]:
    """The runs as they are, those that exist; one query."""
    return {run.pk: _state(run) for run in MassCommand.objects.filter(pk__in=runs).defer("sealed_input", "notes")}


def _state(run: MassCommand) -> RunState:
    shown = {
        "id": str(run.pk), "status": run.status, "paused": run.paused is not None, "started": _time(run.started),
        "finished": _time(run.finished), "deadline": _time(run.deadline), "device_count": run.device_count,
        "counts": run.counts, "progress": run.progress,
    }  # fmt: skip
    return RunState(shown, change=run.changes, finished=run.status in RUN_FINISHED)


def read_page(run: uuid.UUID, state: RunState, after: Position) -> Page:
    """The rows that have changed after the position and up to the state's change, as one event; one query."""
    later = Q(change__gt=after.change)
    if after.row:
        later |= Q(change=after.change, pk__gt=after.row)
    rows = Command.objects.filter(later, mass_command=run, change__lte=state.change).order_by("change", "pk")
    found = list(rows.values(*_COLUMNS, "change")[:PAGE])
    complete = len(found) < PAGE
    position = Position(state.change) if complete else Position(found[-1]["change"], found[-1]["id"])
    return _page(state, found, position, complete=complete)


def page_without_rows(state: RunState) -> Page:
    """The page of who wants to know of the run only."""
    return _page(state, [], Position(state.change), complete=True)


def _page(state: RunState, rows: list[dict[str, Any]], position: Position, *, complete: bool) -> Page:
    event = encode("changes", {"run": state.shown, "commands": [_row(row) for row in rows]}, position)
    return Page(event, len(rows), state, position, complete)


def end_event(state: RunState) -> bytes:
    """The last event of a finished run."""
    return encode("end", {"run": state.shown}, Position(state.change, end=True))


def _row(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": str(row["id"]), "device": row["device"] and str(row["device"]), "device_name": row["device_name"],
        "status": row["status"], "reason": row["reason"], "rc": row["rc"], "started": _time(row["started"]),
        "finished": _time(row["finished"]),
    }  # fmt: skip


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat().replace("+00:00", "Z") if moment else None  # as in all other replies


def encode(event: str, body: Any, position: Position | None = None) -> bytes:
    """An event as it is sent (HTML, section 9.2); JSON has no raw line ends, so the data is one line."""
    head = f"id: {position}\n" if position else ""
    data = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return f"event: {event}\n{head}data: {data}\n\n".encode()


def snapshot_events(subscription: Subscription) -> Iterator[bytes]:
    """All there is to tell now, and no more: for servers that can't hold connections open.

    The client connects again after a while, and goes on from the last id.
    """
    yield f"retry: {RETRY}\n\n".encode()
    state = read_states([subscription.run]).get(subscription.run)
    if state is None:
        return
    yield encode("snapshot", {"run": state.shown})
    position, complete = subscription.position, not subscription.rows
    while not complete:
        page = read_page(subscription.run, state, position)
        position, complete = page.position, page.complete
        if page.rows:
            yield page.event
    if state.finished:
        yield end_event(state)


def still_allowed(subscriptions: Collection[Subscription]) -> set[Subscription]:
    """Those whose viewer may still see the run; a handful of queries, however many they are."""
    viewers = {subscription.viewer for subscription in subscriptions}
    users = User.objects.filter(pk__in={viewer.user for viewer in viewers}).prefetch_related("memberships").in_bulk()
    tokens = _valid_tokens({viewer.token for viewer in viewers if viewer.token})
    sessions = _valid_sessions({viewer.session for viewer in viewers if viewer.session})
    access = {viewer: _access(viewer, users.get(viewer.user), tokens, sessions) for viewer in viewers}
    return {given for given in subscriptions if access[given.viewer].can(Right.VIEW, given.organization)}


def _valid_sessions(keys: Collection[str]) -> set[str]:
    alive = Session.objects.filter(session_key__in=keys, expire_date__gt=timezone.now())
    return set(alive.values_list("session_key", flat=True)) if keys else set()


def _valid_tokens(tokens: Collection[uuid.UUID]) -> dict[uuid.UUID, Token]:
    return Token.objects.valid().in_bulk(tokens) if tokens else {}


def _access(viewer: Viewer, user: User | None, tokens: dict[uuid.UUID, Token], sessions: set[str]) -> Access:
    if user is None:
        return Access()
    if viewer.token:
        if viewer.token not in tokens:
            return Access()
        user = copy(user)  # who may listen by several tokens
        user.token = tokens[viewer.token]
    if viewer.session and (viewer.session not in sessions or user.get_session_auth_hash() != viewer.session_hash):
        return Access()
    return Access.of(user)
