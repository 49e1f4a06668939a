"""A look at the devices past the service: ssh logins with a given password, and boot ids read on the device itself."""

import os
import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lab import Lab

AT_ONCE = 4  # logins
TIMEOUT = 30.0  # seconds, of one login
BOOT_ID = "/proc/sys/kernel/random/boot_id"
ASKPASS = '#!/bin/sh\nprintf "%s\\n" "$DEMO_PASSWORD"\n'
OPTIONS = {
    "StrictHostKeyChecking": "yes",
    "GlobalKnownHostsFile": "/dev/null",
    "PubkeyAuthentication": "no",
    "PreferredAuthentications": "password",
    "NumberOfPasswordPrompts": "1",
    "ConnectTimeout": "10",
    "LogLevel": "ERROR",
}


class Witness:
    """Trusts the lab's own word on host keys and nothing of the service's."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        """`directory` is for known_hosts and the program that answers ssh's question for the password."""
        self._lab = lab
        self._devices = lab.devices()
        self._known_hosts = directory / "known_hosts"
        lines = (f"[{device.address}]:{device.port} {device.hostkey}\n" for device in self._devices.values())
        self._known_hosts.write_text("".join(lines))
        self._askpass = directory / "askpass"
        self._askpass.write_text(ASKPASS)
        self._askpass.chmod(0o700)

    def logins(self, names: Iterable[str], password: str) -> dict[str, str]:
        """What each device says to this password: its own name after a login, else why there was none."""
        names = list(names)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return dict(zip(names, pool.map(lambda name: self._login(name, password), names), strict=True))

    def boot_ids(self) -> dict[str, str]:
        """The boot id of each device: another one after each boot."""
        return {name: self._lab.exec(name, "cat", BOOT_ID)[1].strip() for name in self._devices}

    def _login(self, name: str, password: str) -> str:
        device = self._devices[name]
        command = ["ssh", "-F", "none", "-p", str(device.port), "-l", "root"]
        for option, value in {**OPTIONS, "UserKnownHostsFile": self._known_hosts}.items():
            command += ["-o", f"{option}={value}"]
        environment = {
            **os.environ,
            "SSH_ASKPASS": str(self._askpass),
            "SSH_ASKPASS_REQUIRE": "force",
            "DEMO_PASSWORD": password,
        }
        environment.pop("SSH_AUTH_SOCK", None)
        done = subprocess.run(
            [*command, device.address, "hostname"],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        return (done.stdout if done.returncode == 0 else done.stderr).strip()
