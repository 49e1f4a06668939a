"""Where requests may go that users ask for, and that they go to the address that was looked at."""

import datetime
import http.server
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from orchestrator.outbound import Destination, OutboundError, is_public, post

LOOPBACK = [ipaddress.ip_network("127.0.0.0/8")]


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "255.255.255.255", "240.0.0.1", "198.18.0.1", "192.0.2.1", "::", "::1", "fe80::1", "fd00::1", "fec0::1",
        "ff0e::1", "64:ff9b::7f00:1", "64:ff9b:1::1", "2002:7f00:1::", "2001::1", "2001:db8::1", "::7f00:1", "100::1",
    ],
)  # fmt: skip
def test_special_addresses_are_not_public(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "2a00:1450::1"])
def test_addresses_of_hosts_are_public(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "ASCII"), ("https://exämple.org/", "ASCII"), ("https://a b/", "ASCII"), ("https://a/\nX: y", "ASCII"),
        ("https://a/" + "x" * 2_000, "2,000"), ("ftp://example.org/", "such as"), ("file:///etc/passwd", "such as"),
        ("https://", "such as"), ("https:///x", "such as"), ("https://a:99999/", "such as"),
        ("https://a:0/", "such as"), ("https://[::1/", "such as"), ("https://me:pw@example.org/", "user name"),
        ("https://example.org/#x", "fragment"),
        ("http://example.org/", "Use https"), ("https://127.0.0.1/", "no public"), ("https://[::1]/", "no public"),
        ("https://[::ffff:10.0.0.1]/", "no public"), ("https://169.254.169.254/latest/", "no public"),
    ],
)  # fmt: skip
def test_what_is_never_sent_to_is_refused_when_it_is_written_down(url: str, reason: str) -> None:
    with pytest.raises(OutboundError, match=reason):
        Destination.of(url).check()


def test_a_good_url_is_taken() -> None:
    destination = Destination.of("https://hooks.example.org:8443/in?key=1")
    destination.check()
    assert destination == Destination("https", "hooks.example.org", 8443, "/in?key=1")


@pytest.mark.parametrize("name", ["localhost", "0x7f.1", "2130706433", "127.1", "0"])
def test_other_spellings_of_this_machine_are_seen_through(name: str) -> None:
    with pytest.raises(OutboundError, match="no public address"):
        post(f"https://{name}/", b"", {})


# ---------------------------------------------------------------- with a receiver


class Receiver(http.server.BaseHTTPRequestHandler):
    """Answers as the path says, and remembers what came."""

    def do_POST(self) -> None:
        server: Any = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server.got.append((self.path, dict(self.headers), body))
        if self.path == "/drip":
            for _ in range(200):
                self.wfile.write(b"H")
                time.sleep(0.05)
            return
        self.send_response(302 if self.path == "/away" else int(self.path[1:4]))
        self.send_header("Location", "/200")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


type Serve = Callable[..., Any]


@pytest.fixture
def serve(settings: Any) -> Iterator[Serve]:
    """``serve()`` is a server on loopback, which may be spoken to; with a context it speaks TLS."""
    settings.WEBHOOK_NETWORKS = LOOPBACK
    servers = []

    def start(context: ssl.SSLContext | None = None) -> Any:
        server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
        server.got, server.handle_error = [], lambda *_: None  # a client that breaks off is no news
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        servers.append((server, thread))
        return server

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_body_arrives_under_the_hosts_name(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve()
    port = server.server_address[1]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(2, 1, 6, "", ("127.0.0.1", port))])
    assert post(f"http://receiver.example:{port}/201?x=1", b"{}", {"X-Note": "hello"}) == 201
    path, headers, body = server.got[0]
    assert (path, body) == ("/201?x=1", b"{}")
    assert headers["Host"] == f"receiver.example:{port}"
    assert headers["X-Note"] == "hello"


def test_a_name_is_asked_for_once_and_what_it_means_later_counts_for_nothing(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, port = serve(), 0
    port = server.server_address[1]
    answers = iter([[(2, 1, 6, "", ("127.0.0.1", port))]])
    asked: list[Any] = []

    def answer(host: str, *_: Any, **__: Any) -> Any:
        asked.append(host)
        return next(answers) if host == "receiver.example" else [(2, 1, 6, "", (host, port))]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    assert post(f"http://receiver.example:{port}/200", b"", {}) == 200
    assert asked.count("receiver.example") == 1  # then the address itself, which no name server is asked for


def test_one_address_that_is_not_permitted_is_enough(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve()
    port = server.server_address[1]
    both = [(2, 1, 6, "", ("127.0.0.1", port)), (2, 1, 6, "", ("10.0.0.1", port))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    with pytest.raises(OutboundError, match="no public address"):
        post(f"http://receiver.example:{port}/200", b"", {})
    assert not server.got


def test_redirects_are_not_followed(serve: Serve) -> None:
    server = serve()
    assert post(f"http://127.0.0.1:{server.server_address[1]}/away", b"", {}) == 302
    assert [path for path, *_ in server.got] == ["/away"]


def test_no_proxy_is_asked(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve()
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert post(f"http://127.0.0.1:{server.server_address[1]}/204", b"", {}) == 204


def test_who_answers_byte_by_byte_is_cut_off(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.outbound.TOTAL_LIMIT", 0.5)
    server = serve()
    with pytest.raises(OutboundError, match=r"within 0\.5 seconds"):
        post(f"http://127.0.0.1:{server.server_address[1]}/drip", b"", {})


def test_who_never_shakes_hands_is_cut_off(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.WEBHOOK_NETWORKS = LOOPBACK
    monkeypatch.setattr("orchestrator.outbound.TOTAL_LIMIT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(OutboundError, match="within"):
        post(f"https://127.0.0.1:{silent.getsockname()[1]}/", b"", {})


def test_a_closed_port_is_told(settings: Any) -> None:
    settings.WEBHOOK_NETWORKS = LOOPBACK
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(OutboundError, match="Connection refused"):
        post(f"http://127.0.0.1:{port}/", b"", {})


def test_plain_http_is_for_the_networks_of_the_operator(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.WEBHOOK_NETWORKS = LOOPBACK
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(2, 1, 6, "", ("8.8.8.8", 80))])
    with pytest.raises(OutboundError, match="plain http"):
        post("http://receiver.example/", b"", {})


def _certificate(directory: Path, name: str) -> tuple[Path, Path]:
    """A certificate for the name that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    paths = directory / "certificate.pem", directory / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret = serialization.NoEncryption()
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret))
    return paths


def test_the_certificate_must_be_trusted_and_the_hosts(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = _certificate(tmp_path, "receiver.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = serve(context)
    port = server.server_address[1]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(2, 1, 6, "", ("127.0.0.1", port))])
    with pytest.raises(OutboundError, match="certificate of receiver.example is not valid: self-signed"):
        post(f"https://receiver.example:{port}/200", b"secret", {})
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert post(f"https://receiver.example:{port}/200", b"{}", {}) == 200
    with pytest.raises(OutboundError, match="not valid"):
        post(f"https://other.example:{port}/200", b"secret", {})
    assert [body for *_, body in server.got] == [b"{}"]
