"""What a device printed, made fit for a row: bounded, and without what a database can't hold."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cut:
    """A text of at most the limit, and what it was before; ``size`` in bytes."""

    text: str
    truncated: bool
    size: int


def cut(text: str, limit: int) -> Cut:
    """The text, or its head and tail with a line between that says how much is missing; ``limit`` in bytes.

    NUL becomes U+FFFD, which PostgreSQL can store, and so do lone surrogates.
    """
    raw = text.replace("\x00", "\ufffd").encode(errors="surrogatepass")
    clean = raw.decode(errors="replace")
    size = len(raw)
    if size <= limit:
        return Cut(clean, truncated=False, size=size)
    head, tail = raw[: limit // 2], raw[size - limit // 2 :]
    missing = size - len(head) - len(tail)
    middle = f"\n[… {missing} bytes are missing here …]\n"
    return Cut(head.decode(errors="ignore") + middle + tail.decode(errors="ignore"), truncated=True, size=size)


def last_words(said: Iterable[str]) -> str:
    """What a program said before it broke off; of Python's tracebacks only the last line is for people."""
    lines = [line.strip() for text in said for line in text.splitlines() if line.strip()]
    traceback = any(line.startswith('File "') for line in lines)
    return lines[-1] if traceback else "\n".join(lines)
