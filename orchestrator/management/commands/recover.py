"""manage.py recover: put right what died."""

import logging
import signal
import threading
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandParser
from django.db import Error as DatabaseError
from django.db import connection

from orchestrator.cataloguing import Watch
from orchestrator.recovery import recover

log = logging.getLogger(__name__)

_INTERVAL: Final = 5.0  # seconds
_WATCH: Final = 10.0  # seconds between two looks at the directories of playbooks


class Command(BaseCommand):
    """One round of recovery, or rounds for ever."""

    help = "Ends what dead workers left, and rebuilds a queue that was lost."

    def add_arguments(self, parser: CommandParser) -> None:
        """``--forever`` and the interval in seconds."""
        parser.add_argument("--forever", action="store_true", help="go on until stopped")
        parser.add_argument("--interval", type=float, default=_INTERVAL, help="seconds between two rounds")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run."""
        if not options["forever"]:
            recover()
            return
        stopped = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopped.set())
        # beside the rounds: Ansible may take minutes to read many playbooks
        threading.Thread(target=_watch, args=(stopped,), name="catalogue", daemon=True).start()
        while not stopped.is_set():
            try:
                recover()
            except DatabaseError:
                log.exception("The database can't be used; trying again")
                connection.close()
            stopped.wait(options["interval"])


def _watch(stopped: threading.Event) -> None:
    """Keep the catalogue of playbooks up to date."""
    watch = Watch()
    while not stopped.is_set():
        try:
            watch.look()
        except Exception:
            log.exception("The catalogue of playbooks can't be refreshed; trying again")
        finally:
            connection.close()
        stopped.wait(_WATCH)
