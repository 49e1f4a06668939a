"""The corpus on its way through the engine to real devices: they get the bytes as given, and nothing is evaluated."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import replace

import pytest

from ansible_plugins.connection.device_ssh import PLAIN_ADDRESS, PLAIN_USER
from tests.corpus import CANARY, injections
from tests.integration.engine import Engine

pytestmark = [pytest.mark.lab, pytest.mark.slow]

BATCH_BYTES = 7_000  # of a command line
LONGEST = 2_000  # characters; a command line has no room for more
# What a database and JSON can hold; a NUL ends a command line, and is refused before.
TEXTS = [x for x in injections() if "\0" not in x and len(x) <= LONGEST and not re.search("[\ud800-\udfff]", x)]


@pytest.fixture(autouse=True)
def nothing_evaluated(engine: Engine) -> Iterator[None]:
    """Neither here nor on the devices is what the commands of the corpus would make."""
    yield
    assert not CANARY.exists()
    assert not any(engine.exists(name, str(CANARY)) for name in engine.lab.devices())


def batches(texts: list[str]) -> Iterator[list[str]]:
    """As many as fit into one command line."""
    batch: list[str] = []
    for text in texts:
        if len(shlex.join([*batch, text]).encode()) > BATCH_BYTES:
            yield batch
            batch = []
        batch.append(text)
    yield batch


def test_each_text_in_a_command_reaches_the_device_as_it_is(engine: Engine) -> None:
    for batch in batches(TEXTS):
        done = engine.custom(f"printf '<%s>\\n' {shlex.join(batch)}", "openwrt1", "linux1").finished
        for event in done.values():
            assert event.stdout == "".join(f"<{text}>\n" for text in batch), event.reason


def test_each_text_as_an_address_is_refused_before_ssh_is_started(engine: Engine) -> None:
    model = engine.target("openwrt1")
    texts = [text for text in TEXTS if text and not PLAIN_ADDRESS.fullmatch(text)]
    targets = [replace(model, host_name=f"device-{number}", address=text) for number, text in enumerate(texts)]
    done = engine.run(engine.request(targets, command="id")).finished
    assert {(str(event.status), event.code) for event in done.values()} == {("unreachable", "address")}
    assert len(done) == len(texts) > 200


def test_a_text_as_a_user_name_is_refused_or_logs_in_nowhere(engine: Engine) -> None:
    texts = TEXTS[::4]
    targets = [
        replace(engine.target(f"openwrt{number % 7 + 1}", username=text), host_name=f"device-{number}")
        for number, text in enumerate(texts) if text
    ]  # fmt: skip
    done = engine.run(engine.request(targets, command="id", forks=5)).finished
    for target in targets:
        event = done[target.host_name]
        assert event.status == "unreachable"
        assert event.code == ("auth" if PLAIN_USER.fullmatch(target.login.username) else "user"), target


def test_a_text_as_a_password_logs_in_nowhere(engine: Engine) -> None:
    texts = [text for text in TEXTS if text.isprintable()][::8]
    targets = [
        replace(engine.target(f"openwrt{number % 7 + 1}", password=text), host_name=f"device-{number}")
        for number, text in enumerate(texts) if text
    ]  # fmt: skip
    done = engine.run(engine.request(targets, command="id", forks=5)).finished
    assert {event.code for event in done.values()} == {"auth"}
    assert len(done) == len(targets) > 30
