"""The benchmark measures real logins, in a network of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.requirements import missing_requirements
from orchestrator.stack import BASE_DIR
from tests.acceptance.service import lab_directory

pytestmark = [pytest.mark.lab, pytest.mark.slow]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_part_of_the_benchmark_measures_and_leaves_nothing_behind() -> None:
    if missing := missing_requirements():
        pytest.skip("no lab here; missing: " + ", ".join(missing))
    lab_directory(BASE_DIR)  # where the images are
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--only", "ssh tuned", "--sizes", "3", "--rounds", "1", "--openwrt", "0"],
        cwd=BASE_DIR, capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    [row] = [line for line in done.stdout.splitlines() if line.startswith("| ssh tuned |")]
    _, _, _, devices, rate, *_ = row.split("|")
    assert devices.strip() == "3"  # all of them succeeded
    assert float(rate) > 0
    assert "orchestrator-bench-" not in Path("/proc/self/mounts").read_text()


@pytest.mark.timeout(300)
def test_simulated_devices_go_the_whole_way() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.growth", "--devices", "30", "--workers", "1"],
        cwd=BASE_DIR, capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| 1 | 30 |" in done.stdout  # with no word of devices that failed
