"""What is printed: headings, checks, a progress bar, a table of results."""

import os
import shutil
import sys
import time
from collections.abc import Iterable
from datetime import datetime
from types import TracebackType
from typing import Any, Self

BAR = 30  # characters
COLOURS = {"success": 32, "skipped": 33, "cancelled": 33, "terminated": 33}  # ANSI; any other status: red
RED, GREEN, BOLD = 31, 32, 1


def is_terminal() -> bool:
    """Whether somebody watches; a pipe or a log file gets plain lines."""
    return sys.stdout.isatty()


def styled(text: str, style: int) -> str:
    """Colour a text, where colours are welcome (no-color.org)."""
    return f"\x1b[{style}m{text}\x1b[0m" if is_terminal() and not os.environ.get("NO_COLOR") else text


def heading(text: str) -> None:
    """Begin a chapter."""
    say(f"\n{styled(text, BOLD)}")


def say(text: str) -> None:
    """Print a line at once, also into a pipe."""
    print(text, flush=True)


def one_line(text: str, width: int) -> str:
    """The beginning of what a device said, in characters that do no harm to a terminal."""
    line = " ".join(text.split())
    line = "".join(character if character.isprintable() else "?" for character in line)
    return line if len(line) <= width else line[: width - 1] + "…"


class Checks:
    """Each check prints a line; all of them must hold in the end."""

    def __init__(self) -> None:
        self.passed = self.failed = 0

    def check(self, held: bool, claim: str, seen: object = "") -> None:
        """Print whether the claim held, and what was seen."""
        self.passed += held
        self.failed += not held
        mark = styled("✓", GREEN) if held else styled("✗", RED)
        say(f"  {mark} {claim}{f': {seen}' if seen != '' else ''}")


class Progress:
    """A live bar in a terminal; elsewhere a line each time that a device has finished."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._last = ""

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the last bar on the screen."""
        if is_terminal():
            say("")

    def show(self, run: dict[str, Any]) -> None:
        """Show how far a run is."""
        done = round(run["progress"] * BAR)
        finished = round(run["progress"] * run["device_count"])
        counts = ", ".join(f"{count} {status}" for status, count in run["counts"].items() if count)
        line = f"  [{'█' * done}{'·' * (BAR - done)}] {finished}/{run['device_count']}  {run['status']}: {counts}"
        seconds = f"  {time.monotonic() - self._began:.1f} s"
        if is_terminal():
            sys.stdout.write(f"\r{line[: _width() - len(seconds) - 1]}{seconds}\x1b[K")
            sys.stdout.flush()
        elif line != self._last:
            say(line + seconds)
        self._last = line


def table(rows: Iterable[dict[str, Any]]) -> None:
    """Print per-device results: a failed one's reason, else the beginning of its output."""
    room = max(_width() - 42, 20)
    say(f"  {'device':<12}{'status':<13}{'rc':>3}{'seconds':>9}   output or reason")
    for row in rows:
        rc = "" if row["rc"] is None else row["rc"]
        words = one_line(row["reason"] or row["stdout"], room)
        status = styled(f"{row['status']:<13}", COLOURS.get(row["status"], RED))
        say(f"  {row['device_name']:<12}{status}{rc:>3}{_seconds(row):>9}   {words}".rstrip())


def _seconds(row: dict[str, Any]) -> str:
    if not (row["started"] and row["finished"]):
        return ""
    took = datetime.fromisoformat(row["finished"]) - datetime.fromisoformat(row["started"])
    return f"{took.total_seconds():.1f}"


def _width() -> int:
    return shutil.get_terminal_size((110, 24)).columns
