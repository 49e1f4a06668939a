"""The passwords of ansible-vault for users' own playbooks.  HashiCorp's Vault is something else: secret_stores.py.

Whoever configures the directories of playbooks gives them; no request names one.  Ansible reads the file itself, which
is in sight of its sandbox: the password is in no other file, on no command line and in no environment.
"""

import binascii
import hashlib
import hmac
import logging
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from django.conf import settings

from orchestrator.exceptions import VaultUnreadableError

log = logging.getLogger(__name__)

SETTING: Final = "ORCHESTRATOR_PLAYBOOK_VAULTS"
_ADVICE: Final = f"This service is given the passwords of vaults by {SETTING}."
_SHUT: Final = re.compile("no vault secrets|vault password file")  # in what Ansible says
_HEADER: Final = "$ANSIBLE_VAULT;"
_ENVELOPE: Final = re.compile(r"\$ANSIBLE_VAULT;1\.[12];AES256(;[^\n]*)?")
_ITERATIONS: Final = 10_000  # of PBKDF2, as ansible-vault has them; and so are the next two
_KEY_BYTES: Final = 32
_BLOCK_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Vault:
    """A vault's password, and the file that Ansible reads it from.  `repr` does not show it."""

    label: str
    file: Path
    password: bytes = field(repr=False)

    @property
    def secret(self) -> str:
        """What no output may show."""
        return self.password.decode(errors="replace")


def vaults(directory: str | Path) -> tuple[Vault, ...]:
    """The vaults of a directory of playbooks; ``directory`` as the catalogue has it.

    Raises:
        VaultUnreadableError: a password file is not fit for it.
    """
    found = []
    for label, file in _configured(directory):
        if why := problem(file):
            log.error("The file %s of %s %s", file, SETTING, why)  # users of the API need not know its path
            raise VaultUnreadableError(f'The password file of the vault "{label}" {why} It is named by {SETTING}.')
        found.append(Vault(label, file, file.read_bytes().strip()))
    return tuple(found)


def stamp(directory: str | Path) -> str:
    """What changes when a password file of the directory does."""
    told = []
    for label, file in _configured(directory):
        try:
            about = file.stat()
        except OSError as error:
            told.append(f"{label} {error.strerror}")
        else:
            told.append(f"{label} {about.st_ino} {about.st_mtime_ns} {about.st_mode} {about.st_uid}")
    return "\n".join(told)


def problem(file: Path) -> str:
    """Why a file is not fit to hold the password of a vault, as the rest of a sentence; empty when it is."""
    try:
        about = file.stat()
        password = file.read_bytes().strip() if stat.S_ISREG(about.st_mode) else b""
    except OSError as error:
        return f"can't be read: {error.strerror}."
    homes = [directory.resolve() for directory in settings.PLAYBOOK_DIRS]
    checks = {
        "is no file.": not stat.S_ISREG(about.st_mode),
        "belongs to another user than the service's.": about.st_uid not in (0, os.geteuid()),
        "can be read or changed by others: give it the mode 0600.": about.st_mode & 0o027,
        # Its output would be the password: unknown here, so nothing could take it out of what playbooks say.
        "is executable: scripts that tell a password are not run.": about.st_mode & 0o111,
        "is in a directory of playbooks, which is copied for runs.": any(map(file.resolve().is_relative_to, homes)),
        "is empty.": not password,
        "is encrypted itself.": password.startswith(_HEADER.encode()),
    }
    return next((why for why, holds in checks.items() if holds), "")


def environment(vaults: Sequence[Vault]) -> dict[str, str]:
    """What Ansible must be told: where the passwords are, and that nobody is there to be asked.

    Without vaults of ours what the directory's ansible.cfg says of some stays.
    """
    told = {"ANSIBLE_ASK_VAULT_PASS": "False"}
    if vaults:
        told["ANSIBLE_VAULT_IDENTITY_LIST"] = ",".join(f"{vault.label}@{vault.file}" for vault in vaults)
        told["ANSIBLE_VAULT_PASSWORD_FILE"] = str(vaults[0].file)  # else that of the ansible.cfg is looked for
    return told


def advised(said: str) -> str:
    """What Ansible said; with what to do about it, where it lacks the password of a vault."""
    return f"{said}\n{_ADVICE}" if _SHUT.search(said) and SETTING not in said else said


def is_encrypted(text: str) -> bool:
    """Whether a file of this text is ansible-vault's as a whole."""
    return text.startswith(_HEADER)


def opened(text: str, vaults: Sequence[Vault]) -> str | None:
    """What ansible-vault has encrypted as a whole; None when no vault opens it."""
    header, _, body = text.partition("\n")
    if not _ENVELOPE.fullmatch(header.strip()):
        return None
    try:
        parts = binascii.unhexlify("".join(body.split())).split(b"\n", 2)
        salt, seal, sealed = (binascii.unhexlify(part) for part in parts)
        found = (_decrypted(sealed, salt=salt, seal=seal, password=vault.password) for vault in vaults)
        clear = next((each for each in found if each is not None), None)
        return clear.decode() if clear is not None else None
    except ValueError:  # what is not hexadecimal, has other parts, or holds no text
        return None


def _decrypted(sealed: bytes, *, salt: bytes, seal: bytes, password: bytes) -> bytes | None:
    """AES-256 in counter mode with an HMAC of SHA-256; None when this is not the password."""
    size = 2 * _KEY_BYTES + _BLOCK_BYTES
    keys = hashlib.pbkdf2_hmac("sha256", password, salt, _ITERATIONS, size)
    cipher_key, seal_key, start = keys[:_KEY_BYTES], keys[_KEY_BYTES : 2 * _KEY_BYTES], keys[2 * _KEY_BYTES :]
    if not hmac.compare_digest(hmac.digest(seal_key, sealed, "sha256"), seal):
        return None
    padded = Cipher(AES(cipher_key), CTR(start)).decryptor().update(sealed)
    return padded[: -padded[-1]] if padded else padded


def _configured(directory: str | Path) -> list[tuple[str, Path]]:
    return [(label, file) for where, label, file in settings.PLAYBOOK_VAULTS if where in (None, Path(directory))]
