"""Takes the secrets of a run out of what devices and Ansible say, in each form in which they commonly come back."""

import base64
import html
import json
import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from typing import Final
from urllib.parse import quote, quote_plus

from orchestrator.secrets import MASK

SHORT: Final = 4  # characters; a shorter secret is taken out only where it stands alone
LINE: Final = 16  # characters from which on a single line of a key is a secret
WRAPPED: Final = 60  # characters from which on an encoded secret may be broken into lines
# The lines of ansible_plugins/session.py and of output.py, where something is missing.
LEFT_OUT: Final = re.compile(r"(\n\[(?:\.\.\. \d+ bytes left out \.\.\.|… \d+ bytes are missing here …)\]\n)")
REPLACED: Final = "\ufffd"  # what is left of a character that was cut in two

type Span = tuple[int, int]
"""Where something begins in a text, and where it ends."""


class Redactor:
    """Knows the secrets of one run.  `repr` shows none."""

    def __init__(self, secrets: Iterable[str]) -> None:
        known = {secret for secret in secrets if secret.strip()}
        self._long = sorted({form for x in known if len(x) >= SHORT for form in _forms(x)}, key=len, reverse=True)
        self._widest = max(map(len, self._long), default=0)
        self._words = [re.compile(rf"(?<!\w){re.escape(x)}(?!\w)") for x in known if len(x) < SHORT]

    def clean(self, text: str, *, cut: bool = False) -> str:
        """The text without the secrets.  `cut`: it may begin or end in the middle of one; at a gap it always may.

        All are looked for in the text as it came: one that is taken out first would hide the rest of a longer one that
        was cut.
        """
        spans = [*self._whole(text), *self._wrapped(text)]
        spans += [found.span() for pattern in self._words for found in pattern.finditer(text)]
        return _masked(text, [*spans, *self._at_cuts(text, ends=cut)])

    def _whole(self, text: str) -> Iterator[Span]:
        for form in self._long:
            at = text.find(form)
            while at >= 0:
                yield at, at + len(form)
                at = text.find(form, at + len(form))

    def _wrapped(self, text: str) -> Iterator[Span]:
        """Long encoded secrets that are broken into lines."""
        flat = text.replace("\r", "").replace("\n", "")
        for form in self._long:
            if len(form) > WRAPPED and form in flat:
                pattern = r"(?:\r?\n)?".join(map(re.escape, form))
                yield from (found.span() for found in re.finditer(pattern, text))

    def _at_cuts(self, text: str, *, ends: bool) -> Iterator[Span]:
        """The end of a secret behind each cut, and the start of one before it."""
        gaps = [found.span() for found in LEFT_OUT.finditer(text)] if self._long else []
        ends = ends and bool(self._long)
        starts = [*([0] if ends else []), *(end for _, end in gaps)]
        stops = [*(start for start, _ in gaps), *([len(text)] if ends else [])]
        for start in starts:
            bare = text[start:].lstrip(REPLACED) if text.startswith(REPLACED, start) else text[start:]
            head = self._longest(_end_at_start, bare[: 2 * self._widest], bare)
            yield start, len(text) - len(bare) + head if head else start
        for stop in stops:
            bare = text[:stop].rstrip(REPLACED)
            tail = self._longest(_start_at_end, bare[-2 * self._widest :], bare)
            yield len(bare) - tail, len(bare)

    def _longest(self, part: Callable[[str, str], int], near: str, text: str) -> int:
        """The length of the longest part of a secret at an end of the text; `near` is that end, with line breaks."""
        found = max((part(form, text) for form in self._long), default=0)
        at = [number for number, character in enumerate(near) if character not in "\r\n"]
        flat = "".join(near[number] for number in at)
        if wrapped := max((part(form, flat) for form in self._long if len(form) > WRAPPED), default=0):
            found = max(found, at[wrapped - 1] + 1 if part is _end_at_start else len(near) - at[-wrapped])
        return found


def _masked(text: str, spans: Iterable[Span]) -> str:
    """The text with a mask for each stretch of it; those that overlap are one."""
    pieces, at, end = [], 0, 0
    for start, stop in sorted(span for span in spans if span[0] < span[1]):
        if start < end:
            end = max(end, stop)
            at = end
            continue
        pieces += [text[at:start], MASK]
        at = end = stop
    return "".join([*pieces, text[at:]])


def _start_at_end(form: str, text: str) -> int:
    """How many characters of the form's start are the text's end; 0 for less than SHORT."""
    window = text[-len(form) :]
    at = window.find(form[:SHORT])
    while at >= 0 and not form.startswith(window[at:]):
        at = window.find(form[:SHORT], at + 1)
    return len(window) - at if at >= 0 else 0


def _end_at_start(form: str, text: str) -> int:
    """How many characters of the form's end are the text's start; 0 for less than SHORT."""
    window = text[: len(form)]
    at = window.rfind(form[-SHORT:])
    while at >= 0 and not form.endswith(window[: at + SHORT]):
        at = window.rfind(form[-SHORT:], 0, at + SHORT - 1)
    return at + SHORT if at >= 0 else 0


def _forms(secret: str) -> Iterator[str]:
    """The secret as it is, and as programs quote and encode it."""
    plain = {secret, secret.replace("\n", "\r\n"), secret.strip()}
    lines = {line for line in secret.split("\n") if len(line) >= LINE and not line.startswith("-----")}
    written = {form for text in plain for form in (*_quoted(text), *_encoded(text))}
    written |= {json.dumps(form, ensure_ascii=False)[1:-1] for form in written}  # a result that holds a command line
    yield from {form for form in plain | lines | written if len(form) >= SHORT}


def _quoted(text: str) -> Iterator[str]:
    """By shells, in single quotes, double quotes and none; by JSON, Python and HTML."""
    yield shlex.quote(text)
    yield text.replace("'", "'\"'\"'")
    yield text.replace("'", "'\\''")
    yield re.sub(r'([$`"\\])', r"\\\1", text)
    yield re.sub(r"([^\w@%+=:,./-])", r"\\\1", text)
    for ascii_only in (True, False):
        yield json.dumps(text, ensure_ascii=ascii_only)[1:-1]
    yield repr(text)[1:-1]
    yield html.escape(text, quote=False)
    yield html.escape(text)
    yield html.escape(text).replace("&#x27;", "&#39;")


def _encoded(text: str) -> Iterator[str]:
    """In addresses, and in base64, also as a part of something longer (`user:password`)."""
    raw = text.encode(errors="surrogatepass")
    for form in (quote(raw), quote(raw, safe=""), quote(raw, safe="!*'()"), quote_plus(raw)):
        yield form
        yield re.sub(r"%[0-9A-F]{2}", lambda found: found[0].lower(), form)
    for before, spoiled in ((0, 0), (1, 2), (2, 3)):  # bytes before the secret, characters that they have a part in
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            whole = (before + len(raw)) * 8 // 6  # characters that only the secret has a part in
            yield encode(bytes(before) + raw).decode()[spoiled:whole]
