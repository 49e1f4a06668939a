"""Documents that tell the truth: their requests, sent in their order, get their replies.

A request and its reply are two ``http`` blocks.  In a reply, "…" stands for anything, as a key for further keys, as
the last item for further items.  An id, a digest or a token stands for the one that the service gives; a time for any.
The comment ``<!-- workers -->`` lets workers carry out what was launched.
"""

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

PARTS = re.compile(r"^```http\n(.*?)\n```$|^(<!-- workers -->)$", re.DOTALL | re.MULTILINE)
NAMED = r"[0-9a-f]{64}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z"
VARIABLE = re.compile(f"({NAMED}|{TIME})")


@dataclass(frozen=True)
class Exchange:
    """A documented request with its reply; without a method: the workers' turn."""

    method: str = ""
    path: str = ""
    body: str = ""
    status: int = 0
    reply: Any = None


def exchanges(text: str) -> Iterator[Exchange]:
    """The requests and replies of a document, in its order."""
    request = ""
    for block, workers in PARTS.findall(text):
        if workers:
            yield Exchange()
        elif not request:
            request = block
        else:
            (line, _, body), (status, _, reply) = request.partition("\n"), block.partition("\n")
            method, path = line.split()
            yield Exchange(method, path, body.strip(), int(status.split()[0]), content(reply))
            request = ""
    assert not request, f"without a reply: {request}"


def content(reply: str) -> Any:
    """What a reply says: JSON, a list of what its lines say, events, or text."""
    if reply.startswith("retry:"):
        return events(reply)
    lines = reply.strip().splitlines()
    for several in (
        reply,
        *(("[" + ",".join(line if line != "…" else '"…"' for line in lines) + "]",) * (len(lines) > 1)),
    ):
        with contextlib.suppress(ValueError):
            return json.loads(several)
    return lines or None


def events(stream: str) -> list[dict[str, Any]]:
    """Server-Sent Events as dictionaries, their data read."""
    parts = [dict(line.split(": ", 1) for line in part.splitlines()) for part in stream.strip().split("\n\n")]
    return [part | {"data": json.loads(part.get("data", "null"))} for part in parts]


@dataclass
class Reader:
    """Compares replies, and remembers what the document calls each id."""

    names: dict[str, str] = field(default_factory=dict)  # in the document → in life

    def in_life(self, text: str) -> str:
        """A text of the document with the service's ids."""
        return VARIABLE.sub(lambda found: self.names.get(found[0], found[0]), text)

    def same(self, told: Any, real: Any) -> bool:
        """Whether a reply is as documented."""
        if told == "…":
            return True
        if isinstance(told, dict) and isinstance(real, dict):
            known = {key: value for key, value in told.items() if key != "…"}
            complete = "…" in told or set(told) == set(real)
            return complete and all(key in real and self.same(value, real[key]) for key, value in known.items())
        if isinstance(told, list) and isinstance(real, list):
            items = told[:-1] if told[-1:] == ["…"] else told
            complete = len(items) < len(told) or len(told) == len(real)
            return complete and all(self.same(a, b) for a, b in zip(items, real[: len(items)], strict=True))
        if isinstance(told, str) and isinstance(real, str):
            return self._same_text(told, real)
        return type(told) is type(real) and bool(told == real)

    def _same_text(self, told: str, real: str) -> bool:
        parts, real_parts = VARIABLE.split(told), VARIABLE.split(real)
        if parts[::2] != real_parts[::2]:
            return False
        for name, value in zip(parts[1::2], real_parts[1::2], strict=True):
            if not re.fullmatch(TIME, name) and self.names.setdefault(name, value) != value:
                return False
        return True
