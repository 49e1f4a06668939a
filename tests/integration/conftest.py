"""One lab of real devices for all tests of the run engine."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import Lab, missing_requirements
from tests.integration.engine import Engine, shared_memory


@pytest.fixture(scope="session")
def engine_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Devices openwrt1 to openwrt7, linux1 and linux2, all with a key that always logs in as root."""
    if missing := missing_requirements():
        pytest.skip("no lab here; missing: " + ", ".join(missing))
    keys = Path(tempfile.mkdtemp(prefix="engine-keys-", dir=shared_memory()))  # private keys are never on a disk
    try:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", keys / "key"], check=True)
        folder = tmp_path_factory.mktemp("lab")
        with Lab.start(directory=folder, openwrt=7, linux=2, user_key=keys / "key.pub") as lab:
            yield Engine(lab=lab, keys=keys)
    finally:
        shutil.rmtree(keys)


@pytest.fixture
def engine(engine_lab: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """The engine, with a folder for run directories that must be empty in the end, and healthy devices."""
    folder = Path(tempfile.mkdtemp(prefix="runs-", dir=shared_memory()))
    monkeypatch.setattr("django.conf.settings.RUN_DIR", str(folder))
    try:
        yield engine_lab
        assert list(folder.iterdir()) == []
    finally:
        shutil.rmtree(folder)
        engine_lab.heal()


@pytest.fixture(params=["in a sandbox", "without bubblewrap"])
def isolation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """The test runs twice: with bubblewrap, and without it."""
    from orchestrator import sandbox

    wanted = bool(request.param == "in a sandbox")
    if wanted and not sandbox.isolated():
        pytest.skip("bubblewrap does not work here")
    monkeypatch.setattr(sandbox, "isolated", lambda: wanted)
    return wanted
