"""Where the secrets of a credential are: sealed in its row, or in an external store that is asked before each run.

A reference always means something below the folder that a superuser has given to the credential's organization, so no
administrator reaches another organization's secrets by writing a path.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.db import models

_WORD: Final = r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}"  # never "." or ".."
_FOLDER: Final = re.compile(r"[A-Za-z0-9_-]{1,128}(/[A-Za-z0-9_-]{1,128}){0,7}\Z", re.ASCII)
_VAULT: Final = re.compile(rf"{_WORD}(/{_WORD}){{0,7}}#{_WORD}\Z", re.ASCII)
_FILE: Final = re.compile(r"[A-Za-z0-9_-]{1,128}\Z", re.ASCII)  # no dot: it ends the folder's name

SECRET_NAMES: Final = ("password", "private_key", "passphrase", "become_password")


class Source(models.TextChoices):
    """Where the secrets of a credential are."""

    STORED = "stored", "sealed in the database"
    VAULT = "vault", "HashiCorp Vault"
    FILE = "file", "files of the machine"


def validate_folder(value: str) -> None:
    """A folder of an external store, such as ``network/north``."""
    if not _FOLDER.match(value):
        raise ValidationError("Enter a folder such as network/north: letters, digits, '_' and '-', parted by '/'.")


def validate_references(source: str, references: Any) -> None:
    """Secret name → where it is: ``path#field`` in Vault, or the name of a file.

    Raises:
        ValidationError: a name is none of a credential's secrets, or its reference could lead out of the folder.
    """
    if not isinstance(references, Mapping) or not all(isinstance(value, str) for value in references.values()):
        raise ValidationError('Give an object such as {"password": "routers/root#password"}.')
    if strange := [str(name)[:64] for name in references if name not in SECRET_NAMES]:
        raise ValidationError(f"There is no secret {strange[0]!r}; there are {', '.join(SECRET_NAMES)}.")
    if source == Source.STORED:
        if references:
            raise ValidationError("A stored credential has no references; choose another source, or give the secrets.")
        return
    if not {"password", "private_key"} & references.keys():
        raise ValidationError("Refer to a password or a private key.")
    pattern = _VAULT if source == Source.VAULT else _FILE
    shape = "path#field, such as routers/root#password" if source == Source.VAULT else "a file's name without a dot"
    if wrong := [name for name, value in references.items() if not pattern.match(value)]:
        raise ValidationError(f"The reference of {wrong[0]} must be {shape}.")


def overlap(first: str, second: str) -> bool:
    """Whether two folders are the same, or one is within the other."""
    return f"{first}/".startswith(f"{second}/") or f"{second}/".startswith(f"{first}/")
