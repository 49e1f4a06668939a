"""Connections inside of Ansible's process: what is said of each end is what ssh would say, or ssh is asked."""

import asyncio
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from ansible_plugins import ssh_library
from ansible_plugins.session import Capture, Limits, Session
from ansible_plugins.ssh_library import Login, Unsure, pinned

PASSWORD = "a password"


class Device(asyncssh.SSHServer):
    """Lets one password in, or answers to its own question for it."""

    tries: list[str] = []  # of all devices of a test
    methods = ("password",)

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return False

    def password_auth_supported(self) -> bool:
        return "password" in self.methods

    def kbdint_auth_supported(self) -> bool:
        return "keyboard-interactive" in self.methods

    def validate_password(self, username: str, password: str) -> bool:
        self.tries.append(password)
        return password == PASSWORD

    def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> Any:
        return "", "", "", [("What is it? ", False)]

    def validate_kbdint_response(self, username: str, responses: Any) -> bool:
        self.tries.append(responses[0])
        return list(responses) == [PASSWORD]


class Asking(Device):
    """Has no password method."""

    methods = ("keyboard-interactive",)


async def shell(process: asyncssh.SSHServerProcess[bytes]) -> None:
    """A few commands of a device."""
    match (process.command or "").split():
        case ["say"]:
            process.stdout.write(b"out \xff\0\n")
            process.stderr.write(b"err\n")
            process.stdout.write(await process.stdin.read())
            process.exit(3)
        case ["vanish"]:
            process.stdout.write(b"so far\n")
            process.close()
        case ["die"]:
            process.exit_with_signal("KILL")
        case ["cut"]:
            process.stdout.write(b"so far\n")
            process.channel.get_connection().abort()
        case ["much"]:
            for _ in range(64):
                process.stdout.write(b"x" * 65_536)
                await process.stdout.drain()
            process.exit(0)
        case ["leave"]:
            process.channel._send_request(b"exit-status", b"\0\0\0\0")  # and the outputs stay open
            await asyncio.sleep(60)
        case _:
            await asyncio.sleep(60)


@pytest.fixture
def serve() -> Iterator[Callable[..., Login]]:
    """Starts a device, and says how it is logged in to."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    servers: list[Any] = []

    def start(kind: type[Device] = Device, **options: Any) -> Login:
        async def listen() -> Any:
            return await asyncssh.listen(
                "127.0.0.1", 0, server_factory=kind, server_host_keys=[key], process_factory=shell, encoding=None,
                **options,
            )  # fmt: skip

        Device.tries = []
        key = asyncssh.generate_private_key("ssh-ed25519")
        servers.append(asyncio.run_coroutine_threadsafe(listen(), loop).result(10))
        public = " ".join(key.export_public_key().decode().split()[:2])
        return Login("127.0.0.1", servers[-1].get_port(), "root", PASSWORD, "", "", (public,), ())

    async def stop() -> None:
        for server in servers:
            server.close()
            await server.wait_closed()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    yield start
    asyncio.run_coroutine_threadsafe(stop(), loop).result(20)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def talk(
    login: Login, command: str = "say", in_data: bytes = b"", *, limit: int = 0, connect: float = 20.0,
    execution: float = math.inf, stopped: Callable[[], bool] = lambda: False,
) -> Session:  # fmt: skip
    """What became of it."""
    outputs = Capture(limit), Capture(limit)
    done = ssh_library.begin(login, command, in_data, outputs, Limits(connect, execution, stopped)).result(60)
    return Session(done.rc, *outputs, done.heard, done.gave_up, done.seconds)


def test_outputs_and_status_are_kept_apart_byte_by_byte(serve: Callable[..., Login]) -> None:
    session = talk(serve(server_version="lab_1"), in_data=b"given")
    assert (session.code, session.rc, session.heard.server) == ("", 3, "lab_1")
    assert session.stdout.value() == b"out \xff\0\ngiven"
    assert session.stderr.value() == b"err\n"


@pytest.mark.parametrize(
    ("command", "code"), [("vanish", "connection_lost"), ("die", "signal"), ("cut", "connection_lost")]
)
def test_a_command_without_an_exit_status_is_never_a_success(
    serve: Callable[..., Login], command: str, code: str
) -> None:
    session = talk(serve(), command)
    assert (session.code, session.rc, session.logged_in) == (code, 255, True)


def test_much_output_is_bounded_in_memory(serve: Callable[..., Login]) -> None:
    session = talk(serve(), "much", limit=1000)
    assert (session.code, session.stdout.total, session.stdout.truncated) == ("", 64 * 65_536, True)
    assert len(session.stdout.head) + len(session.stdout.tail) < 70_000


def test_what_a_command_leaves_running_holds_nothing_up(
    serve: Callable[..., Login], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ansible_plugins.session.HELD_OPEN", 0.2)
    session = talk(serve(), "leave")
    assert (session.code, session.gave_up) == ("held_open", "held_open")


def test_another_host_key_is_not_logged_in_to(serve: Callable[..., Login]) -> None:
    login, other = serve(), serve()
    session = talk(replace(login, host_keys=other.host_keys))
    assert (session.code, session.logged_in, Device.tries) == ("host_key", False, [])


@pytest.mark.parametrize("kind", [Device, Asking])
def test_a_password_is_given_once(serve: Callable[..., Login], kind: type[Device]) -> None:
    login = serve(kind)
    assert talk(login).code == ""
    session = talk(replace(login, password="not this one"))
    assert (session.code, session.logged_in) == ("auth", False)
    assert Device.tries == [PASSWORD, "not this one"]


def test_limits_end_it(serve: Callable[..., Login]) -> None:
    login = serve()
    assert talk(login, "hang", execution=0.3).code == "execution_timeout"
    began = time.monotonic()
    session = talk(login, "hang", stopped=lambda: time.monotonic() > began + 0.7)
    assert session.code == "cancelled_running"
    with socket.create_server(("127.0.0.1", 0)) as mute:
        login = replace(login, port=mute.getsockname()[1])
        session = talk(login, connect=0.3)
        assert (session.code, session.logged_in, session.seconds) == ("timeout", False, 0.3)
        assert talk(login, stopped=lambda: True).code == "cancelled"


def test_what_does_not_answer_is_told_in_ssh_s_words(serve: Callable[..., Login]) -> None:
    login = serve()
    with socket.create_server(("127.0.0.1", 0)) as gone:
        login = replace(login, port=gone.getsockname()[1])
    session = talk(login)
    assert (session.code, session.heard.detail) == (
        "refused", f"ssh: connect to host 127.0.0.1 port {login.port}: Connection refused"
    )  # fmt: skip
    assert talk(replace(login, address="no-such-device.invalid")).code == "name"


def test_ssh_is_asked_where_it_may_know_better(serve: Callable[..., Login]) -> None:
    device, old = serve(), serve(kex_algs=["diffie-hellman-group1-sha1"])
    for login, command in (
        (old, "say"),  # no algorithm in common; either side may hang up first
        (replace(device, private_key="no key"), "say"),
        (replace(device, host_keys=("ssh-new AAAA",)), "say"),
        (device, "say \udcff"),  # bytes that are no text
    ):
        with pytest.raises(Unsure):
            talk(login, command)
    assert Device.tries == []


def test_ssh_is_asked_of_what_hangs_up_before_a_word(serve: Callable[..., Login]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def hang_up() -> None:
            listening.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(Unsure):
            talk(replace(serve(), port=listening.getsockname()[1]))
        thread.join()


@pytest.mark.parametrize("line", ["@revoked d ssh-ed25519 AAAA", "d* ssh-ed25519 AAAA", "|1|a=|b= ssh-rsa AAAA", "#"])
def test_a_file_of_host_keys_with_more_than_names_is_left_to_ssh(tmp_path: Path, line: str) -> None:
    path = tmp_path / "known_hosts"
    path.write_text("Device-1 ssh-ed25519 AAAA\ndevice-1 ssh-rsa BBBB\n")
    assert pinned(str(path)) == {"device-1": ("ssh-ed25519 AAAA", "ssh-rsa BBBB")}
    other = tmp_path / "other"
    other.write_text(path.read_text() + line + "\n")
    assert pinned(str(other)) == {}


def test_nothing_secret_is_in_what_is_shown_of_a_login() -> None:
    login = Login("d", 22, "root", PASSWORD, "the key", "the phrase", (), ())
    assert not any(secret in repr(login) for secret in (PASSWORD, "the key", "the phrase"))
