"""The network cable of a device: carries TCP from its address on the host to its SSH port.

The faults of the network are made here, as the kernel may have no netem.
"""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

BACKLOG = 128
CHUNK = 1 << 16  # bytes
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER with no time: close() sends RST


class Manner(StrEnum):
    """How the wire meets a connection."""

    CARRY = "carry"
    REFUSE = "refuse"
    BLACKHOLE = "blackhole"
    MUTE = "mute"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plug:
    """The device's end of the wire."""

    connect: Callable[[], Awaitable[socket.socket]]  # to its SSH port; OSError if that fails
    is_up: Callable[[], bool]
    went_deaf: Callable[[], None]  # told when its SSH server refused although the device is up


class Wire:
    """One address, bound for as long as the lab is up.

    The socket is bound once; then shutdown() and a second listen() switch it off and on.
    """

    def __init__(self, sock: socket.socket, plug: Plug) -> None:
        """Take a socket that is bound and does not listen."""
        self.manner = Manner.CARRY  # what is asked for
        self.latency = 0.0  # seconds, in each direction
        self.cut_after: float | None = None  # seconds
        self._sock = sock
        self._plug = plug
        self._now = Manner.REFUSE  # what the socket does
        self._carried: set[asyncio.Task[None]] = set()
        self._fillers: list[socket.socket] = []
        self._flow = asyncio.Event()  # clear: no byte passes

    def heal(self) -> None:
        """End all faults of the network."""
        self.manner, self.latency, self.cut_after = Manner.CARRY, 0.0, None
        self.update()

    def cut(self) -> None:
        """Reset all connections."""
        for task in self._carried:
            task.cancel()

    def update(self) -> None:
        """Make the socket do what the manner and the device's state ask for."""
        wanted = self.manner if self._plug.is_up() or self.manner is Manner.BLACKHOLE else Manner.REFUSE
        if wanted is self._now:
            return
        if self._now is not Manner.REFUSE:
            asyncio.get_running_loop().remove_reader(self._sock)
            self._sock.shutdown(socket.SHUT_RDWR)
        while self._fillers:
            self._fillers.pop().close()
        self._flow.set()
        if wanted is Manner.BLACKHOLE:
            self._flow.clear()
            self._swallow()
        elif wanted is not Manner.REFUSE:
            self._sock.listen(BACKLOG)
            asyncio.get_running_loop().add_reader(self._sock, self._accept)
        self._now = wanted

    def _swallow(self) -> None:
        """Fill the accept queue: the kernel then drops every SYN."""
        self._sock.listen(0)
        for _ in range(2):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(self._sock.getsockname())
            self._fillers.append(filler)

    def _accept(self) -> None:
        with suppress(BlockingIOError, ConnectionAbortedError):
            client = self._sock.accept()[0]
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = asyncio.ensure_future(self._carry(client))
            self._carried.add(task)
            task.add_done_callback(self._carried.discard)

    async def _carry(self, client: socket.socket) -> None:
        """Carry one connection to its end; the client sees a reset when that was not in order."""
        server: socket.socket | None = None
        try:
            if self._now is Manner.MUTE:
                await self._listen_for_ever(client)
                return
            server = await self._plug.connect()
            # not gather(): when one direction fails, the other must have ended before the sockets are closed
            async with asyncio.timeout(self.cut_after), asyncio.TaskGroup() as group:
                group.create_task(self._pump(client, server))
                group.create_task(self._pump(server, client))
        except (OSError, ExceptionGroup, asyncio.CancelledError) as error:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            if isinstance(error, ConnectionRefusedError) and self._plug.is_up():
                self._plug.went_deaf()
        finally:
            client.close()
            if server is not None:
                server.close()

    async def _listen_for_ever(self, client: socket.socket) -> None:
        """Say nothing until the client goes away."""
        while await asyncio.get_running_loop().sock_recv(client, CHUNK):
            pass

    async def _pump(self, source: socket.socket, target: socket.socket) -> None:
        """Carry one direction, until its end of file."""
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(source, CHUNK):
            if self.latency:
                await asyncio.sleep(self.latency)
            await self._flow.wait()
            await loop.sock_sendall(target, data)
        target.shutdown(socket.SHUT_WR)
