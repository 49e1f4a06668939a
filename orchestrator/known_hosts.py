"""Reading known_hosts files (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"): names in the open and hashed ones.

What stands for many hosts at once is not taken: a pattern, a certificate authority.  Neither is a revoked key.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Self

from django.core.exceptions import ValidationError

from orchestrator.models import validate_host_key

_SSH_PORT: Final = 22
_HASHED: Final = "|1|"  # HMAC-SHA1 of the name with a salt of its own
_MARKERS: Final = {
    "@cert-authority": "Certificate authorities are not supported: pin the devices' own keys.",
    "@revoked": "Revoked keys are not supported: delete the key where it is pinned.",
}


@dataclass(frozen=True, slots=True)
class Ignored:
    """A line that is not taken, and why."""

    line: int
    reason: str


@dataclass(slots=True)
class KnownHosts:
    """What a file says."""

    plain: dict[str, list[str]] = field(default_factory=dict)  # name → keys
    hashed: list[tuple[bytes, bytes, str]] = field(default_factory=list)  # salt, hash of the name, key
    ignored: list[Ignored] = field(default_factory=list)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a file; a line that is not taken is told, and hinders no other."""
        found = cls()
        for number, line in enumerate(text.splitlines(), start=1):
            parts = line.split()
            if parts and not parts[0].startswith("#"):
                found.ignored.extend(Ignored(number, reason) for reason in found._take(parts))
        return found

    def _take(self, parts: list[str]) -> Iterator[str]:
        """Take the names of a line; why not, for each that is not taken."""
        if parts[0] in _MARKERS:
            yield _MARKERS[parts[0]]
            return
        key = " ".join(parts[1:3])
        try:
            if len(parts) < 3:
                raise ValidationError("")
            validate_host_key(key)
        except ValidationError:
            yield "This is no line of names, kind and key, or the kind is not supported (ed25519, ECDSA, RSA)."
            return
        if parts[0].startswith(_HASHED):
            yield from self._take_hashed(parts[0], key)
            return
        for name in filter(None, parts[0].lower().split(",")):
            if set(name) & set("*?!"):
                yield f"Patterns are not supported: {name[:100]}"
            else:
                self.plain.setdefault(name, []).append(key)

    def _take_hashed(self, name: str, key: str) -> Iterator[str]:
        try:
            salt, digest = (base64.b64decode(part, validate=True) for part in name.removeprefix(_HASHED).split("|"))
        except (ValueError, binascii.Error):
            yield "The hashed name can't be read."
            return
        self.hashed.append((salt, digest, key))

    def keys_of(self, host: str, port: int) -> list[str]:
        """The keys for an address, each once."""
        names = [f"[{host.lower()}]:{port}", *([host.lower()] if port == _SSH_PORT else [])]
        return list(dict.fromkeys(key for name in names for key in self._keys_of_name(name)))

    def _keys_of_name(self, name: str) -> Iterable[str]:
        yield from self.plain.get(name, ())
        for salt, digest, key in self.hashed:
            if hmac.compare_digest(hmac.digest(salt, name.encode(), hashlib.sha1), digest):
                yield key
