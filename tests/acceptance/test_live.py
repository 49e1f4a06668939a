"""A run watched while it happens, over the wire, through a restart of the web server."""

import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from orchestrator.supervisor import descendants
from tests.acceptance.conftest import World
from tests.acceptance.service import Service

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(180)]


def _events(service: Service, run: str, last_id: str) -> Iterator[dict[str, str]]:
    """The fields of each event until the connection ends."""
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
    with service.http.stream("GET", f"controller/batch-command/{run}/events/", headers=headers) as reply:
        assert reply.status_code == 200
        fields: dict[str, str] = {}
        for line in reply.iter_lines():
            name, _, value = line.partition(": ")
            fields |= {name: value} if name else {}
            if not line and "event" in fields:
                yield fields
            fields = fields if line else {}


def _web_server(service: Service) -> int:
    for pid in descendants(service.stack.pid):
        with open(f"/proc/{pid}/cmdline") as line:
            if "uvicorn" in line.read():
                return pid
    raise AssertionError("no web server")


def test_a_run_is_watched_through_a_restart_of_the_web_server(world: World) -> None:
    service = world.service
    command = {"command": "sleep 4; echo done"}
    devices = [row["id"] for row in world.devices.values()]
    run = service.launch(devices=devices, type="custom", input=command, connect_timeout=30)
    rows: dict[str, Any] = {}
    last_id, ended, stopped = "", False, 0.0
    while not ended:
        try:
            for event in _events(service, run["id"], last_id):
                data, last_id = json.loads(event["data"]), event.get("id", last_id)
                rows |= {row["device_name"]: row["status"] for row in data.get("commands", ())}
                ended = event["event"] == "end"
                if not stopped and list(rows.values()).count("running") == len(world.devices):
                    stopped = time.monotonic()
                    os.kill(_web_server(service), signal.SIGTERM)
        except httpx.TransportError:
            time.sleep(0.1)  # the web server is starting
        if stopped and not ended:
            assert time.monotonic() - stopped < 20
    assert stopped, "the web server was to be restarted while all devices ran"
    assert rows == dict.fromkeys(world.devices, "success")
