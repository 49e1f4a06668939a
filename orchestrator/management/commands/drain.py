"""manage.py drain: let the workers finish what they have started and begin nothing new, for maintenance."""

import time
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandParser

from orchestrator import dispatch
from orchestrator.models import Slice

_POLL: Final = 1.0  # seconds


class Command(BaseCommand):
    """Drain, wait until nothing runs, or go on."""

    help = "Lets workers finish the devices that they have started; all others go back to the queue and wait there."

    def add_arguments(self, parser: CommandParser) -> None:
        """``--wait`` or ``--off``."""
        parser.add_argument("--wait", action="store_true", help="return when no slice runs any more")
        parser.add_argument("--off", action="store_true", help="let the workers go on")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run."""
        dispatch.drain(on=not options["off"])
        if options["off"]:
            self.stdout.write("The workers go on.")
            return
        self.stdout.write("The workers start nothing new.")
        while options["wait"] and (number := Slice.objects.filter(status="running").count()):
            self.stdout.write(f"{number} slices still run.")
            time.sleep(_POLL)
