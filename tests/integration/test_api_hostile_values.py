"""Hostile values in every field of every body, and in every query parameter, walked from the OpenAPI schema."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.urls import resolve
from drf_spectacular.generators import SchemaGenerator
from rest_framework.test import APIClient

from tests import factories
from tests.integration.api_addresses import MISSING, case
from tests.integration.test_api_tenancy import World

pytestmark = [pytest.mark.django_db, pytest.mark.database, pytest.mark.slow, pytest.mark.usefixtures("outbox")]

HOSTILE: list[Any] = [
    None, True, -1, 1.5, 10**400, 2**63, "", "\x00", "\ud800", "x" * 20_000, "a\nb", "{{ 7*7 }}%s{0}", "101%",
    "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "0 0 31 2 *", [], {}, [None], [{}], ["\ud800"],
    {"\ud800": ""}, [0] * 30_000,
]  # fmt: skip
QUERIES = ["", "%00", "x", "-1", "%ED%A0%80", "1e400", "9" * 5_000, "9999-12-31T23:59:59-14:00",
           "0001-01-01T00:00%2B14:00",
           "%27", "null", "true&{0}=false", "[]"]  # fmt: skip
SCHEMA: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
PATHS: dict[str, dict[str, Any]] = SCHEMA["paths"]


def _resolved(node: Any) -> dict[str, Any]:
    found: dict[str, Any] = node
    if "$ref" in found:
        found = _resolved(SCHEMA["components"]["schemas"][found["$ref"].rsplit("/", 1)[1]])
    for part in found.get("allOf", ()):
        found = {**_resolved(part), **{key: value for key, value in found.items() if key != "allOf"}}
    return found


def _fields(schema: Any, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The way to each field of a body, those within objects included."""
    for name, inner in _resolved(schema).get("properties", {}).items():
        yield (*prefix, name)
        yield from _fields(inner, (*prefix, name))


BODIES = {
    (method, path): sorted(set(_fields(operation["requestBody"]["content"]["application/json"]["schema"])))
    for path, operations in PATHS.items()
    for method, operation in operations.items()
    if "requestBody" in operation
}
PARAMETERS = {
    path: [entry["name"] for entry in operations["get"].get("parameters", ()) if entry["in"] == "query"]
    for path, operations in PATHS.items()
    if "get" in operations and any(entry["in"] == "query" for entry in operations["get"].get("parameters", ()))
}


@pytest.fixture
def world(api: Any, monkeypatch: pytest.MonkeyPatch) -> World:
    """One of everything; no rate stands in the way."""
    monkeypatch.setattr("orchestrator.host_keys.scan", lambda host, port: "ssh-ed25519 AAAA")
    monkeypatch.setattr("orchestrator.api.throttles.Throttle.allow_request", lambda *_: True)
    return World(api)


@pytest.fixture
def client() -> APIClient:
    """A superuser's, which gets the reply and not the exception where something breaks."""
    made = APIClient(raise_request_exception=False)
    made.force_authenticate(factories.superuser())
    return made


def _address(path: str, world: World) -> str:
    if "{" not in path:
        return path
    return world.address(str(resolve(path.replace("{id}", MISSING)).url_name))


def _base(path: str, method: str, world: World) -> dict[str, Any]:
    kind = path.split("/")[4]
    if path.endswith("/token/"):
        return {"username": "somebody", "password": "a-Password-1"}
    if path.endswith(("/cancel/", "/pause/", "/resume/", "/retry/", "/host-key/")):
        return {}
    if path.endswith("/command/"):
        return {"type": "reboot"}
    found: dict[str, Any] = world.body(f"{kind}-x" if kind != "batch-command" else "batch-command-list", method)
    return found


def _with(body: dict[str, Any], way: tuple[str, ...], value: Any) -> dict[str, Any]:
    name, *rest = way
    inner = body.get(name)
    made = _with(inner if isinstance(inner, dict) else {}, tuple(rest), value) if rest else value
    return {**body, name: made}


def _is_decent(reply: Any, told: str) -> None:
    assert reply.status_code < 500, (told, reply.content[:500])
    if reply.status_code >= 400:
        assert reply["Content-Type"] == "application/json", told
        assert isinstance(reply.json(), dict), told
        assert len(reply.content) < 20_000, told


@pytest.mark.parametrize(("method", "path"), BODIES, ids=case)
def test_a_hostile_value_in_any_field_is_refused_or_taken_and_never_breaks_anything(
    client: APIClient, world: World, method: str, path: str
) -> None:
    address, base = _address(path, world), _base(path, method, world)
    for way in BODIES[method, path]:
        for value in HOSTILE:
            body = json.dumps(_with(base, way, value))
            reply = client.generic(method.upper(), address, body, "application/json")
            _is_decent(reply, f"{method} {path} {'.'.join(way)} = {ascii(value)[:60]}")


@pytest.mark.parametrize("path", PARAMETERS)
def test_a_hostile_value_in_any_parameter_never_breaks_anything(client: APIClient, world: World, path: str) -> None:
    for name in PARAMETERS[path]:
        for value in QUERIES:
            reply = client.get(f"{_address(path, world)}?{name}={value.format(name)}")
            _is_decent(reply, f"{path}?{name}={value[:60]}")
