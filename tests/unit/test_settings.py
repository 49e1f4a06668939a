"""Secrets of the service itself: from the environment, or from files as systemd and Docker mount them."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.settings import BASE_DIR

KEY = "file:" + "A" * 43 + "="
SHOW = "from orchestrator import settings as s; print(s.SECRET_KEY, *s.SECRET_KEY_RING, s.VAULT_TOKEN, s.REDIS_URL)"


def started(home: Path, show: str = SHOW, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Load the settings in a process of its own."""
    given = {"PATH": os.environ["PATH"], "ORCHESTRATOR_DATA_DIR": str(home), "PYTHONPATH": str(BASE_DIR)}
    argv = [sys.executable, "-c", show]
    return subprocess.run(argv, env=given | environment, cwd=home, capture_output=True, text=True, check=False)


def test_secrets_of_the_service_come_from_files(tmp_path: Path) -> None:
    texts = {
        "DJANGO_SECRET_KEY": "from-a-file", "ORCHESTRATOR_SECRET_KEYS": KEY, "ORCHESTRATOR_VAULT_TOKEN": "hvs.x",
        "REDIS_URL": "unix:///run/queue.sock", "DATABASE_URL": f"sqlite:///{tmp_path}/other.sqlite3",
    }  # fmt: skip
    for name, text in texts.items():
        (tmp_path / name).write_text(text + "\n")
    files = {f"{name}_FILE": str(tmp_path / name) for name in texts}
    done = started(tmp_path, ORCHESTRATOR_PRODUCTION="1", **files)
    assert done.stdout.split() == ["from-a-file", "file", "hvs.x", "unix:///run/queue.sock"], done.stderr
    assert not (tmp_path / "secret_keys").exists()


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"DJANGO_SECRET_KEY_FILE": "/nowhere"}, "DJANGO_SECRET_KEY_FILE can't be read"),
        ({"REDIS_URL_FILE": "/dev/null", "REDIS_URL": "unix:///x"}, "REDIS_URL and REDIS_URL_FILE are both set"),
        ({"ORCHESTRATOR_PLAYBOOK_VAULTS": "prod@relative"}, "a label, @ and an absolute path, not 'prod@relative'"),
        ({"ORCHESTRATOR_PLAYBOOK_VAULTS": "/srv/x=p@/etc/p"}, "/srv/x is not among ORCHESTRATOR_PLAYBOOK_DIRS"),
        ({"ORCHESTRATOR_VAULT_ADDRESS": "ftp://vault"}, "ORCHESTRATOR_VAULT_ADDRESS begins with https://"),
        (
            {"ORCHESTRATOR_PRODUCTION": "1", "DJANGO_SECRET_KEY": "x", "ORCHESTRATOR_SECRET_KEYS": KEY,
             "ORCHESTRATOR_VAULT_ADDRESS": "http://vault"},
            "ORCHESTRATOR_VAULT_ADDRESS begins with https://",
        ),
    ],
)  # fmt: skip
def test_what_is_set_wrongly_is_named(tmp_path: Path, environment: dict[str, str], words: str) -> None:
    done = started(tmp_path, **environment)
    assert done.returncode
    assert words in done.stderr.splitlines()[-1]


def test_vaults_are_of_all_playbooks_or_of_one_directory_or_source(tmp_path: Path) -> None:
    told = "all@/etc/v/1, /srv/a=prod@/etc/v=2,net=dev.eu-1@/etc/v/c@3"
    directories = {"ORCHESTRATOR_PLAYBOOK_DIRS": "/srv/a:/srv/b", "ORCHESTRATOR_PLAYBOOK_VAULTS": told}
    show = "from orchestrator import settings as s; [print(*v) for v in s.PLAYBOOK_VAULTS]"
    done = started(tmp_path, show, **directories)
    assert done.stdout.splitlines() == [
        "None all /etc/v/1", "/srv/a prod /etc/v=2", f"{tmp_path}/playbook_sources/net dev.eu-1 /etc/v/c@3",
    ], done.stderr  # fmt: skip


def test_a_data_directory_that_is_made_is_private(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        given = {"DJANGO_SECRET_KEY": "x", "ORCHESTRATOR_SECRET_KEYS": KEY, "ORCHESTRATOR_PRODUCTION": "1"}
        data = tmp_path / "data"
        assert started(tmp_path, **given, ORCHESTRATOR_DATA_DIR=str(data)).returncode == 0
    finally:
        os.umask(old)
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
