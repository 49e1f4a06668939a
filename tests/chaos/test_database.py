"""PostgreSQL crashes, or is restarted, and comes back while a run is going on."""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from orchestrator.supervisor import descendants
from tests.chaos.fleet import ROUNDS, Fleet, check, counting, report, settle
from tests.postgres import NoPostgreSQL, Server, running

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(300)]


@dataclass
class World:
    """The service, and its database server."""

    fleet: Fleet
    server: Server


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The service on a PostgreSQL of its own, which keeps what it has confirmed: as it does unless told otherwise."""
    try:
        with running(synchronous_commit="on") as server:
            with counting(tmp_path_factory.mktemp("chaos"), DATABASE_URL=server.url) as fleet:
                yield World(fleet, server)
    except NoPostgreSQL as reason:
        pytest.skip(str(reason))


def crash(server: Server) -> None:
    """Kill one of the server's processes: it then ends all the others, recovers, and takes connections again."""
    os.kill(random.choice(descendants(server.pid)), signal.SIGKILL)


def restart(server: Server) -> None:
    """As for an upgrade, or as a machine that goes down in a hurry."""
    server.stop(random.choice([signal.SIGINT, signal.SIGQUIT]))
    time.sleep(random.uniform(0.0, 3.0))
    server.start()


@pytest.mark.parametrize("what", [crash, restart])
@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_database_that_goes_away_at_any_moment_costs_time_and_no_result(
    world: World, what: Callable[[Server], None], number: int
) -> None:
    launched = world.fleet.launch()
    world.fleet.wait_for_a_moment()
    what(world.server)
    began = time.monotonic()
    run = settle(world.fleet, launched)
    report(f"database {getattr(what, '__name__', '')}", seconds=time.monotonic() - began, run=run)
    check(world.fleet, run)
