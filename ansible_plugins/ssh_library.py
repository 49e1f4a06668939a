"""One connection inside of this process, and what became of the command: asyncssh, on a loop in a thread of its own.

It says what ssh_process.py would say, for a tenth of the CPU.  Where it can't be sure to, before anything was begun on
the device, it raises Unsure, and ssh is asked: an algorithm that it doesn't have, a key that it can't read, an error
that isn't known here.  What comes after the login is never tried again.

Imports nothing of Ansible.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, cast

import asyncssh

from ansible_plugins.session import ALIVE_MOST, ALIVE_SECONDS, POLL_STOP, Capture, GaveUp, Heard, Limits

# As OpenSSH offers them; the cheap ones first, see orchestrator/runner.py.
KEY_EXCHANGES = (
    "mlkem768x25519-sha256", "curve25519-sha256", "curve25519-sha256@libssh.org", "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384", "ecdh-sha2-nistp521", "diffie-hellman-group-exchange-sha256",
    "diffie-hellman-group16-sha512", "diffie-hellman-group18-sha512", "diffie-hellman-group14-sha256",
)  # fmt: skip
CIPHERS = (
    "aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr",
    "aes256-gcm@openssh.com",
)  # fmt: skip
MACS = (
    "hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha1-etm@openssh.com", "hmac-sha2-256",
    "hmac-sha2-512", "hmac-sha1",
)  # fmt: skip
SIGNATURES = (
    "ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "rsa-sha2-512", "rsa-sha2-256",
)  # fmt: skip
PROOFS = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}  # for the kinds of keys with which they are not named alike
NO, YES = b"\0", b"\1"  # of a message
HUNG_UP = (ConnectionResetError, BrokenPipeError)
LOGGING = ((asyncssh.logging.SSHLogger, "log"), (asyncssh.packet.SSHPacketLogger, "_log_packet"))
WITHOUT_END = 255  # the status of ssh itself, when the command has none
PLAIN_NAME = re.compile(r"[0-9A-Za-z._-]+")


class Unsure(Exception):
    """Nothing was begun on the device, and what is to be told of it only ssh can say."""


@dataclass(frozen=True, slots=True)
class Login:
    """Where to, and as whom.  `repr` shows no secret."""

    address: str
    port: int
    user: str
    password: str = field(repr=False)
    private_key: str = field(repr=False)
    passphrase: str = field(repr=False)
    host_keys: tuple[str, ...]  # "type base64" of each that is believed
    algorithms: tuple[str, ...]  # with which the device may prove that it holds one of them


@dataclass(frozen=True, slots=True)
class Conversation:
    """What became of a connection."""

    rc: int
    heard: Heard
    gave_up: GaveUp
    seconds: float  # the limit of ours that was passed; else how long it took


@functools.cache
def pinned(known_hosts: str) -> dict[str, tuple[str, ...]]:
    """Host name → its keys, of a file of host keys; none when it has anything but plain names and keys.

    Raises OSError.
    """
    found: dict[str, tuple[str, ...]] = {}
    with open(known_hosts, encoding="utf-8") as file:
        for line in file:
            name, *key = line.split()
            if len(key) != 2 or not PLAIN_NAME.fullmatch(name):  # a marker, a pattern, a comment
                return {}
            found[name.lower()] = (*found.get(name.lower(), ()), " ".join(key))
    return found


class _Limit(Exception):
    """A limit of ours has passed, or the device was cancelled."""

    def __init__(self, gave_up: GaveUp, seconds: float) -> None:
        super().__init__(gave_up)
        self.gave_up, self.seconds = gave_up, seconds


class _Client(asyncssh.SSHClient):
    """Answers what a device asks with the password, once, as ssh does with NumberOfPasswordPrompts=1."""

    def __init__(self, password: str) -> None:
        self._password = password
        self._connection: Any = None

    def connection_made(self, conn: Any) -> None:
        self._connection = conn

    @property
    def agreed(self) -> bool:
        """Whether both sides found algorithms in common."""
        return bool(self._connection and self._connection.get_extra_info("recv_cipher"))

    @property
    def server(self) -> str:
        """The device's SSH software."""
        told = self._connection.get_extra_info("server_version", "") if self._connection else ""
        return str(told).removeprefix("SSH-2.0-").split(" ")[0]

    def kbdint_auth_requested(self) -> str | None:
        if not self._password:
            return None
        self._answer, self._password = self._password, ""
        return ""

    def kbdint_challenge_received(
        self, name: str, instructions: str, lang: str, prompts: Sequence[tuple[str, bool]]
    ) -> list[str]:
        return [self._answer] * len(prompts)


class _Connection(asyncssh.SSHClientConnection):
    """Proves at once that it holds the key, and does not ask before whether that one would do (RFC 4252, 7).

    To ask costs a device as much as to believe: it looks the key up among those of the account both times.
    """

    async def send_userauth_request(self, method: bytes, *args: bytes, key: Any = None, trivial: bool = True) -> None:
        if method == b"publickey" and args[0] == NO:
            args, key, trivial = (YES, *args[1:]), cast("Any", self._auth)._keypair, False
        await super().send_userauth_request(method, *args, key=key, trivial=trivial)


class _Command(asyncssh.SSHClientSession[bytes]):
    """What comes from the command."""

    def __init__(self, outputs: tuple[Capture, Capture]) -> None:
        self.stdout, self.stderr = outputs
        self.last, self.rc, self.heard_end = time.monotonic(), WITHOUT_END, ""
        self.closed = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self.last = time.monotonic()
        (self.stdout if datatype is None else self.stderr).feed(data)

    def exit_status_received(self, status: int) -> None:
        self.rc, self.heard_end, self.last = status, "exit", time.monotonic()

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        self.heard_end = "signal"

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(exc)


async def converse(
    login: Login, command: str, in_data: bytes, outputs: tuple[Capture, Capture], limits: Limits
) -> Conversation:
    """Log in, run a command line once, hear it out.

    Raises Unsure, and then nothing was begun on the device.
    """
    begin = time.monotonic()
    connection = None
    try:
        options, client = _options(login, command), _Client(login.password)
        options.protocol_factory = lambda: client
        connecting = asyncio.ensure_future(_connect(login, options))
        try:
            connection = await _within(connecting, limits.connect, "timeout", lambda: limits.end_early(False, 0.0))
        except _Limit as limit:
            heard = Heard(server=client.server)
            return Conversation(WITHOUT_END, heard, limit.gave_up, limit.seconds or time.monotonic() - begin)
        except Exception as error:  # noqa: BLE001  # whatever it is, nothing was begun, and ssh can say more
            heard = _refusal(login, error, client)
            return Conversation(WITHOUT_END, heard, "", time.monotonic() - begin)
        done = await _command(connection, command, in_data, outputs, limits)
        return replace(done, heard=replace(done.heard, server=client.server))
    finally:
        if connection:
            connection.close()


async def _connect(login: Login, options: Any) -> Any:
    """Like asyncssh.connect, which evaluates all options anew for each connection, in another thread."""
    loop = asyncio.get_running_loop()
    options.waiter = loop.create_future()
    connection = None
    try:
        _, connection = await loop.create_connection(
            lambda: _Connection(loop, options, wait="auth"), login.address, login.port
        )
        await options.waiter
    except BaseException:
        if connection:
            connection.abort()
        raise
    return connection


async def _command(
    connection: Any, command: str, in_data: bytes, outputs: tuple[Capture, Capture], limits: Limits
) -> Conversation:
    """From the login to the end of the command."""
    begin = time.monotonic()
    session, detail = _Command(outputs), ""
    gave_up: GaveUp = ""
    seconds = 0.0
    try:
        early = lambda: limits.end_early(session.heard_end == "exit", time.monotonic() - session.last)  # noqa: E731
        run = asyncio.ensure_future(_run(connection, session, command, in_data))
        detail = await _within(run, limits.execution, "execution_timeout", early)
    except _Limit as limit:
        gave_up, seconds = limit.gave_up, limit.seconds
    except Exception as error:  # noqa: BLE001  # the command was begun, and its end is not known
        detail = str(error)
    ended: Any = session.heard_end
    heard = Heard(logged_in=True, ended=ended, detail=detail[:300])
    return Conversation(session.rc, heard, gave_up, seconds or time.monotonic() - begin)


async def _run(connection: Any, session: _Command, command: str, in_data: bytes) -> str:
    """What the connection's end was, if it was not the command's."""
    channel, _ = await connection.create_session(lambda: session, command, encoding=None)
    with contextlib.suppress(OSError):  # the command has ended before it read anything
        if in_data:
            channel.write(in_data)
        channel.write_eof()
    error = await session.closed
    return str(error or "")


async def _within[Answer](
    work: asyncio.Task[Answer], seconds: float, gave_up: GaveUp, early: Callable[[], tuple[GaveUp, float] | None]
) -> Answer:
    """Wait for it, up to so many seconds; look every now and then why to end before.  Raises _Limit."""
    deadline = time.monotonic() + seconds
    try:
        while (left := deadline - time.monotonic()) > 0:
            done, _ = await asyncio.wait({work}, timeout=min(left, POLL_STOP))
            if done:
                return work.result()
            if why := early():
                raise _Limit(*why)
        raise _Limit(gave_up, seconds)
    finally:
        if not work.done():
            work.cancel()
            await asyncio.wait({work})


def _options(login: Login, command: str) -> Any:
    """Raises Unsure where ssh may know better."""
    try:
        command.encode()
        options = copy.copy(_common())
        options.client_keys = (
            asyncssh.load_keypairs(_key(login.private_key, login.passphrase)) if login.private_key else []
        )
        trusted = [asyncssh.import_public_key(key) for key in login.host_keys]
    except (ValueError, asyncssh.Error) as error:  # UnicodeEncodeError is a ValueError
        raise Unsure(str(error)) from error
    options.host, options.port, options.username = login.address, login.port, login.user
    options.password = login.password or None
    options.known_hosts = trusted, [], []
    kinds = [name for key in login.host_keys for name in PROOFS.get(key.split()[0], (key.split()[0],))]
    options.server_host_key_algs = list(login.algorithms or dict.fromkeys(kinds))
    methods = ["publickey"] if login.private_key else []
    methods += ["password", "keyboard-interactive"] if login.password else []
    options.preferred_auth = methods or ["publickey"]
    return options


@functools.cache
def _common() -> Any:
    return asyncssh.SSHClientConnectionOptions(
        config=None, known_hosts=([], [], []), username="nobody", client_keys=[], agent_path=None, gss_host=None,
        x509_trusted_certs=None, x509_trusted_cert_paths=[], kex_algs=KEY_EXCHANGES, encryption_algs=CIPHERS,
        mac_algs=MACS, compression_algs=["none"], signature_algs=SIGNATURES, host_based_auth=False,
        login_timeout=0, keepalive_interval=ALIVE_SECONDS, keepalive_count_max=ALIVE_MOST,
    )  # fmt: skip


@functools.cache
def _key(text: str, passphrase: str) -> Any:
    """Once for all devices that have it: a passphrase costs a tenth of a second."""
    return asyncssh.import_private_key(text, passphrase or None)


def _refusal(login: Login, error: Exception, client: _Client) -> Heard:
    """In ssh's words.  Raises Unsure for what has none here.

    A device that hangs up before both sides agreed may have found nothing in common, and ssh knows more algorithms.
    """
    words = detail = ""
    if isinstance(error, socket.gaierror):
        words = f"ssh: Could not resolve hostname {login.address}: {error.strerror}"
    elif isinstance(error, OSError) and error.errno and not isinstance(error, HUNG_UP):
        words = f"ssh: connect to host {login.address} port {login.port}: {os.strerror(error.errno)}"
    elif isinstance(error, asyncssh.HostKeyNotVerifiable):
        words = "Host key verification failed."
    elif isinstance(error, asyncssh.PermissionDenied):
        words = f"{login.user}@{login.address}: Permission denied (by the device)."
        detail = f"{login.user}@{login.address}: Permission denied."
    elif isinstance(error, (asyncssh.ConnectionLost, *HUNG_UP)) and client.agreed:
        words = f"Connection closed by {login.address} port {login.port}"
    elif "Too many authentication failures" in str(error):  # to ask once more would be one more of them
        words = str(error)
    else:
        raise Unsure(str(error)) from error
    return Heard(words=words, detail=(detail or words)[:300], server=client.server)


def _write_nothing(*_: Any, **__: Any) -> None:
    """What happens to a connection is its caller's to tell."""


class _Thread:
    """A loop that serves the connections of this process."""

    def __init__(self) -> None:
        logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)
        for place, name in LOGGING:  # each packet's line is made before it is asked whether anybody wants it
            setattr(place, name, _write_nothing)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="ssh", daemon=True).start()

    def submit[Answer](self, work: Coroutine[Any, Any, Answer]) -> Future[Answer]:
        """Begin it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)


_threads: dict[int, _Thread] = {}  # pid → its own: a fork has the memory of a thread, and not the thread


def begin(
    login: Login, command: str, in_data: bytes, outputs: tuple[Capture, Capture], limits: Limits
) -> Future[Conversation]:
    """Let the thread converse."""
    thread = _threads.get(os.getpid()) or _threads.setdefault(os.getpid(), _Thread())
    return thread.submit(converse(login, command, in_data, outputs, limits))
