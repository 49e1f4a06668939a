"""Turns of many tasks in one process, and when the strategy that needs them is chosen."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from ansible import constants
from ansible.playbook.task import Task
from django.test import override_settings

from ansible_plugins import cooperation
from ansible_plugins.strategy.device_linear import Turns, _waits
from orchestrator import tuning


@pytest.fixture
def turns() -> Iterator[Turns]:
    """Turns for up to two threads' work at once."""
    made = Turns(2)
    cooperation.install(made)
    yield made
    made.close()
    cooperation.install(None)


def drive(turns: Turns, seconds: float = 5.0) -> None:
    """Until all tasks have ended."""
    end = time.monotonic() + seconds
    while turns.running:
        assert time.monotonic() < end
        turns.go_on(0.05)


def test_a_task_that_waits_for_a_device_does_not_hold_up_the_others(turns: Turns) -> None:
    told: list[str] = []
    answer = threading.Event()

    def wait() -> None:
        told.append("asked")
        assert cooperation.offload(lambda: answer.wait(5))
        told.append("answered")

    turns.start(wait)
    turns.start(lambda: told.append("other"))
    assert told == ["asked", "other"]
    answer.set()
    drive(turns)
    assert told == ["asked", "other", "answered"]


def test_work_of_a_thread_hands_on_what_it_raises(turns: Turns) -> None:
    caught: list[str] = []

    def fail() -> None:
        raise OSError("gone")

    def task() -> None:
        try:
            cooperation.offload(fail)
        except OSError as error:
            caught.append(str(error))

    turns.start(task)
    drive(turns)
    assert caught == ["gone"]


def test_tasks_sleep_side_by_side(turns: Turns) -> None:
    begin = time.monotonic()
    woken: list[int] = []

    def sleep(number: int) -> None:
        cooperation.sleep(0.3 - number / 100)
        woken.append(number)

    for number in range(9):
        turns.start(partial(sleep, number))
    drive(turns)
    assert woken == sorted(woken, reverse=True)
    assert time.monotonic() - begin < 1.5  # one after the other would be 2.3 s


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("caller", ["no task", "a thread", "a fork"])
@pytest.mark.usefixtures("turns")
def test_whoever_is_no_task_of_this_process_just_does_it(caller: str) -> None:
    def here() -> bool:
        me = threading.get_ident()
        return cooperation.offload(threading.get_ident) == me

    if caller == "a fork":
        child = os.fork()
        if not child:
            os._exit(0 if here() and not cooperation.aborted() else 1)
        assert os.waitpid(child, 0)[1] == 0
        return
    told: list[bool] = []
    run: Callable[[], None] = lambda: told.append(here())  # noqa: E731
    if caller == "a thread":
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    else:
        run()
    assert told == [True]


def test_after_an_abort_threads_are_told_to_give_up(turns: Turns) -> None:
    def follow() -> None:
        while not cooperation.aborted():
            time.sleep(0.01)

    turns.start(lambda: cooperation.offload(follow))
    turns.close()  # returns, or the test's timeout ends it
    drive(turns)


@pytest.mark.parametrize(("seconds", "waits"), [(0, True), (60, False), (61, True)])
def test_a_timeout_that_all_tasks_have_is_their_connections_and_one_of_a_task_needs_a_process(
    monkeypatch: pytest.MonkeyPatch, seconds: int, waits: bool
) -> None:
    monkeypatch.setattr(constants, "TASK_TIMEOUT", 60)
    task = Task()
    task.timeout = seconds
    assert _waits(task) == waits


@pytest.mark.parametrize(
    ("core", "wanted", "strategy"),
    [("2.21.5", True, "device_linear"), ("2.21.5", False, "linear"), ("2.22.0", True, "linear")],
)
def test_the_fast_path_is_for_tested_releases_of_ansible(
    monkeypatch: pytest.MonkeyPatch, core: str, wanted: bool, strategy: str
) -> None:
    monkeypatch.setattr(tuning, "_core", lambda: core)
    with override_settings(FAST_PATH=wanted):
        assert tuning.strategy() == strategy
