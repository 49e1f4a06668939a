"""The lab: real SSH devices on this machine, what can be wrong with them, and that nothing of them is ever left."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab import DeviceInfo, Lab, LabError, State, missing_requirements

MISSING = missing_requirements()
pytestmark = [pytest.mark.lab, pytest.mark.skipif(bool(MISSING), reason=f"a lab needs {', '.join(MISSING)}")]

PASSWORD = "old-Secret1 '$x"
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"
BOTH = pytest.mark.parametrize("name", ["openwrt1", "linux1"])
REFUSED_LOGIN = 255  # exit status of ssh when it could not log in
QUICK = 2.0  # seconds within which a healthy device answers a TCP connection


@dataclass(frozen=True)
class Done:
    """What an ssh gave."""

    rc: int
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a key pair and a program that says the password."""
    folder = tmp_path_factory.mktemp("ssh")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True)
    askpass = folder / "askpass"
    askpass.write_text('#!/bin/sh\nprintf "%s\\n" "$LAB_TEST_PASSWORD"\n')
    askpass.chmod(0o700)
    return folder


@pytest.fixture(scope="module")
def running(places: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab of one device of each kind."""
    directory = tmp_path_factory.mktemp("lab")
    with Lab.start(directory=directory, openwrt=1, linux=1, password=PASSWORD, user_key=places / "key.pub") as started:
        yield started


@pytest.fixture
def lab(running: Lab) -> Iterator[Lab]:
    """The lab with all devices healthy, before and after."""
    yield running
    running.fault("all", "none")
    running.power("all", "on")
    for name in running.devices():
        running.wait_until(name, State.UP)


def ssh_command(device: DeviceInfo, places: Path, command: str, *options: str, user: str = "root") -> list[str]:
    """The command line of an ssh that knows the device by the host key the lab tells."""
    known = places / f"known_{device.name}"
    known.write_text(f"[{device.address}]:{device.port} {device.hostkey}\n")
    fixed = [
        "StrictHostKeyChecking=yes",
        f"UserKnownHostsFile={known}",
        "ConnectTimeout=5",
        "NumberOfPasswordPrompts=1",
    ]
    flags = [f"-o{option}" for option in (*options, *fixed)]
    return ["ssh", "-F/dev/null", f"-p{device.port}", *flags, f"{user}@{device.address}", command]


def ssh(
    device: DeviceInfo, places: Path, command: str, *options: str, password: str = PASSWORD, user: str = "root"
) -> Done:
    """Run a command on the device, logging in by password."""
    by_password = ("PubkeyAuthentication=no", "PreferredAuthentications=password")
    done = subprocess.run(
        ssh_command(device, places, command, *(options or by_password), user=user),
        env=os.environ
        | {"SSH_ASKPASS": str(places / "askpass"), "SSH_ASKPASS_REQUIRE": "force", "LAB_TEST_PASSWORD": password},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def connect(device: DeviceInfo, timeout: float = QUICK) -> socket.socket:
    """A TCP connection to the device's address."""
    return socket.create_connection((device.address, device.port), timeout=timeout)


# ---------------------------------------------------------------- logging in


@BOTH
def test_the_password_logs_in_and_a_wrong_one_does_not(lab: Lab, places: Path, name: str) -> None:
    device = lab.devices()[name]
    assert ssh(device, places, "id -u; cat /etc/hostname").stdout == f"0\n{name}\n"
    wrong = ssh(device, places, "true", password="wrong")
    assert wrong.rc == REFUSED_LOGIN
    assert "Permission denied" in wrong.stderr


@BOTH
def test_the_users_key_logs_in(lab: Lab, places: Path, name: str) -> None:
    by_key = ("PasswordAuthentication=no", "IdentitiesOnly=yes", f"IdentityFile={places / 'key'}")
    assert ssh(lab.devices()[name], places, "echo in", *by_key).stdout == "in\n"


def test_operator_on_linux_may_become_root_with_the_same_password(lab: Lab, places: Path) -> None:
    device = lab.devices()["linux1"]
    quoted = PASSWORD.replace("'", "'\\''")
    done = ssh(device, places, f"id -un; printf '%s\\n' '{quoted}' | sudo -S -p '' id -un", user="operator")
    assert done.stdout == "operator\nroot\n", done.stderr


def test_the_kinds_differ_as_in_the_field(lab: Lab) -> None:
    assert lab.exec("openwrt1", "sh", "-c", "command -v python3")[0] != 0
    rc, version = lab.exec("linux1", "python3", "--version")
    assert rc == 0
    assert version.startswith("Python 3.")


# ---------------------------------------------------------------- power


@BOTH
def test_a_reboot_from_inside_gives_a_new_boot_id_and_keeps_the_disk(lab: Lab, places: Path, name: str) -> None:
    device = lab.devices()[name]
    before = ssh(device, places, f"echo kept > /root/note; echo lost > /tmp/note; {BOOT_ID}").stdout
    ssh(device, places, "reboot")
    back = lab.wait_until(name, "up", boots=device.boots + 1)
    after = ssh(back, places, f"{BOOT_ID}; cat /root/note; cat /tmp/note; cut -d. -f1 /proc/uptime").stdout.splitlines()
    assert re.fullmatch(r"[0-9a-f-]{36}\n", before)
    assert after[0] != before.strip()
    assert after[1] == "kept"
    assert int(after[2]) < 30  # no second note, and an uptime of its own
    assert back.hostkey == device.hostkey


@BOTH
def test_a_device_without_power_refuses_until_it_has_power_again(lab: Lab, places: Path, name: str) -> None:
    device = lab.devices()[name]
    lab.power(name, "off")
    lab.wait_until(name, "off")
    with pytest.raises(ConnectionRefusedError):
        connect(device)
    with pytest.raises(LabError, match="no power"):
        lab.exec(name, "true")
    lab.power(name, "on")
    back = lab.wait_until(name, "up")
    assert back.boots == device.boots + 1
    assert ssh(back, places, "echo back").stdout == "back\n"


def test_a_device_that_powers_itself_off_stays_off(lab: Lab, places: Path) -> None:
    ssh(lab.devices()["openwrt1"], places, "poweroff")
    lab.wait_until("openwrt1", "off")


# ---------------------------------------------------------------- faults


def test_refuse_refuses(lab: Lab) -> None:
    lab.fault("openwrt1", "refuse")
    with pytest.raises(ConnectionRefusedError):
        connect(lab.devices()["openwrt1"])
    assert lab.devices()["openwrt1"].faults == ("refuse",)


def test_blackhole_answers_nothing(lab: Lab) -> None:
    lab.fault("openwrt1", "blackhole")
    with pytest.raises(TimeoutError):
        connect(lab.devices()["openwrt1"], timeout=1.0)


def test_mute_accepts_and_says_nothing(lab: Lab) -> None:
    lab.fault("openwrt1", "mute")
    with closing(connect(lab.devices()["openwrt1"], timeout=1.0)) as sock, pytest.raises(TimeoutError):
        sock.recv(1)


def test_slow_delays_the_banner(lab: Lab) -> None:
    device = lab.devices()["openwrt1"]
    lab.fault("openwrt1", "slow", 0.4)
    began = time.monotonic()
    with closing(connect(device)) as sock:
        assert sock.recv(4) == b"SSH-"
    assert 0.4 <= time.monotonic() - began < QUICK


@BOTH
def test_cut_ends_what_runs(lab: Lab, places: Path, name: str) -> None:
    by_key = ("IdentitiesOnly=yes", f"IdentityFile={places / 'key'}")
    command = ssh_command(lab.devices()[name], places, "echo started; sleep 60; echo done", *by_key)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        lab.fault(name, "cut")
        rest, complaint = process.communicate(timeout=10)
    assert (process.returncode, rest) == (255, "")
    assert re.search("reset|broken pipe", complaint, re.IGNORECASE)
    assert ssh(lab.devices()[name], places, "echo next").stdout == "next\n"


def test_cut_with_seconds_ends_every_connection(lab: Lab) -> None:
    lab.fault("openwrt1", "cut", 0.3)
    with closing(connect(lab.devices()["openwrt1"])) as sock, pytest.raises(ConnectionResetError):
        list(iter(lambda: sock.recv(100), b""))


def test_noreturn_goes_down_to_reboot_and_is_lost(lab: Lab, places: Path) -> None:
    lab.fault("openwrt1", "noreturn")
    ssh(lab.devices()["openwrt1"], places, "reboot")
    lab.wait_until("openwrt1", "lost")


def test_bootdelay_delays_a_reboot(lab: Lab, places: Path) -> None:
    device = lab.devices()["openwrt1"]
    lab.fault("openwrt1", "bootdelay", 1.5)
    ssh(device, places, "reboot")
    lab.wait_until("openwrt1", "rebooting")
    began = time.monotonic()
    lab.wait_until("openwrt1", "up", boots=device.boots + 1)
    assert time.monotonic() - began > 1.0


@BOTH
def test_hostkey_is_another_one_until_healed(lab: Lab, places: Path, name: str) -> None:
    device = lab.devices()[name]
    lab.fault(name, "hostkey")
    changed = lab.wait_until(name, "up", boots=device.boots + 1)
    assert changed.hostkey != device.hostkey
    assert "verification failed" in ssh(device, places, "true").stderr
    assert ssh(changed, places, "echo in").stdout == "in\n"
    lab.fault(name, "none")
    lab.wait_until(name, "up", boots=device.boots + 2)
    assert ssh(device, places, "echo in").stdout == "in\n"


@BOTH
def test_diskfull_leaves_no_room(lab: Lab, places: Path, name: str) -> None:
    device = lab.devices()[name]
    write = "head -c 1000 /dev/zero > /root/more"
    lab.fault(name, "diskfull")
    assert "No space left" in ssh(device, places, write).stderr
    lab.fault(name, "none")
    assert ssh(device, places, write).rc == 0


@BOTH
def test_hang_logs_in_and_never_ends(lab: Lab, places: Path, name: str) -> None:
    device = lab.devices()[name]
    lab.fault(name, "hang")
    by_key = ("IdentitiesOnly=yes", f"IdentityFile={places / 'key'}")
    with subprocess.Popen(ssh_command(device, places, "echo never", "LogLevel=VERBOSE", *by_key),
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:  # fmt: skip
        assert process.stderr is not None
        assert any("Authenticated" in line for line in process.stderr)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.0)
        process.kill()
    lab.fault(name, "none")
    assert ssh(device, places, "echo again").stdout == "again\n"


def test_hang_may_be_made_while_there_is_no_power(lab: Lab) -> None:
    lab.power("openwrt1", "off")
    lab.wait_until("openwrt1", "off")
    lab.fault("openwrt1", "hang")
    lab.power("openwrt1", "on")
    lab.wait_until("openwrt1", "up")
    assert "/etc/hang" in lab.exec("openwrt1", "grep", "^root:", "/etc/passwd")[1]


@pytest.mark.parametrize(
    ("names", "fault", "message"),
    [
        ("openwrt1", ("slowly",), "unknown fault"),
        ("openwrt1", ("slow",), "needs a number"),
        ("openwrt1", ("slow", "-1"), "no number of seconds"),
        ("openwrt1", ("refuse", "3"), "takes no argument"),
        ("openwrt9", ("refuse",), "no such device"),
        ([], ("refuse",), "no device is named"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(
    lab: Lab, names: str | list[str], fault: tuple[str, ...], message: str
) -> None:
    with pytest.raises(LabError, match=message):
        lab.fault(names, *fault)
    assert all(not device.faults for device in lab.devices().values())


# ---------------------------------------------------------------- the machine is safe, and nothing is left


@BOTH
def test_a_devices_root_is_nobody_outside(lab: Lab, name: str) -> None:
    assert lab.exec(name, "id", "-u") == (0, "0\n")
    outside = lab.exec(name, "cat", "/proc/self/uid_map")[1].split()
    assert outside[0] == "0"
    assert lab.exec(name, "sh", "-c", "echo 1 > /proc/sys/kernel/panic")[0] != 0
    assert lab.exec(name, "chmod", "600", "/dev/null")[0] != 0
    trigger = lab.exec(name, "sh", "-c", "test -w /proc/sysrq-trigger || echo safe")[1]
    assert trigger == "safe\n"
    init = next(pid for pid in descendants(lab.pid) if Path(f"/proc/{pid}/comm").read_text() == "init\n")
    assert Path(f"/proc/{init}").stat().st_uid != 0


def test_a_device_reaches_no_network_but_its_own(lab: Lab) -> None:
    rows = lab.exec("openwrt1", "cat", "/proc/net/dev")[1].splitlines()[2:]
    assert {row.split(":")[0].strip() for row in rows} <= {
        "lo",
        "sit0",
        "ip6tnl0",
        "tunl0",
        "gre0",
        "erspan0",
        "gretap0",
    }


def test_two_labs_do_not_collide(lab: Lab, tmp_path: Path) -> None:
    with Lab.start(directory=tmp_path, openwrt=1, linux=0) as second:
        mine, other = lab.devices()["openwrt1"], second.devices()["openwrt1"]
        assert (mine.address, mine.port) != (other.address, other.port)
        with pytest.raises(LabError, match="in use"):
            Lab.start(directory=tmp_path / "third", openwrt=1, linux=0, port=mine.port)
        with pytest.raises(LabError, match="already up"):
            Lab.start(directory=tmp_path, openwrt=1, linux=0)
        assert second.devices()["openwrt1"] == other


PARENT = """
import sys, time
from pathlib import Path
from lab import Lab
lab = Lab.start(directory=Path(sys.argv[1]), openwrt=2, linux=0)
print(lab.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("victim", ["the process that started it", "its keeper", "its supervisor"])
def test_kill_9_leaves_nothing(lab: Lab, tmp_path: Path, victim: str) -> None:
    del lab  # the images are there
    with subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        keeper = int(parent.stdout.readline())
        family = descendants(keeper)
        assert len(family) > 5  # two more of the lab, and the devices' inits with their SSH servers
        second = Lab(tmp_path)
        devices = second.devices().values()
        pid = {"its keeper": keeper, "its supervisor": family[1]}.get(victim, parent.pid)
        os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + 10
        while alive := [pid for pid in [keeper, *family] if is_alive(pid)]:
            assert time.monotonic() < end, f"left: {alive}"
            time.sleep(0.05)
        parent.kill()
    for device in devices:
        with pytest.raises(ConnectionRefusedError):
            connect(device)
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
    with Lab.start(directory=tmp_path, openwrt=1, linux=0) as again:
        assert again.devices()["openwrt1"].state is State.UP


def descendants(pid: int) -> list[int]:
    """All processes below this one, nearest first."""
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in (thread / "children").read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return False
