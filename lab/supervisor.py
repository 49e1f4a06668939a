"""The supervisor: PID 1 of the lab.  It makes the devices, carries their wires and answers questions."""

import asyncio
import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

# Not used here, but wanted later by what is: the folder of this interpreter may be out of reach for the lab's root.
import encodings.idna  # noqa: F401  isort: skip
import linecache  # noqa: F401  isort: skip

from lab.boot import ENVIRONMENT
from lab.control import SOCKET, Reply, Request, Verb
from lab.device import Device, Home
from lab.disk import Owner
from lab.exceptions import LabError
from lab.fault import Fault
from lab.fleet import Front, Kind, Plan, State
from lab.namespaces import STAGE

START_SECONDS = 120  # for all devices to answer
OPEN_FILES = 65_536  # a device needs some descriptors, a connection two
READY = b"!"


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """All that a supervisor needs; descriptors were opened outside."""

    plan: Plan
    images: Mapping[Kind, str]  # names of folders
    front: Front
    ready: int  # descriptor of a pipe: READY is written once all devices are up
    log: int  # descriptor


def run(start: Start) -> None:
    """Run the lab until it is asked to stop.  Call it contained, with the folders `lab` and `images`."""
    nothing = os.open("/dev/null", os.O_RDONLY)
    for source, target in ((nothing, 0), (start.log, 1), (start.log, 2)):
        os.dup2(source, target)
    os.umask(0o022)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    asyncio.run(Supervisor(start).serve())


class Supervisor:
    """The lab from inside."""

    def __init__(self, start: Start) -> None:
        """Take what was prepared outside."""
        self._start = start
        self._folder = STAGE / "lab"
        self._devices: dict[str, Device] = {}
        self._stop = asyncio.Event()
        self._started_seconds = 0.0

    async def serve(self) -> None:
        """Boot all devices, say so, and answer until asked to stop."""
        began = time.monotonic()
        self._make_devices()
        for device in self._devices.values():
            device.power_on()
            await asyncio.sleep(0)
        await self._all_up()
        self._started_seconds = round(time.monotonic() - began, 3)
        self._write_ansible_files()
        (self._folder / SOCKET).unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._answer, self._folder / SOCKET)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stop.set)
        os.write(self._start.ready, READY)
        os.close(self._start.ready)
        async with server:
            await self._stop.wait()
        os._exit(0)  # the kernel ends everything else

    def _make_devices(self) -> None:
        plan = self._start.plan
        home = Home(
            pid_namespace=os.open("/proc/self/ns/pid", os.O_RDONLY),
            images={kind: STAGE / "images" / name for kind, name in self._start.images.items()},
            owner=Owner(password_hash=_hashed(plan.password), user_key=plan.user_key),
        )
        for kind, name, _ in plan.members():
            sock = self._start.front.sockets[name]
            self._devices[name] = Device(kind=kind, name=name, sock=sock, home=home)

    async def _all_up(self) -> None:
        try:
            async with asyncio.timeout(START_SECONDS):
                for device in self._devices.values():
                    await device.booted()
        except TimeoutError:
            late = [name for name, device in self._devices.items() if device.state is not State.UP]
            raise LabError(f"not up after {START_SECONDS} s: {', '.join(late)}") from None

    def _write_ansible_files(self) -> None:
        """Write known_hosts and an inventory for trying things by hand."""
        infos = [device.info() for device in self._devices.values()]
        known = "".join(f"{_host(info.address, info.port)} {info.hostkey}\n" for info in infos)
        (self._folder / "known_hosts").write_text(known)
        lines: list[str] = []
        for kind in self._start.plan.counts():
            lines.append(f"[{kind}]")
            lines += [
                f"{info.name} ansible_host={info.address} ansible_port={info.port}"
                for info in infos
                if info.kind is kind
            ]
        directory = self._start.plan.directory
        lines += [
            "[all:vars]",
            "ansible_user=root",
            f"ansible_password={self._start.plan.password}",
            f"ansible_ssh_common_args='-o UserKnownHostsFile={directory}/known_hosts -o ControlPath=none'",
        ]
        (self._folder / "inventory.ini").write_text("\n".join(lines) + "\n")

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        try:
            request = Request.decode(await reader.readline())
            reply = await self._do(request)
        except Exception as error:  # noqa: BLE001  whatever it is, the one who asked must get it
            reply = Reply(error=str(error) if isinstance(error, LabError) else repr(error))
        try:
            writer.write(reply.encode())
            await writer.drain()
            writer.close()
        except ConnectionError:
            print("lab: one who asked did not wait for the answer", file=sys.stderr)

    async def _do(self, request: Request) -> Reply:
        """Do what is asked, and tell how the devices concerned are now."""
        chosen = self._choose(request.names)
        rc, output = 0, ""
        if request.verb is Verb.DOWN:
            asyncio.get_running_loop().call_soon(self._stop.set)
        elif request.verb is Verb.POWER:
            _set_power(chosen, *request.arguments)
        elif request.verb is Verb.FAULT:
            fault = Fault.parse(*request.arguments)
            for device in chosen:
                device.inflict(fault)
        elif request.verb is Verb.EXEC:
            if len(chosen) != 1:
                raise LabError("exec takes one device")
            rc, output = await _execute(chosen[0].enter(list(request.arguments)), request.seconds)
        infos = tuple(device.info() for device in chosen)
        return Reply(started_seconds=self._started_seconds, devices=infos, rc=rc, output=output)

    def _choose(self, names: tuple[str, ...]) -> list[Device]:
        unknown = [name for name in names if name not in self._devices]
        if unknown:
            raise LabError(f"no such device: {', '.join(unknown)}")
        return [self._devices[name] for name in names] or list(self._devices.values())


def _set_power(devices: list[Device], what: str = "") -> None:
    if what not in {"on", "off"}:
        raise LabError("power is on or off")
    for device in devices:
        if what == "on":
            device.power_on()
        else:
            device.power_off()


async def _execute(command: list[str], seconds: float) -> tuple[int, str]:
    """Run a command; return its exit status and its output."""
    process = await asyncio.create_subprocess_exec(
        *command, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(seconds):
            output = (await process.communicate())[0]
    except TimeoutError:
        process.kill()
        raise LabError(f"not done after {seconds:g} s") from None
    return process.returncode or 0, output.decode(errors="replace")


def _hashed(password: str) -> str:
    """Hash a password as for /etc/shadow (sha512crypt), with few rounds: the CPU is shared by all devices."""
    crypt = ctypes.CDLL("libcrypt.so.1").crypt
    crypt.restype = ctypes.c_char_p
    salt = f"$6$rounds=1000${os.urandom(6).hex()}"
    result: bytes = crypt(password.encode(), salt.encode())
    return result.decode()


def _host(address: str, port: int) -> str:
    """Write an address as in known_hosts."""
    return address if port == 22 else f"[{address}]:{port}"
