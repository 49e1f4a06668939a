"""The inventory plugin's way with a service that is busy, away, or none."""

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleParserError

from inventory_plugins.orchestrator import Api, host_names


class Stub(BaseHTTPRequestHandler):
    """Gives the replies that a test has prepared."""

    replies: list[tuple[int, dict[str, str], Any]]
    asked: list[tuple[str, str]]

    def do_GET(self) -> None:
        """The next reply."""
        self.asked.append((self.path, self.headers["Authorization"]))
        status, headers, body = self.replies.pop(0)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: Any) -> None:
        """Silence."""


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """``stub(replies)`` is the plugin's Api against a server that gives them; its ``slept`` are seconds."""
    slept: list[float] = []
    monkeypatch.setattr("inventory_plugins.orchestrator.time.sleep", slept.append)
    with ThreadingHTTPServer(("127.0.0.1", 0), Stub) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

        def make(*replies: tuple[int, dict[str, str], Any]) -> Any:
            Stub.replies, Stub.asked = list(replies), []
            options = {
                "url": f"http://127.0.0.1:{server.server_port}/", "token": "t0ken", "timeout": 5, "retries": 3,
                "validate_certs": True, "ca_path": None, "token_file": None,
            }  # fmt: skip
            made: Any = Api(SimpleNamespace(get_option=options.__getitem__, display=None))  # type: ignore[arg-type]
            made.slept = slept
            return made

        yield make
        server.shutdown()


def test_a_busy_service_is_asked_again_when_it_says(stub: Callable[..., Any]) -> None:
    busy = (429, {"Retry-After": "7"}, {"code": "throttled", "detail": "Too many."})
    api = stub(busy, (503, {"Retry-After": "99999"}, None), (502, {}, None), (200, {}, {"next": None, "results": [1]}))
    assert api.pages("device/inventory/", []) == [1]
    assert api.slept == [7, 60, 4]
    assert len(Stub.asked) == 4


def test_patience_ends(stub: Callable[..., Any]) -> None:
    api = stub(*[(429, {}, {"detail": "Too many."})] * 4)
    with pytest.raises(AnsibleParserError, match="429: Too many"):
        api.pages("device/inventory/", [])
    assert api.slept == [1, 2, 4]


def test_the_token_goes_to_the_service_alone(stub: Callable[..., Any]) -> None:
    elsewhere = "http://192.0.2.1/api/v1/controller/device/inventory/?after=x"
    api = stub((200, {}, {"next": elsewhere, "results": [1]}), (200, {}, {"next": None, "results": [2]}))
    assert api.pages("device/inventory/", [("name", "a b")]) == [1, 2]
    path = "/api/v1/controller/device/inventory/"
    assert Stub.asked == [(f"{path}?name=a+b", "Bearer t0ken"), (f"{path}?after=x", "Bearer t0ken")]
    with pytest.raises(AnsibleParserError, match="redirects to http://192.0.2.1"):
        stub((302, {"Location": "http://192.0.2.1/"}, None)).pages("device/", [])


def test_a_part_of_a_name_is_not_the_name(stub: Callable[..., Any]) -> None:
    one, two = ({"id": f"{n:08x}-0000-4000-8000-000000000000", "name": "routers"} for n in range(2))
    api = stub((200, {}, {"next": None, "results": [{"id": "x", "name": "all routers"}, one]}))
    assert api.identify("group", "routers", "an id") == one["id"]
    assert Stub.asked[0][0] == "/api/v1/controller/group/?name=routers&page_size=100&organization=an+id"
    with pytest.raises(AnsibleParserError, match='2 are named "routers"'):
        stub((200, {}, {"next": None, "results": [one, two]})).identify("group", "routers", "")
    assert stub().identify("group", one["id"].upper(), "") == one["id"]  # asks nobody


def test_a_service_that_is_away_is_told_by_its_address(stub: Callable[..., Any]) -> None:
    api = stub()
    api.url, api.option = (
        "http://127.0.0.1:9",
        {**dict.fromkeys(("validate_certs", "ca_path")), "timeout": 1, "retries": 1}.get,
    )
    with pytest.raises(AnsibleParserError, match="http://127.0.0.1:9 can't be reached"):
        api.get(api.url)


@pytest.mark.parametrize("url", ["ftp://example.org", "example.org", "", "http://user:pw@example.org", "https://"])
def test_an_address_is_one_of_the_web(stub: Callable[..., Any], url: str) -> None:
    with pytest.raises(AnsibleParserError, match="url: give the address"):
        Api(SimpleNamespace(get_option={"url": url}.get, display=None))  # type: ignore[arg-type]


@pytest.mark.parametrize("body", [[], {}, {"results": 3, "next": None}, "x", None])
def test_what_is_no_orchestrator_is_told_apart(stub: Callable[..., Any], body: Any) -> None:
    with pytest.raises(AnsibleParserError, match="does not answer as an orchestrator"):
        stub((200, {}, body)).pages("device/inventory/", [])


def test_hosts_have_names_that_mean_nothing_else_to_ansible() -> None:
    names = ["a b", "A_b", "x", "all", "LOCALHOST", "-x", "[1:9]", "ümläut", "tag_a", "tag_b", "c", "c", "C_0000000a",
             "Linux"]  # fmt: skip
    devices = [
        {"id": f"{n:08x}-0000-4000-8000-000000000000", "name": name, "groups": ["tag_a"]}
        for n, name in enumerate(names)
    ]
    assert host_names(devices, "name") == [
        "a_b_00000000", "A_b_00000001", "x", "all_00000003", "LOCALHOST_00000004", "_x", "_1_9_", "ümläut",
        "tag_a_00000008", "tag_b_00000009", "device-0000000a000040008000000000000000", "c_0000000b",
        "device-0000000c000040008000000000000000", "Linux_0000000d",
    ]  # fmt: skip
