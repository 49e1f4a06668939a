"""Every error is JSON: keyed by field, or with a code and a detail; whatever arrives."""

import io
import json
from typing import Any

import pytest
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.base import BaseHandler
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from orchestrator.models import AuditEntry, Command, MassCommand, Token, User
from tests import factories
from tests.integration.api_addresses import (
    API,
    CONTROLLER,
    CREDENTIALS,
    DEVICES,
    GROUPS,
    LOCATIONS,
    MISSING,
    ORGANIZATIONS,
    PREVIEW,
    RUNS,
    TOKEN,
    UPTIME,
    case,
    post,
    with_token,
)
from tests.integration.test_api_tenancy import OF_ONESELF, TABLE, World

pytestmark = [pytest.mark.django_db, pytest.mark.database]

PATHS_WITH_METHODS = [(name, method) for name, methods in (TABLE | OF_ONESELF).items() for method in sorted(methods)]
WRITABLE = [RUNS, PREVIEW, ORGANIZATIONS, LOCATIONS, GROUPS, CREDENTIALS, DEVICES, TOKEN]
MEGABYTE = 1024 * 1024


@pytest.fixture
def root(api: Any) -> Any:
    """A superuser's."""
    return api(factories.superuser())


def _is_error(reply: Any, status: int, code: str) -> None:
    assert reply.status_code == status, reply.content
    assert reply["Content-Type"] == "application/json"
    assert set(reply.json()) == {"code", "detail"}
    assert reply.json()["code"] == code
    assert len(reply.content) < 5_000


@pytest.mark.parametrize(
    "path",
    ["nothing/", "controller/nothing/", "controller/batch-command/1/", "controller/batch-command/x/y/z/", "../x/",
     f"controller/device/{MISSING.replace('-', '')}/", f"controller/device/{MISSING}/commands/", "%00/",
     "..%2f..%2fetc/passwd/"],
)  # fmt: skip
def test_an_unknown_address_is_404_in_json(root: Any, path: str) -> None:
    _is_error(root.get(API + path), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "address"),
    [
        ("put", RUNS),
        ("patch", RUNS),
        ("delete", RUNS),
        ("put", f"{RUNS}{MISSING}/"),
        ("patch", f"{RUNS}{MISSING}/"),
        ("post", f"{RUNS}{MISSING}/"),
        ("get", PREVIEW),
        ("post", f"{RUNS}{MISSING}/commands/"),
        ("delete", f"{DEVICES}{MISSING}/command/"),
        ("delete", DEVICES),
        ("put", TOKEN),
    ],
)
def test_a_method_that_an_address_does_not_have_is_405(root: Any, method: str, address: str) -> None:
    reply = getattr(root, method)(address)
    _is_error(reply, 405, "method_not_allowed")
    assert reply["Allow"]


@pytest.mark.parametrize("role", ["viewer", "operator", "administrator"])
def test_405_does_not_depend_on_the_role(api: Any, role: str) -> None:
    user = factories.user(organization=factories.organization(), role=role)
    _is_error(api(user).put(RUNS), 405, "method_not_allowed")


@pytest.mark.parametrize("address", WRITABLE)
@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "application/xml", "multipart/form-data; boundary=x", "junk"],
)
def test_another_content_type_is_415(root: Any, address: str, content_type: str) -> None:
    _is_error(root.generic("POST", address, "a=b", content_type), 415, "unsupported_media_type")


@pytest.mark.parametrize("address", WRITABLE)
@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"{'type': 'custom'}",
        b'{"type": NaN}',
        b'{"type": Infinity}',
        b'{"type": "\xff\xfe"}',
        b"\xef\xbb\xbf{}",
        '{"type": "custom"}'.encode("utf-16"),
        b'{"type": "reboot", "type": "custom"}',
        b'{"port": 1' + b"0" * 5_000 + b"}",
        b"[" * 100_000,
        b'{"input":' * 500 + b"1" + b"}" * 500,
        b'{"type":' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"a": 1} trailing',
        b"\x00",
    ],
    ids=case,
)
def test_a_body_that_is_no_json_of_ours_is_400(root: Any, address: str, body: bytes) -> None:
    _is_error(root.generic("POST", address, body, "application/json"), 400, "parse_error")


@pytest.mark.parametrize("address", WRITABLE)
@pytest.mark.parametrize("body", ["null", "[]", '["type"]', '"custom"', "5", "true", "1.5", '[{"type": "custom"}]'])
def test_a_body_that_is_no_object_is_400(root: Any, address: str, body: str) -> None:
    reply = root.generic("POST", address, body, "application/json")
    _is_error(reply, 400, "invalid")
    assert not MassCommand.objects.exists()


@pytest.mark.parametrize("address", WRITABLE)
def test_an_empty_body_names_what_is_missing(root: Any, address: str) -> None:
    reply = root.generic("POST", address, b"", "application/json")
    assert reply.status_code == 400
    assert reply["Content-Type"] == "application/json"


@pytest.mark.parametrize("address", WRITABLE)
def test_a_body_of_ten_megabytes_is_413(root: Any, address: str) -> None:
    body = json.dumps({"name": "x" * 10 * MEGABYTE})
    _is_error(root.generic("POST", address, body, "application/json"), 413, "too_large")


@pytest.mark.parametrize("field", ["type", "organization", "label", "notes", "digest", "group"])
def test_a_value_of_megabytes_is_refused_without_repeating_it(root: Any, field: str) -> None:
    reply = root.post(RUNS, {"type": "reboot", field: "x" * 4 * MEGABYTE})
    assert reply.status_code == 400
    assert field in reply.json()
    assert len(reply.content) < 5_000


@pytest.mark.parametrize(
    "field", ["name", "organization", "host", "port", "platform", "tags", "host_key", "credentials"]
)
@pytest.mark.parametrize("value", ["\ud800", ["\udfff"], {"\ud800": 1}], ids=case)
def test_a_lone_surrogate_anywhere_is_refused(root: Any, field: str, value: Any) -> None:
    reply = post(root, DEVICES, {field: value})
    assert reply.status_code == 400
    assert field in reply.json()


@pytest.mark.parametrize(
    "body",
    [
        {"devices": [0] * 300_000},
        {"tags": [0] * 300_000},
        {"exclude": {"devices": [0] * 300_000}},
        {"devices": [0] * 20_000},
        {f"k{number}": 0 for number in range(100_000)},
        {"type": "custom", "all_devices": True, "input": {f"k{number}": 0 for number in range(100_000)}},
    ],
    ids=case,
)
def test_a_hundred_thousand_errors_are_not_told_one_by_one(root: Any, body: dict[str, Any]) -> None:
    reply = root.post(PREVIEW, body)
    assert reply.status_code == 400
    assert len(reply.content) < 20_000


@pytest.mark.parametrize("address", ["/api", "/api/", "/api/v2/", "/api/v1"])
def test_nothing_below_the_api_is_answered_with_a_page(root: Any, address: str) -> None:
    _is_error(root.get(address), 404, "not_found")


def test_a_forged_host_header_is_400_in_json(root: Any) -> None:
    _is_error(root.get(DEVICES, HTTP_HOST="evil.example.com"), 400, "bad_request")


def test_a_type_that_is_not_offered_is_406_in_json(root: Any) -> None:
    _is_error(root.get(DEVICES, HTTP_ACCEPT="application/xml"), 406, "not_acceptable")
    _is_error(root.post(DEVICES, {}, HTTP_ACCEPT="text/html"), 406, "not_acceptable")  # pages are for reading


def test_a_mistake_of_ours_is_500_in_json_and_tells_nothing(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    client = APIClient(raise_request_exception=False)
    client.force_authenticate(factories.superuser())

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("the database password is hunter2")

    monkeypatch.setattr("orchestrator.actions.launch", fail)
    reply = client.post(RUNS, {"type": "reboot", "all_devices": True})
    _is_error(reply, 500, "internal_error")
    assert b"hunter2" not in reply.content
    assert "hunter2" in caplog.text


@pytest.mark.parametrize("address", [RUNS, DEVICES, ORGANIZATIONS, LOCATIONS, GROUPS, CREDENTIALS])
@pytest.mark.parametrize(
    ("query", "status", "field"),
    [
        ("page=0", 404, "page"),
        ("page=-1", 404, "page"),
        ("page=2", 404, "page"),
        ("page=x", 404, "page"),
        ("page=1.5", 404, "page"),
        ("page=" + "9" * 5_000, 404, "page"),
        ("page=%00", 404, "page"),
        ("page_size=0", 400, "page_size"),
        ("page_size=000", 400, "page_size"),
        ("page_size=-1", 400, "page_size"),
        ("page_size=x", 400, "page_size"),
        ("page_size=", 400, "page_size"),
        ("page_size=%C2%B2", 400, "page_size"),
        ("colour=red", 400, "colour"),
        ("%00=1", 400, "\x00"),
    ],
)
def test_a_bad_page_or_parameter_is_named(root: Any, address: str, query: str, status: int, field: str) -> None:
    reply = root.get(f"{address}?{query}")
    assert reply.status_code == status, reply.content
    assert list(reply.json()) == [field]


@pytest.mark.parametrize(("size", "shown"), [("2", 2), ("100", 25), ("101", 25), ("9" * 5_000, 25), ("0010", 10)])
def test_a_page_holds_as_much_as_is_asked_for_up_to_100(root: Any, size: str, shown: int) -> None:
    organization = factories.organization()
    for _ in range(25):
        factories.location(organization=organization)
    assert len(root.get(f"{LOCATIONS}?page_size={size}").json()["results"]) == shown


def test_pages_link_to_each_other(root: Any) -> None:
    organization = factories.organization()
    for number in range(25):
        factories.group(organization=organization, name=f"{number:02}")
    first = root.get(GROUPS).json()
    assert (first["count"], len(first["results"]), first["previous"]) == (25, 20, None)
    second = root.get(first["next"]).json()
    assert (len(second["results"]), second["next"]) == (5, None)
    assert root.get(second["previous"]).json() == first


def test_an_address_without_its_last_slash_never_loses_the_method() -> None:
    strict = Client(enforce_csrf_checks=True)  # as in life: the API's test client looks away
    reply = strict.post(CONTROLLER + "batch-command", {"type": "reboot"}, "application/json")
    assert reply.status_code == 308
    assert reply["Location"].endswith("/batch-command/")


@pytest.mark.parametrize(
    "ending", ["", "confirmation/", "{run}/cancel/", "{run}/pause/", "{run}/resume/", "{run}/retry/"]
)
def test_a_parameter_that_an_address_does_not_know_starts_nothing(root: Any, ending: str) -> None:
    device = factories.device()
    body = {"organization": str(device.organization_id), "type": "custom", "input": {"command": "uptime"}}
    run = root.post(RUNS, body).json()["id"]
    sent = body if ending in ("", "confirmation/") else {}
    for address in (RUNS + ending.format(run=run), f"{DEVICES}{device.pk}/command/"):
        reply = root.post(f"{address}?dry_run=true", sent if address.startswith(RUNS) else {"type": "reboot"})
        assert (reply.status_code, list(reply.json())) == (400, ["dry_run"])
    assert MassCommand.objects.count() == 1


@pytest.mark.parametrize("path", PATHS_WITH_METHODS, ids=case)
def test_an_unknown_parameter_or_field_is_refused_by_every_address_and_method(
    root: Any, api: Any, path: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.host_keys.scan", lambda host, port: "ssh-ed25519 AAAA")
    name, method = path
    world = World(api)
    client = with_token(factories.superuser()) if name.startswith("token") else root
    token = Token.objects.issue(user=User.objects.latest("date_joined"), name="another")[0]
    address = reverse(name, args=[token.pk]) if name == "token-detail" else reverse(name) if name == "token" else ""
    before = AuditEntry.objects.count()
    address = address or world.address(name)
    reply = getattr(client, method)(f"{address}?colour=red", {} if method != "get" else None)
    assert (reply.status_code, list(reply.json())) == (400, ["colour"])
    if method in ("post", "put", "patch"):
        reply = getattr(client, method)(address, {"colour": "red"})
        assert (reply.status_code, reply.json()["colour"]) == (400, ["Unknown field."])
    assert AuditEntry.objects.count() == before


def _in_chunks(address: str, token: str, body: bytes) -> Any:
    """The reply to a request without a Content-Length, as the ASGI server hands it on."""
    path = address.encode()
    scope = {
        "type": "http", "method": "POST", "path": address, "raw_path": path, "query_string": b"", "root_path": "",
        "headers": [
            (b"host", b"testserver"), (b"transfer-encoding", b"chunked"), (b"content-type", b"application/json"),
            (b"authorization", f"Bearer {token}".encode()),
        ],
    }  # fmt: skip
    request = ASGIRequest(scope, io.BytesIO(body))
    handler = BaseHandler()
    handler.load_middleware()
    return handler.get_response(request)


def test_a_body_that_comes_in_chunks_is_read(api: Any, outbox: Any) -> None:
    device, another = factories.device(name="a"), factories.device(name="b")
    root = factories.superuser()
    _, token = Token.objects.issue(user=root, name="script")
    run = api(root).post(RUNS, {**UPTIME, "devices": [str(device.pk), str(another.pk)]}).json()["id"]
    reply = _in_chunks(f"{RUNS}{run}/cancel/", token, json.dumps({"devices": [str(device.pk)]}).encode())
    assert reply.status_code == 202, reply.content
    assert Command.objects.get(device=another).status == "queued"  # not the whole run
    assert _in_chunks(GROUPS, token, b'{"nothing": 1}').status_code == 400
    assert _in_chunks(GROUPS, token, b'{"name": "' + b"x" * 10 * MEGABYTE + b'"}').status_code == 413


def test_a_key_that_is_there_twice_is_named(root: Any) -> None:
    reply = root.generic(
        "POST", RUNS, '{"type": "custom", "input": {"command": "a", "command": "b"}}', "application/json"
    )
    _is_error(reply, 400, "parse_error")
    assert 'twice, "command"' in reply.json()["detail"]
