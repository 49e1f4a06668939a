"""HTTP requests to addresses that users name.  They reach the public internet, and what the operator allows besides.

A name is resolved once, every address of it is looked at, and the connection goes to one that was looked at: a name
that means another address a moment later gains nothing.  No redirects are followed, and no proxy is asked.
"""

import http.client
import ipaddress
import re
import socket
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.parse import urlsplit

from django.conf import settings

CONNECT_LIMIT: Final = 5.0  # seconds, for one address
TOTAL_LIMIT: Final = 15.0  # seconds, from the connection to the status of the answer
URL_LENGTH: Final = 2_000  # characters
_TRIED: Final = 2  # addresses of a host
_PLAIN: Final = re.compile(r"[!-~]+")  # ASCII without spaces and control characters: RFC 3986 section 2
_UNICAST6: Final = ipaddress.IPv6Network("2000::/3")  # the global unicast space of RFC 4291
_PORTS: Final = {"https": 443, "http": 80}

type Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class OutboundError(Exception):
    """A request could not be sent, or was not answered; the text is for people."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a URL leads."""

    scheme: str
    host: str
    port: int
    path: str  # with the query

    @classmethod
    def of(cls, url: str) -> Self:
        """The parts of a URL.

        Raises:
            OutboundError: it is none that requests are sent to.
        """
        if not _PLAIN.fullmatch(url) or len(url) > URL_LENGTH:
            raise OutboundError(f"Enter a URL in ASCII, of at most {URL_LENGTH:,} characters.")
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise OutboundError("Enter a URL such as https://example.com/hook.") from error
        if parts.scheme not in _PORTS or not host or port == 0:
            raise OutboundError("Enter a URL such as https://example.com/hook.")
        if parts.username is not None or parts.fragment:
            raise OutboundError("A user name, a password or a #fragment can't be part of it.")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(parts.scheme, host, port or _PORTS[parts.scheme], path)

    def check(self) -> None:
        """Look at what can be seen without asking for the addresses of the host.

        Raises:
            OutboundError: no request would ever be sent there.
        """
        if self.scheme == "http" and not settings.WEBHOOK_NETWORKS:
            raise OutboundError("Use https: everybody on the way could read it.")
        try:
            address = ipaddress.ip_address(self.host)
        except ValueError:
            return
        self.permit(address)

    def permit(self, given: Address) -> None:
        """Let a request go to this address.

        Raises:
            OutboundError: it is not public, or not to be spoken to without encryption, and not allowed by the operator.
        """
        address = getattr(given, "ipv4_mapped", None) or given
        if any(address in network for network in settings.WEBHOOK_NETWORKS):
            return
        if not is_public(address):
            raise OutboundError(
                f"{self.host} is no public address, and none that ORCHESTRATOR_WEBHOOK_NETWORKS allows."
            )
        if self.scheme == "http":
            raise OutboundError("Use https: plain http is for the networks of ORCHESTRATOR_WEBHOOK_NETWORKS.")

    def addresses(self) -> list[tuple[Any, ...]]:
        """The socket addresses of the host, each of them permitted.

        Raises:
            OutboundError: there is none, or one of them is not permitted.
        """
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise OutboundError(f"The name {self.host} can't be resolved.") from error
        for *_, address in found:
            self.permit(ipaddress.ip_address(address[0]))
        return [address for *_, address in found]


def is_public(address: Address) -> bool:
    """Whether this is an address of one host on the public internet, by IANA's registries of special addresses."""
    unicast = address.version == 4 or address in _UNICAST6
    return unicast and address.is_global and not address.is_multicast and not address.is_reserved


class _Connection(http.client.HTTPConnection):
    """Speaks to an address that was looked at, in the name of the host."""

    def __init__(self, destination: Destination, addresses: list[tuple[Any, ...]]) -> None:
        super().__init__(destination.host, destination.port, timeout=CONNECT_LIMIT)
        self.default_port = _PORTS[destination.scheme]  # which the Host header leaves out
        self._addresses, self._encrypted = addresses[:_TRIED], destination.scheme == "https"
        self.aborted = False

    def connect(self) -> None:
        """Connect to the first address that answers; the certificate must be the host's."""
        for address in self._addresses:
            try:
                self.sock = socket.create_connection(address[:2], timeout=CONNECT_LIMIT)
                break
            except OSError:
                if address is self._addresses[-1]:
                    raise
        if self._encrypted:
            context = ssl.create_default_context()
            # The handshake apart: ``abort`` must have the socket that it waits on.
            encrypted = context.wrap_socket(self.sock, server_hostname=self.host, do_handshake_on_connect=False)
            self.sock = encrypted
            encrypted.do_handshake()

    def abort(self) -> None:
        """Break the connection off, from another thread: whoever waits for an answer gets an error."""
        self.aborted = True
        if (sock := self.sock) is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def post(url: str, body: bytes, headers: Mapping[str, str]) -> int:
    """Send a body to a URL; the HTTP status of the answer, whatever it is.  Of the answer nothing else is read.

    Raises:
        OutboundError: it could not be sent, or was not answered within ``TOTAL_LIMIT`` seconds.
    """
    destination = Destination.of(url)
    connection = _Connection(destination, destination.addresses())
    # The timeout of a socket is for each of its steps: who answers byte by byte would hold a thread for ever.
    limit = threading.Timer(TOTAL_LIMIT, connection.abort)
    limit.daemon = True
    limit.start()
    try:
        connection.request("POST", destination.path, body, dict(headers))
        return connection.getresponse().status
    except ssl.SSLCertVerificationError as error:
        raise OutboundError(f"The certificate of {destination.host} is not valid: {error.verify_message}.") from error
    except TimeoutError as error:
        raise OutboundError("It did not answer in time.") from error
    except (OSError, http.client.HTTPException) as error:
        if connection.aborted:
            raise OutboundError(f"It did not answer within {TOTAL_LIMIT:g} seconds.") from error
        raise OutboundError(f"The connection failed: {str(error) or type(error).__name__}.") from error
    finally:
        limit.cancel()
        connection.close()
