"""``manage.py serve``: the embedded stack, kept running."""

import argparse
import secrets
import signal
from types import FrameType
from typing import NoReturn

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connection, transaction

from orchestrator import audit
from orchestrator.models import User
from orchestrator.stack import Stack, StackError

ADMIN = "admin"  # the user made on a first start
PASSWORD_BYTES = 12  # of randomness


class Command(BaseCommand):
    """Web server, workers, recovery and a private queue server, until SIGTERM or Ctrl-C."""

    help = "Run the whole service on this machine: web server, workers, recovery and, without REDIS_URL, its own queue."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """The command line."""
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
        parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: %(default)s)")
        parser.add_argument("--workers", type=int, default=2, help="slices run side by side (default: %(default)s)")
        parser.add_argument(
            "--worker-grace", type=float, default=30.0, help="seconds for running jobs to end (default: %(default)s)"
        )

    def handle(self, *, host: str, port: int, workers: int, worker_grace: float, **_options: object) -> None:
        """Serve."""
        signal.signal(signal.SIGTERM, _interrupt)
        stack = Stack(data_dir=settings.DATA_DIR, host=host, port=port, workers=workers, worker_grace=worker_grace)
        try:
            with stack:
                self._greet(stack)
                status = stack.wait()
        except StackError as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            self.stdout.write("Stopped.")
            return
        raise CommandError(f"The stack ended by itself (status {status}); see {settings.DATA_DIR / 'logs'}.")

    def _greet(self, stack: Stack) -> None:
        self.stdout.write(f"Ready:      {stack.url}/admin/   (API: {stack.url}/api/v1/docs/)")
        if password := _make_admin():
            self.stdout.write(f"Sign in:    {ADMIN}, password {password}   (shown this once)")
        self.stdout.write(f"Data, logs: {settings.DATA_DIR}\nStop:       Ctrl-C")
        self.stdout.flush()
        connection.close()  # nothing more to ask of the database


def _make_admin() -> str | None:
    """The password of a newly made administrator, or None if there is one already."""
    if User.objects.filter(is_superuser=True).exists():
        return None
    password = secrets.token_urlsafe(PASSWORD_BYTES)
    user, _ = User.objects.get_or_create(username=ADMIN)
    user.is_superuser = user.is_staff = user.is_active = True
    user.set_password(password)
    with transaction.atomic():
        user.save()
        audit.created(user, actor=None)
    return password


def _interrupt(_signum: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
