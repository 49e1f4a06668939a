"""manage.py recover: put right what died."""

import logging
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandParser
from django.db import Error as DatabaseError
from django.db import close_old_connections, connection

from orchestrator.cataloguing import Watch
from orchestrator.notifying import Notifier
from orchestrator.recovery import recover

log = logging.getLogger(__name__)

_INTERVAL: Final = 5.0  # seconds
_WATCH: Final = 10.0  # seconds between two looks at the directories of playbooks
_SPARED: Final = 20.0  # times the CPU that a look has taken, which pass before the next
_NOTIFY: Final = 2.0  # seconds between two looks at what webhooks are to be told


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
            Notifier().look()
            return
        stopped = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopped.set())
        # beside the rounds: Ansible may take minutes to read many playbooks, and a receiver may let us wait
        for name, work, pause in (("catalogue", Watch().look, _WATCH), ("webhooks", Notifier().look, _NOTIFY)):
            threading.Thread(target=_repeat, args=(stopped, name, work, pause), name=name, daemon=True).start()
        while not stopped.is_set():
            try:
                recover()
            except DatabaseError:
                log.exception("The database can't be used; trying again")
                connection.close()
            stopped.wait(options["interval"])


def _repeat(stopped: threading.Event, name: str, work: Callable[[], object], pause: float) -> None:
    """Do something again and again, with so many seconds between; what breaks it once breaks it once."""
    while not stopped.is_set():
        before = time.thread_time()
        try:
            work()
        except Exception:
            log.exception("The %s: something went wrong; trying again", name)
        finally:
            close_old_connections()
        # A look at directories with a hundred collections takes a second of CPU: then it is looked at less often.
        stopped.wait(max(pause, _SPARED * (time.thread_time() - before)))
