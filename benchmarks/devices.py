"""Devices to measure on: one real OpenSSH server that answers on as many loopback addresses as wanted.

It runs in the lab's Linux image, within the network and mount namespaces of this process (see __main__.py): it can
be reached from nowhere else, and nothing is installed or left behind.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lab.fleet import Kind, default_images
from lab.image import ensure
from orchestrator.supervisor import die_with_parent

PORT: Final = 22
START_SECONDS: Final = 10.0
CONFIGURATION: Final = f"""\
ListenAddress 0.0.0.0
Port {PORT}
HostKey /etc/ssh/bench/host
AuthorizedKeysFile /etc/ssh/bench/authorized
StrictModes no
UsePAM no
UseDNS no
PrintMotd no
PrintLastLog no
LogLevel QUIET
MaxStartups 10000
PermitRootLogin yes
PidFile none
Subsystem sftp internal-sftp
"""


@dataclass(frozen=True)
class Device:
    """Where a device is logged in to, as root."""

    name: str
    host: str
    port: int
    host_key: str
    platform: str


@dataclass(frozen=True)
class Fleet:
    """Devices that take one key."""

    title: str
    devices: Sequence[Device]
    key: Path
    server: int | None = None  # the process whose CPU, with that of its children, is the devices'

    def first(self, count: int) -> "Fleet":
        """The same with fewer devices."""
        return Fleet(self.title, self.devices[:count], self.key, self.server)

    def write(self, folder: Path) -> "Files":
        """What clients read."""
        files = Files(folder / "devices.json", folder / "hosts.ini", folder / "known_hosts", self.key)
        rows = [{"name": d.name, "host": d.host, "port": d.port} for d in self.devices]
        files.devices.write_text(json.dumps({"devices": rows, "key": str(self.key), "user": "root"}))
        files.inventory.write_text(
            "".join(
                f"{d.name} ansible_host={d.host} ansible_port={d.port} orchestrator_platform={d.platform}\n"
                for d in self.devices
            )
            + f"[all:vars]\nansible_user=root\nansible_ssh_private_key_file={self.key}\n"
        )
        files.known_hosts.write_text(
            "".join(f"{d.host if d.port == PORT else f'[{d.host}]:{d.port}'} {d.host_key}\n" for d in self.devices)
        )
        return files


@dataclass(frozen=True)
class Files:
    """What clients read, in files."""

    devices: Path
    inventory: Path
    known_hosts: Path
    key: Path


@contextlib.contextmanager
def openssh(count: int) -> Iterator[Fleet]:
    """`count` devices, 127.1.x.y, behind one OpenSSH server."""
    images = default_images()
    image = images / ensure([Kind.LINUX], images)[Kind.LINUX]
    with tempfile.TemporaryDirectory(prefix="orchestrator-bench-") as name:
        folder = Path(name)
        _run("mount", "-t", "tmpfs", "tmpfs", folder)
        root, settings = folder / "root", folder / "root/etc/ssh/bench"
        for path in (folder / "upper", folder / "work", root):
            path.mkdir()
        layers = f"lowerdir={image},upperdir={folder}/upper,workdir={folder}/work"
        _run("mount", "-t", "overlay", "-o", layers, "overlay", root)
        _run("mount", "--rbind", "/dev", root / "dev")
        _run("mount", "-t", "proc", "proc", root / "proc")
        settings.mkdir()
        (root / "run/sshd").mkdir(mode=0o755, exist_ok=True)
        for key in (settings / "host", folder / "key"):
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
        (settings / "authorized").write_text((folder / "key.pub").read_text())
        (settings / "configuration").write_text(CONFIGURATION)
        passwd = root / "etc/passwd"  # bash would read .bashrc for each command
        passwd.write_text(passwd.read_text().replace("root:/root:/bin/bash", "root:/root:/bin/sh"))
        parent = os.getpid()
        server = subprocess.Popen(
            ["chroot", root, "/usr/sbin/sshd", "-D", "-e", "-f", "/etc/ssh/bench/configuration"],
            preexec_fn=lambda: die_with_parent(parent, signal.SIGTERM),  # noqa: PLW1509 - no thread runs yet
        )
        host_key = " ".join((settings / "host.pub").read_text().split()[:2])
        try:
            devices = [
                Device(f"d{n:05}", f"127.1.{n // 250}.{n % 250 + 1}", PORT, host_key, "linux") for n in range(count)
            ]
            _await(devices[0].host)
            yield Fleet("OpenSSH", devices, folder / "key", server.pid)
        finally:
            server.terminate()
            server.wait()
            _run("umount", "-l", folder)


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True)


def _await(host: str) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection((host, PORT), 1.0).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
