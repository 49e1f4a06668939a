"""A client of the REST API in a page: the standard library's HTTP, JSON both ways, a bearer token."""

import http.client
import json
from typing import Any
from urllib.parse import urlencode, urlsplit

ROOT = "/api/v1/"
TIMEOUT = 60.0  # seconds, for a reply


class ApiError(Exception):
    """The service refused a request; the message has its words."""


class Api:
    """Speaks to one service; may be used by several threads at once."""

    def __init__(self, url: str) -> None:
        """`url` is the service's, as http://host:port."""
        self._address = urlsplit(url).netloc
        self._headers = {"Content-Type": "application/json"}

    def sign_in(self, username: str, password: str) -> None:
        """Take a token, and send it along from now on."""
        token = self.post("users/token/", {"username": username, "password": password})["token"]
        self._headers["Authorization"] = f"Bearer {token}"

    def get(self, path: str, **query: Any) -> Any:
        """What is at this address."""
        return self._request("GET", f"{path}?{urlencode(query)}" if query else path)

    def post(self, path: str, body: Any) -> Any:
        """Send this there; the reply."""
        return self._request("POST", path, json.dumps(body))

    def all(self, path: str) -> list[Any]:
        """All the rows of a list, page by page."""
        rows: list[Any] = []
        page = 1
        while True:
            reply = self.get(path, page=page, page_size=100)
            rows += reply["results"]
            if not reply["next"]:
                return rows
            page += 1

    def _request(self, method: str, path: str, body: str | None = None) -> Any:
        connection = http.client.HTTPConnection(self._address, timeout=TIMEOUT)
        try:
            connection.request(method, ROOT + path, body, self._headers)
            reply = connection.getresponse()
            text = reply.read().decode()
        except (OSError, http.client.HTTPException) as error:
            raise ApiError(f"{method} {ROOT}{path}: {error}") from error
        finally:
            connection.close()
        if not 200 <= reply.status < 300:
            raise ApiError(f"{method} {ROOT}{path}: {reply.status} {text}")
        return json.loads(text) if text else None
