"""A private PostgreSQL: in a temporary directory, on a unix socket only, gone at the end.

with cluster() as database_url: ...
python -m tests.postgres COMMAND...     runs the command with DATABASE_URL set, and gives back its exit status
"""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from orchestrator.supervisor import die_with_parent

START_LIMIT = 60.0  # seconds until the server answers
STOP_LIMIT = 20.0  # seconds for a fast shutdown

# Lost power does not matter to a cluster that lives for one test run.
SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "50",
}


class NoPostgreSQL(Exception):
    """No PostgreSQL server is installed."""


@dataclass(frozen=True)
class _Account:
    """Who runs the server: it refuses to run as root."""

    name: str
    uid: int
    gid: int

    @classmethod
    def choose(cls) -> "_Account":
        names = ["postgres", "nobody"] if os.geteuid() == 0 else [pwd.getpwuid(os.geteuid()).pw_name]
        for name in names:
            with contextlib.suppress(KeyError):
                entry = pwd.getpwnam(name)
                return cls(name, entry.pw_uid, entry.pw_gid)
        raise NoPostgreSQL("PostgreSQL refuses to run as root, and there is no user postgres or nobody to run it as.")

    def popen(self, argv: Sequence[str], *, output: int) -> "subprocess.Popen[str]":
        """Start a program as this account, which stops when this process dies."""
        parent = os.getpid()
        other = os.geteuid() == 0
        return subprocess.Popen(
            argv,
            cwd="/",
            user=self.uid if other else None,
            group=self.gid if other else None,
            extra_groups=() if other else None,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # Ctrl-C is for the tests; the server stops after them
            preexec_fn=lambda: die_with_parent(parent, signal.SIGINT),  # noqa: PLW1509 - one thread
        )


def binaries() -> Path:
    """The folder of the newest server's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if found:
        return found[-1].parent
    if initdb := shutil.which("initdb"):
        return Path(initdb).resolve().parent
    raise NoPostgreSQL("No PostgreSQL server is installed (on Debian and Ubuntu: apt-get install -y postgresql).")


class Server:
    """A server in a directory of its own."""

    def __init__(self, directory: Path, **settings: str) -> None:
        """`settings` are PostgreSQL's, beside our own."""
        self._programs, self._account, self._directory = binaries(), _Account.choose(), directory
        os.chown(directory, self._account.uid, self._account.gid)  # and mode 0700: so that trust within is safe
        _initialize(self._programs, self._account, directory)
        self._argv = [str(self._programs / "postgres"), "-D", f"{directory}/data", "-k", str(directory)]
        self._argv += [f"-c{key}={value}" for key, value in (SETTINGS | settings).items()]
        self.url = f"postgresql://postgres@/{directory}/postgres"  # of an empty database whose owner may do anything
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self._directory / "log").open("a") as log:
            self._process = self._account.popen(self._argv, output=log.fileno())
        _wait_until_ready(self._programs, self._directory, self._process)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT is a fast shutdown, which cuts open connections, SIGQUIT an immediate one."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    @property
    def pid(self) -> int:
        """Of the process whose children serve the connections."""
        assert self._process is not None
        return self._process.pid


@contextlib.contextmanager
def running(**settings: str) -> Iterator[Server]:
    """A server, up."""
    with tempfile.TemporaryDirectory(prefix="orchestrator-pg-") as name:
        server = Server(Path(name), **settings)
        try:
            server.start()
            yield server
        finally:
            server.stop()


@contextlib.contextmanager
def cluster() -> Iterator[str]:
    """Start a cluster; yields the DATABASE_URL of an empty database whose owner may do anything."""
    with running() as server:
        yield server.url


def _initialize(programs: Path, account: _Account, directory: Path) -> None:
    argv = [str(programs / "initdb"), "-D", f"{directory}/data", "--username=postgres", "--auth=trust"]
    argv += ["--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
    with account.popen(argv, output=subprocess.PIPE) as process:
        output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"initdb failed:\n{output}")


def _wait_until_ready(programs: Path, directory: Path, server: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + START_LIMIT
    probe = [str(programs / "pg_isready"), "-q", "-h", str(directory), "-U", "postgres"]
    while subprocess.run(probe, check=False).returncode:
        if server.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"PostgreSQL did not start:\n{(directory / 'log').read_text()}")
        time.sleep(0.1)


def main(argv: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command on a cluster.  Without a server: a failure in CI, elsewhere a word of warning."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with cluster() as database_url:
            return subprocess.run(argv, env={**environment, "DATABASE_URL": database_url}, check=False).returncode
    except NoPostgreSQL as reason:
        sys.stderr.write(f"SKIPPED on PostgreSQL: {' '.join(argv)}\n{reason}\n")
        return 1 if environment.get("CI") else 0
    except KeyboardInterrupt:
        return 130


def _interrupt(_signum: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
