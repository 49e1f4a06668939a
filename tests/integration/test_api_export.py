"""The results of a run in one file."""

import asyncio
import csv
import io
import json
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, connections
from django.test import AsyncClient
from django.test.utils import CaptureQueriesContext

from orchestrator.api import export_views
from orchestrator.exceptions import NotPermittedError
from orchestrator.models import Command
from tests import factories
from tests.integration.api_addresses import RUNS, finish, launch

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database, pytest.mark.usefixtures("outbox")]


@pytest.fixture
def organization() -> Any:
    """An organization of five devices."""
    row = factories.organization()
    shared = factories.credential(organization=row)
    for name in ("=cmd", "b", "ä", 'c,"d"', "b2"):
        factories.device(organization=row, name=name, credentials=[shared])
    return row


@pytest.fixture
def viewer(organization: Any) -> Any:
    """Its viewer."""
    return factories.user(organization=organization, role="viewer")


@pytest.fixture
def address(api: Any, organization: Any) -> str:
    """The export of a finished run."""
    run = launch(api(factories.superuser()), organization=str(organization.pk))
    finish(run["id"])
    return f"{RUNS}{run['id']}/export/"


def _text(reply: Any) -> str:
    assert reply.status_code == 200
    return b"".join(reply.streaming_content).decode()


@pytest.mark.parametrize("chunk", [1, 2, 5, 50])
def test_each_row_is_there_once_and_in_order(
    api: Any, viewer: Any, address: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_views, "_CHUNK", chunk)
    rows = [json.loads(line) for line in _text(api(viewer).get(address + "?format=ndjson")).splitlines()]
    assert [row["device_name"] for row in rows] == list(
        Command.objects.order_by("device_name", "pk").values_list("device_name", flat=True)
    )
    assert {(row["status"], row["stdout"], row["rc"]) for row in rows} == {("success", "up 3 days", 0)}
    assert all(row["finished"].endswith("Z") for row in rows)


def test_a_csv_file_holds_no_formulas(api: Any, viewer: Any, address: str) -> None:
    Command.objects.filter(device_name="b").update(stdout="+1", stderr="-1\n@x", reason="@SUM(A1)")
    reply = api(viewer).get(address)
    assert reply["Content-Type"] == "text/csv; charset=utf-8"
    assert reply["Content-Disposition"].startswith('attachment; filename="mass-command-')
    rows = list(csv.DictReader(io.StringIO(_text(reply), newline="")))
    assert {row["device_name"] for row in rows} == {"'=cmd", "b", "ä", 'c,"d"', "b2"}
    [row] = [row for row in rows if row["device_name"] == "b"]
    assert (row["stdout"], row["stderr"], row["reason"]) == ("'+1", "'-1\n@x", "'@SUM(A1)")


@pytest.mark.parametrize("query", ["?format=json", "?format=", "?format=api", "?status=x", "?page=1", "?color=red"])
def test_a_wrong_parameter_is_named(api: Any, viewer: Any, address: str, query: str) -> None:
    reply = api(viewer).get(address + query)
    assert (reply.status_code, list(reply.json())) == (400, [query[1:].split("=", maxsplit=1)[0]])


def test_the_filters_of_the_list_apply(api: Any, viewer: Any, address: str) -> None:
    Command.objects.filter(device_name="b").update(status="failed")
    text = _text(api(viewer).get(address + "?format=ndjson&status=failed"))
    assert [json.loads(line)["device_name"] for line in text.splitlines()] == ["b"]


def test_whoever_loses_the_right_meanwhile_gets_no_more(
    api: Any, viewer: Any, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_views, "_CHUNK", 1)
    parts = iter(api(viewer).get(address + "?format=ndjson").streaming_content)
    assert next(parts)
    viewer.memberships.all().delete()
    with pytest.raises(NotPermittedError):
        next(parts)


def test_an_export_reads_some_rows_at_a_time(
    api: Any, viewer: Any, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_views, "_CHUNK", 2)
    parts = iter(api(viewer).get(address + "?format=ndjson").streaming_content)
    with CaptureQueriesContext(connection) as captured:
        assert next(parts).count(b"\n") == 2
    assert len(captured) <= 3


def test_it_is_streamed_under_asgi_too(viewer: Any, address: str) -> None:
    client = AsyncClient()
    client.force_login(viewer)

    async def read() -> bytes:
        reply: Any = await client.get(address + "?format=ndjson")
        assert reply.is_async
        parts = [part async for part in reply.streaming_content]
        await sync_to_async(connections.close_all)()  # those of the thread, which would stay open
        return b"".join(parts)

    assert asyncio.run(read()).count(b"\n") == 5
