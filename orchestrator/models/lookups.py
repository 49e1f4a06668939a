"""Comparisons and sums that Django does not have, or not on SQLite."""

import fnmatch
import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.db.models import CharField, DateTimeField, F, FloatField, Func, IntegerField, JSONField, Lookup, Value

if TYPE_CHECKING:
    _Base = Lookup[Any]
else:
    _Base = Lookup  # generic for the type checker only


def _like(pattern: str) -> str:
    """The pattern in the language of LIKE, whose own signs stand for themselves."""
    for sign in "\\%_":
        pattern = pattern.replace(sign, "\\" + sign)
    return pattern.replace("*", "%").replace("?", "_")


def _expression(pattern: str) -> str:
    """The pattern as a regular expression that never backtracks: fnmatch's, without its character sets."""
    return "(?i)" + fnmatch.translate(pattern.replace("[", "[[]"))


@CharField.register_lookup
class Glob(_Base):
    """``name__glob="ap-*"``: all of the text, in any case; * is any text, ? is one character, all else is itself."""

    lookup_name = "glob"
    prepare_rhs = False

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        """SQLite's LIKE knows the cases of ASCII only; its REGEXP is Python's, which Django brings along."""
        left, params = self.process_lhs(compiler, connection)
        return f"{left} REGEXP %s", (*params, _expression(str(self.rhs)))

    def as_postgresql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        """ILIKE, in time that grows with the length alone."""
        left, params = self.process_lhs(compiler, connection)
        return f"{left} ILIKE %s", (*params, _like(str(self.rhs)))


@JSONField.register_lookup
class HoldsAll(_Base):
    """``tags__holds_all=["roof", "solar"]``: a JSON list in which each of the texts occurs."""

    lookup_name = "holds_all"
    prepare_rhs = False

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        """SQLite has no containment of JSON: count which of the texts occur."""
        left, params = self.process_lhs(compiler, connection)
        wanted = sorted(set(self.rhs))
        marks = ", ".join(["%s"] * len(wanted))
        found = f"SELECT COUNT(DISTINCT value) FROM json_each({left}) WHERE type = 'text' AND value IN ({marks})"  # noqa: S608 - values are parameters
        return f"({found}) = %s", (*params, *wanted, len(wanted))

    def as_postgresql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        """Containment of JSON."""
        left, params = self.process_lhs(compiler, connection)
        return f"{left} @> %s::jsonb", (*params, json.dumps(sorted(set(self.rhs))))


class Interval(Func):
    """The number of the interval that a moment lies in: each is ``seconds`` long, the first (0) begins at ``start``."""

    output_field = IntegerField()

    def __init__(self, moment: Any, *, start: datetime, seconds: float) -> None:
        super().__init__(F(moment), Value(start, DateTimeField()), Value(seconds, FloatField()))

    def _compiled(self, compiler: Any, template: str) -> tuple[str, tuple[Any, ...]]:
        parts = [compiler.compile(part) for part in self.get_source_expressions()]
        return template.format(*(sql for sql, _ in parts)), tuple(value for _, values in parts for value in values)

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> tuple[str, tuple[Any, ...]]:
        """A moment is a text there; julianday() has it in days, to the millisecond."""
        return self._compiled(compiler, "CAST((julianday({}) - julianday({})) * 86400.0 / {} AS INTEGER)")

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> tuple[str, tuple[Any, ...]]:
        """The length of a span of time is its epoch."""
        return self._compiled(compiler, "FLOOR(EXTRACT(EPOCH FROM ({} - {})) / {})::integer")
