"""PostgreSQL crashes and comes back while a run is going on."""

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.fleet import ROUNDS, Fleet, check, counting, settle, words
from tests.postgres import NoPostgreSQL, cluster

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """The service on a PostgreSQL of its own."""
    try:
        with cluster() as url, counting(tmp_path_factory.mktemp("chaos"), DATABASE_URL=url) as made:
            yield made
    except NoPostgreSQL as reason:
        pytest.skip(str(reason))


def crash() -> None:
    """Kill one of the server's processes: it then ends all the others, recovers, and takes connections again."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    backends = [pid for pid in pids if words(pid).startswith("postgres: postgres postgres [local]")]
    assert backends
    os.kill(random.choice(backends), signal.SIGKILL)


@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_crash_of_the_database_at_any_moment_costs_time_and_no_result(fleet: Fleet, number: int) -> None:
    launched = fleet.launch()
    time.sleep(random.uniform(0.0, 6.0))
    crash()
    run = settle(fleet, launched)
    check(fleet, run)
