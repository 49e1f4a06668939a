"""Stopped, killed or taken away: nothing of a run is left alive, and what was started is known for certain."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from orchestrator import processes, runner
from orchestrator.events import HostEvent
from orchestrator.processes import MARKER
from orchestrator.run_directory import TAKEN, WAITING, WITHDRAWN, run_directory, withdraw
from orchestrator.runner import Orders, RunRequest
from tests.integration.engine import Engine, ssh_clients, until

pytestmark = pytest.mark.lab

STOPPED = 10.0  # seconds within which nothing may be alive
BEGIN = "touch /tmp/began; sleep {seconds}"
PATIENT = {"execution": 60.0}  # seconds; what runs is to be ended by something else


def only_directory() -> Path:
    """The directory of the one run there is."""
    (found,) = Path(settings.RUN_DIR).glob("orchestrator-run-*")
    return found


def alive(engine: Engine, *names: str) -> list[int]:
    """Processes of any run in this test's folder, and ssh clients to these devices."""
    marked = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"{MARKER}={settings.RUN_DIR}".encode() in (entry / "environ").read_bytes():
                marked.append(int(entry.name))
        except OSError:
            continue
    return marked + [pid for name in names for pid in ssh_clients(engine.device(name))]


def forget(engine: Engine, *names: str) -> None:
    """Remove what BEGIN leaves on the devices."""
    for name in names:
        engine.lab.exec(name, "rm", "-f", "/tmp/began")


# ---------------------------------------------------------------- stop
@pytest.mark.parametrize("moment", ["while commands run", "before the first device"])
def test_a_stop_leaves_no_process_within_ten_seconds(engine: Engine, isolation: bool, moment: str) -> None:
    names = ("openwrt1", "openwrt2", "linux1")
    forget(engine, *names)
    asked: list[float] = []

    def should_stop() -> bool:
        if moment == "before the first device" or all(engine.exists(name, "/tmp/began") for name in names):
            asked.append(time.monotonic())
        return bool(asked)

    targets = [engine.target(name) for name in names]
    result = engine.run(
        engine.request(targets, command=BEGIN.format(seconds=60), limits=PATIENT), orders=Orders(stop=should_stop)
    )
    assert alive(engine, *names) == []
    assert time.monotonic() - asked[0] < STOPPED
    assert (result.outcome.ended, result.finished) == ("stopped", {})
    assert bool(result.started) == (moment == "while commands run")


# ---------------------------------------------------------------- single devices
FOREIGN = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.raw: "{{ command }}"
      ignore_errors: true
      ignore_unreachable: true
    - ansible.builtin.raw: touch /tmp/second
"""


def only_its_own(engine: Engine, *names: str) -> dict[str, list[int]]:
    """The ssh clients that are left, by device."""
    return {name: left for name in names if (left := ssh_clients(engine.device(name)))}


@pytest.mark.parametrize("inside", [False, True], ids=["by ssh", "inside of Ansible"])
def test_a_single_device_is_ended_while_it_runs_and_the_others_go_on(
    engine: Engine, isolation: bool, monkeypatch: pytest.MonkeyPatch, inside: bool
) -> None:
    monkeypatch.setattr(settings, "SSH_LIBRARY_FROM", int(inside))
    names = ("openwrt1", "openwrt2", "openwrt3")
    forget(engine, *names)
    asked: list[float] = []
    left: list[dict[str, list[int]]] = []

    def cancelled() -> list[str]:
        if not asked and all(engine.exists(name, "/tmp/began") for name in names[:2]):
            asked.append(time.monotonic())
        return ["openwrt1", "openwrt3"] if asked else []

    def hear(event: HostEvent) -> None:
        if event.host_name == "openwrt1" and event.kind == "finished":
            asked.append(time.monotonic())
            left.append(only_its_own(engine, "openwrt1", "openwrt2"))

    targets = [engine.target(name) for name in names]
    request = engine.request(targets, command=BEGIN.format(seconds=6), limits=PATIENT, forks=2)
    result = engine.run(request, orders=Orders(cancelled=cancelled), hear=hear)
    assert result.outcome.ended == "completed"
    assert asked[1] - asked[0] < 4
    assert [[*clients] for clients in left] == [[] if inside else ["openwrt2"]]
    told = {name: (event.status, event.code) for name, event in result.finished.items()}
    assert told == {
        "openwrt1": ("cancelled", "cancelled_running"),
        "openwrt2": ("success", ""),
        "openwrt3": ("cancelled", "cancelled"),  # there was no fork for it
    }
    assert "may have" in result.finished["openwrt1"].reason
    assert "openwrt3" not in result.started
    assert not engine.exists("openwrt3", "/tmp/began")


def test_a_device_that_is_being_logged_in_to_is_cancelled_and_nothing_ran_there(engine: Engine) -> None:
    engine.lab.fault("openwrt1", "mute")
    began: list[float] = []

    def cancelled() -> list[str]:
        began.extend([time.monotonic()] if ssh_clients(engine.device("openwrt1")) else [])
        return ["openwrt1"] if began else []

    request = engine.request([engine.target("openwrt1")], command="id", limits={"connect": 60.0})
    event = engine.run(request, orders=Orders(cancelled=cancelled)).finished["openwrt1"]
    assert time.monotonic() - began[0] < 5
    assert (event.status, event.code) == ("cancelled", "cancelled")
    assert "before the device was logged in to" in event.reason


def test_no_further_task_of_a_play_reaches_a_cancelled_device(engine: Engine, tmp_path: Path) -> None:
    playbook = tmp_path / "foreign.yml"
    playbook.write_text(FOREIGN)
    names = ("openwrt1", "openwrt2")
    forget(engine, *names)
    for name in names:
        engine.lab.exec(name, "rm", "-f", "/tmp/second")

    def cancelled() -> list[str]:
        return ["openwrt1"] if engine.exists("openwrt1", "/tmp/began") else []

    targets = [engine.target(name) for name in names]
    request = engine.request(targets, playbook, command="touch /tmp/began; sleep 3", limits=PATIENT)
    told: list[Any] = []
    runner.run(request, on_event=told.append, orders=Orders(cancelled=cancelled))
    ends = [(event.status, event.code) for event in told if event.host_name == "openwrt1" and event.status]
    assert set(ends) == {("cancelled", "cancelled_running")}  # the second task, too, knows that the first one ran
    assert not engine.exists("openwrt1", "/tmp/second")
    assert engine.exists("openwrt2", "/tmp/second")


def test_a_reboot_that_was_ordered_is_cancelled_while_it_is_waited_for(engine: Engine) -> None:
    engine.lab.fault("openwrt1", "noreturn")
    asked: list[float] = []

    def cancelled() -> list[str]:
        asked.extend([time.monotonic()] if engine.device("openwrt1").state != "up" else [])
        return ["openwrt1"] if asked else []

    request = engine.request([engine.target("openwrt1")], "reboot", limits=PATIENT, reboot_timeout=60)
    event = engine.run(request, orders=Orders(cancelled=cancelled)).finished["openwrt1"]
    assert (event.status, event.code) == ("cancelled", "cancelled_running")
    assert time.monotonic() - asked[0] < STOPPED


# ---------------------------------------------------------------- drain
def test_a_drain_starts_nothing_more_and_lets_what_runs_go_on(engine: Engine, isolation: bool) -> None:
    names = ("openwrt1", "openwrt2", "openwrt3", "linux1")
    forget(engine, *names)
    handed_back: list[str] = []
    targets = [engine.target(name) for name in names]
    request = engine.request(targets, command=BEGIN.format(seconds=2), limits=PATIENT, forks=2)
    orders = Orders(drain=lambda: engine.exists("openwrt1", "/tmp/began"), withdrawn=handed_back.extend)
    result = engine.run(request, orders=orders)
    assert result.outcome.ended == "completed"
    assert {name: event.status for name, event in result.finished.items()} == dict.fromkeys(names[:2], "success")
    assert sorted(handed_back) == ["linux1", "openwrt3"]
    assert sorted(result.started) == ["openwrt1", "openwrt2"]
    assert not engine.exists("openwrt3", "/tmp/began")


def test_what_was_withdrawn_is_known_never_to_have_started_when_its_worker_dies(engine: Engine) -> None:
    request = killed(engine)
    assert withdraw(only_directory(), "openwrt1")
    assert not withdraw(only_directory(), "openwrt1")
    assert runner.started_hosts(request.ident) == frozenset()
    runner.sweep()


# ---------------------------------------------------------------- kill -9
def test_after_a_kill_of_the_worker_it_is_certain_which_devices_were_never_started(
    engine: Engine, isolation: bool
) -> None:
    names = ("openwrt1", "openwrt2", "openwrt3")
    forget(engine, *names)
    command = f"[ $(hostname) = openwrt1 ] || {{ {BEGIN.format(seconds=60)}; }}"
    request = engine.request([engine.target(name) for name in names], command=command, forks=1, limits=PATIENT)
    with engine.worker(request, isolated=isolation) as worker:
        until(lambda: engine.exists("openwrt2", "/tmp/began"))
        assert runner.started_hosts(request.ident) is None  # it is alive, and is left so
        assert runner.sweep() == 0
        assert worker.poll() is None
        os.kill(worker.pid, signal.SIGKILL)
    assert runner.started_hosts(request.ident) == frozenset({"openwrt1", "openwrt2"})
    assert alive(engine, *names) == []
    assert runner.started_hosts(request.ident) == frozenset({"openwrt1", "openwrt2"})  # may be asked again
    assert not engine.exists("openwrt3", "/tmp/began")
    assert {entry.name for entry in only_directory().iterdir()} == {"machine", "hosts", TAKEN, WITHDRAWN}
    assert runner.sweep(older_than=60) == 0
    assert runner.sweep() == 1
    assert runner.started_hosts(request.ident) is None


@pytest.mark.parametrize("delay", [0.0, 0.2, 0.5, 0.9])
def test_a_worker_that_is_killed_at_any_moment_starts_nothing_afterwards(
    engine: Engine, isolation: bool, delay: float
) -> None:
    names = ("openwrt1", "openwrt2", "openwrt3", "linux1")
    forget(engine, *names)
    request = engine.request(
        [engine.target(name) for name in names], command=BEGIN.format(seconds=60), limits=PATIENT, forks=2
    )
    with engine.worker(request, isolated=isolation) as worker:
        until(lambda: list(Path(settings.RUN_DIR).glob("orchestrator-run-*")))
        time.sleep(delay)
        os.kill(worker.pid, signal.SIGKILL)
    started = runner.started_hosts(request.ident)
    assert started is not None
    assert alive(engine, *names) == []
    time.sleep(1)
    for name in names:
        assert name in started or not engine.exists(name, "/tmp/began")
    runner.sweep()


def test_what_goes_on_for_a_frozen_worker_is_ended_when_its_slice_is_taken(engine: Engine, isolation: bool) -> None:
    names = ("openwrt1", "openwrt2", "openwrt3")
    forget(engine, *names)
    command = f"[ $(hostname) = openwrt1 ] || {{ {BEGIN.format(seconds=6)}; }}"
    request = engine.request([engine.target(name) for name in names], command=command, forks=1, limits=PATIENT)
    with engine.worker(request, isolated=isolation) as worker:
        until(lambda: engine.exists("openwrt2", "/tmp/began"))
        os.kill(worker.pid, signal.SIGSTOP)
        assert runner.started_hosts(request.ident, evict=True) == frozenset({"openwrt1", "openwrt2"})
        assert alive(engine, *names) == []
        os.kill(worker.pid, signal.SIGCONT)
    assert alive(engine, *names) == []
    assert not engine.exists("openwrt3", "/tmp/began")
    assert not list(Path(settings.RUN_DIR).glob("orchestrator-run-*"))  # it went after all


def test_a_worker_that_was_frozen_before_its_start_begins_nothing(engine: Engine) -> None:
    request = engine.request([engine.target("openwrt1")], command="id")
    assert runner.started_hosts(request.ident, evict=True) is None
    with pytest.raises(OSError, match="not empty"):
        runner.run(request, on_event=lambda event: None, orders=Orders())
    assert runner.sweep() == 1


def test_a_sweep_wipes_secrets_at_once_and_keeps_what_recovery_asks_for(engine: Engine) -> None:
    forget(engine, "openwrt1")
    request = engine.request([engine.target("openwrt1")], command=BEGIN.format(seconds=60), limits=PATIENT)
    with engine.worker(request, isolated=True) as worker:
        until(lambda: engine.exists("openwrt1", "/tmp/began"))
        os.kill(worker.pid, signal.SIGKILL)
    assert any("old-Secret1" in text for text in texts(only_directory()))
    assert runner.sweep(older_than=60) == 0
    assert not any("old-Secret1" in text for text in texts(only_directory()))
    assert alive(engine, "openwrt1") == []
    assert runner.started_hosts(request.ident) == frozenset({"openwrt1"})
    assert runner.sweep() == 1


def texts(directory: Path) -> list[str]:
    """All files below."""
    return [path.read_text(errors="replace") for path in directory.rglob("*") if path.is_file()]


# ---------------------------------------------------------------- the fence
def test_a_run_that_was_taken_away_starts_no_further_device_even_if_nobody_found_its_processes(
    engine: Engine, isolation: bool
) -> None:
    names = ("openwrt1", "openwrt2")
    forget(engine, *names)

    def take_away() -> None:
        until(lambda: engine.exists("openwrt1", "/tmp/began"))
        (only_directory() / WAITING).rename(only_directory() / TAKEN)

    thread = threading.Thread(target=take_away)
    thread.start()
    targets = [engine.target(name) for name in names]
    result = engine.run(engine.request(targets, command=BEGIN.format(seconds=2), forks=1))
    thread.join()
    assert result.outcome.ended == "crashed"
    assert not engine.exists("openwrt2", "/tmp/began")
    assert "openwrt2" not in result.finished


ELSEWHERE = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.debug: {msg: nothing}
      HOW
"""


@pytest.mark.parametrize("how", ["run_once: true", "delegate_to: localhost"])
def test_a_task_that_may_concern_any_device_counts_for_all(engine: Engine, tmp_path: Path, how: str) -> None:
    playbook = tmp_path / "elsewhere.yml"
    playbook.write_text(ELSEWHERE.replace("HOW", how))
    seen: list[list[str]] = []

    def hear(event: HostEvent) -> None:
        seen.append(os.listdir(only_directory() / WAITING))

    engine.run(engine.request([engine.target("openwrt1"), engine.target("openwrt2")], playbook, forks=1), hear=hear)
    assert seen
    assert seen[0] == []


# ---------------------------------------------------------------- unknown
def killed(engine: Engine) -> RunRequest:
    """A run that was killed before anything was started."""
    request = engine.request([engine.target("openwrt1")], command="id")
    with pytest.raises(LookupError), run_directory(request.ident, ["openwrt1"]) as directory:
        shutil.copytree(directory, directory.with_name("kept"))
        raise LookupError
    directory.with_name("kept").rename(directory)
    return request


def test_a_run_that_was_killed_before_ansible_started_has_started_nothing(engine: Engine) -> None:
    request = killed(engine)
    assert runner.started_hosts(request.ident) == frozenset()
    runner.sweep()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda directory: (directory / "machine").write_text("another boot"),
        lambda directory: (directory / "hosts").unlink(),
        lambda directory: os.chown(directory, 12_345, -1),
        shutil.rmtree,
    ],
    ids=["the machine was booted since", "a file is missing", "somebody else made it", "it is gone"],
)
def test_what_is_not_certain_is_unknown(engine: Engine, spoil: Callable[[Path], object]) -> None:
    request = killed(engine)
    directory = only_directory()
    spoil(directory)
    assert runner.started_hosts(request.ident) is None
    shutil.rmtree(directory, ignore_errors=True)


def test_a_run_of_which_a_process_does_not_die_is_unknown(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    request = killed(engine)
    with monkeypatch.context() as patch:
        patch.setattr(processes, "KILL_TIMEOUT", 0.1)
        patch.setattr(processes, "processes", lambda directory: [os.getpid()])
        patch.setattr(processes, "_belongs", lambda pid, directory: False)
        assert runner.started_hosts(request.ident) is None
        assert runner.sweep() == 0
    assert runner.sweep() == 1


# ---------------------------------------------------------------- names
def test_a_host_whose_name_is_no_plain_file_name_is_refused(engine: Engine) -> None:
    for name in ("../x", "a/b", "", ".hidden", "a\nb", "{{ x }}"):
        request = engine.request([replace(engine.target("openwrt1"), host_name=name)], command="id")
        with pytest.raises(ValueError, match="no plain name"):
            engine.run(request)


def test_a_folder_too_deep_for_ansibles_sockets_is_refused_and_the_message_says_by_how_much(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("django.conf.settings.RUN_DIR", settings.RUN_DIR + "/" + "x" * 30)
        with pytest.raises(ValueError, match=r"ORCHESTRATOR_RUN_DIR is \d+ bytes too long"):
            engine.custom("id", "openwrt1")
