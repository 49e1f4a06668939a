"""ssh2-python (libssh2) in 20 threads of one process: about the limit of what any client can do."""

import base64
import json
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ssh2.session import LIBSSH2_METHOD_KEX, Session

THREADS = 20
TIMEOUT = 60_000  # milliseconds

TOLD = json.loads(Path(sys.argv[1]).read_text())
KEY = Path(TOLD["key"]).read_bytes()
KNOWN = {line.split()[0]: base64.b64decode(line.split()[2]) for line in Path(sys.argv[2]).read_text().splitlines()}


def one(device: dict[str, Any]) -> None:
    """Log in, check the host key, run the command."""
    connection = socket.create_connection((device["host"], device["port"]), TIMEOUT / 1000)
    connection.setblocking(False)  # a blocking one hangs in recv now and then
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    session = Session()
    session.set_timeout(TIMEOUT)
    session.method_pref(LIBSSH2_METHOD_KEX, b"curve25519-sha256")
    session.handshake(connection)
    where = device["host"] if device["port"] == 22 else f"[{device['host']}]:{device['port']}"
    if session.hostkey()[0] != KNOWN[where]:
        raise ValueError("another host key")
    session.userauth_publickey_frommemory(TOLD["user"], KEY, "", b"")
    channel = session.open_session()
    channel.execute(sys.argv[3])
    while channel.read()[0] > 0:
        pass
    channel.wait_eof()
    channel.close()
    channel.wait_closed()
    if channel.get_exit_status() == 0:
        print("ok", device["name"], flush=True)
    session.disconnect()
    connection.close()


def tried(device: dict[str, Any]) -> None:
    """The same, what goes wrong told."""
    try:
        one(device)
    except Exception as error:  # noqa: BLE001 - one device must not stop the others
        print(device["name"], repr(error), file=sys.stderr)


with ThreadPoolExecutor(THREADS) as pool:
    list(pool.map(tried, TOLD["devices"]))
