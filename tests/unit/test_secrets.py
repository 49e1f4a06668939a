"""Secrets at rest."""

import base64
import os
from typing import Any

import pytest

from orchestrator.exceptions import SecretUnreadableError
from orchestrator.secrets import mask, open_sealed, seal

VALUES = {"password": "pä$$ {{ x }}", "passphrase": "'\"\\"}


def test_what_was_sealed_opens_for_its_row() -> None:
    sealed = seal(VALUES, row="credential:1")
    assert open_sealed(sealed, row="credential:1") == VALUES
    assert all(value not in sealed for value in VALUES.values())


def test_a_ciphertext_copied_to_another_row_does_not_open() -> None:
    with pytest.raises(SecretUnreadableError):
        open_sealed(seal(VALUES, row="credential:1"), row="credential:2")


@pytest.mark.parametrize("damaged", ["1$1$AAAA", "nonsense", "2$1$AAAA", "1$other$AAAA", "1$1$***"])
def test_a_damaged_ciphertext_does_not_open(damaged: str) -> None:
    with pytest.raises(SecretUnreadableError):
        open_sealed(damaged, row="credential:1")


def test_nothing_secret_is_stored_as_nothing() -> None:
    assert seal({"password": ""}, row="credential:1") == ""
    assert open_sealed("", row="credential:1") == {}


def test_an_old_key_of_the_ring_still_opens(settings: Any) -> None:
    sealed = seal(VALUES, row="credential:1")
    settings.SECRET_KEY_RING = {"new": os.urandom(32), **settings.SECRET_KEY_RING}
    assert open_sealed(sealed, row="credential:1") == VALUES
    assert seal(VALUES, row="credential:1").startswith("1$new$")


def test_one_flipped_bit_is_noticed() -> None:
    head, _, body = seal(VALUES, row="credential:1").rpartition("$")
    raw = bytearray(base64.b64decode(body))
    raw[20] ^= 1
    with pytest.raises(SecretUnreadableError):
        open_sealed(f"{head}${base64.b64encode(raw).decode()}", row="credential:1")


def test_masking_keeps_the_other_fields() -> None:
    assert mask({"username": "root", "password": "x"}, {"password"}) == {"username": "root", "password": "********"}
