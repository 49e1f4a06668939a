"""`make demo` does what it says, and leaves nothing behind."""

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from lab.requirements import missing_requirements
from orchestrator.stack import BASE_DIR

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(300)]


def test_the_demo_holds_and_leaves_no_process_behind() -> None:
    if missing := missing_requirements():
        pytest.skip("no lab here; missing: " + ", ".join(missing))
    mark = uuid.uuid4().hex  # inherited by all that the demo starts
    demo = subprocess.run(
        [sys.executable, "-m", "demo"],
        cwd=BASE_DIR,
        env={**os.environ, "DEMO_MARK": mark},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert demo.returncode == 0, demo.stdout
    assert "✗" not in demo.stdout
    assert demo.stdout.count("✓") > 15, demo.stdout
    assert not processes_with(mark)


def processes_with(mark: str) -> list[str]:
    """The command lines of the processes that have this in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue  # it has ended, or is somebody else's
    return found
