"""What a launch and a preview refuse: each malformed body gets a 4xx that names the field, and creates nothing."""

from typing import Any

import pytest

from orchestrator.models import Command, MassCommand
from tests import factories
from tests.integration.api_addresses import MISSING, PREVIEW, RUNS, case, post

pytestmark = [pytest.mark.django_db, pytest.mark.database, pytest.mark.usefixtures("outbox")]

SURROGATE = "\ud800"
LONG = "x" * 100_000


@pytest.fixture
def target(api: Any) -> tuple[Any, dict[str, Any]]:
    """A client who may launch, and a body that would do so."""
    device = factories.device()
    body = {"organization": str(device.organization_id), "type": "custom", "input": {"command": "uptime"}}
    return api(factories.user(organization=device.organization)), body


def _refused(reply: Any, field: str) -> Any:
    assert reply.status_code == 400, reply.content
    assert list(reply.json()) == [field]
    assert len(reply.content) < 5_000, "repeats the input"
    assert not MassCommand.objects.exists()
    assert not Command.objects.exists()
    return reply.json()[field]


UUIDS = [1, True, 1.5, "", "x", "1", [], {}, [MISSING], MISSING[:-1], f"{{{MISSING}}}", f"urn:uuid:{MISSING}",
         MISSING.replace("-", ""), MISSING + "\n", MISSING[:-1] + "\x00", MISSING[:-1] + SURROGATE, LONG]  # fmt: skip


@pytest.mark.parametrize("value", UUIDS, ids=case)
@pytest.mark.parametrize("field", ["organization", "group", "location"])
@pytest.mark.parametrize("address", [PREVIEW, RUNS])
def test_what_is_no_uuid_is_refused(target: Any, address: str, field: str, value: Any) -> None:
    client, body = target
    _refused(post(client, address, {**body, field: value}), field)


@pytest.mark.parametrize("value", [MISSING, {}, 5, "", {"0": MISSING}, *([value] for value in UUIDS), [None]],
                         ids=case)  # fmt: skip
@pytest.mark.parametrize("address", [PREVIEW, RUNS])
def test_devices_are_a_list_of_uuids(target: Any, address: str, value: Any) -> None:
    client, body = target
    _refused(post(client, address, {**body, "devices": value}), "devices")


def test_more_picked_devices_than_the_limit_are_refused(target: Any) -> None:
    client, body = target
    _refused(post(client, RUNS, {**body, "devices": [MISSING] * 20_001}), "devices")


BAD: dict[str, list[Any]] = {
    "all_devices": ["true", "false", "no", 1, 0, None, [], {}, "", LONG],
    "type": [None, "", 1, True, [], {}, ["custom"], "Custom", "custom ", "shell", "custom\x00", SURROGATE, LONG],
    "label": [None, "", "   ", 1, True, [], {}, "x" * 65, "a\x00b", "a\nb", "a\x1bb", SURROGATE, LONG],
    "notes": [None, 1, True, [], {}, "x" * 10_001, "a\x00b", SURROGATE, LONG],
    "input": ["uptime", 1, True, [], ["uptime"], [{"command": "uptime"}], LONG],
}
CASES = [(field, value) for field, values in BAD.items() for value in values]


@pytest.mark.parametrize(("field", "value"), CASES, ids=case)
@pytest.mark.parametrize("address", [PREVIEW, RUNS])
def test_a_value_of_the_wrong_kind_is_refused(target: Any, address: str, field: str, value: Any) -> None:
    client, body = target
    _refused(post(client, address, {**body, field: value}), field)


@pytest.mark.parametrize(
    "value", [None, "", 1, "x" * 64, "A" * 64, "a" * 63, "a" * 65, "a" * 64 + "\n", [], SURROGATE, LONG],
    ids=case,
)  # fmt: skip
def test_a_digest_is_64_hexadecimal_digits(target: Any, value: Any) -> None:
    client, body = target
    _refused(post(client, RUNS, {**body, "digest": value}), "digest")


@pytest.mark.parametrize("address", [PREVIEW, RUNS])
@pytest.mark.parametrize(
    "name",
    ["device", "organisation", "Type", "status", "id", "created_by", "", " ", "\x00", SURROGATE, LONG, "__proto__"],
    ids=case,
)  # fmt: skip
def test_an_unknown_field_is_refused_not_ignored(target: Any, address: str, name: str) -> None:
    client, body = target
    reply = post(client, address, {**body, name: "x"})
    assert reply.status_code == 400
    assert list(reply.json().values()) == [["Unknown field."]]
    assert not MassCommand.objects.exists()


def test_unknown_and_wrong_fields_are_told_together(target: Any) -> None:
    client, body = target
    reply = post(client, RUNS, {**body, "type": "x", "group": "x", "colour": "red"})
    assert reply.status_code == 400
    assert set(reply.json()) == {"type", "group", "colour"}


def test_a_launch_needs_a_type(target: Any) -> None:
    client, body = target
    del body["type"]
    del body["input"]
    _refused(post(client, RUNS, body), "type")


def test_a_preview_needs_the_type_of_its_input(target: Any) -> None:
    client, body = target
    del body["type"]
    _refused(post(client, PREVIEW, body), "type")


INPUTS: list[tuple[str, Any, str]] = [
    ("custom", None, "command"),
    ("custom", {}, "command"),
    ("custom", {"command": None}, "command"),
    ("custom", {"command": 5}, "command"),
    ("custom", {"command": ["uptime"]}, "command"),
    ("custom", {"command": {"a": "b"}}, "command"),
    ("custom", {"command": ""}, "command"),
    ("custom", {"command": " \t"}, "command"),
    ("custom", {"command": "a\nb"}, "command"),
    ("custom", {"command": "a\rb"}, "command"),
    ("custom", {"command": "a\x00b"}, "command"),
    ("custom", {"command": SURROGATE}, "command"),
    ("custom", {"command": "x" * 8_001}, "command"),
    ("custom", {"command": "é" * 4_001}, "command"),
    ("custom", {"command": "uptime", "timeout": "5"}, "timeout"),
    ("custom", {"command": "uptime", SURROGATE: "5"}, "?"),
    ("reboot", {"delay": "5"}, "delay"),
    ("reboot", {"command": "uptime"}, "command"),
    ("change_password", {"password": "abcdef"}, "confirm_password"),
    ("change_password", {"confirm_password": "abcdef"}, "password"),
    ("change_password", {"password": "abcdef", "confirm_password": "abcdeg"}, "confirm_password"),
    ("change_password", {"password": "abcde", "confirm_password": "abcde"}, "password"),
    ("change_password", {"password": "x" * 129, "confirm_password": "x" * 129}, "password"),
    ("change_password", {"password": "abc\ndef", "confirm_password": "abc\ndef"}, "password"),
    ("change_password", {"password": "abcdef\x07", "confirm_password": "abcdef\x07"}, "password"),
    ("change_password", {"password": 123456, "confirm_password": 123456}, "password"),
    ("change_password", {"password": "abcdef", "confirm_password": "abcdef", "username": "-o x"}, "username"),
    ("change_password", {"password": "abcdef", "confirm_password": "abcdef", "username": "a;b"}, "username"),
]


# A preview without an input tells who is eligible.
TYPED = [(address, *row) for address in (PREVIEW, RUNS) for row in INPUTS if address == RUNS or row[1] is not None]


@pytest.mark.parametrize(("address", "kind", "value", "key"), TYPED, ids=case)
def test_an_input_that_its_type_does_not_take_is_refused_by_key(
    target: Any, address: str, kind: str, value: Any, key: str
) -> None:
    client, body = target
    problems = _refused(post(client, address, {**body, "type": kind, "input": value}), "input")
    assert key in problems


def test_a_refused_password_is_not_repeated(target: Any) -> None:
    client, body = target
    wrong = {"password": "s3cret-One", "confirm_password": "s3cret-Two"}
    reply = post(client, RUNS, {**body, "type": "change_password", "input": wrong})
    assert b"s3cret" not in reply.content


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("custom", {"command": "x" * 8_000}),
        ("custom", {"command": "echo '{{ 7*7 }}' ; cat /etc/passwd | head -1 # é 漢 🦊"}),
        ("reboot", None),
        ("reboot", {}),
        ("change_password", {"password": "$;\"'`é% \\", "confirm_password": "$;\"'`é% \\"}),
        ("change_password", {"password": "x" * 128, "confirm_password": "x" * 128, "username": "admin"}),
        ("change_password", {"password": "abcdef", "confirm_password": "abcdef"}),
    ],
    ids=case,
)
def test_an_input_at_the_edge_of_what_is_valid_is_taken(target: Any, kind: str, value: Any) -> None:
    client, body = target
    assert post(client, RUNS, {**body, "type": kind, "input": value}).status_code == 201


def test_label_and_notes_are_kept_as_given(target: Any) -> None:
    client, body = target
    told = {"label": "x" * 64, "notes": "first\nsecond\t<b>é</b>"}
    run = post(client, RUNS, {**body, **told}).json()
    assert {name: run[name] for name in told} == told


@pytest.mark.parametrize("change", ["", "  "])
def test_notes_may_be_blank(target: Any, change: str) -> None:
    client, body = target
    assert post(client, RUNS, {**body, "notes": change}).json()["notes"] == ""
