"""The corpus through every field of the API that reaches a run: taken as it is or refused, evaluated nowhere."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ValidationError as DjangoValidationError
from django.utils.html import escape
from rest_framework.exceptions import ValidationError

from lab.fleet import DEFAULT_PASSWORD
from orchestrator import planning, runner, sandbox
from orchestrator.api.fleet_serializers import CredentialSerializer, DeviceSerializer
from orchestrator.api.run_serializers import LaunchSerializer
from orchestrator.cataloguing import refresh
from orchestrator.inventory import group_names, inventory
from orchestrator.models import CredentialSecrets, Device, MassCommand
from orchestrator.models.addresses import validate_host, validate_username
from tests import factories
from tests.corpus import CANARY, injections
from tests.integration.api_addresses import CREDENTIALS, DEVICES, RUNS
from tests.integration.engine import Engine
from tests.integration.test_recording import launch, take

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

TEXTS = injections()
SOME = [text for text in TEXTS if len(text) <= 5_000][::9]  # over HTTP; characters
FIELDS: dict[Any, tuple[str, ...]] = {
    DeviceSerializer: ("name", "host", "tags"),
    CredentialSerializer: ("name", "username", "password", "passphrase", "become_password"),
    LaunchSerializer: ("label", "notes"),
}
EXACT = {"password", "passphrase", "become_password"}  # not even a blank at the end is lost
ValidationErrors = (ValidationError, DjangoValidationError)


@pytest.fixture(autouse=True)
def nothing_evaluated() -> Iterator[None]:
    """What the commands of the corpus would make is not there."""
    yield
    assert not CANARY.exists()


@pytest.fixture
def device() -> Device:
    """A device."""
    return factories.device(host_key="ssh-ed25519 AAAA")


def test_each_field_takes_a_text_as_it_is_or_refuses_it() -> None:
    taken: dict[str, list[Any]] = {}
    for serializer, names in FIELDS.items():
        for name in names:
            field = serializer().fields[name]
            for text in TEXTS:
                given = [text] if name == "tags" else text
                try:
                    value = field.run_validation(given)
                    getattr(serializer, f"validate_{name}", lambda _, value: value)(None, value)
                except ValidationErrors:
                    continue
                assert value in (given, [text.strip()], text.strip())
                assert name not in EXACT or value == given
                taken.setdefault(f"{serializer.__name__}.{name}", []).append(text.strip())
    for text in taken["DeviceSerializer.host"]:
        validate_host(text)
    for text in taken["CredentialSerializer.username"]:
        validate_username(text)
    few = {name: len(texts) for name, texts in taken.items() if len(texts) < 150}
    assert few.keys() <= {"DeviceSerializer.host", "CredentialSerializer.username"}, few
    for tag in taken["DeviceSerializer.tags"]:
        groups = group_names(platform="linux", organization=tag, group=tag, location=tag, tags=[tag])
        assert all(re.fullmatch(r"\w+", name) for name in groups), groups


def sent(client: Any, method: str, address: str, body: Any) -> Any:
    """The reply; JSON in ASCII, which holds lone surrogates, too."""
    reply = client.generic(method, address, json.dumps(body), "application/json")
    assert reply.status_code in (200, 201, 400), reply.content[:300]
    return reply


def taken_by(client: Any, method: str, address: str, fixed: Any, fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that are not refused, sent again without those that are."""
    while (reply := sent(client, method, address, fixed | fields)).status_code == 400:
        assert set(reply.json()) <= set(fields)
        fields = {name: value for name, value in fields.items() if name not in reply.json()}
    return fields


@pytest.mark.usefixtures("outbox")
def test_what_is_taken_is_stored_as_it_is(api: Any, device: Device) -> None:
    client, row, passwords, commands = api(factories.superuser()), device.credentials.get(), 0, 0
    for text in SOME:
        fields: dict[str, Any] = {"name": text, "tags": [text], "host": text}
        taken = taken_by(client, "PATCH", f"{DEVICES}{device.pk}/", {}, fields)
        device.refresh_from_db()
        assert all(getattr(device, name) in (value, text.strip(), [text.strip()]) for name, value in taken.items())
        if text:
            taken = taken_by(client, "PATCH", f"{CREDENTIALS}{row.pk}/", {}, {"username": text, "password": text})
            row.refresh_from_db()
            assert row.username == taken.get("username", row.username).strip()
            assert row.secrets().password == taken.get("password", row.secrets().password)
            passwords += "password" in taken
        command = {"devices": [str(device.pk)], "type": "custom", "input": {"command": "id"}}
        taken = taken_by(client, "POST", RUNS, command, {"label": text, "notes": text})
        assert all(getattr(newest(), name) == value.strip() for name, value in taken.items())
        if sent(client, "POST", RUNS, command | {"input": {"command": text}}).status_code == 201:
            assert newest().input == {"command": text}
            commands += 1
    assert min(passwords, commands) > 15


def newest() -> Any:
    """The run that was launched last."""
    return MassCommand.objects.all()[0]


def test_the_admin_shows_texts_as_texts(client: Any) -> None:
    organization = factories.organization()
    texts = [text for text in TEXTS if "<" in text and 0 < len(text) <= 100 and text.isprintable()]
    assert len(texts) > 3
    for text in texts:
        factories.device(organization=organization, name=text, tags=[text[:64]], credentials=[])
    client.force_login(factories.superuser())
    page = client.get("/admin/orchestrator/device/").content.decode()
    for text in texts:
        assert text not in page
        assert escape(text) in page


@pytest.fixture
def in_sight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run without a sandbox, whose /tmp of its own would hide what was evaluated."""
    monkeypatch.setattr(sandbox, "isolated", lambda: False)


PLAYBOOK = """
- hosts: all
  gather_facts: false
  tasks:
    - {name: Device, debug: {msg: [{name: "{{ orchestrator_name }}", tags: "{{ orchestrator_tags }}"}]}}
    - {name: Values, debug: {msg: "{{ thing }}"}}
    - {name: Keys, debug: {msg: "{{ thing.keys() | list }}"}}
    - {name: Items, debug: {msg: "{{ thing | dict2items }}"}}
    - {name: A key, set_fact: {fact: "{{ thing.keys() | list }}"}}
    - {name: Facts, debug: {msg: "{{ fact }}"}}
    - {name: Say, raw: "printf '<%s>\\n' {{ texts | map('quote') | join(' ') }}"}
"""


@pytest.mark.lab
@pytest.mark.usefixtures("outbox", "in_sight")
def test_a_playbook_gets_values_keys_and_names_as_they_are(engine: Engine, tmp_path: Path, settings: Any) -> None:
    settings.DATA_DIR, folder = tmp_path / "data", tmp_path / "playbooks"
    folder.mkdir()
    settings.PLAYBOOK_DIRS = [folder]
    (folder / "say.yml").write_text(PLAYBOOK)
    (folder / "say.schema.yml").write_text("properties: {thing: {type: object}, texts: {type: array}}\n")
    assert refresh().added == ["say"]
    some = [x for x in TEXTS if 0 < len(x) <= 200 and "\0" not in x and not re.search("[\ud800-\udfff]", x)][::3]
    thing, texts, credential = dict(zip(some, reversed(some), strict=True)), some[::3], factories.credential()
    credential.set_secrets(CredentialSecrets(password=DEFAULT_PASSWORD))
    credential.save()
    assert len(thing) > 50
    for number, text in enumerate(some[::12]):
        real = engine.device(f"openwrt{number % 7 + 1}")
        factories.device(
            organization=credential.organization, name=text[:64], tags=[text[:64]], credentials=[credential],
            host=real.address, port=real.port, host_key=real.hostkey,
        )  # fmt: skip
    given = {"thing": thing, "texts": texts}
    run = launch(credential.organization_id, type="playbook", playbook="say", input=given)
    slice_, _, _ = take(run)
    plan = planning.plan(slice_)
    targets = plan.targets(0)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", target.host_name) for target in targets)
    done = engine.run(plan.request(targets, ident=slice_.pk.hex))
    assert {(str(event.status), event.reason) for event in done.finished.values()} == {("success", "")}
    names = {target.host_name: target.facts["name"] for target in targets}
    assert len(names) == len(targets) > 4
    for task in done.tasks:
        expected = {
            "Device": [{"name": names[task.host_name], "tags": [names[task.host_name]]}],
            "Values": thing, "Keys": list(thing), "Facts": list(thing),
            "Items": [{"key": key, "value": value} for key, value in thing.items()],
        }  # fmt: skip
        if task.task in expected:
            assert json.loads(task.message) == expected[task.task], task.task
        elif task.task == "Say":
            assert task.stdout == "".join(f"<{text}>\n" for text in texts)
    assert len(done.tasks) == 7 * len(targets)


@pytest.mark.lab
@pytest.mark.parametrize("name", ["__ansible_vault", "__ansible_unsafe", "__ansible_type"])
def test_a_key_that_means_something_to_ansible_reaches_it_never(engine: Engine, name: str) -> None:
    with pytest.raises(ValueError, match="a text is a template"):
        engine.run(engine.request([engine.target("openwrt1")], command={"x": [{name: "{{ 7*7 }}"}]}))


@pytest.mark.lab
@pytest.mark.usefixtures("in_sight")
def test_variables_that_ansible_can_t_read_as_json_are_not_read_at_all(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As YAML, which it would take instead, every text in them would be a template."""
    monkeypatch.setattr(runner, "_untrusted", lambda value: {"__ansible_vault": {"x": value}})
    done = engine.custom("{{ lookup('pipe', 'touch /tmp/corpus-canary') }}", "openwrt1")
    assert done.outcome.ended == "crashed"
    assert done.started == []


@pytest.mark.lab
@pytest.mark.usefixtures("outbox", "in_sight")
def test_a_run_over_devices_with_such_names_evaluates_nothing(engine: Engine) -> None:
    organization = factories.organization()
    real = engine.device("openwrt1")
    texts = sorted({text.strip()[:64] for text in TEXTS if text.strip() and text.isprintable() and len(text) <= 128})[
        ::8
    ]
    credential = factories.credential(organization=organization, password=DEFAULT_PASSWORD)
    for text in texts:
        factories.device(
            organization=organization, name=text, tags=[text], credentials=[credential], host=real.address,
            port=real.port, host_key=real.hostkey,
        )  # fmt: skip
    run = launch(organization.pk, label="{{ lookup('pipe', 'touch /tmp/corpus-canary') }}", notes=texts[0])
    slice_, _, _ = take(run)
    plan = planning.plan(slice_)
    targets = plan.targets(0)
    assert len(targets) == len(texts) > 25
    assert all(re.fullmatch(r"device-[0-9a-f]{32}", name) for name in inventory(targets, connect_timeout=1)["hosts"])
    # Few at once: all of them are one device, and its dropbear closes on more than five that have not logged in yet.
    done = engine.run(replace(plan.request(targets, ident=slice_.pk.hex), forks=4)).finished
    assert {(str(event.status), event.rc, event.reason) for event in done.values()} == {("success", 0, "")}
    assert len(done) == len(texts)
    assert not engine.exists("openwrt1", str(CANARY))
