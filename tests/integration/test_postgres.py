"""The private PostgreSQL that the tests marked "database" run on."""

import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from tests import postgres


@pytest.fixture(autouse=True)
def _installed() -> None:
    try:
        postgres.binaries()
    except postgres.NoPostgreSQL as reason:
        pytest.skip(str(reason))


def test_a_cluster_is_reached_through_its_directory_and_gone_afterwards() -> None:
    with postgres.cluster() as url:
        found = re.fullmatch(r"postgresql://postgres@/(/.+)/postgres", url)
        assert found is not None
        directory = Path(found[1])
        assert directory.stat().st_mode & 0o777 == 0o700
        with psycopg.connect(host=str(directory), user="postgres", dbname="postgres") as connection:
            row = connection.execute("SELECT current_setting('listen_addresses'), current_setting('server_encoding')")
            assert row.fetchone() == ("", "UTF8")
    assert not directory.exists()


def test_the_commands_exit_status_is_handed_on() -> None:
    command = "import os, sys; sys.exit(7 if os.environ['DATABASE_URL'].startswith('postgresql://') else 0)"
    done = subprocess.run(
        [sys.executable, "-m", "tests.postgres", sys.executable, "-c", command],
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 7


@pytest.mark.parametrize(("environment", "status"), [({"CI": "true"}, 1), ({}, 0)])
def test_without_a_server_ci_fails_and_others_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], environment: dict[str, str], status: int
) -> None:
    def none() -> Path:
        raise postgres.NoPostgreSQL("none is installed")

    monkeypatch.setattr(postgres, "binaries", none)
    monkeypatch.setattr(postgres, "_interrupt", lambda *_: None)
    assert postgres.main(["true"], environment) == status
    assert "none is installed" in capsys.readouterr().err
