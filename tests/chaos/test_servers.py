"""An operator's own servers go away while a run is going on: PostgreSQL, and a queue server that keeps its data."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.stack import redis_program
from orchestrator.supervisor import descendants
from tests.chaos.fleet import ROUNDS, Fleet, check, counting, measure, report, settle
from tests.integration.engine import until
from tests.postgres import NoPostgreSQL, Server, running

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(300)]


class DurableQueue:
    """A queue server that writes down each change, and comes back with jobs that may be of yesterday."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.start()

    def start(self) -> None:
        """Start it with what is on its disk."""
        program = redis_program(self.path)
        argv = [*program.argv, "--appendonly", "yes", "--appendfsync", "always"]
        self.process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
        until(self.path.exists, 10)

    def die(self) -> None:
        """Kill -9."""
        self.process.kill()
        self.process.wait()
        self.path.unlink(missing_ok=True)


@dataclass
class World:
    """The service and its servers."""

    fleet: Fleet
    database: Server
    queue: DurableQueue


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The service on a PostgreSQL that keeps what it has confirmed, as it does unless told otherwise."""
    folder = tmp_path_factory.mktemp("chaos")
    queue = DurableQueue(folder / "q.sock")
    try:
        with running(synchronous_commit="on") as database:
            with counting(folder, DATABASE_URL=database.url, REDIS_URL=f"unix://{queue.path}") as fleet:
                measure(fleet)
                yield World(fleet, database, queue)
    except NoPostgreSQL as reason:
        pytest.skip(str(reason))
    finally:
        queue.die()


def crash_the_database(world: World) -> None:
    """Kill one of the server's processes: it then ends all the others, recovers, and takes connections again."""
    os.kill(random.choice(descendants(world.database.pid)), signal.SIGKILL)


def restart_the_database(world: World) -> None:
    """As for an upgrade, or as a machine that goes down in a hurry."""
    world.database.stop(random.choice([signal.SIGINT, signal.SIGQUIT]))
    time.sleep(random.uniform(0.0, 3.0))
    world.database.start()


def kill_the_queue(world: World) -> None:
    """It comes back with its data."""
    world.queue.die()
    time.sleep(random.uniform(0.0, 3.0))
    world.queue.start()


@pytest.mark.parametrize("do", [crash_the_database, restart_the_database, kill_the_queue])
@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_server_that_goes_away_at_any_moment_costs_time_and_no_result(
    world: World, do: Callable[[World], None], number: int
) -> None:
    fleet = world.fleet
    launched = fleet.launch_next()
    at_work = fleet.wait_for_a_moment(launched)
    do(world)
    began = time.monotonic()
    run = settle(fleet, launched, began=began)
    seconds = time.monotonic() - began
    check(fleet, run)
    what = getattr(do, "__name__", "").replace("_", " ")
    report(fleet, what, seconds=seconds, run=run, hit=at_work.slices > 0)
