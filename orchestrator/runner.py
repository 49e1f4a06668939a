"""One ansible-playbook over a slice: the only subprocess of the service, and the only importer of ansible_runner.

When `run` returns, no process of the run is alive and nothing of it is on disk.  With bubblewrap all of it lives in a
PID namespace of its own, in sight of the playbook, our plugins and its run directory only, and dies with this process
even when that is killed.  Without bubblewrap the processes of a run are found by their environment.
"""

import json
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, Literal

import ansible_runner
from ansible_runner.utils import get_callback_dir
from django.conf import settings

from orchestrator import playbook_vaults, snapshots
from orchestrator.events import REASONS, HostEvent, finished, parse
from orchestrator.inventory import Target, inventory, known_hosts
from orchestrator.output import last_words
from orchestrator.playbook_files import MARKUP
from orchestrator.playbook_vaults import Vault, advised
from orchestrator.plays import NAME_LENGTH, PlayReader, TaskEvent
from orchestrator.processes import MARKER, kill_processes
from orchestrator.redaction import Redactor
from orchestrator.run_directory import (
    SECRETS,
    ResultLines,
    begun_hosts,
    matched_hosts,
    run_directory,
    started_hosts,
    sweep,
    waiting_hosts,
    withdraw,
)  # fmt: skip
from orchestrator.sandbox import INVENTORY_PLUGINS, PLUGINS, PROJECT, sandbox
from orchestrator.states import CommandStatus
from orchestrator.tuning import connections_inside, key_exchange, strategy

__all__ = ("Orders", "RunOutcome", "RunRequest", "RunnerError", "run", "started_hosts", "sweep")

POLL_EVENTS: Final = 0.25  # seconds between two looks at what came
DETAIL_LENGTH: Final = 300  # characters at which plugins and events cut a device's words in a reason
POLL_STOP: Final = 0.5  # seconds between two looks at the orders
DETAIL_LINES: Final = 8  # of Ansible's own output, kept for the case that it ends without a recap

type Hear = Callable[[HostEvent | TaskEvent], None]
"""Takes what is heard; that of tasks only from users' own playbooks."""


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
    secrets: frozenset[str] = field(default=frozenset(), repr=False)  # of no target, and that no output may show
    check: bool = False  # Ansible's check mode: our playbooks log in, do nothing, and say what they would do
    project: Path | None = None  # of a user's own playbook: the directory with its roles and the like
    diff: bool = False  # this and the rest: of a user's own playbook, as on Ansible's command line
    tags: Sequence[str] = ()
    skip_tags: Sequence[str] = ()
    verbosity: int = 0
    vaults: Sequence[Vault] = ()  # that it may open


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What the caller wants of a run that goes on; each is asked for every POLL_STOP, in the calling thread."""

    stop: Callable[[], bool] = lambda: False  # end everything
    cancelled: Callable[[], Collection[str]] = frozenset  # hosts that are to be ended
    drain: Callable[[], bool] = lambda: False  # start nothing more, and let what runs go on to its end
    withdrawn: Callable[[Collection[str]], None] = lambda hosts: None  # takes the hosts that `drain` kept from starting


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How the run as a whole ended; what became of each device came as events."""

    ended: Literal["completed", "stopped", "deadline", "crashed"]
    detail: str = ""  # of a crash: Ansible's last words


def run(request: RunRequest, *, on_event: Hear, orders: Orders) -> RunOutcome:
    """Run the playbook over the targets and hand over what becomes of each, in the calling thread.

    A device's `started` event is written down by Ansible before the device is contacted, and reaches `on_event` up to
    `POLL_EVENTS` later; when the run did not complete, a device without that event was certainly not contacted.
    `on_event` may be slow: Ansible then waits.  Nothing that is handed over, and nothing in the outcome, holds a secret
    of the request.

    Raises:
        ValueError: a variable's name would change how Ansible connects, or RUN_DIR is too long.
        OSError: this attempt was begun before.
        Exception: what `on_event` or an order raised; the run is ended first.
    """
    if not request.targets:
        return RunOutcome("completed")
    with run_directory(request.ident, [target.host_name for target in request.targets]) as directory:
        watch = _Watch(request, directory, on_event, orders)
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

    def __init__(self, request: RunRequest, directory: Path, on_event: Hear, orders: Orders) -> None:
        self.request, self.directory, self.on_event, self.orders = request, directory, on_event, orders
        self.started: set[str] = set()  # hosts of which that was heard
        self.stopped: set[str] = set()  # hosts that were cancelled or withdrawn
        self.withdrawn: set[str] = set()  # those of them for which nothing was started: Ansible's word does not count
        self.events: deque[Mapping[str, Any]] = deque()
        self.words: deque[str] = deque(maxlen=DETAIL_LINES)
        self.error: Exception | None = None
        self.ended: Literal["", "stopped", "deadline"] = ""
        self.recap = False
        self.hosts = frozenset(target.host_name for target in request.targets)
        self.deadline, self.next_stop_check = time.monotonic() + request.deadline, 0.0
        self.redactor = Redactor(_secrets(request) | {vault.secret for vault in request.vaults})
        self.results = ResultLines(directory)
        self.play = PlayReader(request.ident, self.hosts, diff=request.diff) if request.project else None

    def keep(self, event: dict[str, Any]) -> bool:
        """Runner's event handler: fast, never raises.  False: write no event files."""
        self.events.append(event)
        return False

    def tick(self) -> bool:
        """Runner's cancel callback, each POLL_EVENTS.  True: end the run.  Never raises: runner would hide it."""
        try:
            self.look_around()
            now = time.monotonic()
            if not self.ended and now >= self.next_stop_check:
                self.next_stop_check = now + POLL_STOP
                self.obey()
            if not self.ended and now >= self.deadline:
                self.ended = "deadline"
            if self.ended:
                kill_processes(self.directory)  # before runner kills the outermost one only
        except Exception as error:  # noqa: BLE001  # raised again by outcome(), when the run has ended
            self.error = error
        return bool(self.ended or self.error)

    def obey(self) -> None:
        if self.orders.stop():
            self.ended = "stopped"
            return
        for host in set(self.orders.cancelled()) & self.hosts - self.stopped:
            self.stopped.add(host)
            if withdraw(self.directory, host):
                self.withdrawn.add(host)
                self.on_event(_cancelled(host))
        if self.orders.drain() and (waiting := waiting_hosts(self.directory)):
            unstarted = [host for host in waiting if withdraw(self.directory, host)]
            self.stopped.update(unstarted)
            self.withdrawn.update(unstarted)
            self.orders.withdrawn(unstarted)

    def look_around(self) -> None:
        """Tell what came since.  Of our own playbooks the run's directory says most of it."""
        if not self.play:
            self.note_starts()
            for kind, at, host, result in self.results.new():
                self.tell(finished(kind, at, host, result))
        while self.events:
            event = self.events.popleft()
            if self.play and event.get("event") == "playbook_on_stats":
                for host_event in self.play.end(event, matched=matched_hosts(self.directory)):
                    self.tell(host_event)
            if found := list(self.play.read(event)) if self.play else _one(parse(event)):
                for told in found:
                    self.tell(told)
            elif event.get("event") == "playbook_on_stats":
                self.recap = True
            elif event.get("stdout"):
                self.words.append(str(event["stdout"]).strip())

    def note_starts(self) -> None:
        for host, at in sorted(begun_hosts(self.directory, self.started).items(), key=itemgetter(1)):
            self.tell(HostEvent(host_name=host, kind="started", at=at))

    def tell(self, event: HostEvent | TaskEvent) -> None:
        if event.host_name in self.withdrawn:
            return
        if isinstance(event, TaskEvent):
            self.on_event(_redacted_task(event, self.redactor))
            return
        if event.kind == "started":
            self.started.add(event.host_name)
        elif event.host_name not in self.started and not self.play:
            self.note_starts()
        self.on_event(_redacted(event, self.redactor))

    def outcome(self) -> RunOutcome:
        if self.error:
            raise self.error
        self.look_around()
        if self.recap and not self.ended:
            return RunOutcome("completed")
        # What Ansible said last may have died with it; what it removed from `waiting` is certain.
        for host in self.hosts - waiting_hosts(self.directory) - self.withdrawn - self.started:
            self.on_event(HostEvent(host_name=host, kind="started", at=datetime.now(UTC)))
        if self.ended:
            return RunOutcome(self.ended)
        return RunOutcome("crashed", advised(last_words([self.redactor.clean("\n".join(self.words))])))


def _secrets(request: RunRequest) -> set[str]:
    return {secret for target in request.targets for secret in target.login.secrets} | request.secrets


def _cancelled(host_name: str) -> HostEvent:
    return HostEvent(
        host_name=host_name, kind="finished", at=datetime.now(UTC), status=CommandStatus.CANCELLED, code="cancelled",
        reason=REASONS["cancelled"],
    )  # fmt: skip


def _one(event: HostEvent | None) -> list[HostEvent]:
    return [event] if event else []


def _redacted_task(event: TaskEvent, redactor: Redactor) -> TaskEvent:
    """All texts in one go: most have none of the many secrets, and each look costs."""
    texts = {name: getattr(event, name) for name in ("play", "task", "message", "stdout", "stderr", "diff")}
    cut = event.truncated or max(len(event.play), len(event.task)) >= NAME_LENGTH
    whole = "\0".join(texts.values())
    if not cut and redactor.clean(whole) == whole:
        return event
    clean: dict[str, Any] = {name: redactor.clean(text, cut=cut) for name, text in texts.items()}
    return replace(event, **clean)


def _redacted(event: HostEvent, redactor: Redactor) -> HostEvent:
    if event.kind == "started":
        return event
    return replace(
        event, reason=advised(redactor.clean(event.reason, cut=len(event.reason) >= DETAIL_LENGTH)),
        stdout=redactor.clean(event.stdout, cut=event.truncated),
        stderr=redactor.clean(event.stderr, cut=event.truncated),
    )  # fmt: skip


# ---------------------------------------------------------------- what ansible-playbook is given
def _configure(request: RunRequest, directory: Path) -> ansible_runner.RunnerConfig:
    """Write the run directory's files and say which command to start, with which environment."""
    for name in request.variables:
        if not name.isidentifier() or name.startswith(("ansible_", "orchestrator_", MARKUP)):
            raise ValueError(f"A playbook variable may not be named {name!r}.")
    for folder in ("env", "home", "tmp"):
        (directory / folder).mkdir(mode=0o700)
    files = {
        "ansible.cfg": "",
        "known_hosts": known_hosts(request.targets),
        "slice.orchestrator.json": json.dumps(inventory(request.targets, connect_timeout=request.connect_timeout)),
        # The tab: Ansible takes a file that is no JSON to it for YAML, in which no text would be marked as untrusted.
        "env/extravars": "\t" + json.dumps({name: _untrusted(value) for name, value in request.variables.items()}),
    }
    if request.project:
        files[SECRETS] = json.dumps(sorted(_secrets(request)))
    for name, text in files.items():
        path = directory / name
        path.touch(mode=0o600)  # the inventory plugin reads no slice that others could read
        path.write_text(text, encoding="utf-8")
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
    program = [sys.executable, "-P", str(PLUGINS / "ansible-playbook"), *_options(request)]
    readable = [vault.file for vault in request.vaults]
    confined = sandbox(directory, request.project or request.playbook.parent, files=readable)
    config.command = [*confined, *program, *config.command[1:]]
    config.cwd = str(directory)
    return config


def _options(request: RunRequest) -> list[str]:
    options = ["--check"] if request.check else []
    options += ["--diff"] if request.diff else []
    options += [f"--tags={','.join(request.tags)}"] if request.tags else []
    options += [f"--skip-tags={','.join(request.skip_tags)}"] if request.skip_tags else []
    return options + (["-" + "v" * request.verbosity] if request.verbosity else [])


def _environment(request: RunRequest, directory: Path, artifacts: Path) -> dict[str, str]:
    """All that the run's processes get: nothing is inherited, and nothing in it is secret."""
    keys = any(target.login.private_key for target in request.targets)
    own: dict[str, str] = {}
    if request.project:
        own = snapshots.environment(request.project) | playbook_vaults.environment(request.vaults)
        # No task goes on for ever, whatever carries it out; device_ssh ends its command a little earlier.
        own |= {"ANSIBLE_TASK_TIMEOUT": str(math.ceil(request.execution_timeout + 2 * request.connect_timeout))}
    return {
        MARKER: str(directory),
        "PATH": f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(directory / "home"),
        "TMPDIR": str(directory / "tmp"),
        "PYTHONPATH": str(PROJECT),  # our plugins import ansible_plugins; the sandbox shows no more of the project
        "LC_ALL": "C.UTF-8",
        "PYTHON_COLORS": "0",  # of a traceback, whose last line becomes a reason
        # ansible-runner's side of the event stream
        "AWX_ISOLATED_DATA_DIR": str(artifacts),
        "ANSIBLE_CALLBACK_PLUGINS": f"{get_callback_dir()}:{PLUGINS / 'callback'}",
        "ANSIBLE_STDOUT_CALLBACK": "awx_display" if request.project else "results_only",
        "ORIGINAL_STDOUT_CALLBACK": "silent",
        "MAX_EVENT_RES": str(1 << 30),  # characters; over its default of 700,000 runner drops the whole result
        # Ansible
        "ANSIBLE_CONFIG": str(directory / "ansible.cfg"),
        "ANSIBLE_HOME": str(directory / "home"),
        "ANSIBLE_LOCAL_TEMP": str(directory / "tmp"),
        "ANSIBLE_ACTION_PLUGINS": str(PLUGINS / "action"),
        "ANSIBLE_CONNECTION_PLUGINS": str(PLUGINS / "connection"),
        "ANSIBLE_STRATEGY_PLUGINS": str(PLUGINS / "strategy"),
        "ANSIBLE_STRATEGY": strategy(),
        "ANSIBLE_INVENTORY_PLUGINS": str(INVENTORY_PLUGINS),
        "ANSIBLE_INVENTORY_ENABLED": "orchestrator",
        "ANSIBLE_INVENTORY_UNPARSED_FAILED": "True",
        "ANSIBLE_HOST_KEY_CHECKING": "True",  # runner's default is False
        "ANSIBLE_PIPELINING": "True",
        "ANSIBLE_SSH_AGENT": "auto" if keys else "none",
        "ANSIBLE_SSH_ARGS": f"-o KexAlgorithms={key_exchange()}",
        "ANSIBLE_SSH_TRANSFER_METHOD": "piped",  # one login, as for any other command; OpenWrt has no sftp
        "ANSIBLE_SSH_RETRIES": "0",  # a retry could run a command twice
        "ANSIBLE_RETRY_FILES_ENABLED": "False",
        "ANSIBLE_DEPRECATION_WARNINGS": "False",
        "ANSIBLE_NOCOLOR": "1",
        # ansible_plugins/connection/device_ssh.py
        "ORCHESTRATOR_KNOWN_HOSTS": str(directory / "known_hosts"),
        "ORCHESTRATOR_EXECUTION_TIMEOUT": str(request.execution_timeout),
        "ORCHESTRATOR_OUTPUT_LIMIT": str(settings.OUTPUT_LIMIT),
        "ORCHESTRATOR_OWN_PLAY": str(request.project is None),  # ansible_plugins/own_play.py
        "ORCHESTRATOR_SSH_LIBRARY": str(connections_inside(len(request.targets))),
    } | own


def _untrusted(value: Any) -> Any:
    """Mark every text in a variable, so that Ansible never takes it for a template."""
    if isinstance(value, str):
        return {"__ansible_unsafe": value}
    if isinstance(value, Mapping):
        if any(str(name).startswith(MARKUP) for name in value):
            raise ValueError("A key of Ansible's JSON in a variable: it could say that a text is a template.")
        return {str(name): _untrusted(part) for name, part in value.items()}
    if isinstance(value, Sequence):
        return [_untrusted(part) for part in value]
    return value
