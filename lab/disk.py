"""A device's disk: what differs from the image.  A small tmpfs that outlives the device's reboots."""

import os
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lab.fleet import Kind
from lab.namespaces import NODEV, NOSUID, mount
from lab.recipe import AUTHORIZED_KEYS, HOST_KEY, program, write_files

SIZE = {Kind.OPENWRT: "8m", Kind.LINUX: "64m"}
BLOCK = bytes(1 << 16)


@dataclass(frozen=True, slots=True)
class HostKey:
    """An SSH host key of a device."""

    private: bytes  # in the format of the device's SSH server
    public: str  # as in known_hosts: "ssh-ed25519 AAAA…"

    @classmethod
    def new(cls, kind: Kind, folder: Path) -> "HostKey":
        """Make a key; `folder` is for the moment in which it is a file."""
        path = folder / "hostkey"
        path.unlink(missing_ok=True)
        command: list[str | Path]
        if kind is Kind.OPENWRT:
            command = [program("dropbearkey"), "-t", "ed25519", "-f", path]
        else:
            command = [program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", path]
        text = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
        if kind is Kind.LINUX:
            text = path.with_suffix(".pub").read_text()
            path.with_suffix(".pub").unlink()
        line = next(line for line in text.splitlines() if line.startswith("ssh-ed25519 "))
        key = cls(path.read_bytes(), " ".join(line.split()[:2]))
        path.unlink()
        return key


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Who may log in to the devices of a lab."""

    password_hash: str  # as in /etc/shadow
    user_key: str | None  # a line for root's authorized_keys


class Disk:
    """The disk of one device."""

    def __init__(self, folder: Path) -> None:
        """Name the place; nothing is done yet."""
        self._folder = folder / "disk"
        self._fill = self._folder / "fill"

    def make(self, *, name: str, kind: Kind, image: Path, owner: Owner, hostkey: HostKey) -> None:
        """Mount the disk, and write what makes a device of an image: its name, its passwords and keys."""
        self._folder.mkdir(parents=True)
        mount("disk", self._folder, "tmpfs", NOSUID | NODEV, f"size={SIZE[kind]},mode=755")
        (self._folder / "work").mkdir()
        upper = self._folder / "upper"
        files = {
            "etc/hostname": f"{name}\n",
            "etc/hosts": f"127.0.0.1 localhost {name}\n",
            "etc/shadow": _with_password((image / "etc/shadow").read_text(), owner.password_hash),
        }
        if owner.user_key:
            files[AUTHORIZED_KEYS[kind]] = owner.user_key.strip() + "\n"
        write_files(upper, files)
        for folder in (upper / "root", upper / "root/.ssh"):
            with suppress(FileNotFoundError):
                folder.chmod(0o700)  # in an overlay the upper folder's mode counts
        key = upper / HOST_KEY[kind]
        key.parent.mkdir(exist_ok=True)
        key.write_bytes(hostkey.private)
        key.chmod(0o600)

    def fill(self) -> None:
        """Use up the free space."""
        with suppress(OSError), self._fill.open("ab", 0) as file:
            while file.write(BLOCK) == len(BLOCK):
                pass
        with suppress(OSError), self._fill.open("ab", 0) as file:  # the rest of a page
            while file.write(b"\0"):
                pass

    def free(self) -> None:
        """Give the space back that fill() used up."""
        self._fill.unlink(missing_ok=True)

    def is_full(self) -> bool:
        """Tell whether fill() is in effect."""
        return os.path.lexists(self._fill)


def _with_password(shadow: str, password_hash: str) -> str:
    """Give root and operator this password."""
    rows = []
    for row in shadow.splitlines():
        name = row.partition(":")[0]
        rows.append(f"{name}:{password_hash}:19000:0:99999:7:::" if name in {"root", "operator"} else row)
    return "\n".join(rows) + "\n"
