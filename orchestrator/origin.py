"""Where what happens comes from: the door, and for requests the client's address.  The audit log writes it down.

A middleware sets it for requests; whatever else has no person at a browser says so itself with ``through``.
"""

import enum
import getpass
import ipaddress
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Final

from django.conf import settings
from django.http import HttpRequest, HttpResponse


class Door(enum.StrEnum):
    """By which way something was done."""

    API = "api"
    ADMIN = "admin"
    CLI = "cli"
    SCHEDULER = "scheduler"
    WORKER = "worker"


@dataclass(frozen=True, slots=True)
class Origin:
    """Door, address and client; ``token`` is the beginning of the API token that was used."""

    door: Door = Door.CLI
    address: str = ""
    user_agent: str = ""
    token: str = ""


_AT_THE_MACHINE: Final = Origin()
_origin: Final = ContextVar("orchestrator_origin", default=_AT_THE_MACHINE)


def current() -> Origin:
    """Where what happens now comes from."""
    return _origin.get()


@contextmanager
def through(door: Door) -> Iterator[None]:
    """What happens within comes through this door."""
    before = _origin.set(Origin(door))
    try:
        yield
    finally:
        _origin.reset(before)


def by_token(beginning: str) -> None:
    """The request has shown the API token that begins so."""
    _origin.set(replace(_origin.get(), token=beginning))


def system_user() -> str:
    """Who is logged in at the machine; for commands, which know no other user."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no such user in this container
        return ""


def client_address(request: HttpRequest) -> str:
    """The client's address; X-Forwarded-For is believed as far as ORCHESTRATOR_PROXIES says, from the right.

    Empty where there is none, as on a unix socket.
    """
    proxies: int = settings.REST_FRAMEWORK["NUM_PROXIES"]
    forwarded = [part.strip() for part in request.META.get("HTTP_X_FORWARDED_FOR", "").split(",") if part.strip()]
    told = forwarded[-min(proxies, len(forwarded))] if proxies and forwarded else request.META.get("REMOTE_ADDR", "")
    try:
        address = ipaddress.ip_address(told.partition("%")[0])
    except ValueError:
        return ""
    return str(getattr(address, "ipv4_mapped", None) or address)


class OriginMiddleware:
    """Sets the origin for each request."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Pass the request on."""
        door = Door.API if request.path_info.startswith("/api/") else Door.ADMIN
        agent = request.META.get("HTTP_USER_AGENT", "")
        before = _origin.set(Origin(door, client_address(request), agent))
        try:
            return self.get_response(request)
        finally:
            _origin.reset(before)
