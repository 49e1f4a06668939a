"""The limits hold on the devices themselves, with any number of workers."""

import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.chaos.fleet import DEVICES, ROUNDS, Fleet, check, counting, note, settle
from tests.chaos.victims import words

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(300)]

LIMIT = 3 if DEVICES <= 10 else 6
PATIENCE = 200.0  # seconds: one worker and many devices take their time
MARK = "sleep 2.375"  # what the devices run, and nothing else on this machine


@pytest.fixture(scope="module", params=[2] if ROUNDS == 1 else [1, 2, 4], ids="{} workers".format)
def fleet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Devices that count, and a service with that many workers."""
    with counting(tmp_path_factory.mktemp("limits"), workers=request.param) as made:
        yield made


class Sampler(threading.Thread):
    """Looks every few milliseconds how many devices run the command: their processes are this machine's."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = 0
        self.done = threading.Event()
        self._before = _processes()  # to read about those, too, would keep a core from the devices

    def run(self) -> None:
        """Sample until told to stop."""
        while not self.done.wait(0.04):
            self.most = max(self.most, sum(map(self._is_marked, _processes() - self._before)))

    def _is_marked(self, pid: str) -> bool:
        return words(int(pid)).strip() == MARK


def _processes() -> set[str]:
    return set(filter(str.isdigit, os.listdir("/proc")))


def sample(fleet: Fleet, **controls: Any) -> int:
    """The most devices that ran the command at one time."""
    sampler = Sampler()
    sampler.start()
    try:
        run = settle(fleet, fleet.launch(work=MARK, **controls), began=time.monotonic(), within=PATIENCE)
    finally:
        sampler.done.set()
        sampler.join()
    assert run["status"] == "success", run["rows"]
    check(fleet, run)
    return sampler.most


@pytest.mark.timeout(600)
def test_devices_in_flight_never_exceed_the_limit(fleet: Fleet) -> None:
    workers = fleet.service.stack.config.workers
    held, free = sample(fleet, max_concurrency=LIMIT), sample(fleet)
    assert 1 <= held <= LIMIT
    assert free > LIMIT or workers == 1  # without the limit there are more, so the sampler sees them
    note({"kind": f"limit {LIMIT}", "workers": workers, "most": held, "most_without": free})


def test_two_runs_never_touch_one_device_at_once(fleet: Fleet) -> None:
    first, second = fleet.launch(), fleet.launch()
    time.sleep(1.0)
    devices, began = len(fleet.ids), time.monotonic()
    for run in [settle(fleet, each, began=began, within=PATIENCE) for each in (first, second)]:
        assert run["counts"]["success"] == devices, run["rows"]
    rows = [row for run in (first, second) for row in fleet.service.rows(run)]
    spans: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        spans.setdefault(row["device_name"], []).append((row["started"], row["finished"]))
    for name, ((one_start, one_end), (other_start, other_end)) in spans.items():
        assert one_end <= other_start or other_end <= one_start, name
