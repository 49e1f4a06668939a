"""A web process that is killed in the middle of a launch: sent again with its Idempotency-Key, it starts once."""

import json
import os
import subprocess
import sys
import threading
from typing import Any

import pytest
from django.conf import settings
from django.db import connection

from orchestrator import recovery
from orchestrator.models import Command, IdempotencyKey, MassCommand, Slice
from tests import factories
from tests.integration.api_addresses import RUNS, UPTIME

pytestmark = [
    pytest.mark.django_db(transaction=True), pytest.mark.database, pytest.mark.slow, pytest.mark.usefixtures("outbox"),
]  # fmt: skip

KEY = {"Idempotency-Key": "killed"}
POINTS = {
    "before it is committed": "orchestrator.actions.launching._tell",
    "before its slices are released": "orchestrator.actions.launching.advance",
    "before the queue is told": "orchestrator.dispatch.enqueue",
}
# Launches, and stays where it is told to, until it is killed.
WEB = """
import json, sys
import django
django.setup()
from unittest import mock
from rest_framework.test import APIClient
from orchestrator.models import User

where, key, address, body = json.loads(sys.stdin.readline())

def stay(*_, **__):
    print("there", flush=True)
    sys.stdin.read()

client = APIClient(SERVER_NAME="localhost")
client.force_authenticate(User.objects.get())
with mock.patch(where, stay):
    client.post(address, body, headers=key, format="json")
"""


def _database() -> str:
    """The tests' database as a URL."""
    name = connection.settings_dict["NAME"]
    if connection.vendor == "sqlite":
        return f"sqlite:///{name}"
    return f"{os.environ['DATABASE_URL'].rpartition('/')[0]}/{name}"


@pytest.mark.parametrize("point", POINTS)
def test_a_launch_whose_process_is_killed_is_sent_again_and_starts_once(
    api: Any, outbox: Any, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    organization, root = factories.organization(), factories.superuser()
    for _ in range(3):
        factories.device(organization=organization)
    body = {**UPTIME, "organization": str(organization.pk)}
    told = {"DJANGO_SETTINGS_MODULE": "orchestrator.settings", "DATABASE_URL": _database(),
            "ORCHESTRATOR_DATA_DIR": str(settings.DATA_DIR)}  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-c", WEB], cwd=settings.BASE_DIR, env=os.environ | told, text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as web:  # fmt: skip
        assert web.stdin
        assert web.stdout
        print(json.dumps([POINTS[point], KEY, RUNS, body]), file=web.stdin, flush=True)
        assert web.stdout.readline() == "there\n"
        replies: list[Any] = []

        def send() -> None:
            try:
                replies.append(api(root).post(RUNS, body, headers=KEY))
            finally:
                connection.close()

        again = [threading.Thread(target=send) for _ in range(3)]  # while the first one is still there
        for thread in again:
            thread.start()
        again[0].join(1)
        web.kill()
    for thread in again:
        thread.join(60)
    assert [reply.status_code for reply in replies] == [201] * 3, [reply.content for reply in replies]
    run = MassCommand.objects.get()
    assert {reply.json()["id"] for reply in replies} == {str(run.pk)}
    assert IdempotencyKey.objects.get().mass_command == run
    assert Command.objects.count() == run.device_count == 3

    monkeypatch.setattr(recovery, "_PATIENCE", 0.0)
    monkeypatch.setattr("orchestrator.dispatch.pending", lambda slices: set(outbox) & set(slices))
    recovery.go_on()
    recovery.requeue()
    assert outbox == [(slice_.pk, slice_.attempt) for slice_ in Slice.objects.all()]
