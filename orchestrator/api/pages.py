"""The API in a browser: who is signed in to the admin may read replies as pages, follow them, and send requests.

A page is another form of the reply to a GET, and of nothing else.  What it sends, its script sends as JSON with the
CSRF token: no address has to take forms for it.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

from django.urls import get_resolver, reverse
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BrowsableAPIRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.settings import api_settings
from rest_framework.utils.urls import replace_query_param

_SHOWN: Final = 500_000  # characters: the outputs of one page of results may be many megabytes
_WRITING: Final = ("POST", "PUT", "PATCH", "DELETE")
_ID: Final = "%(pk)s/"
_TURNING: Final = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")  # text around, in what a device has said


class PageRenderer(BrowsableAPIRenderer):
    """The reply as JSON in a page, with the addresses that lead on from it."""

    template = "orchestrator/api.html"
    format = "html"

    def get_context(
        self, data: Any, accepted_media_type: str | None, renderer_context: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What the template shows.  DRF's own would ask for rights, rows and forms that the reply does not need."""
        view, request, response = (renderer_context[name] for name in ("view", "request", "response"))
        content = self.get_content(JSONRenderer(), data, accepted_media_type, dict(renderer_context))
        content = _TURNING.sub(lambda sign: f"\\u{ord(sign[0]):04x}", content)
        found = data if isinstance(data, Mapping) and response.status_code < 400 else {}
        offered = [method for method in _WRITING if method in view.allowed_methods]
        return {
            "user": request.user,
            "status": f"{response.status_code} {response.status_text}",
            "content": content[:_SHOWN],
            "cut": len(content) > _SHOWN,
            "as_json": replace_query_param(request.get_full_path(), str(api_settings.URL_FORMAT_OVERRIDE), "json"),
            "methods": offered,
            "body": content if "PUT" in offered and found else "{}",
            "collections": sorted(_root() + address for address in _addresses() if "%" not in address),
            "below": list(_below(request.path, view.kwargs)),
            "pages": [(name, found[name]) for name in ("previous", "next") if found.get(name)],
            "rows": list(_rows(request.path, found.get("results"))),
        }


class Negotiation(DefaultContentNegotiation):
    """Pages are for people: who sends a token gets JSON, and so does who changes something."""

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        """The renderer that the client wants, with the media type.

        Raises:
            NotAcceptable: there is none.
        """
        person = request.method in ("GET", "HEAD") and "Authorization" not in request.headers
        offered = [found for found in renderers if person or not isinstance(found, PageRenderer)]
        return super().select_renderer(request, offered, format_suffix)


def _root() -> str:
    return reverse("schema").removesuffix("schema/")


@cache
def _addresses() -> tuple[str, ...]:
    """The addresses of the API after what is common to all, such as ``controller/device/%(pk)s/``."""
    known = get_resolver("orchestrator.api.urls").reverse_dict
    found = {way for name in known if isinstance(name, str) for ways, *_ in known.getlist(name) for way, _ in ways}
    return tuple(sorted(way for way in found if way.endswith("/")))


def _below(path: str, named: Mapping[str, Any]) -> Iterator[str]:
    for address in _addresses():
        if "%" not in address or named:
            whole = _root() + address % named
            if whole != path and whole.startswith(path):
                yield whole


def _rows(path: str, results: Any) -> Iterator[tuple[str, str]]:
    """(name, address) of the rows in a list, where rows have an address."""
    if path.removeprefix(_root()) + _ID not in _addresses() or not isinstance(results, list):
        return
    for row in results:
        named = [row[name] for name in ("name", "username", "label", "action") if row.get(name)]
        yield str(named[0] if named else row["id"]), f"{path}{row['id']}/"
