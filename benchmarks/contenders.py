"""Who is measured, and with which settings."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.devices import Files, Fleet
from benchmarks.measurement import Measurement, measure

PROJECT: Final = Path(__file__).resolve().parent.parent
CLIENTS: Final = PROJECT / "benchmarks" / "clients"
PYTHON: Final = PROJECT / ".venv-bench" / "bin" / "python"  # has the libraries that are compared, and not ours
OURS: Final = Path(sys.executable).parent
EVERYBODY: Final = 1_000_000  # more devices than anybody measures
COMMAND: Final = "true"
TUNED: Final = "-o KexAlgorithms=^curve25519-sha256 -o ControlMaster=no -o Compression=no"


@dataclass(frozen=True)
class Program:
    """A program that is started anew for each go."""

    name: str
    about: str
    command: Callable[[Files, Path], Sequence[str | Path]]
    result: str
    environment: Mapping[str, str] | None = None
    most: int = EVERYBODY  # devices; of slow ones a part tells the rate
    platforms: tuple[str, ...] = ("OpenSSH", "OpenWrt")

    def go(self, fleet: Fleet, folder: Path, spared: Sequence[int]) -> Measurement:
        """Run it once over the fleet."""
        folder.mkdir(parents=True)
        files = fleet.write(folder)
        environment = {
            "PATH": f"{OURS}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(folder),
            "LC_ALL": "C.UTF-8", "ANSIBLE_HOME": str(folder / "ansible"), "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(folder / "cp"),
            # the least that is needed for a device to be known; settings beyond that are the contender's
            "ANSIBLE_SSH_COMMON_ARGS": f"-o UserKnownHostsFile={files.known_hosts} -o StrictHostKeyChecking=yes",
        }  # fmt: skip
        return measure(
            self.command(files, folder), devices=len(fleet.devices), result=self.result, folder=folder,
            environment=environment | dict(self.environment or {}), server=fleet.server, spared=spared,
        )  # fmt: skip


def _library(script: str) -> Callable[[Files, Path], Sequence[str | Path]]:
    return lambda files, _: [PYTHON, CLIENTS / script, files.devices, files.known_hosts, COMMAND]


def _pyinfra(files: Files, folder: Path) -> Sequence[str | Path]:
    told = json.loads(files.devices.read_text())
    common = {
        "ssh_user": told["user"], "ssh_key": told["key"], "ssh_known_hosts_file": str(files.known_hosts),
        "ssh_strict_host_key_checking": "yes",
    }  # fmt: skip
    hosts: list[Any] = [
        (each["name"], {**common, "ssh_hostname": each["host"], "ssh_port": each["port"]}) for each in told["devices"]
    ]
    inventory = folder / "pyinfra_inventory.py"
    inventory.write_text(f"hosts = {hosts!r}\n")
    return [PYTHON.parent / "pyinfra", "-y", "--parallel", "50", inventory, "exec", "--", COMMAND]


def _xargs(options: str) -> Callable[[Files, Path], Sequence[str | Path]]:
    """The OpenSSH client alone, 16 at once."""

    def command(files: Files, _: Path) -> Sequence[str | Path]:
        told = json.loads(files.devices.read_text())
        lines = "".join(f"{each['name']} {each['port']} {each['host']}\n" for each in told["devices"])
        (files.devices.parent / "lines").write_text(lines)
        ssh = f"ssh -F none -i {files.key} -o UserKnownHostsFile={files.known_hosts} -o BatchMode=yes {options}"
        one = f'{ssh} -p "$2" root@"$3" {COMMAND} && echo ok "$1"'
        return ["xargs", "-a", files.devices.parent / "lines", "-P", "16", "-L", "1", "sh", "-c", one, "sh"]

    return command


def _play(task: Mapping[str, Any], forks: int | None) -> Callable[[Files, Path], Sequence[str | Path]]:
    def command(files: Files, folder: Path) -> Sequence[str | Path]:
        play = folder / "play.yml"
        play.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": [task]}]))
        chosen = ["-f", str(forks)] if forks else []
        return [OURS / "ansible-playbook", "-i", files.inventory, *chosen, play]

    return command


def _runner(files: Files, folder: Path) -> Sequence[str | Path]:
    play = folder / "play.yml"
    play.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": [RAW]}]))
    return [OURS / "python", CLIENTS / "runner_client.py", files.inventory, play, "20"]


RAW: Final = {"ansible.builtin.raw": COMMAND}
MODULE: Final = {"ansible.builtin.command": COMMAND}
ANSIBLE: Final = r"^(changed|ok): \["
QUICK_KEX: Final = {"ANSIBLE_SSH_ARGS": TUNED, "ANSIBLE_PIPELINING": "1"}
PROGRAMS: Final = (
    Program("ssh2-python", "20 threads, one process", _library("ssh2_client.py"), "^ok "),
    Program("asyncssh", "100 at once, one process", _library("asyncssh_client.py"), "^ok "),
    Program("parallel-ssh", "100 at once", _library("parallel_ssh_client.py"), "^ok "),
    Program("pyinfra", "exec, --parallel 50", _pyinfra, r"\]\s+Success"),
    Program("ssh", "xargs -P16, OpenSSH's own key exchange", _xargs(""), "^ok ", most=200),
    Program("ssh tuned", "xargs -P16, curve25519 first", _xargs("-o KexAlgorithms=^curve25519-sha256"), "^ok "),
    Program("ansible raw", "all defaults (forks 5)", _play(RAW, None), ANSIBLE, most=200),
    Program("ansible raw tuned", "forks 20, curve25519, no ControlMaster", _play(RAW, 20), ANSIBLE, QUICK_KEX),
    Program(
        "ansible command", "all defaults (forks 5)", _play(MODULE, None), ANSIBLE, most=100, platforms=("OpenSSH",)
    ),
    Program(
        "ansible command tuned", "the same settings, pipelining, fixed interpreter", _play(MODULE, 20), ANSIBLE,
        QUICK_KEX | {"ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3"}, most=200, platforms=("OpenSSH",),
    ),
    Program(
        "ansible-runner", "raw tuned, no event files", _runner, "^ok ",
        QUICK_KEX | {"ANSIBLE_HOST_KEY_CHECKING": "True"},  # runner would switch it off
    ),
)  # fmt: skip
