"""Bodies that come in chunks, without a Content-Length (RFC 9112, section 7.1)."""

import os
from collections.abc import Callable
from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase


class ChunkedBodyMiddleware:
    """Tells how long a body is that came in chunks.

    Django and DRF take a request without a Content-Length for one without a body: ``{"devices": […]}`` would cancel
    the whole run, and not these devices.  Under ASGI all of the body is in a file when Django is called.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Pass the request on."""
        stream: Any = getattr(request, "_stream", None)
        if stream is not None and not request.META.get("CONTENT_LENGTH") and stream.seekable():  # never under WSGI
            if size := stream.seek(0, os.SEEK_END):
                request.META["CONTENT_LENGTH"] = str(size)
            stream.seek(0)
        return self.get_response(request)
