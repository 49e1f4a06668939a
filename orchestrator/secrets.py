"""Secrets at rest: authenticated encryption with a key ring, each ciphertext bound to its row.

AES-256-GCM (NIST SP 800-38D) with a random 96-bit nonce.  A sealed value is ``1$<key id>$<base64 of nonce and
ciphertext>``.  The row's identity is authenticated with it, so a ciphertext copied to another row does not open.
"""

import base64
import json
import os
from collections.abc import Iterable, Mapping
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings

from orchestrator.exceptions import SecretUnreadableError

MASK: Final = "********"
_NONCE_BYTES: Final = 12
_VERSION: Final = "1"
SEALED: Final = f"{_VERSION}$"  # how each sealed value begins


def seal(values: Mapping[str, str], *, row: str) -> str:
    """Encrypt a mapping of secrets for the row named ``row`` (``<model>:<id>``); empty stays empty."""
    kept = {name: value for name, value in values.items() if value}
    if not kept:
        return ""
    key_id = current_key()
    nonce = os.urandom(_NONCE_BYTES)
    sealed = AESGCM(settings.SECRET_KEY_RING[key_id]).encrypt(nonce, json.dumps(kept).encode(), row.encode())
    return f"{_VERSION}${key_id}${base64.b64encode(nonce + sealed).decode()}"


def open_sealed(sealed: str, *, row: str) -> dict[str, str]:
    """The mapping that was sealed for this row.

    Raises:
        SecretUnreadableError: the key is not in the ring, or the value was sealed for another row or altered.
    """
    if not sealed:
        return {}
    try:
        version, key_id, body = sealed.split("$")
        if version != _VERSION:
            raise SecretUnreadableError
        raw = base64.b64decode(body)
        text = AESGCM(settings.SECRET_KEY_RING[key_id]).decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], row.encode())
        values: dict[str, str] = json.loads(text)
    except (KeyError, ValueError, InvalidTag) as error:
        raise SecretUnreadableError from error
    return values


def key_of(sealed: str) -> str:
    """The id of the key that sealed this value; empty when it is none."""
    version, _, rest = sealed.partition("$")
    return rest.partition("$")[0] if version == _VERSION else ""


def current_key() -> str:
    """The id of the key that seals now: the first of the ring."""
    return next(iter(settings.SECRET_KEY_RING))


def mask(values: Mapping[str, object], secret_names: Iterable[str]) -> dict[str, object]:
    """The values with each secret one replaced by ``MASK``: what may be stored in the open and shown."""
    hidden = frozenset(secret_names)
    return {name: MASK if name in hidden else value for name, value in values.items()}
