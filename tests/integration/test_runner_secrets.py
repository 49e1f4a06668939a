"""Secrets on their way to devices: set exactly, used from memory, seen nowhere; users' text is never evaluated."""

import json
import os
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from lab.fleet import DEFAULT_PASSWORD
from orchestrator.events import HostEvent
from tests.integration.engine import Engine

pytestmark = pytest.mark.lab

CORPUS = Path(__file__).parent.parent / "corpus"
PASSWORDS = json.loads((CORPUS / "passwords.json").read_text())
BOTH = ("openwrt1", "linux1")
CANARY = "/tmp/pwned"


@pytest.fixture
def passwords_back(engine: Engine) -> Iterator[None]:
    """Afterwards the devices have their passwords again."""
    yield
    change(engine, DEFAULT_PASSWORD, *BOTH)


def change(engine: Engine, password: str, *names: str, username: str = "") -> dict[str, HostEvent]:
    """Set a password, logging in by key."""
    targets = [engine.target(name, by_key=True) for name in names]
    hidden = frozenset({password})
    request = engine.request(targets, "change_password", secrets=hidden, new_password=password, username=username)
    return engine.run(request).finished


# ---------------------------------------------------------------- passwords
@pytest.mark.slow
@pytest.mark.usefixtures("passwords_back")
@pytest.mark.parametrize("case", PASSWORDS, ids=lambda case: case["why"])
def test_a_password_is_set_exactly(engine: Engine, case: dict[str, str]) -> None:
    password = case["password"]
    done = change(engine, password, *BOTH)
    for name in BOTH:
        assert (done[name].status, done[name].stdout, done[name].stderr) == ("success", "", ""), done[name]
        assert engine.login(name, password)
        assert not engine.exists(name, CANARY)
    assert not engine.login("openwrt1", password + "x")
    targets = [engine.target(name, password=password) for name in BOTH]
    again = engine.run(engine.request(targets, command="id -un")).finished
    assert [event.stdout for event in again.values()] == ["root\n", "root\n"], again
    assert not Path(CANARY).exists()


@pytest.mark.usefixtures("passwords_back")
def test_a_password_of_128_characters_is_set_where_the_device_lets_anybody_in_with_it(engine: Engine) -> None:
    password = ("Aa1- " * 26)[:128]
    done = change(engine, password, *BOTH)
    assert done["linux1"].status == "success"
    assert engine.login("linux1", password)
    assert (done["openwrt1"].status, done["openwrt1"].code) == ("failed", "password_too_long")
    assert engine.login("openwrt1", DEFAULT_PASSWORD)


def test_another_account_gets_its_password_by_way_of_sudo(engine: Engine) -> None:
    target = engine.target("linux2", username="operator")
    for password in ("for $operator 'only'", DEFAULT_PASSWORD):
        done = engine.run(engine.request([target], "change_password", new_password=password, username="operator"))
        assert done.finished["linux2"].status == "success", done.finished
        assert engine.login("linux2", password, user="operator")
        assert engine.login("linux2", DEFAULT_PASSWORD)
        target = engine.target("linux2", username="operator", password=password)


def test_an_account_that_does_not_exist_or_is_no_name_changes_nothing(engine: Engine) -> None:
    for username in ("nobody-here", "root'; touch /tmp/pwned; '", "-R/", "root:x", ".*"):
        done = change(engine, "never-Set-3", *BOTH, username=username)
        assert [event.code for event in done.values()] == ["no_account"] * 2, done
    assert not any(engine.login(name, "never-Set-3") or engine.exists(name, CANARY) for name in BOTH)


# ---------------------------------------------------------------- keys
@pytest.fixture(scope="module")
def protected_key(engine_lab: Engine) -> dict[str, Any]:
    """A key with a passphrase that the devices accept."""
    path = engine_lab.keys / "protected"
    passphrase = "open $(this) 'now' \"é\""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", path], check=True)
    public = path.with_suffix(".pub").read_text().strip()
    for name in BOTH:
        engine_lab.lab.exec(name, "sh", "-c", f"echo '{public}' >> /root/.ssh/authorized_keys")
    return {"private_key": path.read_text(), "passphrase": passphrase}


def test_a_key_with_a_passphrase_logs_in_and_with_a_wrong_one_does_not(
    engine: Engine, protected_key: dict[str, Any], isolation: bool
) -> None:
    done = engine.run(engine.request([engine.target(name, **protected_key) for name in BOTH], command="id -un"))
    assert [event.stdout for event in done.finished.values()] == ["root\n", "root\n"], done
    wrong = engine.target("openwrt1", private_key=protected_key["private_key"], passphrase="another")
    event = engine.run(engine.request([wrong], command="id")).finished["openwrt1"]
    assert (event.status, event.code) == ("unreachable", "key")
    assert "private key" in event.reason


def test_a_key_that_the_device_does_not_know_is_refused(engine: Engine) -> None:
    path = engine.keys / "unknown"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    targets = [engine.target(name, private_key=path.read_text()) for name in BOTH]
    done = engine.run(engine.request(targets, command="id")).finished
    assert [(event.status, event.code) for event in done.values()] == [("unreachable", "auth")] * 2, done


# ---------------------------------------------------------------- nowhere to be seen
@contextmanager
def watched(*secrets: str) -> Iterator[set[str]]:
    """Where secrets are found while the block runs: in command lines, environments, and files that are no tmpfs."""
    found: set[str] = set()
    needles = [secret.encode() for secret in secrets]
    over, began = threading.Event(), time.time()

    def look_at_processes() -> None:
        while not over.is_set():
            for entry in Path("/proc").iterdir():
                if entry.name.isdigit():
                    found.update(str(x) for x in (entry / "cmdline", entry / "environ") if holds(x, needles))
            time.sleep(0.01)

    def look_at_files() -> None:
        while not over.is_set():
            for top in (tempfile.gettempdir(), Path.home() / ".ansible", "/var/tmp", settings.DATA_DIR):
                for folder, _, names in os.walk(top):
                    found.update(
                        str(x) for x in (Path(folder, name) for name in names) if fresh(x, began) and holds(x, needles)
                    )
            time.sleep(0.1)

    threads = [threading.Thread(target=look) for look in (look_at_processes, look_at_files)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        over.set()
        for thread in threads:
            thread.join()


def fresh(path: Path, began: float) -> bool:
    """Whether it is a file that was written since."""
    try:
        return path.is_file() and not path.is_symlink() and path.stat().st_mtime >= began
    except OSError:
        return False


def holds(path: Path, needles: list[bytes]) -> bool:
    """Whether any of them is in the file."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    return any(needle in content for needle in needles)


def test_the_watch_finds_what_is_in_the_open(tmp_path: Path) -> None:
    with watched("a-Secret-in-the-open") as found:
        (tmp_path / "file").write_text("a-Secret-in-the-open")
        subprocess.run(["sh", "-c", "sleep 0.5", "a-Secret-in-the-open"], check=True)
        subprocess.run(["sleep", "0.5"], env=os.environ | {"X": "a-Secret-in-the-open"}, check=True)
    kinds = {re.sub(r"/proc/\d+/", "", path) for path in found}
    assert kinds >= {"cmdline", "environ", str(tmp_path / "file")}


@pytest.mark.usefixtures("passwords_back")
def test_secrets_are_in_no_command_line_no_environment_and_no_file_of_a_disk(
    engine: Engine, protected_key: dict[str, Any], isolation: bool
) -> None:
    new = "brand-new-Secret-77"
    body = protected_key["private_key"].splitlines()[2]
    assert subprocess.check_output(["stat", "-f", "-c", "%T", settings.RUN_DIR]) == b"tmpfs\n"
    with watched(new, DEFAULT_PASSWORD + "!", protected_key["passphrase"], body) as found:
        targets = [engine.target("openwrt1", **protected_key), engine.target("linux1", **protected_key)]
        targets.append(engine.target("openwrt2", password=DEFAULT_PASSWORD + "!"))  # a wrong one
        done = engine.run(engine.request(targets, "change_password", new_password=new, secrets=frozenset({new})))
        assert [str(done.finished[x].status) for x in (*BOTH, "openwrt2")] == ["success", "success", "unreachable"]
        targets = [engine.target("openwrt1", password=new), engine.target("linux1", password=new)]
        assert engine.run(engine.request(targets, command="sleep 1")).finished["linux1"].status == "success"
    assert found == set()


def test_a_device_that_says_secrets_back_is_not_quoted(engine: Engine, protected_key: dict[str, Any]) -> None:
    canary = "canary $ecret 42"
    body = protected_key["private_key"].splitlines()[2]
    command = f"echo '{DEFAULT_PASSWORD}' | tee /dev/stderr; printf '%s' '{canary}' | base64; echo {body}; exit 3"
    targets = [engine.target("openwrt1"), engine.target("linux1", **protected_key)]
    done = engine.run(engine.request(targets, command=command, secrets=frozenset({canary}))).finished
    for event in done.values():
        said = event.stdout + event.stderr + event.reason
        assert event.rc == 3
        assert DEFAULT_PASSWORD not in said
        assert "Y2FuYXJ5ICRlY3JldC" not in said
        assert body not in said
        assert event.stdout.count("********") == 3


# ---------------------------------------------------------------- users' text is data
TEMPLATE = """{{ lookup("pipe","touch /tmp/pwned; id") }}"""


def test_a_template_in_a_command_a_password_or_an_address_is_not_evaluated(engine: Engine) -> None:
    command = f"printf '%s' '{TEMPLATE}'"
    event = engine.custom(command, "openwrt1").finished["openwrt1"]
    assert event.stdout == TEMPLATE
    targets = [
        engine.target("openwrt1", password=TEMPLATE),
        engine.target("openwrt2", address=TEMPLATE),
        engine.target("openwrt3", username=TEMPLATE),
        engine.target("linux1", address="-oProxyCommand=touch /tmp/pwned"),
        engine.target("linux2", username="-oProxyCommand=touch /tmp/pwned"),
    ]
    done = engine.run(engine.request(targets, command="id")).finished
    codes = {"openwrt1": "auth", "openwrt2": "address", "openwrt3": "user", "linux1": "address", "linux2": "user"}
    assert {name: event.code for name, event in done.items()} == codes
    assert not Path(CANARY).exists()
