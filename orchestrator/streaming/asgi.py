"""Event streams over ASGI: Django answers the request and is done with it, and the stream goes on without Django.

Within Django a stream would keep the request's thread, and with it a connection to the database, as long as it is
open.  So the view only permits it, and leaves a ``Subscription`` in the request's scope.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import aclosing
from typing import Any, Final
from weakref import WeakKeyDictionary

from orchestrator.streaming.feed import Subscription
from orchestrator.streaming.hub import Hub

log = logging.getLogger(__name__)

type Message = MutableMapping[str, Any]
type Receive = Callable[[], Awaitable[Message]]
type Send = Callable[[Message], Awaitable[None]]
type Application = Callable[[Any, Any, Any], Awaitable[None]]

AREA: Final = "orchestrator.streaming"  # where view and server meet in the scope
HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would keep events back
}
_SEND_LIMIT: Final = 60.0  # seconds until a client must have taken what it was sent


class EventStreams:
    """An ASGI application around Django's: it goes on with the streams that Django has permitted."""

    def __init__(self, django: Application) -> None:
        self._django = django
        self._hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, Hub] = WeakKeyDictionary()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._django(scope, receive, send)
            return
        area: dict[str, Any] = {"hub": self._hub()}

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.body" and "subscription" in area:
                message = {**message, "more_body": True}
                if not message.get("body"):
                    return
            await send(message)

        await self._django({**scope, AREA: area}, receive, send_on)
        if subscription := area.get("subscription"):
            await _serve(area["hub"], subscription, receive, send)

    def _hub(self) -> Hub:
        loop = asyncio.get_running_loop()
        if loop not in self._hubs:
            self._hubs[loop] = Hub()
        return self._hubs[loop]


async def _serve(hub: Hub, subscription: Subscription, receive: Receive, send: Send) -> None:
    """Send until the stream ends, or the client is gone."""
    tasks = {asyncio.create_task(_pump(hub, subscription, send)), asyncio.create_task(_disconnect(receive))}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(hub: Hub, subscription: Subscription, send: Send) -> None:
    try:
        async with aclosing(hub.events(subscription)) as events:
            async for event in events:
                async with asyncio.timeout(_SEND_LIMIT):
                    await send({"type": "http.response.body", "body": event, "more_body": True})
    except TimeoutError:
        log.info("A listener of run %s takes nothing any more; its stream is closed", subscription.run)
        return
    except OSError:
        return  # the client has gone
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
