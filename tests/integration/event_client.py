"""A client of event streams that speaks ASGI, without a server: what it was sent, and when it can take no more."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

from orchestrator.asgi import django
from orchestrator.streaming import EventStreams


@dataclass
class Stream:
    """An open stream, or the reply of another kind that came instead."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    text: str = ""
    closed: bool = False  # by the service, in order
    taking: asyncio.Event = field(default_factory=asyncio.Event)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _gone: asyncio.Event = field(default_factory=asyncio.Event)
    _asked: bool = False

    async def receive(self) -> dict[str, Any]:
        """The request's body, then the client's end."""
        if self._asked:
            await self._gone.wait()
            return {"type": "http.disconnect"}
        self._asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: Any) -> None:
        """Take a part of the reply."""
        await self.taking.wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
        else:
            self.text += message.get("body", b"").decode()
            self.closed = not message.get("more_body", False)
        self._news.set()

    def leave(self) -> None:
        """Hang up."""
        self._gone.set()

    def events(self) -> list[tuple[str, str, Any]]:
        """(event, id, data) so far, comments left out."""
        found = []
        for part in self.text.split("\n\n")[:-1]:
            fields = dict(line.split(": ", 1) for line in part.splitlines() if not line.startswith(":"))
            if "event" in fields:
                found.append((fields["event"], fields.get("id", ""), json.loads(fields["data"])))
        return found

    def rows(self) -> dict[str, Any]:
        """The newest of each row, by device name."""
        return {row["device_name"]: row for _, _, data in self.events() for row in data.get("commands", ())}

    def last_id(self) -> str:
        """What a client sends when it connects again."""
        return next((found for _, found, _ in reversed(self.events()) if found), "")

    async def until(self, name: str, number: int = 1) -> Self:
        """Wait for so many events of this name (at most 10 seconds)."""
        return await self.wait_for(lambda: sum(event == name for event, _, _ in self.events()) >= number)

    async def until_closed(self) -> Self:
        """Wait until the service closes it (at most 10 seconds)."""
        return await self.wait_for(lambda: self.closed)

    async def wait_for(self, condition: Callable[[], bool]) -> Self:
        """Wait until it is so, looked at whenever something comes (at most 10 seconds)."""
        async with asyncio.timeout(10):
            while not condition():
                self._news.clear()
                await self._news.wait()
        return self


class Browser:
    """What opens streams at one web process; all are left in the end."""

    def __init__(self) -> None:
        self.application = EventStreams(django)
        self.tasks: list[tuple[Stream, asyncio.Task[None]]] = []

    def open(self, address: str, headers: Mapping[str, str], *, taking: bool = True) -> Stream:
        """GET, without waiting."""
        path, _, query = address.partition("?")
        stream = Stream()
        if taking:
            stream.taking.set()
        sent = {"Host": "localhost", **headers}
        scope = {
            "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in sent.items()],
            "http_version": "1.1", "scheme": "http", "server": ("localhost", 80), "client": ("127.0.0.1", 1),
            "asgi": {"version": "3.0"}, "root_path": "",
        }  # fmt: skip
        self.tasks.append((stream, asyncio.create_task(self.application(scope, stream.receive, stream.send))))
        return stream


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """A web process of its own."""
    made = Browser()
    try:
        yield made
    finally:
        for stream, task in made.tasks:
            stream.taking.set()
            stream.leave()
            await task
