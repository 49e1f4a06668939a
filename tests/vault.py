"""A Vault for tests: KV version 2 and AppRole over HTTP(S), as strict as the real one is about what it is asked.

Written after Vault's API documentation: statuses, headers, and the shape of replies, also of those for deleted secrets.
"""

import contextlib
import json
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Vault:
    """What it holds, and what it was asked.  ``secrets``: path below the mount → fields; None: deleted."""

    secrets: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    token: str = "hvs.test-Token-1"
    role: tuple[str, str] = ("role-1", "secret-1")
    allowed: str = ""  # paths that the token's policy lets it read begin so
    namespace: str = ""
    mount: str = "secret"
    sealed: bool = False
    delay: float = 0.0  # seconds before each answer
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> tuple[int, Any]:
        """Status and body of a reply."""
        self.asked.append(f"{method} {path}")
        if headers.get("X-Vault-Request") != "true":
            return 400, {"errors": ["missing X-Vault-Request header"]}
        if self.sealed:
            return 503, {"errors": ["Vault is sealed"]}
        if headers.get("X-Vault-Namespace", "") != self.namespace:
            return 404, {"errors": ["no handler for route"]}
        if (method, path) == ("POST", "/v1/auth/approle/login"):
            given = json.loads(body)
            if (given.get("role_id"), given.get("secret_id")) != self.role:
                return 400, {"errors": ["invalid role or secret ID"]}
            return 200, {"auth": {"client_token": self.token, "lease_duration": 1200, "renewable": True}, "data": None}
        if headers.get("X-Vault-Token") != self.token:
            return 403, {"errors": ["permission denied"]}
        prefix = f"/v1/{self.mount}/data/"
        if method != "GET" or not path.startswith(prefix + self.allowed):
            return 403, {"errors": ["1 error occurred:\n\t* permission denied\n\n"]}
        return self._read(path.removeprefix(prefix))

    def _read(self, name: str) -> tuple[int, Any]:
        if name not in self.secrets:
            return 404, {"errors": []}
        values = self.secrets[name]
        about = {
            "version": 1,
            "destroyed": False,
            "deletion_time": "" if values is not None else "2026-11-24T01:00:00Z",
        }
        return 404 if values is None else 200, {"data": {"data": values, "metadata": about}}


@contextlib.contextmanager
def serving(vault: Vault, *, certificate: tuple[str, str] | None = None) -> Iterator[Vault]:
    """Serve it on a free port of the loopback interface; ``certificate``: the files of certificate and key, for TLS."""

    class Handler(BaseHTTPRequestHandler):
        def _reply(self) -> None:
            if vault.delay:
                over.wait(vault.delay)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, said = vault.answer(self.command, self.path, self.headers, body)
            raw = json.dumps(said).encode()
            with contextlib.suppress(OSError):
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

        do_GET = do_POST = _reply  # noqa: N815 - the library's names

        def log_message(self, *_: Any) -> None:
            pass

    over = threading.Event()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        vault.url = f"http{'s' if certificate else ''}://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield vault
        finally:
            over.set()
            server.shutdown()
            thread.join()
