"""asyncssh, one process, 100 connections at once: what a bare client in Python can do."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import asyncssh

AT_ONCE = 100


async def main() -> None:
    """`devices.json known_hosts command`."""
    told = json.loads(Path(sys.argv[1]).read_text())  # noqa: ASYNC240 - nothing else is to be done yet
    known = asyncssh.read_known_hosts(sys.argv[2])  # once, and not for each connection
    options = asyncssh.SSHClientConnectionOptions(
        username=told["user"], client_keys=[asyncssh.read_private_key(told["key"])], known_hosts=known,
        agent_path=None, config=None, kex_algs=["curve25519-sha256"],
        encryption_algs=["aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes128-ctr"],
        compression_algs=None, connect_timeout=60, login_timeout=60,
    )  # fmt: skip
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(device: dict[str, Any]) -> None:
        async with gate, asyncssh.connect(device["host"], device["port"], options=options) as connection:
            done = await connection.run(sys.argv[3])
        if done.exit_status == 0:
            print("ok", device["name"], flush=True)

    for reply in await asyncio.gather(*map(one, told["devices"]), return_exceptions=True):
        if isinstance(reply, BaseException):
            print(reply, file=sys.stderr)


asyncio.run(main())
