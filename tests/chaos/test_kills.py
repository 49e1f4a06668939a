"""Whatever dies, at whatever moment: nothing runs twice, every device ends, and no result is untrue.

Each device counts its executions in a file.  ``CHAOS_ROUNDS`` and ``CHAOS_DEVICES`` make the suite long
(``make chaos``); the short form runs with the other tests.
"""

import random
import time
from collections.abc import Iterator

import pytest

from orchestrator.supervisor import descendants
from tests.chaos.fleet import ROUNDS, Fleet, check, counting, kill, settle, victims, words

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Devices that count, and a service that notices death soon."""
    with counting(tmp_path_factory.mktemp("chaos")) as made:
        yield made


@pytest.mark.parametrize("what", ["horse", "worker", "ansible", "queue", "web", "recovery"])
@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_kill_at_any_moment_loses_nothing_and_repeats_nothing(fleet: Fleet, what: str, number: int) -> None:
    launched = fleet.launch()
    time.sleep(random.uniform(0.0, 6.0))
    killed = victims(fleet.service.stack, what)
    kill(*killed[: 1 if what in {"horse", "worker"} else None])
    run = settle(fleet, launched)
    check(fleet, run)


@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_kill_of_the_whole_stack_at_any_moment(fleet: Fleet, number: int) -> None:
    launched = fleet.launch()
    time.sleep(random.uniform(0.0, 6.0))
    stack = fleet.service.stack
    everything = [stack.pid, *descendants(stack.pid)]
    kill(*everything)
    stack.stop()
    stack.start()
    fleet.service.connect()
    check(fleet, settle(fleet, launched))


@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_cancel_at_any_moment_leaves_no_process_and_starts_nothing_later(fleet: Fleet, number: int) -> None:
    launched = fleet.launch()
    time.sleep(random.uniform(0.0, 5.0))
    reply = fleet.service.http.post(f"controller/batch-command/{launched}/cancel/", json={})
    assert reply.status_code in {200, 202, 409}, reply.text  # 409: it had ended by then
    run = fleet.service.wait(launched, within=10.0)
    time.sleep(0.5)
    left = [words(pid) for pid in descendants(fleet.service.stack.pid)]
    assert not [line for line in left if "ansible" in line or line.startswith(("ssh ", "bwrap "))], left
    executions = fleet.executions()
    time.sleep(3.0)
    assert fleet.executions() == executions
    check(fleet, run)
