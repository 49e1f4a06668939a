"""What our pages may do in a browser: a Content-Security-Policy for each kind of page, and what else is said to it.

Nothing is inline, and nothing comes from elsewhere.  Pages that are drawn by others are excepted as far as these need:
unfold's scripts (Alpine.js) evaluate expressions of their own templates; the queue's pages have inline scripts.
"""

import base64
import hashlib
import re
from collections.abc import Callable
from typing import Final

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.csp import CSP, build_policy

# What is not named falls back to nothing at all.
_STRICT: Final[dict[str, list[str]]] = {
    "default-src": [CSP.NONE],
    "script-src": [CSP.SELF],
    "style-src": [CSP.SELF],
    "img-src": [CSP.SELF, "data:"],
    "font-src": [CSP.SELF],
    "connect-src": [CSP.SELF],
    "form-action": [CSP.SELF],
    "frame-ancestors": [CSP.NONE],
    "base-uri": [CSP.NONE],
    "object-src": [CSP.NONE],
}
_PERMISSIONS: Final = "camera=(), geolocation=(), microphone=(), payment=(), usb=()"
# What unfold writes into its pages: its colours, which come from its settings alone, before anything of ours; and a
# rule for lists without actions.  Allowed by their hashes.
_COLOURS: Final = re.compile(rb'<style id="unfold-theme-colors">(.*?)</style>', re.DOTALL)
_RULE: Final = re.compile(rb"<style>(\s*#changelist table thead th:first-child \{width: inherit\}\s*)</style>")
_ADMIN: Final = "/admin/"
_API: Final = "/api/"
_QUEUE: Final = "/admin/django-rq/"


class BrowserPolicyMiddleware:
    """Adds the headers to each reply that doesn't have its own."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Pass the request on."""
        response = self.get_response(request)
        response.headers.setdefault("Permissions-Policy", _PERMISSIONS)
        response.headers.setdefault(str(CSP.HEADER_ENFORCE), policy(request.path_info, response))
        if request.path_info.startswith(_API):
            response.headers.setdefault("Cache-Control", "no-store")  # what one may read, another may not
        return response


def policy(path: str, response: HttpResponseBase) -> str:
    """The Content-Security-Policy of a reply at this address."""
    rules = dict(_STRICT)
    if path.startswith(_QUEUE):
        rules["script-src"] = [CSP.SELF, CSP.UNSAFE_EVAL, CSP.UNSAFE_INLINE]
        rules["style-src"] = [CSP.SELF, CSP.UNSAFE_INLINE]
    elif path.startswith(_ADMIN) and (hashes := _styles(response)):
        rules["script-src"] = [CSP.SELF, CSP.UNSAFE_EVAL]
        rules["style-src"] = [CSP.SELF, *hashes]
    return build_policy(rules)


def _styles(response: HttpResponseBase) -> list[str]:
    """The hashes of the styles in a page that unfold draws; none in any other reply."""
    if not isinstance(response, HttpResponse):
        return []
    found = [pattern.search(response.content) for pattern in (_COLOURS, _RULE)]
    digests = [hashlib.sha256(match[1]).digest() for match in found if match]
    return [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests]
