"""One ansible-playbook over a slice: the only subprocess of the service, and the only importer of ansible_runner.

When `run` returns, no process of the run is alive and nothing of it is on disk.  With bubblewrap all of it lives in a
PID namespace of its own, in sight of the playbook, our plugins and its run directory only, and dies with this process
even when that is killed.  Without bubblewrap every process of the run carries ``ORCHESTRATOR_RUN`` in its environment,
by which it is found wherever it went (ssh and Ansible's workers leave the process group).
"""

import contextlib
import fcntl
import functools
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import ansible_runner
from ansible_runner.utils import get_callback_dir
from django.conf import settings

from orchestrator.events import HostEvent, parse
from orchestrator.inventory import Target, inventory, known_hosts

POLL_EVENTS: Final = 0.25  # seconds between two looks at what came
POLL_STOP: Final = 0.5  # seconds between two calls of should_stop
KILL_TIMEOUT: Final = 5.0  # seconds in which SIGKILL must have done its work
DETAIL_LINES: Final = 8  # of Ansible's own output, kept for the case that it ends without a recap
PREFIX: Final = "orchestrator-run-"
MARKER: Final = "ORCHESTRATOR_RUN"  # in the environment of each process of a run: its run directory
PROJECT: Final = Path(__file__).resolve().parent.parent
PLUGINS: Final = PROJECT / "ansible_plugins"
INVENTORY_PLUGINS: Final = PROJECT / "inventory_plugins"

# What programs in the sandbox need of /etc: names and addresses, the loader, certificates. No configuration of services.
ETC: Final = [
    "passwd",
    "group",
    "hosts",
    "host.conf",
    "resolv.conf",
    "nsswitch.conf",
    "gai.conf",
    "services",
    "protocols",
    "localtime",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "alternatives",
    "ssl",
    "pki",
    "ca-certificates",
    "crypto-policies",
]


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What to run, where, and for how long at most."""

    ident: str  # of the attempt; unique
    playbook: Path
    targets: Sequence[Target]
    variables: Mapping[str, Any] = field(repr=False)  # a user's values, may hold secrets; never templates
    forks: int
    connect_timeout: float  # seconds, until a device is logged in to
    execution_timeout: float  # seconds, of one command on one device, from the login on
    deadline: float  # seconds, of the whole slice


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How the run as a whole ended; what became of each device came as events."""

    ended: Literal["completed", "stopped", "deadline", "crashed"]
    detail: str = ""  # of a crash: Ansible's last words, without the run's secrets


def run(request: RunRequest, *, on_event: Callable[[HostEvent], None], should_stop: Callable[[], bool]) -> RunOutcome:
    """Run the playbook over the targets and hand over what becomes of each, in the calling thread.

    A device's `started` event is written down by Ansible before the device is contacted, and reaches `on_event` up to
    `POLL_EVENTS` later.  `on_event` may be slow: Ansible then waits.

    Raises:
        ValueError: a variable's name would change how Ansible connects.
        Exception: what `on_event` or `should_stop` raised; the run is ended first.
    """
    if not request.targets:
        return RunOutcome("completed")
    with _run_directory() as directory:
        watch = _Watch(request, directory, on_event, should_stop)
        try:
            config = _configure(request, directory)
            runner = ansible_runner.Runner(config, cancel_callback=watch.tick, event_handler=watch.keep)
            try:
                runner.run()
            except Exception as error:
                if not watch.error:
                    raise RunnerError(str(error)) from error
        except RunnerError as error:
            watch.words.append(str(error))
        finally:
            kill_processes(directory)
        return watch.outcome()


class RunnerError(Exception):
    """ansible-runner itself failed."""


class _Watch:
    """Between ansible-runner and the caller: keeps events as they come, hands them on between two reads."""

    def __init__(
        self,
        request: RunRequest,
        directory: Path,
        on_event: Callable[[HostEvent], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self.request, self.directory, self.on_event, self.should_stop = request, directory, on_event, should_stop
        self.events: deque[Mapping[str, Any]] = deque()
        self.words: deque[str] = deque(maxlen=DETAIL_LINES)
        self.error: Exception | None = None
        self.ended: Literal["", "stopped", "deadline"] = ""
        self.recap = False
        self.deadline, self.next_stop_check = time.monotonic() + request.deadline, 0.0

    def keep(self, event: dict[str, Any]) -> bool:
        """Runner's event handler: fast, never raises.  False: write no event files."""
        self.events.append(event)
        return False

    def tick(self) -> bool:
        """Runner's cancel callback, called each POLL_EVENTS.  True: end the run.  Never raises: runner would hide it."""
        try:
            self.hand_over()
            now = time.monotonic()
            if not self.ended and now >= self.next_stop_check:
                self.next_stop_check = now + POLL_STOP
                if self.should_stop():
                    self.ended = "stopped"
            if not self.ended and now >= self.deadline:
                self.ended = "deadline"
            if self.ended:
                kill_processes(self.directory)  # before runner kills the outermost one only
        except Exception as error:  # noqa: BLE001  # raised again by outcome(), when the run has ended
            self.error = error
        return bool(self.ended or self.error)

    def hand_over(self) -> None:
        while self.events:
            event = self.events.popleft()
            if host_event := parse(event):
                self.on_event(host_event)
            elif event.get("event") == "playbook_on_stats":
                self.recap = True
            elif event.get("stdout"):
                self.words.append(str(event["stdout"]).strip())

    def outcome(self) -> RunOutcome:
        if self.error:
            raise self.error
        self.hand_over()
        if self.ended:
            return RunOutcome(self.ended)
        if self.recap:
            return RunOutcome("completed")
        return RunOutcome("crashed", _without_secrets("\n".join(filter(None, self.words)), self.request))


# ---------------------------------------------------------------- what ansible-playbook is given
def _configure(request: RunRequest, directory: Path) -> ansible_runner.RunnerConfig:
    """Write the run directory's files and say which command to start, with which environment."""
    for name in request.variables:
        if not name.isidentifier() or name.startswith(("ansible_", "orchestrator_")):
            raise ValueError(f"A playbook variable may not be named {name!r}.")
    for folder in ("env", "home", "tmp"):
        (directory / folder).mkdir(mode=0o700)
    files = {
        "ansible.cfg": "",
        "known_hosts": known_hosts(request.targets),
        "slice.orchestrator.json": json.dumps(inventory(request.targets, connect_timeout=request.connect_timeout)),
        "env/extravars": json.dumps({name: _untrusted(value) for name, value in request.variables.items()}),
    }
    for name, text in files.items():
        (directory / name).write_text(text, encoding="utf-8")
    config = ansible_runner.RunnerConfig(
        private_data_dir=str(directory),
        playbook=str(request.playbook.resolve()),
        inventory=str(directory / "slice.orchestrator.json"),
        forks=request.forks,
        ident=request.ident,
        quiet=True,
    )
    config.prepare()
    # Set after prepare(), which drops settings that come without a file.
    config.pexpect_timeout = POLL_EVENTS
    config.suppress_output_file = True
    config.env = _environment(request, directory, Path(config.artifact_dir))
    command = [str(Path(sys.executable).parent / "ansible-playbook"), *config.command[1:]]
    config.command = [*sandbox(directory, request.playbook), *command]
    config.cwd = str(directory)
    return config


def _environment(request: RunRequest, directory: Path, artifacts: Path) -> dict[str, str]:
    """All that the run's processes get: nothing is inherited, and nothing in it is secret."""
    keys = any(target.login.private_key for target in request.targets)
    return {
        MARKER: str(directory),
        "PATH": f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(directory / "home"),
        "TMPDIR": str(directory / "tmp"),
        "PYTHONPATH": str(PROJECT),  # our plugins import ansible_plugins; the sandbox shows no more of the project
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        # ansible-runner's side of the event stream
        "AWX_ISOLATED_DATA_DIR": str(artifacts),
        "ANSIBLE_CALLBACK_PLUGINS": f"{get_callback_dir()}:{PLUGINS / 'callback'}",
        "ANSIBLE_STDOUT_CALLBACK": "awx_display",
        "ORIGINAL_STDOUT_CALLBACK": "silent",
        "MAX_EVENT_RES": str(1 << 30),  # characters; over its default of 700,000 runner drops the whole result
        # Ansible
        "ANSIBLE_CONFIG": str(directory / "ansible.cfg"),
        "ANSIBLE_HOME": str(directory / "home"),
        "ANSIBLE_LOCAL_TEMP": str(directory / "tmp"),
        "ANSIBLE_ACTION_PLUGINS": str(PLUGINS / "action"),
        "ANSIBLE_CONNECTION_PLUGINS": str(PLUGINS / "connection"),
        "ANSIBLE_INVENTORY_PLUGINS": str(INVENTORY_PLUGINS),
        "ANSIBLE_INVENTORY_ENABLED": "orchestrator",
        "ANSIBLE_INVENTORY_UNPARSED_FAILED": "True",
        "ANSIBLE_HOST_KEY_CHECKING": "True",  # runner's default is False
        "ANSIBLE_PIPELINING": "True",
        "ANSIBLE_SSH_AGENT": "auto" if keys else "none",
        "ANSIBLE_SSH_ARGS": f"-o KexAlgorithms={key_exchange()}",
        "ANSIBLE_SSH_RETRIES": "0",  # a retry could run a command twice
        "ANSIBLE_RETRY_FILES_ENABLED": "False",
        "ANSIBLE_DEPRECATION_WARNINGS": "False",
        "ANSIBLE_NOCOLOR": "1",
        # ansible_plugins/connection/device_ssh.py
        "ORCHESTRATOR_KNOWN_HOSTS": str(directory / "known_hosts"),
        "ORCHESTRATOR_EXECUTION_TIMEOUT": str(request.execution_timeout),
        "ORCHESTRATOR_OUTPUT_LIMIT": str(settings.OUTPUT_LIMIT),
    }


def _untrusted(value: Any) -> Any:
    """Mark every text in a variable, so that Ansible never takes it for a template."""
    if isinstance(value, str):
        return {"__ansible_unsafe": value}
    if isinstance(value, Mapping):
        return {str(name): _untrusted(part) for name, part in value.items()}
    if isinstance(value, Sequence):
        return [_untrusted(part) for part in value]
    return value


def _without_secrets(text: str, request: RunRequest) -> str:
    logins = (target.login for target in request.targets)
    secrets = {s for x in logins for s in (x.password, x.private_key, x.passphrase, x.become_password)}
    secrets |= {value for value in request.variables.values() if isinstance(value, str)}
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) > 3:
            text = text.replace(secret, "********")
    return text


@functools.cache
def key_exchange() -> str:
    """ssh's KexAlgorithms: the cheap ones first, all others still on offer.

    Of OpenSSH's post-quantum hybrids ML-KEM is cheap, sntrup761 costs 77 ms of CPU for each login (see docs).
    """
    known = subprocess.run(["ssh", "-Q", "kex"], capture_output=True, text=True, check=False, timeout=10).stdout.split()
    first = [x for x in ("mlkem768x25519-sha256", "curve25519-sha256") if x in known]
    return "^" + ",".join(first) if first else "+curve25519-sha256"


# ---------------------------------------------------------------- the sandbox
def sandbox(directory: Path, playbook: Path) -> list[str]:
    """The words before the command that put it into a PID namespace of its own; none where bubblewrap cannot."""
    return _bubblewrap(directory, playbook.resolve().parent) if isolated() else []


@functools.cache
def isolated() -> bool:
    """True when bubblewrap works here: it may be missing, or forbidden in a container."""
    if not shutil.which("bwrap"):
        return False
    try:
        with tempfile.TemporaryDirectory() as directory:
            probe = [*_bubblewrap(Path(directory), PROJECT), "true"]
            return subprocess.run(probe, capture_output=True, check=False, timeout=10).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _bubblewrap(directory: Path, playbooks: Path) -> list[str]:
    """Read-only system and Python, no other /etc, /home, /run or /tmp; own /proc; the run directory to write to."""
    words = [
        "bwrap",
        "--die-with-parent",
        "--unshare-pid",
        "--unshare-ipc",
        "--unshare-uts",
        "--new-session",
        "--cap-drop",
        "ALL",
    ]
    words += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--ro-bind", "/usr", "/usr"]
    for name in ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"):
        if Path(name).is_symlink():
            words += ["--symlink", os.readlink(name), name]
        else:
            words += ["--ro-bind-try", name, name]
    for name in ETC:
        words += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    python = {sys.base_prefix, sys.prefix, *_site_packages("ansible"), *_site_packages("ansible_runner")}
    for path in sorted(python | {str(playbooks), str(PLUGINS), str(INVENTORY_PLUGINS)}):
        if not path.startswith("/usr/"):
            words += ["--ro-bind", path, path]
    return [*words, "--bind", str(directory), str(directory), "--chdir", str(directory), "--"]


def _site_packages(package: str) -> list[str]:
    spec = importlib.util.find_spec(package)
    return [str(Path(spec.origin).parent.parent)] if spec and spec.origin else []


# ---------------------------------------------------------------- leaving nothing behind
@contextlib.contextmanager
def _run_directory() -> Iterator[Path]:
    """A directory for one attempt, mode 0700, on tmpfs where there is one.  Locked while in use, see sweep()."""
    base = settings.RUN_DIR or tempfile.gettempdir()
    directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
    try:
        with open(directory / "lock", "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def sweep() -> int:
    """End and remove what runs left behind whose process was killed; how many there were.  For a worker's start."""
    found = 0
    for directory in Path(settings.RUN_DIR or tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError), open(directory / "lock", "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: in use
            kill_processes(directory)
            shutil.rmtree(directory, ignore_errors=True)
            found += 1
    return found


def kill_processes(directory: Path) -> None:
    """SIGKILL every process of the run, until none is left.

    Our own child comes last: bubblewrap then buries its dead itself, which the init of a container may not do.

    Raises:
        TimeoutError: after KILL_TIMEOUT one is still there.
    """
    begin = time.monotonic()
    while pids := processes(directory):
        if (passed := time.monotonic() - begin) > KILL_TIMEOUT:
            raise TimeoutError(f"Processes of a run do not die: {pids}")
        children = [pid for pid in pids if _parent(pid) == os.getpid()]
        for pid in pids if passed > KILL_TIMEOUT / 5 else set(pids) - set(children) or children:
            # A pidfd, checked after it was opened: the number may meanwhile be another process's.
            with contextlib.suppress(ProcessLookupError), _pidfd(pid) as fd:
                if _belongs(pid, directory):
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
        time.sleep(0.02)


def processes(directory: Path) -> list[int]:
    """The ids of the run's processes that are alive."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and _belongs(int(name), directory)]


def _belongs(pid: int, directory: Path) -> bool:
    """By the environment; an ssh-agent hides its own from its user, but has a socket in the run directory."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        if b"ssh-agent" in command.split(b"\0")[0] and os.fsencode(directory) + b"/" in command:
            return True
        return os.fsencode(f"{MARKER}={directory}") in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # gone, or another user's
        return False


def _parent(pid: int) -> int:
    """0 when it is gone."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


@contextlib.contextmanager
def _pidfd(pid: int) -> Iterator[int]:
    fd = os.pidfd_open(pid)
    try:
        yield fd
    finally:
        os.close(fd)
