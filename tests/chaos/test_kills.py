"""Whatever dies, at whatever moment: nothing runs twice, every device ends, and no result is untrue.

Each device counts its executions in files.  ``CHAOS_ROUNDS``, ``CHAOS_CANCELS`` and ``CHAOS_DEVICES`` make the suite
long (``make chaos``); the short form runs with the other tests.  Runs of the service's own commands and of users'
playbooks take turns.
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
    measure,
    report,
    settle,
)
from tests.chaos.victims import kill, victims, words

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Devices that count, and a service that notices death soon."""
    with counting(tmp_path_factory.mktemp("chaos")) as made:
        measure(made)
        yield made


@pytest.mark.parametrize("what", ["horse", "worker", "ansible", "queue", "web", "recovery"])
@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_kill_at_any_moment_loses_nothing_and_repeats_nothing(fleet: Fleet, what: str, number: int) -> None:
    launched = fleet.launch_next()
    at_work = fleet.wait_for_a_moment(launched)
    killed, hit = victims(fleet.service.stack, fleet.runs, what, at_work)
    kill(*killed)
    began = time.monotonic()
    run = settle(fleet, launched, began=began)
    seconds = time.monotonic() - began
    check(fleet, run)
    report(fleet, what, seconds=seconds, run=run, hit=hit)


@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_kill_of_the_whole_stack_at_any_moment(fleet: Fleet, number: int) -> None:
    launched = fleet.launch_next()
    at_work = fleet.wait_for_a_moment(launched)
    stack = fleet.service.stack
    kill(stack.pid, *descendants(stack.pid))
    began = time.monotonic()
    stack.stop()
    stack.start()
    recovered = time.monotonic()
    fleet.service.connect()
    run = settle(fleet, launched, began=recovered)
    seconds = time.monotonic() - began  # with those in which nothing was there
    check(fleet, run)
    report(fleet, "everything", seconds=seconds, run=run, hit=at_work.slices > 0)


@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_worker_that_is_asked_to_stop_finishes_what_has_started_and_hands_the_rest_back(
    fleet: Fleet, number: int
) -> None:
    launched = fleet.launch_next()
    at_work = fleet.wait_for_a_moment(launched)
    [asked], hit = victims(fleet.service.stack, fleet.runs, "worker", at_work)
    with suppress(ProcessLookupError):
        os.kill(asked, signal.SIGTERM)
    began = time.monotonic()
    run = settle(fleet, launched, began=began)
    seconds = time.monotonic() - began
    check(fleet, run)
    assert run["status"] == "success", run["rows"]
    while words(asked):
        assert time.monotonic() - began < RECOVERED
        time.sleep(0.1)
    report(fleet, "SIGTERM", seconds=seconds, run=run, hit=hit)


@pytest.mark.parametrize("number", range(CANCELS))
def test_a_cancel_at_any_moment_leaves_no_process_and_starts_nothing_later(fleet: Fleet, number: int) -> None:
    launched = fleet.launch_next()
    fleet.wait_for_a_moment(launched)
    began = time.monotonic()
    reply = fleet.service.http.post(f"controller/batch-command/{launched}/cancel/", json={})
    assert reply.status_code in {202, 409}, reply.text  # 409: it had ended by then
    run = fleet.service.wait(launched, within=10.0)
    while left := fleet.processes_of_runs():
        assert time.monotonic() - began < 10.0, left
        time.sleep(0.1)
    seconds = time.monotonic() - began
    executions = fleet.executions()
    time.sleep(3.0 if ROUNDS == 1 else 1.0)  # in the end all rounds are looked at once more
    assert fleet.executions() == executions
    check(fleet, run, executed=EXECUTED | {"cancelled"})
    report(fleet, "cancel", seconds=seconds, run=run, hit=reply.status_code == 202)
