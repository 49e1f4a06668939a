"""The whole OpenAPI schema against the service: whatever a client sends, no 5xx, and only replies that it promises."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import schemathesis
import urllib3
from django.db import transaction
from django.utils import timezone
from drf_spectacular.generators import SchemaGenerator
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from requests.adapters import BaseAdapter, HTTPAdapter
from rest_framework.test import APIClient
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from orchestrator.models import AuditEntry, Command, Schedule, Token, User, WebhookDelivery
from tests import factories
from tests.integration.api_addresses import finish, launch

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("outbox"), pytest.mark.slow]

HERE = "http://testserver"
EXAMPLES = 12  # of each operation
WALKS, STEPS = 5, 8  # from one operation to the next
SEEDS = range(12)
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
SCHEMA = schemathesis.openapi.from_dict(SchemaGenerator().get_schema(request=None, public=True))  # type: ignore[no-untyped-call]
CONTROLS = ("/cancel/", "/pause/", "/resume/")  # of a run that goes on; the others want one that has ended
PASSWORD = "a-long-Password-77"
LIKELY = {
    "name": "another", "username": "another", "password": PASSWORD, "private_key": "", "host": "192.0.2.9",
    "host_key": "", "type": "custom", "cron": "0 4 * * 0", "timezone": "UTC", "controls": {}, "fingerprint": "",
    "url": "https://receiver.example/hook",
}  # fmt: skip
LAUNCHES = ("/batch-command/", "/confirmation/", "/command/")
SURPRISES = {  # what may leave no device to run on, or is over already
    "run_at", "wait_for_offline_until", "all_devices", "digest", "expected_count", "check", "name", "tags",
    "platform", "exclude", "playbook", "diff", "job_tags", "skip_tags", "verbosity",
}  # fmt: skip
OPERATIONS = {found.ok().label: found.ok() for found in SCHEMA.get_all_operations() if isinstance(found, Ok)}


class InProcess(BaseAdapter):
    """What ``requests`` sends goes to the service in this thread, thus within the test's transaction."""

    def __init__(self, client: APIClient) -> None:
        super().__init__()
        self.client = client

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        """The reply of the service."""
        url = urlsplit(str(request.url))
        headers = dict(request.headers)
        body: Any = request.body or b""
        reply: Any = self.client.generic(
            str(request.method), url.path, body, str(headers.pop("Content-Type", "application/json")),
            headers={name: value for name, value in headers.items() if name != "Content-Length"},
            QUERY_STRING=url.query,
        )  # fmt: skip
        content = reply.getvalue() if reply.streaming else reply.content
        raw = urllib3.HTTPResponse(io.BytesIO(content), reply.headers, reply.status_code, preload_content=False)
        return HTTPAdapter().build_response(request, raw)

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def service() -> requests.Session:
    """A session that speaks to the service as a superuser."""
    client = APIClient(raise_request_exception=False)
    session = requests.Session()
    _, token = Token.objects.issue(user=factories.superuser(username="root", password=PASSWORD), name="script")
    session.headers["Authorization"] = f"Bearer {token}"
    session.mount(HERE, InProcess(client))
    return session


@pytest.fixture
def rows(api: Any, service: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """One of everything: the part of an address before the id → the id."""
    monkeypatch.setattr("orchestrator.host_keys.scan", lambda host, port: "ssh-ed25519 AAAA")
    organization = factories.organization()
    own: dict[str, Any] = {"organization": organization}
    group, location, user = factories.group(**own), factories.location(**own), factories.user(**own)
    device = factories.device(group=group, location=location, **own)
    run, active = (launch(api(factories.superuser()), devices=[str(device.pk)])["id"] for _ in range(2))
    finish(run, "failed")
    schedule = Schedule.objects.create(name="nightly", type="reboot", cron="0 3 * * *", enabled=False, **own)
    hook = factories.webhook(**own)
    delivery = WebhookDelivery.objects.create(
        webhook=hook, event="webhook.test", body="{}", status="failed", finished=timezone.now()
    )
    kinds: dict[str, Any] = {
        "organization": organization, "device": device, "group": group, "location": location, "schedule": schedule,
        "credential": device.credentials.get(), "user": user, "membership": user.memberships.get(),
        "saved-targets": factories.saved_targets(targets={"organization": str(organization.pk)}, **own),
        "newcomer": factories.user(), "idle": factories.organization(),
        "audit": AuditEntry.objects.filter(action="run.launch").latest("at"),
        "webhook": hook, "webhook-delivery": delivery,
        "playbook": factories.playbook(), "commands": Command.objects.filter(mass_command=run).get(),
        "token": Token.objects.issue(user=User.objects.get(username="root"), name="another")[0],
    }  # fmt: skip
    return {kind: str(row.pk) for kind, row in kinds.items()} | {"batch-command": run, "active": active}


def _come_home(case: Any, rows: dict[str, str]) -> None:
    """Let what the example names be there, and what it says be likely: else all of them would be refused."""
    path, body = case.operation.path, case.body
    if "id" in case.path_parameters:
        case.path_parameters["id"] = rows["active" if path.endswith(CONTROLS) else path.split("/")[4]]
    if path.endswith("/organization/{id}/") and case.method.upper() == "DELETE":
        case.path_parameters["id"] = rows["idle"]  # a run goes on in the other one
    if path.endswith(("/inventory/", "/known-hosts/", "/audit/export/")):
        case.query.clear()  # a filter that names what is not there
    if not isinstance(body, dict):
        return
    likely: dict[str, Any] = LIKELY | {name: rows[name] for name in ("organization", "group", "location", "user")}
    likely["saved"] = rows["saved-targets"]
    likely |= {"devices": [rows["device"]], "credentials": [rows["credential"]]}
    likely["targets"] = {"organization": rows["organization"]}
    if path.endswith("/token/"):
        likely["username"] = "root"
    if case.method.upper() == "POST":
        likely["user"] = rows["newcomer"]  # who has no role yet
        case.query.clear()  # the page of a preview
    body |= {name: value for name, value in likely.items() if body.get(name) is not None}
    if path.endswith("/credential/"):
        body["password"] = PASSWORD
    if path.endswith(LAUNCHES):
        body |= {"organization": rows["organization"]} if "/batch-command/" in path else {}
        body |= {"type": "custom", "input": {"command": "uptime"}}
        for surprise in SURPRISES & set(body):
            del body[surprise]
    elif "type" in body:
        body["input"] = {"command": "uptime"}


@contextmanager
def undone() -> Iterator[None]:
    """What an example did is undone before the next."""
    point = transaction.savepoint_create()
    try:
        yield
    finally:
        transaction.set_rollback(False)  # an IntegrityError that a view has dealt with
        transaction.savepoint_rollback(point)


@pytest.mark.parametrize("label", OPERATIONS)
def test_the_service_keeps_to_its_schema(label: str, rows: dict[str, str], service: requests.Session) -> None:
    operation = OPERATIONS[label]

    @given(case=operation.as_strategy())
    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
        phases=(Phase.explicit, Phase.generate), suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    def examine(case: Any) -> None:
        if (len(repr(case.body)) + len(replies)) % 4:  # what is made up leads nowhere
            _come_home(case, rows)
        with undone():
            replies.append(case.call_and_validate(base_url=HERE, session=service, checks=CHECKS))

    replies: list[Any] = []
    examine()
    good = [reply for reply in replies if reply.status_code < 300]
    assert good, [reply.text for reply in replies]


MADE = sorted(
    path.split("/")[4] for path, methods in SCHEMA.raw_schema["paths"].items()
    if "{" not in path and "links" in methods.get("post", {}).get("responses", {}).get("201", {})
)  # fmt: skip


def _walk(machine: Any, rows: dict[str, str], service: requests.Session, number: int) -> set[tuple[str, int]]:
    """Follow the links of the schema, from what was made to what can be done with it; (operation, status) seen."""
    replies: set[tuple[str, int]] = set()

    class Walk(machine):  # type: ignore[misc]
        def setup(self) -> None:
            self.point = transaction.savepoint_create()

        def teardown(self) -> None:
            transaction.set_rollback(False)
            transaction.savepoint_rollback(self.point)

        def before_call(self, case: Any) -> None:
            followed = dict(case.path_parameters)  # what a link has said stays
            if len(repr(case.body)) % 4:  # not by what came before: an example must be the same when it is repeated
                _come_home(case, rows)
            if "id" in followed:
                case.path_parameters["id"] = followed["id"]

        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            return {"base_url": HERE, "session": service}

        def validate_response(self, response: Any, case: Any, **_: Any) -> None:
            replies.add((case.operation.label, response.status_code))
            case.validate_response(response, checks=CHECKS)

    run_state_machine_as_test(
        seed(number)(Walk),
        settings=settings(
            max_examples=WALKS, stateful_step_count=STEPS, deadline=None, database=None,
            phases=(Phase.generate,), suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
    return replies


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", MADE)
def test_what_was_made_can_be_used_as_the_schema_says(
    kind: str, rows: dict[str, str], service: requests.Session
) -> None:
    """Follows the links: what was made is read, changed, cancelled, deleted, whatever comes first."""
    machine = SCHEMA.include(path_regex=f"/{kind}/").as_state_machine()
    replies: set[tuple[str, int]] = set()
    for number in SEEDS:  # where a walk leads is left to chance, thus more of them until enough was reached
        replies |= _walk(machine, rows, service, number)
        good = {label for label, status in replies if status < 300 and "{id}" in label}
        read = any(label.startswith("GET ") and label.endswith(f"/{kind}/{{id}}/") for label in good)
        if read and len(good) >= 2:
            return
    pytest.fail(f"What was made was never used: {sorted(replies)}")


@pytest.mark.timeout(300)
def test_whatever_comes_after_whatever_no_reply_breaks_the_schema(
    rows: dict[str, str], service: requests.Session
) -> None:
    machine = SCHEMA.as_state_machine()
    labels: set[str] = set()
    for number in SEEDS:
        labels |= {label for label, _ in _walk(machine, rows, service, number)}
        if number and len(labels) > len(OPERATIONS) // 3:
            return
    pytest.fail(f"Only a few operations were reached: {sorted(labels)}")
