"""The directory of one attempt: private, on tmpfs, gone with the run.  What it tells when its owner was killed.

    <RUN_DIR>/orchestrator-run-<digest of the ident>/   locked (flock) by the process that runs the attempt
        machine    the boot id of the kernel
        hosts      the hosts of the run, a line each
        waiting/   an empty file for each host that nothing was started for; its name is the host's
        begun/     the files of hosts that something was started for; their ctime tells when
        withdrawn/ the files of hosts that were taken out before anything was started for them
        stopped/   an empty file for each host that is to be contacted no more: see `withdraw`
        logged_in/ an empty file for each host that was logged in to (ansible_plugins/run_state.py)
        results    what became of devices, a line of JSON for each (ansible_plugins/run_state.py)
        taken/     what `waiting` is renamed to by whoever takes the run from a dead owner
        …          what Ansible reads and writes

Ansible starts a task for a host only after it has moved that host's file from `waiting` to `begun`
(ansible_plugins/callback/silent.py).  The rename is the fence: after it no file can be moved, so nothing can be
started, not even by a process of the run that nobody has found.  A single host has a fence of the same kind: whoever
moves its file out of `waiting` first, Ansible or we, has decided whether anything is started for it.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from django.conf import settings

from orchestrator.processes import kill_processes

log = logging.getLogger(__name__)

PREFIX: Final = "orchestrator-run-"
DRAFT: Final = f".{PREFIX}"  # of a directory that is still being made
POLL: Final = 0.05  # seconds between two tries to get a lock
# A child that the owner forked just before its death holds the lock until it becomes another program.
PATIENCE: Final = 2.0  # seconds
DRAFT_AGE: Final = 60.0  # seconds after which a draft's maker must be dead
WAITING: Final = "waiting"
TAKEN: Final = "taken"
WITHDRAWN: Final = "withdrawn"
BEGUN: Final = "begun"  # its name and the next two are those of ansible_plugins/run_state.py
STOPPED: Final = "stopped"
LOGGED_IN: Final = "logged_in"
SECRETS: Final = "secrets.json"  # what must be on no command line (ansible_plugins/run_state.py)
MATCHED: Final = "matched"  # what plays are for, one host a line (ansible_plugins/callback/silent.py)
RESULTS: Final = "results"
KEPT: Final = frozenset({"machine", "hosts", TAKEN, WITHDRAWN})  # of a dead run, until it is swept: no secrets
PATH_BYTES: Final = 52  # a socket's path has at most 107, and /tmp/ansible-local-<pid><8>/ssh_agent/agent.sock is one
_PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


@contextlib.contextmanager
def run_directory(ident: str, host_names: Collection[str]) -> Iterator[Path]:
    """The attempt's directory, mode 0700; removed at the end, on every path.

    Raises:
        ValueError: a host's name is no plain file name, or RUN_DIR is too long.
        OSError: an attempt of this ident was begun before, and its directory is still there.
    """
    if wrong := [name for name in host_names if not _PLAIN.fullmatch(name)]:
        raise ValueError(f"{wrong[0]!r} is no plain name.")
    if (excess := len(os.fsencode(_path(ident))) - PATH_BYTES) > 0:
        raise ValueError(f"ORCHESTRATOR_RUN_DIR is {excess} bytes too long: Ansible's sockets need short paths.")
    directory = Path(tempfile.mkdtemp(prefix=DRAFT, dir=_base()))
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        (directory / "machine").write_text(_boot_id())
        (directory / "hosts").write_text("".join(f"{name}\n" for name in host_names))
        for folder in (WAITING, BEGUN, WITHDRAWN, STOPPED, LOGGED_IN):
            (directory / folder).mkdir()
        for name in host_names:
            (directory / WAITING / name).touch()
        directory = directory.rename(_path(ident))  # complete and locked from the first moment on
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(descriptor)


def withdraw(directory: Path, host_name: str) -> bool:
    """Let nothing reach a host of our own living run any more: what goes on there is ended within seconds.

    True when it is certain that nothing was started for it, and nothing will be.
    """
    (directory / STOPPED / host_name).touch()  # first: once the fence has said no, the connection refuses already
    try:
        (directory / WAITING / host_name).rename(directory / WITHDRAWN / host_name)
    except FileNotFoundError:
        return False
    return True


def waiting_hosts(directory: Path) -> frozenset[str]:
    """The hosts of our own run for which nothing was started so far; none when the run was taken from us."""
    try:
        return frozenset(os.listdir(directory / WAITING))
    except FileNotFoundError:
        return frozenset()


def begun_hosts(directory: Path, known: Collection[str]) -> dict[str, datetime]:
    """The hosts of our own run for which something was started, and when, but for the known ones."""
    try:
        with os.scandir(directory / BEGUN) as entries:
            found = {entry.name: entry.stat().st_ctime for entry in entries if entry.name not in known}
    except FileNotFoundError:
        return {}
    return {name: datetime.fromtimestamp(at, UTC) for name, at in found.items()}


class ResultLines:
    """Reads the results of our own run as they come."""

    def __init__(self, directory: Path) -> None:
        self._path, self._at = directory / RESULTS, 0  # bytes that were read

    def new(self) -> list[tuple[str, datetime, str, dict[str, Any]]]:
        """Those that have come since: the name of ansible-runner's event for such a one, when, host, result."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._at)
                whole, end, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return []
        self._at += len(whole) + len(end)
        lines = [json.loads(line) for line in whole.split(b"\n") if line]
        return [(kind, datetime.fromtimestamp(at, UTC), host, result) for kind, at, host, result in lines]


def matched_hosts(directory: Path) -> frozenset[str]:
    """The hosts that a play of our own run is for; none where that is not known."""
    try:
        return frozenset((directory / MATCHED).read_text(encoding="utf-8").split())
    except OSError:
        return frozenset()


def started_hosts(ident: str, *, evict: bool = False) -> frozenset[str] | None:
    """The hosts of a dead attempt for which anything was started; of the others it is certain that nothing ever was.

    None when that is unknown: the attempt is still alive, ran on another machine or before this one was booted, or its
    directory is gone.  When it answers, no process of the attempt is alive, and none can start anything any more.
    ``evict``: so also where the owner lives, as one does that was frozen for long; the caller has taken its lease.
    """
    directory = _path(ident)
    if evict and not directory.exists():
        _occupy(directory)
    with _seize(directory, patience=PATIENCE, evict=evict) as seized:
        if not seized:
            return None
        try:
            if (directory / "machine").read_text() != _boot_id():
                return None
            hosts = (directory / "hosts").read_text().split()
            never = {*os.listdir(directory / TAKEN), *os.listdir(directory / WITHDRAWN)}
            return frozenset(hosts) - never
        except OSError as error:
            log.warning("The directory of the run %s can't be read: %s", ident, error)
            return None


def sweep(older_than: float = 0.0) -> int:
    """End what is left of runs whose owner was killed, and wipe their secrets; never touches a living run.

    What started_hosts() reads is kept until `older_than` seconds after the first sweep or question that found the run
    dead.  Returns how many directories were removed.
    """
    removed = 0
    for directory in [*_base().glob(f"{PREFIX}*"), *_base().glob(f"{DRAFT}*")]:
        keep = DRAFT_AGE if directory.name.startswith(DRAFT) else older_than
        with _seize(directory) as seized:
            if seized and time.time() - directory.stat().st_mtime >= keep:
                shutil.rmtree(directory, ignore_errors=True)
                removed += 1
    return removed


@contextlib.contextmanager
def _seize(directory: Path, *, patience: float = 0.0, evict: bool = False) -> Iterator[bool]:
    """Take a run from its dead owner: nothing of it can start, nothing of it is alive, no secret of it is on disk.

    False when its owner lives, unless it is to be evicted, or when it is no directory of ours.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        yield False
        return
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            yield False
            return
        deadline = time.monotonic() + patience
        while not (locked := _locked(descriptor)) and time.monotonic() < deadline:
            time.sleep(POLL)
        yield (locked or evict) and _emptied(directory)
    finally:
        os.close(descriptor)


def _occupy(directory: Path) -> None:
    """Take the place of a directory, so that an owner that was frozen before it made its own begins nothing."""
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
        (directory / "machine").write_text(_boot_id())  # nothing is renamed to a folder that is not empty


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _emptied(directory: Path) -> bool:
    """Changes nothing, and so keeps the directory's time, when it was done before."""
    if directory.name.startswith(DRAFT):
        return True
    with contextlib.suppress(FileNotFoundError):
        (directory / WAITING).rename(directory / TAKEN)
    try:
        kill_processes(directory)
        for entry in os.scandir(directory):
            if entry.name in KEPT:
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                os.unlink(entry.path)
    except OSError:  # TimeoutError is one
        log.exception("What a dead run left in %s can't be ended", directory)
        return False
    return True


def _base() -> Path:
    return Path(settings.RUN_DIR or tempfile.gettempdir())


def _path(ident: str) -> Path:
    """Short, whatever the ident: see PATH_BYTES."""
    return _base() / f"{PREFIX}{hashlib.sha256(ident.encode()).hexdigest()[:12]}"


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
