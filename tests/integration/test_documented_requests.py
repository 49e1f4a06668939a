"""docs/api.md tells the truth: its requests, sent in its order, get its replies (tests/documents.py).

After ``<!-- workers -->`` the devices have been contacted; "cellar" refuses the connection.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any, Self

import pytest
from django.utils import timezone
from drf_spectacular.generators import SchemaGenerator

from orchestrator.cataloguing import refresh
from orchestrator.models import Command, MassCommand, TaskResult
from orchestrator.states import CommandStatus
from tests import factories
from tests.documents import NAMED, Reader, content, exchanges

DOCUMENT = Path(__file__).parents[2] / "docs" / "api.md"
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHZyVPqYZYXE0hTzW0bTgzlhZyZvoqFJ8MBxKh7qyHsB"
REFUSED = "The device refused the connection: nothing listens on its SSH port."
UPTIME = " 10:12:51 up 3 days,  4:05,  load average: 0.08, 0.03, 0.01\n"


class Workers:
    """Stand-ins for the workers."""

    @classmethod
    def of(cls, monkeypatch: pytest.MonkeyPatch) -> Self:
        """Devices all show one host key."""
        monkeypatch.setattr("orchestrator.host_keys.scan", lambda host, port: HOST_KEY)
        return cls()

    def enqueue(self, slices: Any) -> bool:
        """Be done with a launch at once."""
        self.work()
        return True

    def work(self) -> None:
        """End what waits."""
        for run in MassCommand.objects.active().filter(paused=None):
            MassCommand.objects.begin(run.pk)
            for row in Command.objects.filter(mass_command=run, status=CommandStatus.QUEUED):
                refused = row.device_name == "cellar"
                row.status = CommandStatus.UNREACHABLE if refused else CommandStatus.SUCCESS
                row.reason, row.stdout = (REFUSED, "") if refused else ("", UPTIME)
                row.rc, row.bytes_total = (None, 0) if refused else (0, len(UPTIME))
                row.started = row.finished = timezone.now()
                row.change = MassCommand.objects.next_change(run.pk)
                row.save()
                MassCommand.objects.count_moves(run.pk, {("queued", row.status): 1})
            MassCommand.objects.finish_if_done(run.pk)


@pytest.mark.django_db(transaction=True)
def test_the_documented_requests_get_the_documented_replies(
    api: Any, outbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    factories.superuser(username="admin", password="correct horse battery")
    factories.playbook(
        name="motd", description="Set the message of the day.", required=("text",),
        properties={"text": {"type": "string", "maxLength": 200}},
    )  # fmt: skip
    workers, reader, client = Workers.of(monkeypatch), Reader(), api()
    seen = 0
    for told in exchanges(DOCUMENT.read_text()):
        if not told.method:
            workers.work()
            continue
        seen += 1
        body, path = reader.in_life(told.body), reader.in_life(told.path)
        real = client.generic(told.method, path, body, "application/json", SERVER_NAME="127.0.0.1", SERVER_PORT="8000")
        text = real.getvalue().decode()
        value: Any = content(text)
        assert real.status_code == told.status, f"{told.method} {path}: {text}"
        assert reader.same(told.reply, value), f"{told.method} {path}: {json.dumps(value, indent=1)}"
        if value and told.path.endswith("/token/") and (told.method, told.status) == ("POST", 200):  # signed in
            client.credentials(HTTP_AUTHORIZATION=f"Bearer {value['token']}")
    assert seen > 30


def test_every_address_and_method_is_documented_with_a_request_and_its_reply() -> None:
    generator: Any = SchemaGenerator
    paths = generator().get_schema(request=None, public=True)["paths"]
    there = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    told = {
        (each.method, re.sub(NAMED, "{id}", each.path.partition("?")[0])) for each in exchanges(DOCUMENT.read_text())
    }
    assert there - told == set()


def play(run: MassCommand) -> None:
    """What comes of the playbook of docs/playbooks.md on devices that had no message of the day."""
    recap = {"ok": 2, "changed": 1, "unreachable": 0, "failed": 0, "skipped": 0, "rescued": 0, "ignored": 0}
    MassCommand.objects.begin(run.pk)
    for row in Command.objects.filter(mass_command=run):
        row.status, row.rc, row.recap, row.started = CommandStatus.SUCCESS, 0, recap, timezone.now()
        row.finished, row.change = timezone.now(), MassCommand.objects.next_change(run.pk)
        row.save()
        for number, (task, status) in enumerate((("Look", "ok"), ("Write", "changed")), start=1):
            TaskResult.objects.create(
                id=uuid.uuid4(), command=row, number=number, play="Message of the day", task=task, status=status, rc=0,
                module="ansible.builtin.raw", started=timezone.now(), duration=0.3,
            )  # fmt: skip
        MassCommand.objects.count_moves(run.pk, {("queued", row.status): 1})
    MassCommand.objects.finish_if_done(run.pk)


@pytest.mark.django_db(transaction=True)
def test_the_documented_playbook_goes_from_zero_to_results(
    api: Any, outbox: Any, settings: Any, tmp_path: Path
) -> None:
    text = (DOCUMENT.parent / "playbooks.md").read_text()
    settings.DATA_DIR, folder = tmp_path / "data", tmp_path / "playbooks"
    settings.PLAYBOOK_DIRS = [settings.PLAYBOOK_DIR, folder]
    folder.mkdir()
    for name, file in re.findall(r"^```yaml\n# (\S+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        (folder / name).write_text(file)
    assert refresh().broken == {}
    north, reader, client = factories.organization(name="North"), Reader(), api(factories.superuser())
    for name in ("attic", "cellar"):
        factories.device(organization=north, name=name)
    told = list(exchanges(text))
    for exchange in told:
        if not exchange.method:
            play(MassCommand.objects.get())
            continue
        body, path = reader.in_life(exchange.body), reader.in_life(exchange.path)
        real = client.generic(exchange.method, path, body, "application/json")
        assert real.status_code == exchange.status, real.content
        assert reader.same(exchange.reply, real.json()), json.dumps(real.json(), indent=1)
    assert len(told) == 7


@pytest.fixture
def service(live_server: Any, outbox: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a program that speaks to a service whose workers are done at once."""
    monkeypatch.setattr("orchestrator.dispatch.enqueue", Workers().enqueue)
    factories.superuser(username="admin", password="correct horse battery")
    organization = factories.organization(name="North")
    for name in ("attic", "cellar"):
        factories.device(organization=organization, name=name)
    return os.environ | {"API": f"{live_server.url}/api/v1", "PASSWORD": "correct horse battery"}


def example(language: str) -> str:
    """The first program in this language on the page: a client's."""
    program, *_ = re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    return str(program)


@pytest.mark.django_db(transaction=True)
def test_the_program_in_python_tells_what_each_device_did(service: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", example("python")], env=service, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "2 devices, 0 would be skipped",
        f"attic success {UPTIME.strip()}",
        f"cellar unreachable {REFUSED}",
    ]


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(not shutil.which("curl"), reason="no curl here")
def test_the_session_in_curl_finds_the_device(service: dict[str, str]) -> None:
    done = subprocess.run(
        ["bash", "-euc", example("bash")], env=service, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert [row["name"] for row in json.loads(done.stdout)["results"]] == ["attic"]
