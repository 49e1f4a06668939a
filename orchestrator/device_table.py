"""Devices as a table: a CSV file, each complaint with its line and column.

The first line names the columns, in any order; the separator is a comma, a semicolon or a tab (RFC 4180 otherwise).
Pure translation.
"""

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from django.core.exceptions import ValidationError

from orchestrator.adoption import Draft
from orchestrator.models import Device, Platform
from orchestrator.models.addresses import validate_tags

COLUMNS: Final = ("name", "host", "port", "platform", "group", "location", "tags")
REQUIRED: Final = ("name", "host")
MOST: Final = 20_000  # devices in one file
_TOLD: Final = 100  # complaints; a file with more has one cause
_SEPARATORS: Final = "\t;,"


@dataclass(frozen=True, slots=True)
class Complaint:
    """What is wrong in a cell, or in a whole line where ``column`` is empty."""

    line: int
    column: str
    text: str


def read_table(text: str) -> tuple[list[Draft], list[Complaint]]:
    """The devices, or what is wrong: with a complaint, nothing of the file should be imported."""
    try:
        return _Table(text).read()
    except csv.Error as error:
        return [], [Complaint(1, "", f"This is no CSV: {error}.")]


class _Table:
    def __init__(self, text: str) -> None:
        text = text.removeprefix("\ufeff")
        header = text.partition("\n")[0]
        separator = next((sign for sign in _SEPARATORS if sign in header), ",")
        self.rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        self.complaints: list[Complaint] = []
        self.lines: dict[str, int] = {}  # name of a device → its line

    def read(self) -> tuple[list[Draft], list[Complaint]]:
        names = [name.strip().lower() for name in next(self.rows, [])]
        unknown = [name for name in names if name not in COLUMNS]
        twice = sorted({name for name in names if names.count(name) > 1})
        lacking = [name for name in REQUIRED if name not in names]
        for name in unknown:
            self._complain(name, f"There is no such column. There are: {', '.join(COLUMNS)}.")
        for name in twice:
            self._complain(name, "This column is there twice.")
        for name in lacking:
            self._complain(name, "This column is missing: the first line names the columns.")
        if unknown or twice or lacking:
            return [], self.complaints
        drafts = list(self._drafts(names))
        if not drafts and not self.complaints:
            self._complain("", "There is no device in it.")
        return drafts, self.complaints[:_TOLD]

    def _drafts(self, names: list[str]) -> Iterator[Draft]:
        for number, cells in enumerate((row for row in self.rows if any(cell.strip() for cell in row)), start=1):
            if number > MOST or len(self.complaints) > _TOLD:
                if number > MOST:
                    self._complain("", f"A file may have {MOST:,} devices. Cut it into several.")
                return
            if len(cells) != len(names):
                self._complain("", f"It has {len(cells)} cells, the first line has {len(names)}.")
                continue
            draft = self._draft({name: cell.strip() for name, cell in zip(names, cells, strict=True)})
            if draft:
                yield draft

    def _draft(self, cells: Mapping[str, str]) -> Draft | None:
        before = len(self.complaints)
        for name in REQUIRED:
            if not cells[name]:
                self._complain(name, "This cell may not be blank.")
        for name in ("name", "host", "group", "location"):
            if cells.get(name):
                self._check(name, cells[name])
        port = self._port(cells.get("port", ""))
        platform = cells.get("platform", "").lower()
        if platform and platform not in Platform.values:
            self._complain("platform", f"Choose one of {', '.join(Platform.values)}.")
        tags = tuple(dict.fromkeys(tag.strip() for tag in cells.get("tags", "").split(";") if tag.strip()))
        try:
            validate_tags(list(tags))
        except ValidationError as error:
            self._complain("tags", " ".join(error.messages))
        first = self.lines.setdefault(cells["name"], self.rows.line_num)
        if cells["name"] and first != self.rows.line_num:
            self._complain("name", f"Line {first} has this name, too.")
        if len(self.complaints) > before:
            return None
        return Draft(
            name=cells["name"], host=cells["host"], port=port, platform=platform, group=cells.get("group", ""),
            location=cells.get("location", ""), tags=tags, login=None,
        )  # fmt: skip

    def _port(self, cell: str) -> int | None:
        if not cell:
            return None
        if cell.isascii() and cell.isdigit() and 1 <= int(cell[:6]) <= 65_535:
            return int(cell)
        self._complain("port", "Enter a number from 1 to 65535.")
        return None

    def _check(self, name: str, cell: str) -> None:
        field: Any = Device._meta.get_field("host" if name == "host" else "name")  # all names have the same rules
        try:
            field.clean(cell, None)
        except ValidationError as error:
            self._complain(name, " ".join(error.messages))

    def _complain(self, column: str, text: str) -> None:
        self.complaints.append(Complaint(max(self.rows.line_num, 1), column, text))
