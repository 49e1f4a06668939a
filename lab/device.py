"""One device: its power, its boots, its faults."""

import asyncio
import os
import signal
import socket
import subprocess
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lab.boot import ENVIRONMENT, Machine, become_init
from lab.disk import Disk, HostKey, Owner
from lab.exceptions import LabError
from lab.fault import Fault, FaultKind
from lab.fleet import DeviceInfo, Kind, State
from lab.namespaces import STAGE
from lab.recipe import HANG_SHELL, HOST_KEY, LOGIN_SHELL
from lab.wire import Manner, Plug, Wire

SSH_POLL = 0.03  # seconds between two looks whether SSH answers
SCRIPT_SECONDS = 10.0
ALL_OF_IT = ("-m", "-u", "-i", "-n", "-p", "-T", "-r", "-w")  # for nsenter: namespaces, root and folder
MANNERS = {
    FaultKind.REFUSE: Manner.REFUSE,
    FaultKind.BLACKHOLE: Manner.BLACKHOLE,
    FaultKind.MUTE: Manner.MUTE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """What the devices of a lab share."""

    pid_namespace: int  # file descriptor of the supervisor's own
    images: dict[Kind, Path]
    owner: Owner


class Device:
    """One device, as its supervisor sees it.  All methods are for the supervisor's event loop."""

    def __init__(self, *, kind: Kind, name: str, sock: socket.socket, home: Home) -> None:
        """Make the device's disk and keys; it has no power yet."""
        self.name = name
        self.kind = kind
        self.state = State.OFF
        self._home = home
        self._address, self._port = sock.getsockname()
        self._folder = STAGE / "lab/devices" / name
        self._disk = Disk(self._folder)
        self._pid = 0  # of its init; 0 without power
        self._pidfd = -1
        self._boots = 0
        self._boot_began = 0.0
        self._boot_seconds = 0.0
        self._power_cycle = False  # boot again when the init has ended, however it ended
        self._next_boot: asyncio.TimerHandle | None = None
        self._boot_script: list[str] = []  # lines for the next boot
        self._watch: asyncio.Task[None] | None = None
        self._faults: dict[FaultKind, Fault] = {}
        plug = Plug(connect=self._connect, is_up=lambda: self.state is State.UP, went_deaf=self._await_ssh)
        self._wire = Wire(sock, plug)
        (self._folder / "root").mkdir(parents=True)
        self._first_key = self._key = HostKey.new(kind, self._folder)
        self._key_changed = False
        self._disk.make(name=name, kind=kind, image=home.images[kind], owner=home.owner, hostkey=self._key)

    def info(self) -> DeviceInfo:
        """Tell what is known from outside."""
        return DeviceInfo(
            name=self.name,
            kind=self.kind,
            address=self._address,
            port=self._port,
            state=self.state,
            boots=self._boots,
            boot_seconds=round(self._boot_seconds, 3),
            hostkey=self._key.public,
            faults=tuple(str(fault) for fault in self._faults.values()),
        )

    async def booted(self) -> None:
        """Wait for the end of the boot that is under way, if any."""
        if self._watch is not None:
            await self._watch

    # power

    def power_on(self) -> None:
        """Boot, unless it runs."""
        if self._next_boot:
            self._next_boot.cancel()
            self._next_boot = None
        if not self._pid:
            self._boot()

    def power_off(self) -> None:
        """Take the power away, without any shutdown; a reboot that waits for its turn is off, too."""
        if self._next_boot:
            self._next_boot.cancel()
            self._next_boot = None
        self._power_cycle = False
        if self._pid:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        else:
            self.state = State.OFF

    def _restart(self) -> None:
        """Take the power away and give it back; only if it has power."""
        if self._pid:
            self._power_cycle = True
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _boot(self) -> None:
        """Fork PID 1 of a new PID and time namespace; that it became the device's init is seen as EOF on a pipe."""
        reader, writer = os.pipe()
        machine = self._machine()
        try:
            os.unshare(os.CLONE_NEWPID | os.CLONE_NEWTIME)  # both are for children only
            uptime = int(time.clock_gettime(time.CLOCK_BOOTTIME))
            Path("/proc/self/timens_offsets").write_text(f"boottime -{uptime} 0")
            self._pid = os.fork()
            if not self._pid:
                _run_init(machine, writer)
        finally:
            os.setns(self._home.pid_namespace, os.CLONE_NEWPID)
        os.close(writer)
        self._pidfd = os.pidfd_open(self._pid)
        with open(reader, "rb") as pipe:
            if error := pipe.read():
                raise RuntimeError(f"{self.name}: {error.decode()}")
        self._boots += 1
        self._boot_began = time.monotonic()
        asyncio.get_running_loop().add_reader(self._pidfd, self._ended)
        self._await_ssh()

    def _machine(self) -> Machine:
        """Say what to boot from, with what was asked to be done at the next boot."""
        files: dict[str, bytes] = {}
        if self._key_changed:
            target = HOST_KEY[self.kind]
            files["host_key"] = self._key.private
            self._boot_script.append(f"cat /run/lab/host_key > /{target}; chmod 600 /{target}")
        if self._boot_script:
            files["boot"] = "".join(f"{line}\n" for line in self._boot_script).encode()
        self._boot_script, self._key_changed = [], False
        return Machine(name=self.name, image=self._home.images[self.kind], folder=self._folder, boot_files=files)

    def _ended(self) -> None:
        """Notice the end of the init: reboot(2) ends it with SIGHUP to restart and with SIGINT to halt."""
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        rebooted = os.WTERMSIG(os.waitpid(self._pid, 0)[1]) == signal.SIGHUP
        self._pid = 0
        if self._power_cycle:
            self._power_cycle = False
            self._boot_after(0.0)
        elif rebooted and FaultKind.NORETURN in self._faults:
            self.state = State.LOST
        elif rebooted:
            delay = self._faults.get(FaultKind.BOOTDELAY)
            self._boot_after(delay.seconds or 0.0 if delay else 0.0)
        else:
            self.state = State.OFF
        self._wire.update()

    def _boot_after(self, seconds: float) -> None:
        self.state = State.REBOOTING
        self._next_boot = asyncio.get_running_loop().call_later(seconds, self.power_on)

    # SSH

    async def _connect(self) -> socket.socket:
        """Connect to the SSH port inside.

        setns() moves one thread only, and a socket stays in the network namespace where it was made.
        """
        made: list[socket.socket] = []

        def make() -> None:
            with suppress(OSError):
                os.setns(self._pidfd, os.CLONE_NEWNET)
                made.append(socket.socket())

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        if not made:
            raise ConnectionRefusedError
        sock = made[0]
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", 22))
        except BaseException:
            sock.close()
            raise
        return sock

    def _await_ssh(self) -> None:
        """Be booting until SSH answers."""
        self.state = State.BOOTING
        self._wire.update()
        self._watch = asyncio.ensure_future(self._watch_ssh(self._boots))

    async def _watch_ssh(self, boot: int) -> None:
        while self._pid and self._boots == boot:
            with suppress(OSError):
                (await self._connect()).close()
                if self._boots == boot and self.state is State.BOOTING:
                    self.state = State.UP
                    self._boot_seconds = time.monotonic() - self._boot_began
                    self._wire.update()
                return
            await asyncio.sleep(SSH_POLL)

    # commands past SSH

    def enter(self, argv: list[str]) -> list[str]:
        """Give the command line that runs `argv` inside the device.

        Raises:
            LabError: it has no power.
        """
        if not self._pid:
            raise LabError(f"{self.name} has no power")
        return ["nsenter", f"--target={self._pid}", *ALL_OF_IT, "--", *argv]

    def _run_script(self, line: str) -> None:
        """Run a line of shell inside the device: now, or at its next boot if it has no power."""
        if not self._pid:
            self._boot_script.append(line)
            return
        command = self.enter(["/bin/sh", "-c", line])
        done = subprocess.run(
            command, env=ENVIRONMENT, capture_output=True, text=True, timeout=SCRIPT_SECONDS, check=False
        )
        if done.returncode:
            raise LabError(f"{self.name}: {done.stderr.strip()}")

    # faults

    def inflict(self, fault: Fault) -> None:
        """Make the fault."""
        if fault.kind is FaultKind.NONE:
            self._heal()
            return
        if fault.kind in MANNERS:
            for other in MANNERS:
                self._faults.pop(other, None)
            self._wire.manner = MANNERS[fault.kind]
        elif fault.kind is FaultKind.SLOW:
            self._wire.latency = fault.seconds or 0.0
        elif fault.kind is FaultKind.CUT:
            self._wire.cut_after = fault.seconds
            self._wire.cut()
        elif fault.kind is FaultKind.HOSTKEY:
            self._set_key(HostKey.new(self.kind, self._folder))
        elif fault.kind is FaultKind.DISKFULL:
            self._disk.fill()
        elif fault.kind is FaultKind.HANG:
            self._set_shell(HANG_SHELL)
        if fault == Fault(FaultKind.CUT):  # that one is over at once
            self._faults.pop(FaultKind.CUT, None)
        else:
            self._faults[fault.kind] = fault
        self._wire.update()

    def _heal(self) -> None:
        self._disk.free()
        if FaultKind.HANG in self._faults:
            self._set_shell(LOGIN_SHELL[self.kind])
        if self._key != self._first_key:
            self._set_key(self._first_key)
        self._faults.clear()
        self._wire.heal()

    def _set_key(self, key: HostKey) -> None:
        """Change the host key; an SSH server reads it when it starts."""
        self._key, self._key_changed = key, True
        self._restart()

    def _set_shell(self, shell: str) -> None:
        """Change the login shell of those who can log in."""
        self._run_script(f"sed -i -E 's#^((root|operator):.*:)[^:]*$#\\1{shell}#' /etc/passwd")


def _run_init(machine: Machine, writer: int) -> None:
    """In the child: become the device's init, or say on the pipe why not, and end."""
    try:
        become_init(machine)
    except BaseException:  # noqa: BLE001  a forked child must never return into its parent's code
        os.write(writer, traceback.format_exc().encode())
    finally:
        os._exit(97)
