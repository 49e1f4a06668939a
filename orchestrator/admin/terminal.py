"""What a device printed, as HTML: its colours become classes, all else that a terminal would act on is left out.

ECMA-48 (fifth edition): section 5.4 for control sequences, 8.3.117 for colours and weights (SGR).
"""

import re
from collections.abc import Iterator
from typing import Final

from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe

# control sequences such as colours; operating system commands; what else a terminal would act on
_SEQUENCE: Final = re.compile(
    r"\x1b\[(?P<colour>[0-9;]*)m|\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)
_NAMES: Final = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")
_STYLES: Final = {1: "bold", 2: "dim", 3: "italic", 4: "underline", 7: "inverse"}
_ENDS: Final = {22: {"bold", "dim"}, 23: {"italic"}, 24: {"underline"}, 27: {"inverse"}}
_EXTENDED: Final = {5: 1, 2: 3}  # 38;5;n and 38;2;r;g;b: parameters to leave out


# What turns the order of letters around (Unicode Standard Annex 9): shown by its number, so that nothing reads as what
# it isn't.
_CODES: Final = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_TURNING: Final = {code: f"<U+{code:04X}>" for code in _CODES}


def _lines(text: str) -> str:
    """Carriage returns, with which a device would write over what it said, begin new lines; nothing turns around."""
    return text.replace("\r\n", "\n").replace("\r", "\n").translate(_TURNING)


def plain(text: str) -> str:
    """The text alone."""
    return _SEQUENCE.sub("", _lines(text))


def colored(text: str) -> SafeString:
    """The text escaped, within spans whose classes begin with ``o-ansi-``."""
    return mark_safe("".join(_pieces(_lines(text))))  # noqa: S308 - escaped below


def _pieces(text: str) -> Iterator[str]:
    active: dict[str, str] = {}
    at = 0
    for found in _SEQUENCE.finditer(text):
        yield _span(text[at : found.start()], active)
        at = found.end()
        if found["colour"] is not None:
            _apply(found["colour"], active)
    yield _span(text[at:], active)


def _span(text: str, active: dict[str, str]) -> str:
    if not text:
        return ""
    classes = " ".join(f"o-ansi-{name}" for name in active.values())
    return f'<span class="{classes}">{escape(text)}</span>' if classes else escape(text)


def _apply(given: str, active: dict[str, str]) -> None:
    """Change what is active (kind → class) as the parameters of one sequence say; unknown ones mean nothing."""
    codes = iter([int(part) if part else 0 for part in given.split(";") if len(part) <= 3])
    for code in codes:
        if code == 0:
            active.clear()
        elif code in _STYLES:
            active[_STYLES[code]] = _STYLES[code]
        elif code in _ENDS:
            for name in _ENDS[code]:
                active.pop(name, None)
        elif 30 <= code <= 37 or 90 <= code <= 97:
            active["text"] = _NAMES[code % 10]
        elif 40 <= code <= 47 or 100 <= code <= 107:
            active["ground"] = f"on-{_NAMES[code % 10]}"
        elif code in {39, 49}:
            active.pop("text" if code == 39 else "ground", None)
        elif code in {38, 48}:
            for _ in range(_EXTENDED.get(next(codes, 0), 0)):
                next(codes, None)
