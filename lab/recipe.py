"""How the images are made.  A change of this file makes new images.

Runs contained (see namespaces.contained): what it writes belongs to the root of the labs.
"""

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

from lab.exceptions import LabError
from lab.fleet import Kind

SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
LINUX_PACKAGES = ("openssh-server", "python3", "busybox-static", "procps", "iproute2", "sudo")
BUILD_SECONDS = 600  # a slow mirror; 15 is usual
COMPLAINT = 3_000  # characters of a tool's output to show when it failed
HANG_SHELL = "/etc/hang"
LOGIN_SHELL = {Kind.OPENWRT: "/bin/ash", Kind.LINUX: "/bin/bash"}
HOST_KEY = {Kind.OPENWRT: "etc/dropbear/host_key", Kind.LINUX: "etc/ssh/ssh_host_ed25519_key"}
AUTHORIZED_KEYS = {Kind.OPENWRT: "etc/dropbear/authorized_keys", Kind.LINUX: "root/.ssh/authorized_keys"}

COMMON_FILES = {
    # /run/lab/boot: what the supervisor wants done at this boot
    "etc/init.d/rcS": """#!/bin/sh
mkdir -p /run/sshd /run/lock
/bin/busybox ip link set lo up
[ ! -e /run/lab/boot ] || /bin/sh /run/lab/boot
""",
    HANG_SHELL[1:]: "#!/bin/sh\nexec sleep 999999999\n",
    "etc/shells": f"/bin/sh\n/bin/ash\n/bin/bash\n{HANG_SHELL}\n",
}
OPENWRT_FOLDERS = "bin sbin usr/bin usr/sbin etc/dropbear proc sys dev run tmp root var/log"
OPENWRT_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/ash\nnobody:x:65534:65534:nobody:/var:/bin/false\n",
    "etc/group": "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
    "etc/shadow": "root:*:19000:0:99999:7:::\nnobody:*:19000:0:99999:7:::\n",
    "etc/os-release": 'NAME="OpenWrt"\nID="openwrt"\nVERSION_ID="23.05-lab"\nPRETTY_NAME="OpenWrt lab"\n',
    "etc/openwrt_release": "DISTRIB_ID='OpenWrt'\nDISTRIB_RELEASE='23.05-lab'\nDISTRIB_TARGET='lab/generic'\n",
    "etc/inittab": "::sysinit:/etc/init.d/rcS\n"
    "::respawn:/usr/sbin/dropbear -F -E -p 22 -P '' -r /etc/dropbear/host_key\n",
}
LINUX_FILES = {
    "sbin/shutdown": '#!/bin/sh\ncase "$1" in -r) exec /sbin/reboot;; -c) ;; *) exec /sbin/poweroff;; esac\n',
    "etc/inittab": "::sysinit:/etc/init.d/rcS\n::respawn:/usr/sbin/sshd -D -e\n",
    "etc/resolv.conf": "",
    "etc/ssh/sshd_config.d/lab.conf": "PermitRootLogin yes\nPasswordAuthentication yes\nMaxStartups 100\nUseDNS no\n"
    "HostKey /etc/ssh/ssh_host_ed25519_key\n",
    "etc/sudoers.d/operator": "operator ALL=(ALL:ALL) ALL\n",
}
OPERATOR_ID = 1000
OPERATOR_ROWS = {
    "etc/passwd": f"operator:x:{OPERATOR_ID}:{OPERATOR_ID}:operator:/home/operator:/bin/bash\n",
    "etc/group": f"operators:x:{OPERATOR_ID}:\n",
    "etc/shadow": "operator:*:19000:0:99999:7:::\n",
}


def write_files(root: Path, files: dict[str, str]) -> None:
    """Write texts below a folder; scripts executable, shadow and keys for the owner only."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # /etc/resolv.conf may be a link
        path.write_text(text)
        private = name.endswith(("shadow", "authorized_keys", "sudoers.d/operator"))
        path.chmod(0o600 if private else 0o755 if text.startswith("#!") else 0o644)


def program(name: str) -> Path:
    """Find a program of the host, also when PATH has no sbin."""
    found = shutil.which(name, path=SYSTEM_PATH)
    if found is None:
        raise LabError(f"{name} is not installed; missing_requirements() says in which package it is")
    return Path(found)


def suite() -> str:
    """Say the codename of the host's release: bookworm, trixie, noble."""
    return platform.freedesktop_os_release()["VERSION_CODENAME"]


def build_openwrt(root: Path) -> None:
    """Make the OpenWrt-like image: busybox and dropbear with its libraries, 6 MB."""
    for folder in OPENWRT_FOLDERS.split():
        (root / folder).mkdir(parents=True, exist_ok=True)
    _copy_program(program("busybox"), root, to="bin/busybox")
    _copy_program(program("dropbear"), root, to="usr/sbin/dropbear")
    for applet in subprocess.check_output([root / "bin/busybox", "--list-full"], text=True).split():
        (root / applet).parent.mkdir(parents=True, exist_ok=True)
        if not (root / applet).exists():
            (root / applet).symlink_to("/bin/busybox")
    # OpenWrt's dropbear reads root's keys in /etc/dropbear, Debian's in ~/.ssh
    (root / "root").chmod(0o700)
    (root / "root/.ssh").symlink_to("/etc/dropbear")
    write_files(root, COMMON_FILES | OPENWRT_FILES)


def _copy_program(path: Path, root: Path, to: str) -> None:
    """Copy a program of the host and the libraries it needs."""
    shutil.copy(path, root / to)
    listed = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout  # fails if static
    for library in re.findall(r"(?:^\s*|=> )(/\S+)", listed, re.MULTILINE):
        (root / library[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, root / library[1:])


def build_linux(root: Path) -> None:
    """Make the Linux image: the host's release from the host's mirror, 220 MB in 15 s."""
    _install_packages(root)
    for applet in ("init", "reboot", "halt", "poweroff"):
        (root / "sbin" / applet).unlink(missing_ok=True)
        (root / "sbin" / applet).symlink_to("/bin/busybox")
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    write_files(root, COMMON_FILES | LINUX_FILES)
    for name, row in OPERATOR_ROWS.items():
        with (root / name).open("a") as table:
            table.write(row)
    home = root / "home/operator"
    home.mkdir(mode=0o700)
    shutil.chown(home, OPERATOR_ID, OPERATOR_ID)


def _install_packages(root: Path) -> None:
    """Make a minimal system with mmdebstrap."""
    mirror, components = _mirror()
    options = root.with_suffix(".apt.conf")
    options.write_text(_apt_options())
    command: list[str | Path] = [program("mmdebstrap"), "--mode=root", "--variant=essential"]
    command += [f"--components={components}", f"--include={','.join(LINUX_PACKAGES)}", f"--aptopt={options}"]
    done = subprocess.run(
        [*command, suite(), root, mirror],
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    if done.returncode:  # in success it complains, too: it may not mount /sys, and need not
        raise LabError(f"mmdebstrap failed:\n{done.stdout[-COMPLAINT:]}")
    options.unlink()


def _environment() -> dict[str, str]:
    """Give the packages' scripts nothing of ours (PYTHONHOME would break them) but the way to the archive."""
    proxies = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    return {"PATH": SYSTEM_PATH, "HOME": "/", "LC_ALL": "C", **proxies}


def _mirror() -> tuple[str, str]:
    """Give address and components of the archive that the host itself is installed from.

    apt is asked, as it reads both formats of sources; the archive of other vendors, who name their suites alike, is
    told from the distribution's by its Origin, which is known once `apt-get update` ran; else the first one is taken.
    """
    columns = "$(RELEASE) $(CODENAME) $(ORIGIN) $(COMPONENT) $(REPO_URI)"
    listed = subprocess.check_output(
        [program("apt-get"), "indextargets", "--format", columns, "Created-By: Packages"], text=True
    )
    rows = [row for row in (line.split() for line in listed.splitlines()) if len(row) == 5 and suite() in row[:2]]
    distribution = platform.freedesktop_os_release()["ID"]
    mains = [row for row in rows if row[3] == "main"]
    own = [row for row in mains if row[2].lower() == distribution] or [row for row in mains if row[2] == "$(ORIGIN)"]
    if not own:
        raise LabError(f"apt knows no archive of {distribution} {suite()}: run apt-get update")
    mirror = own[0][4]
    offered = {row[3] for row in rows if row[4] == mirror}
    return mirror, ",".join(name for name in ("main", "universe") if name in offered)


def _apt_options() -> str:
    """Give the host's settings for reaching the archive (proxy, checks), which mmdebstrap's apt does not read."""
    dumped = subprocess.check_output([program("apt-config"), "dump", "--format", '%F "%v";%n'], text=True)
    wanted = re.compile(r"Acquire::(https?::|Check-|Retries)")
    return "".join(f"{line}\n" for line in dumped.splitlines() if wanted.match(line) and not line.endswith('"";'))


BUILD = {Kind.OPENWRT: build_openwrt, Kind.LINUX: build_linux}
