"""A queue server that keeps its data on disk dies, and comes back with jobs that may be of yesterday."""

import random
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from orchestrator.stack import redis_program
from tests.chaos.fleet import ROUNDS, Fleet, check, counting, report, settle
from tests.integration.engine import until

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(300)]


@dataclass
class DurableQueue:
    """A queue server that writes down each change."""

    path: Path
    process: "subprocess.Popen[bytes] | None" = field(default=None)

    def start(self) -> None:
        """Start it with what is on its disk."""
        program = redis_program(self.path)
        argv = [*program.argv, "--appendonly", "yes", "--appendfsync", "always"]
        self.process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
        until(self.path.exists, 10)

    def die(self) -> None:
        """Kill -9."""
        assert self.process
        self.process.kill()
        self.process.wait()
        self.path.unlink(missing_ok=True)


@dataclass
class World:
    """The service, and its queue."""

    fleet: Fleet
    queue: DurableQueue


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The service with a queue server of the operator's own."""
    folder = tmp_path_factory.mktemp("chaos")
    queue = DurableQueue(folder / "q.sock")
    queue.start()
    try:
        with counting(folder, REDIS_URL=f"unix://{queue.path}") as fleet:
            yield World(fleet, queue)
    finally:
        queue.die()


@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_queue_that_comes_back_with_its_data_delivers_nothing_twice(world: World, number: int) -> None:
    launched = world.fleet.launch()
    world.fleet.wait_for_a_moment()
    world.queue.die()
    time.sleep(random.uniform(0.0, 3.0))
    world.queue.start()
    began = time.monotonic()
    run = settle(world.fleet, launched)
    report("queue, data", seconds=time.monotonic() - began, run=run)
    check(world.fleet, run)
