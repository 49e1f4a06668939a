"""One reader for all streams of a web process, and what each stream tells its listener.

A listener has a position and asks for what comes after it; nothing is queued for it.  A slow one therefore holds no
memory: it asks later, and gets at once what has piled up.  Listeners at one position share one read, so the database
sees the same queries for one as for a thousand.
"""

import asyncio
import logging
import signal
import threading
import uuid
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from types import FrameType
from typing import Any, Final

from django.db import Error as DatabaseError
from django.db import connection

from orchestrator.streaming.feed import (
    RETRY,
    Page,
    Position,
    RunState,
    Subscription,
    encode,
    end_event,
    page_without_rows,
    read_page,
    read_states,
    still_allowed,
)

log = logging.getLogger(__name__)

TICK: Final = 1.0  # seconds between two looks at the runs and at the rights of the listeners
HEARTBEAT: Final = 15.0  # seconds without an event
_NEXT_READ: Final = 0.05  # seconds between two reads of one run's rows: a crowd that catches up is no storm
_PAGES: Final = 32  # kept of a run: for those who catch up together
_PAGE_AGE: Final = 5.0  # seconds that a full page, which is behind the present anyway, serves others
_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def _close_connection() -> None:
    """The calling thread's."""
    connection.close()


class Listener:
    """One open stream."""

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self._ended = False

    def ended(self) -> bool:
        """Whether its right is gone, or the server stops."""
        return self._ended

    def end(self) -> None:
        """Let it end; whoever calls this tells its channel."""
        self._ended = True


class Channel:
    """One run that is listened to: its last known state, and the pages that were read of late."""

    def __init__(self, run: uuid.UUID) -> None:
        self.run = run
        self.state: RunState | None = None
        self.gone = False
        self.listeners: set[Listener] = set()
        self.news = asyncio.Event()
        self.reading = asyncio.Lock()
        self.next_read = 0.0
        self.pages: OrderedDict[Position, tuple[float, Page]] = OrderedDict()

    def tell(self) -> None:
        """Wake all who wait for news."""
        self.news.set()
        self.news = asyncio.Event()

    def known(self, position: Position, now: float) -> Page | None:
        """The page after the position, if it was read and still serves."""
        if position not in self.pages:
            return None
        read, page = self.pages[position]
        return page if page.state is self.state or (not page.complete and now < read + _PAGE_AGE) else None

    def keep(self, position: Position, now: float, page: Page) -> None:
        """Remember a page for others."""
        self.pages[position] = (now, page)
        self.pages.move_to_end(position)
        while len(self.pages) > _PAGES:
            self.pages.popitem(last=False)


class Hub:
    """The streams of one event loop.  It reads only while somebody listens."""

    def __init__(self) -> None:
        self._channels: dict[uuid.UUID, Channel] = {}
        self._task: asyncio.Task[None] | None = None
        self._database: ThreadPoolExecutor | None = None
        self._wanted = asyncio.Event()  # somebody listens to a run that was not looked at yet
        self._restore: dict[int, Any] = {}
        self._hear: Callable[[int, FrameType | None], None] | None = None
        self.stopping = False

    def count(self, user: uuid.UUID) -> int:
        """How many streams the user has open here."""
        channels = list(self._channels.values())
        return sum(listener.subscription.viewer.user == user for each in channels for listener in list(each.listeners))

    async def events(self, subscription: Subscription) -> AsyncGenerator[bytes, None]:
        """What one listener is sent, until the run ends, its right ends or the server stops."""
        listener = Listener(subscription)
        channel = self._open(listener)
        try:
            yield f"retry: {RETRY}\n\n".encode()
            async with aclosing(self._tell(channel, listener)) as told:
                async for event in told:
                    yield event
        finally:
            self._close(channel, listener)

    async def _tell(self, channel: Channel, listener: Listener) -> AsyncGenerator[bytes, None]:
        position, told = listener.subscription.position, None
        while not (listener.ended() or channel.gone):
            news, patience = channel.news, HEARTBEAT
            if channel.state is not None:
                if told is None:
                    told = channel.state.shown
                    yield encode("snapshot", {"run": told})
                page = await self._page(channel, listener, position)
                if listener.ended():
                    return
                if page is None:
                    patience = TICK
                else:
                    if page.rows or page.state.shown != told:
                        told = page.state.shown
                        yield page.event
                    position = page.position
                    if page.complete and page.state.finished:
                        yield end_event(page.state)
                        return
                    if not page.complete or page.state is not channel.state:
                        continue
            try:
                async with asyncio.timeout(patience):
                    await news.wait()
            except TimeoutError:
                yield b": heartbeat\n\n"

    async def _page(self, channel: Channel, listener: Listener, position: Position) -> Page | None:
        """What comes after the position; None when the database doesn't answer now."""
        loop = asyncio.get_running_loop()
        if channel.state is not None and not listener.subscription.rows:
            return page_without_rows(channel.state)
        async with channel.reading:
            state = channel.state
            if state is None or listener.ended():
                return None
            if page := channel.known(position, loop.time()):
                return page
            await asyncio.sleep(channel.next_read - loop.time())
            try:
                page = await self._read(read_page, channel.run, state, position)
            except DatabaseError:
                log.exception("The rows of run %s can't be read; trying again", channel.run)
                return None
            channel.next_read = loop.time() + _NEXT_READ
            channel.keep(position, loop.time(), page)
            return page

    # ---------------------------------------------------------------- the reader

    def _open(self, listener: Listener) -> Channel:
        run = listener.subscription.run
        channel = self._channels.get(run)
        if channel is None:
            channel = self._channels[run] = Channel(run)
            self._wanted.set()
        channel.listeners.add(listener)
        if self.stopping:
            listener.end()
        if self._task is None:
            self._catch_signals()
            self._database = ThreadPoolExecutor(1, thread_name_prefix="streams")
            self._task = asyncio.create_task(self._look_again_and_again(), name="streams")
        return channel

    def _close(self, channel: Channel, listener: Listener) -> None:
        channel.listeners.discard(listener)
        if not channel.listeners and self._channels.get(channel.run) is channel:
            del self._channels[channel.run]
        if not self._channels and self._task is not None and self._database is not None:
            self._task.cancel()
            self._database.submit(_close_connection)
            self._database.shutdown(wait=False)
            self._task = self._database = None
            self._release_signals()

    async def _look_again_and_again(self) -> None:
        loop, rights_due = asyncio.get_running_loop(), 0.0
        while True:
            try:
                if loop.time() >= rights_due:
                    await self._look_at_rights()
                    rights_due = loop.time() + TICK
                await self._look_at_runs()
            except Exception:
                log.exception("The streams can't be served; trying again")
                rights_due = 0.0
                await asyncio.sleep(TICK)
            await self._rest()

    async def _rest(self) -> None:
        """Until the next look; a run that is new here is looked at sooner."""
        await asyncio.sleep(TICK / 10)
        try:
            async with asyncio.timeout(TICK * 0.9):
                await self._wanted.wait()
        except TimeoutError:
            pass

    async def _look_at_rights(self) -> None:
        listeners = [listener for channel in self._channels.values() for listener in channel.listeners]
        allowed = await self._read(still_allowed, {listener.subscription for listener in listeners})
        for listener in listeners:
            if listener.subscription not in allowed:
                listener.end()
        for channel in self._channels.values():
            if any(listener.ended() for listener in channel.listeners):
                channel.tell()

    async def _look_at_runs(self) -> None:
        self._wanted.clear()
        channels = list(self._channels.values())
        states = await self._read(read_states, {channel.run for channel in channels})
        for channel in channels:
            state = states.get(channel.run)
            if state is None:
                channel.gone = True  # deleted
            elif state == channel.state:
                continue
            channel.state = state
            channel.tell()

    async def _read[**P, R](self, read: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Read in the one thread that may use the database: there is one connection for all streams."""

        def work() -> R:
            try:
                return read(*args, **kwargs)
            except DatabaseError:
                connection.close()
                raise

        return await asyncio.get_running_loop().run_in_executor(self._database, work)

    # ---------------------------------------------------------------- the end of the server

    def stop(self) -> None:
        """End all streams: clients connect again, and go on where they were."""
        self.stopping = True
        for channel in self._channels.values():
            for listener in channel.listeners:
                listener.end()
            channel.tell()

    def _catch_signals(self) -> None:
        """Hear of the end in time: a server asks nobody, and waits until all connections are closed."""
        if threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()

        def hear(number: int, frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(self.stop)
            previous = self._restore.get(number)
            if callable(previous):
                previous(number, frame)
            elif previous == signal.SIG_DFL:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)

        self._hear = hear
        self._restore = {number: signal.signal(number, hear) for number in _STOP_SIGNALS}

    def _release_signals(self) -> None:
        for number, previous in self._restore.items():
            if signal.getsignal(number) is self._hear:
                signal.signal(number, previous)
        self._restore = {}
