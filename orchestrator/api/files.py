"""Replies that are files: of a kind that the address says, streamed."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.request import Request


class AsAsked(BaseContentNegotiation):
    """The address and its ``?format=`` name the file, not one of DRF's renderers; these are for errors alone."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        """The only one."""
        return parsers[0]

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        """The only one."""
        return renderers[0], renderers[0].media_type


def streamed(request: Request, parts: Iterator[bytes]) -> Iterator[bytes] | AsyncIterator[bytes]:
    """The parts as the server takes them: under ASGI Django would read a plain iterator to its end before it sends."""
    return _in_threads(parts) if isinstance(request._request, ASGIRequest) else parts


async def _in_threads(parts: Iterator[bytes]) -> AsyncIterator[bytes]:
    """The same for ASGI, each part read in the thread that may use the database."""
    take = sync_to_async(lambda: next(parts, None))
    while (part := await take()) is not None:
        yield part
