"""The header ``Idempotency-Key``: a launch, or retry, that is sent again starts nothing again."""

import json
import re
from typing import Final

from django.utils.crypto import salted_hmac
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from orchestrator.api.run_serializers import ErrorSerializer
from orchestrator.models.idempotency import Once

HEADER: Final = "Idempotency-Key"
_LENGTH: Final = 255  # characters
_PRINTABLE: Final = re.compile(r"[ -~]+")  # ASCII

PARAMETER: Final = OpenApiParameter(
    HEADER,
    {"type": "string", "minLength": 1, "maxLength": _LENGTH, "pattern": "^[!-~]([ -~]*[!-~])?$"},
    OpenApiParameter.HEADER,
    description="Any text of yours, such as a UUID, kept for 24 hours. Sent again with the same body, it gets the same "
    "mass command and starts no other one; with another body, or elsewhere, 422. A refused launch does not use it up.",
)
KEY_REUSED: Final = OpenApiResponse(ErrorSerializer, description="The Idempotency-Key was used for something else.")


def once_of(request: Request) -> Once | None:
    """The key of the request with the fingerprint of what it asks for; None where it has no key.

    Raises:
        ValidationError: the key is not 1 to 255 characters of printable ASCII.
    """
    key = request.headers.get(HEADER)
    if key is None:
        return None
    if len(key) > _LENGTH or not _PRINTABLE.fullmatch(key):
        raise ValidationError({HEADER: [f"Send 1 to {_LENGTH} printable ASCII characters."]})
    # With the address: the same body, such as none, means something else for another run or device.
    body = json.dumps([request.path, request.data], sort_keys=True, separators=(",", ":"))
    # Keyed, as a body may hold a password that could be guessed from a plain hash.
    return Once(key, salted_hmac(HEADER, body, algorithm="sha256").hexdigest())
