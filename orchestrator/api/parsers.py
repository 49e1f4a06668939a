"""Bodies: JSON in UTF-8 (RFC 8259) of a bounded size, and nothing else."""

import json
from collections.abc import Iterable, Mapping
from typing import IO, Any, Final

from django.conf import settings

from orchestrator.exceptions import MalformedBodyError, TooLargeError

# Far more than any body of ours has, far less than what would exhaust the stack of who handles the value later.
MAX_DEPTH: Final = 32
_FEW: Final = 1_000  # keys of an object among which it is worth looking for the one that is there twice
_TOO_DEEP: Final = f"The JSON is nested more than {MAX_DEPTH} levels deep."


class StrictJSONParser:
    """No NaN, no duplicate keys (which of the two was meant?), no nesting that exhausts the stack.

    It has no base, and raises no error, of DRF: its modules import the views, and those the default parser, this one.
    """

    media_type = "application/json"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        """The value of the body.

        Raises:
            MalformedBodyError: it is no JSON.
            TooLargeError: it is larger than DATA_UPLOAD_MAX_MEMORY_SIZE bytes.
        """
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        raw = stream.read(limit + 1)
        if len(raw) > limit:
            raise TooLargeError(f"The body has more than {limit} bytes.")
        try:
            value = json.loads(raw.decode(), parse_constant=_refuse_constant, object_pairs_hook=_unique)
        except RecursionError as error:
            raise MalformedBodyError(_TOO_DEEP) from error
        except ValueError as error:
            raise MalformedBodyError(f"The body is not valid JSON: {error}") from error
        if _deeper_than(MAX_DEPTH, value):
            raise MalformedBodyError(_TOO_DEEP)
        return value


def _deeper_than(limit: int, value: Any) -> bool:
    level = [value]
    for _ in range(limit + 1):
        level = [inner for outer in level for inner in _parts(outer)]
        if not level:
            return False
    return True


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for at, name in enumerate(names) if name in set(names[:at])) if len(names) < _FEW else ""
        raise ValueError(f"an object names a key twice{twice and f', {json.dumps(twice)}'}")
    return found
