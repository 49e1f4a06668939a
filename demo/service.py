"""The service as the demo runs it: the embedded stack on a data directory of its own, and a superuser."""

import os
import secrets
import subprocess
from pathlib import Path

from orchestrator.stack import BASE_DIR, Stack, StackError, manage

SETTINGS = {
    "ORCHESTRATOR_CONNECT_TIMEOUT": "5",  # seconds; devices on the same machine answer at once
    "ORCHESTRATOR_REBOOT_TIMEOUT": "60",  # seconds
}
ADMIN = "admin"


def forget_settings() -> None:
    """Drop the settings of another installation from the environment: the demo must not touch its database or queue."""
    for name in list(os.environ):
        if name.startswith(("ORCHESTRATOR_", "DJANGO_")) or name in {"DATABASE_URL", "REDIS_URL"}:
            del os.environ[name]


def stack(data_dir: Path) -> Stack:
    """The service, not started yet: any free port, two workers, a private queue server."""
    return Stack(data_dir=data_dir, port=0, workers=2, quiet=True, environment=SETTINGS)


def make_superuser(running: Stack) -> tuple[str, str]:
    """Make the first user, as an operator does it: by Django's command.  Its name and password."""
    password = secrets.token_urlsafe(16)
    done = subprocess.run(
        manage("createsuperuser", "--noinput", "--username", ADMIN, "--email", "admin@example.org"),
        cwd=BASE_DIR,
        env=running.environment | {"DJANGO_SUPERUSER_PASSWORD": password},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise StackError(f"createsuperuser failed: {done.stderr.strip()}")
    return ADMIN, password
