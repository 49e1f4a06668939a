"""The kernel's side of a lab: mounts, namespaces, and processes that cannot outlive their parent.

Everything of a lab runs in a user namespace whose root is nobody outside.  If we are root outside, its 65536 ids are
mapped to host ids that own nothing: were they mapped to themselves, a device's root could write what the host's root
owns, /proc/sysrq-trigger for example.  If we are a user, they are the user's own id and those of /etc/subuid.
"""

import ctypes
import os
import pwd
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

from lab.exceptions import LabError

RDONLY, NOSUID, NODEV, NOEXEC = 1, 2, 4, 8  # mount flags of <sys/mount.h>
REMOUNT, BIND, REC, PRIVATE = 32, 4096, 16384, 1 << 18
DETACH = 2  # flag of umount2()
PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4

STAGE = Path("/mnt")  # where a contained process finds its folders: /root may be 0700, and it is not root outside
FIRST_ID = 0x7000_0000  # host id of the lab's root; free in the table "UID and GID ranges" of systemd
IDS = 65_536

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str | Path, target: str | Path, fstype: str = "", flags: int = 0, options: str = "") -> None:
    """Call mount(2); OSError if it fails."""
    words = [os.fsencode(word) for word in (source, target, fstype)]
    _check(_libc.mount(*words, flags, os.fsencode(options)), f"mount {fstype} {target}")


def bind(source: str | Path, target: str | Path) -> None:
    """Show a file or a folder at a second place."""
    mount(source, target, "", BIND | REC)


def pivot_root(root: Path) -> None:
    """Make this folder the root, and forget the old one."""
    os.chdir(root)
    _check(_libc.pivot_root(b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", DETACH), "umount of the old root")


def die_with_parent(parent: int | None = None) -> None:
    """Be killed when the parent dies; at once, if it is dead already.

    Holds until the next change of credentials.  A parent in another PID namespace is 0 for us, and cannot be checked.
    """
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def owner_id() -> int:
    """Say which host id the root of a lab has: the owner of images and of a lab's folder."""
    if os.geteuid() != 0:
        return os.geteuid()
    rows = (line.split() for line in Path("/proc/self/uid_map").read_text().splitlines())
    known = any(int(first) <= FIRST_ID and int(first) + int(count) >= FIRST_ID + IDS for first, _, count in rows)
    return FIRST_ID if known else 0  # 0 only inside a container, whose root is nobody outside either


def contained(main: Callable[[], None], folders: Mapping[str, Path]) -> int:
    """Run a function as PID 1 of a new user, mount and PID namespace, with `folders` under STAGE; return a PID.

    The PID is that of a process that ends when and as `main` does (0, or 1 with a traceback on stderr).  When it, its
    parent, or the process that runs `main` is killed, the kernel removes every process and mount of the namespaces.
    """
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        status = _contain(main, folders, parent)
    except BaseException:  # noqa: BLE001  a forked child must never return into its parent's code
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _contain(main: Callable[[], None], folders: Mapping[str, Path], parent: int) -> int:
    """Enter the namespaces, run `main` in a child, and give its exit status."""
    die_with_parent(parent)
    root_outside = os.geteuid() == 0
    if root_outside:  # the lab's root may have no right to pass through the folders above: bind them while we may
        os.unshare(os.CLONE_NEWNS)
        _set_stage(folders)
    _enter_user_namespace()
    os.unshare(os.CLONE_NEWNS | os.CLONE_NEWPID)
    if not root_outside:
        _set_stage(folders)
    die_with_parent(parent)  # again: the change of credentials took it back
    pid = os.fork()
    if pid:
        return 0 if os.waitpid(pid, 0)[1] == 0 else 1
    status = 1
    try:
        die_with_parent()
        mount("", "/", "", REC | PRIVATE)
        mount("proc", "/proc", "proc", NOSUID | NODEV | NOEXEC)
        os.chdir(STAGE)
        main()
        status = 0
    except LabError as error:
        print(error, file=sys.stderr)
    except BaseException:  # noqa: BLE001  as above
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _set_stage(folders: Mapping[str, Path]) -> None:
    """Show the folders under STAGE, in this mount namespace only."""
    mount("", "/", "", REC | PRIVATE)
    places = {name: os.open(folder, os.O_PATH) for name, folder in folders.items()}  # one may be under STAGE itself
    mount("stage", STAGE, "tmpfs", NOSUID | NODEV, "mode=755,size=64k")
    for name, place in places.items():
        (STAGE / name).mkdir()
        bind(f"/proc/self/fd/{place}", STAGE / name)
        os.close(place)


def _enter_user_namespace() -> None:
    """Become root of a new user namespace."""
    me = os.getpid()
    reader, writer = os.pipe()
    mapper = os.fork()
    if not mapper:  # stays outside, and so may write the maps
        status = 1
        try:
            os.read(reader, 1)
            _write_maps(me)
            status = 0
        except BaseException:  # noqa: BLE001  as above
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    os.unshare(os.CLONE_NEWUSER)
    os.write(writer, b"!")
    if os.waitpid(mapper, 0)[1]:
        raise LabError("cannot map user ids")
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    _libc.prctl(PR_SET_DUMPABLE, 1)  # the change of credentials took it, and with it our own files in /proc
    os.close(reader)
    os.close(writer)


def _write_maps(pid: int) -> None:
    """Write the id maps of a process that has just made its user namespace."""
    if os.geteuid() == 0:
        for table in ("uid_map", "gid_map"):
            Path(f"/proc/{pid}/{table}").write_text(f"0 {owner_id()} {IDS}")
        return
    user = pwd.getpwuid(os.getuid()).pw_name
    for tool, own, table in (("newuidmap", os.getuid(), "/etc/subuid"), ("newgidmap", os.getgid(), "/etc/subgid")):
        first = subordinate_ids(user, Path(table))
        if first is None:
            raise LabError(f"{table} has no range of {IDS} ids for {user}")
        subprocess.check_call([tool, str(pid), "0", str(own), "1", "1", str(first), str(IDS - 1)])


def subordinate_ids(user: str, table: Path) -> int | None:
    """Give the first id of the user's range in /etc/subuid or /etc/subgid; None if there is no large one."""
    for line in table.read_text().splitlines():
        name, first, count = line.split(":")
        if name == user and int(count) >= IDS - 1:
            return int(first)
    return None
