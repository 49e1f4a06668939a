"""Whatever dies, at whatever moment: nothing runs twice, every device ends, and no result is untrue.

Each device counts its executions in a file.  ``CHAOS_ROUNDS``, ``CHAOS_CANCELS`` and ``CHAOS_DEVICES`` make the suite
long (``make chaos``); the short form runs with the other tests.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from orchestrator.supervisor import descendants
from tests.chaos.fleet import (
    CANCELS,
    EXECUTED,
    RECOVERED,
    ROUNDS,
    Fleet,
    check,
    counting,
    kill,
    report,
    settle,
    victims,
    words,
)

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(300)]

ONE = frozenset({"horse", "worker"})  # of these there are several, and one dies


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Devices that count, and a service that notices death soon."""
    with counting(tmp_path_factory.mktemp("chaos")) as made:
        yield made


@pytest.mark.parametrize("what", ["horse", "worker", "ansible", "queue", "web", "recovery"])
@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_kill_at_any_moment_loses_nothing_and_repeats_nothing(fleet: Fleet, what: str, number: int) -> None:
    launched = fleet.launch()
    fleet.wait_for_a_moment()
    killed = victims(fleet.service.stack, what)[: 1 if what in ONE else None]
    kill(*killed)
    began = time.monotonic()
    run = settle(fleet, launched)
    report(what, seconds=time.monotonic() - began, run=run, hit=bool(killed))
    check(fleet, run)


@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_kill_of_the_whole_stack_at_any_moment(fleet: Fleet, number: int) -> None:
    launched = fleet.launch()
    fleet.wait_for_a_moment()
    stack = fleet.service.stack
    everything = [stack.pid, *descendants(stack.pid)]
    kill(*everything)
    stack.stop()
    stack.start()
    fleet.service.connect()
    began = time.monotonic()
    run = settle(fleet, launched)
    report("everything", seconds=time.monotonic() - began, run=run)
    check(fleet, run)


@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_worker_that_is_asked_to_stop_finishes_what_has_started_and_hands_the_rest_back(
    fleet: Fleet, number: int
) -> None:
    launched = fleet.launch()
    fleet.wait_for_a_moment()
    asked = victims(fleet.service.stack, "worker")[0]
    with suppress(ProcessLookupError):
        os.kill(asked, signal.SIGTERM)
    began = time.monotonic()
    run = settle(fleet, launched)
    report("SIGTERM", seconds=time.monotonic() - began, run=run)
    check(fleet, run)
    assert run["status"] == "success", run["rows"]
    while words(asked):
        assert time.monotonic() - began < RECOVERED
        time.sleep(0.1)


@pytest.mark.parametrize("number", range(CANCELS))
def test_a_cancel_at_any_moment_leaves_no_process_and_starts_nothing_later(fleet: Fleet, number: int) -> None:
    launched = fleet.launch()
    fleet.wait_for_a_moment()
    began = time.monotonic()
    reply = fleet.service.http.post(f"controller/batch-command/{launched}/cancel/", json={})
    assert reply.status_code in {202, 409}, reply.text  # 409: it had ended by then
    run = fleet.service.wait(launched, within=10.0)
    report("cancel", seconds=time.monotonic() - began, run=run, hit=reply.status_code == 202)
    while left := processes_of_runs(fleet):
        assert time.monotonic() - began < 10.0, left
        time.sleep(0.1)
    executions = fleet.executions()
    time.sleep(3.0 if ROUNDS == 1 else 1.0)  # in the end all rounds are looked at once more
    assert fleet.executions() == executions
    check(fleet, run, executed=EXECUTED | {"cancelled"})


def processes_of_runs(fleet: Fleet) -> list[str]:
    """What a run starts."""
    left = [words(pid) for pid in descendants(fleet.service.stack.pid)]
    return [line for line in left if "ansible" in line or line.startswith(("ssh ", "bwrap "))]
