"""Bodies: JSON in UTF-8 (RFC 8259) of a bounded size, and nothing else."""

import json
from collections.abc import Mapping
from typing import IO, Any

from django.conf import settings

from orchestrator.exceptions import MalformedBodyError, TooLargeError


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
            return json.loads(raw.decode(), parse_constant=_refuse_constant, object_pairs_hook=_unique)
        except RecursionError as error:
            raise MalformedBodyError("The JSON is nested too deeply.") from error
        except ValueError as error:
            raise MalformedBodyError(f"The body is not valid JSON: {error}") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object names a key twice")
    return found
