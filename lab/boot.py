"""From a forked process to the init of a device: its file systems, its name, its root."""

import os
import signal
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lab.namespaces import BIND, NODEV, NOEXEC, NOSUID, RDONLY, REC, REMOUNT, bind, die_with_parent, mount, pivot_root

NODES = ("null", "zero", "full", "random", "urandom", "tty")
LINKS = {"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
TMPFS = {"dev": "mode=755,size=64k", "run": "mode=755,size=4m", "tmp": "mode=1777,size=16m"}
BOOT_FOLDER = "run/lab"
ENVIRONMENT = {  # of all that is started inside, and nothing of ours
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "TERM": "linux",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a device boots from."""

    name: str
    image: Path
    folder: Path  # holds root/, disk/ and the file console
    boot_files: Mapping[str, bytes] = field(default_factory=dict)  # for BOOT_FOLDER; `boot` is run as a script


def become_init(machine: Machine) -> None:
    """Turn this process into the device's init; returns only by an exception.

    The process is PID 1 of a PID namespace made for it, and alone in it.
    """
    if os.getpid() != 1:
        raise RuntimeError("not PID 1: a reboot would not be the device's own")
    die_with_parent()
    os.setsid()
    os.unshare(os.CLONE_NEWNS | os.CLONE_NEWUTS | os.CLONE_NEWIPC | os.CLONE_NEWNET)
    root = machine.folder / "root"
    _mount_root(machine, root)
    _fill_dev(root / "dev")
    _guard_proc(root)
    boot_folder = root / BOOT_FOLDER
    boot_folder.mkdir(mode=0o700)
    for name, content in machine.boot_files.items():
        (boot_folder / name).write_bytes(content)
    socket.sethostname(machine.name)
    console = os.open(machine.folder / "console", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    pivot_root(root)
    nothing = os.open("/dev/null", os.O_RDONLY)
    for source, target in ((nothing, 0), (console, 1), (console, 2)):
        os.dup2(source, target)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)  # Python ignores these, and exec would pass that on
    os.execve("/sbin/init", ["init"], ENVIRONMENT)  # noqa: S606


def _mount_root(machine: Machine, root: Path) -> None:
    """Put the device's disk over the image, and the kernel's file systems into it."""
    disk = machine.folder / "disk"
    layers = f"lowerdir={machine.image},upperdir={disk}/upper,workdir={disk}/work,userxattr"
    mount("overlay", root, "overlay", 0, layers)
    mount("proc", root / "proc", "proc", NOSUID | NODEV | NOEXEC)
    mount("sysfs", root / "sys", "sysfs", RDONLY | NOSUID | NODEV | NOEXEC)
    for name, options in TMPFS.items():
        mount(name, root / name, "tmpfs", NOSUID, options)


def _fill_dev(dev: Path) -> None:
    """Fill /dev with the host's harmless nodes, and terminals of its own."""
    for name in NODES:
        (dev / name).touch()
        bind(f"/dev/{name}", dev / name)
        # read-only: still writable as a device, but its mode and owner are the host's
        mount("", dev / name, "", BIND | REMOUNT | RDONLY | NOSUID | NOEXEC)
    (dev / "pts").mkdir()
    (dev / "shm").mkdir()
    (dev / "shm").chmod(0o1777)
    mount("devpts", dev / "pts", "devpts", NOSUID | NOEXEC, "newinstance,ptmxmode=0666,mode=620,gid=5")
    for name, target in LINKS.items():
        (dev / name).symlink_to(target)


def _guard_proc(root: Path) -> None:
    """Give the device a boot id of its own, and keep it from the host's sysctls, of which most have no namespace."""
    sysctl = root / "proc/sys"
    boot_id = root / "run/boot_id"
    boot_id.write_text(f"{uuid.uuid4()}\n")
    bind(boot_id, sysctl / "kernel/random/boot_id")
    mount(sysctl, sysctl, "", BIND | REC)
    mount("", sysctl, "", BIND | REMOUNT | RDONLY | NOSUID | NODEV | NOEXEC)
