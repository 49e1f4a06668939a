"""docs/api.md tells the truth: its requests, sent in its order, get its replies.

A request and its reply are two ``http`` blocks.  In a reply, "…" stands for anything, as a key for further keys, as
the last item for further items.  An id, a digest or a token stands for the one that the service gives; a time for any.
The comment ``<!-- workers -->`` lets workers carry out what was launched: the device "cellar" refuses the connection.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest
from django.utils import timezone
from drf_spectacular.generators import SchemaGenerator

from orchestrator.models import Command, MassCommand
from orchestrator.states import CommandStatus
from tests import factories

DOCUMENT = Path(__file__).parents[2] / "docs" / "api.md"
PARTS = re.compile(r"^```http\n(.*?)\n```$|^(<!-- workers -->)$", re.DOTALL | re.MULTILINE)
NAMED = r"[0-9a-f]{64}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z"
VARIABLE = re.compile(f"({NAMED}|{TIME})")
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHZyVPqYZYXE0hTzW0bTgzlhZyZvoqFJ8MBxKh7qyHsB"
REFUSED = "The device refused the connection: nothing listens on its SSH port."
UPTIME = " 10:12:51 up 3 days,  4:05,  load average: 0.08, 0.03, 0.01\n"


@dataclass(frozen=True)
class Exchange:
    """A documented request with its reply; without a method: the workers' turn."""

    method: str = ""
    path: str = ""
    body: str = ""
    status: int = 0
    reply: Any = None


def exchanges(text: str) -> Iterator[Exchange]:
    """The requests and replies of a document, in its order."""
    request = ""
    for block, workers in PARTS.findall(text):
        if workers:
            yield Exchange()
        elif not request:
            request = block
        else:
            (line, _, body), (status, _, reply) = request.partition("\n"), block.partition("\n")
            method, path = line.split()
            yield Exchange(method, path, body.strip(), int(status.split()[0]), content(reply))
            request = ""
    assert not request, f"without a reply: {request}"


def content(reply: str) -> Any:
    """What a reply says: JSON, a list of what its lines say, events, or text."""
    if reply.startswith("retry:"):
        return events(reply)
    lines = reply.strip().splitlines()
    for several in (
        reply,
        *(("[" + ",".join(line if line != "…" else '"…"' for line in lines) + "]",) * (len(lines) > 1)),
    ):
        with contextlib.suppress(ValueError):
            return json.loads(several)
    return lines or None


def events(stream: str) -> list[dict[str, Any]]:
    """Server-Sent Events as dictionaries, their data read."""
    parts = [dict(line.split(": ", 1) for line in part.splitlines()) for part in stream.strip().split("\n\n")]
    return [part | {"data": json.loads(part.get("data", "null"))} for part in parts]


@dataclass
class Reader:
    """Compares replies, and remembers what the document calls each id."""

    names: dict[str, str] = field(default_factory=dict)  # in the document → in life

    def in_life(self, text: str) -> str:
        """A text of the document with the service's ids."""
        return VARIABLE.sub(lambda found: self.names.get(found[0], found[0]), text)

    def same(self, told: Any, real: Any) -> bool:
        """Whether a reply is as documented."""
        if told == "…":
            return True
        if isinstance(told, dict) and isinstance(real, dict):
            known = {key: value for key, value in told.items() if key != "…"}
            complete = "…" in told or set(told) == set(real)
            return complete and all(key in real and self.same(value, real[key]) for key, value in known.items())
        if isinstance(told, list) and isinstance(real, list):
            items = told[:-1] if told[-1:] == ["…"] else told
            complete = len(items) < len(told) or len(told) == len(real)
            return complete and all(self.same(a, b) for a, b in zip(items, real[: len(items)], strict=True))
        if isinstance(told, str) and isinstance(real, str):
            return self._same_text(told, real)
        return type(told) is type(real) and bool(told == real)

    def _same_text(self, told: str, real: str) -> bool:
        parts, real_parts = VARIABLE.split(told), VARIABLE.split(real)
        if parts[::2] != real_parts[::2]:
            return False
        for name, value in zip(parts[1::2], real_parts[1::2], strict=True):
            if not re.fullmatch(TIME, name) and self.names.setdefault(name, value) != value:
                return False
        return True


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
