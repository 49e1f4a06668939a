"""Addresses of the API, and small helpers of its tests."""

import json
import uuid
import zlib
from typing import Any

API = "/api/v1/"
CONTROLLER = API + "controller/"
RUNS = CONTROLLER + "batch-command/"
PREVIEW = RUNS + "confirmation/"
ORGANIZATIONS = CONTROLLER + "organization/"
LOCATIONS = CONTROLLER + "location/"
GROUPS = CONTROLLER + "group/"
CREDENTIALS = CONTROLLER + "credential/"
DEVICES = CONTROLLER + "device/"
SAVED = CONTROLLER + "saved-targets/"
TOKEN = API + "users/token/"

UPTIME: dict[str, Any] = {"type": "custom", "input": {"command": "uptime"}}
MISSING = "00000000-0000-4000-8000-000000000000"


def case(value: Any) -> str:
    """The id of a test's case: short, readable, and another one for another value."""
    shown = ascii(sorted(value) if isinstance(value, set) else value)  # each process of xdist orders a set its own way
    return f"{shown[:20]}~{zlib.crc32(shown.encode()):08x}"


def post(client: Any, address: str, body: Any) -> Any:
    """POST in ASCII: the client's own JSON can't carry a lone surrogate."""
    return client.generic("POST", address, json.dumps(body), "application/json")


def names(reply: Any, key: str = "name") -> list[str]:
    """The names in a page, in its order."""
    assert reply.status_code == 200, reply.content
    return [row[key] for row in reply.json()["results"]]


def launch(client: Any, **body: Any) -> dict[str, Any]:
    """Launch ``uptime`` unless told; the reply's body."""
    reply = client.post(RUNS, {**UPTIME, **body})
    assert reply.status_code == 201, reply.content
    found: dict[str, Any] = reply.json()
    return found


def with_token(user: Any, **limits: Any) -> Any:
    """A client that signs in with a token of this user, which has these limits."""
    from rest_framework.test import APIClient

    from orchestrator.models import Token

    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {Token.objects.issue(user=user, name='limited', **limits)[1]}")
    return client


def finish(run_id: str, status: str = "success") -> None:
    """End each device of a run and the run itself, as its worker would."""
    from django.utils import timezone

    from orchestrator.models import Command, MassCommand
    from orchestrator.states import CommandStatus

    run = uuid.UUID(run_id)
    queued = Command.objects.filter(mass_command=run, status=CommandStatus.QUEUED)
    change = MassCommand.objects.next_change(run)
    moved = queued.update(status=status, finished=timezone.now(), stdout="up 3 days", rc=0, change=change)
    MassCommand.objects.count_moves(run, {("queued", status): moved})
    MassCommand.objects.finish_if_done(run)
