"""The digest of a set of targets: what was previewed is what runs, or the difference is told."""

import hashlib
import uuid
import zlib
from collections.abc import Iterable, Mapping


class Digest:
    """Sums a set of (device id, eligible) up, fed in the order of ids; equal sets have equal digests."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._packed = zlib.compressobj()
        self._body = bytearray()

    def add(self, pk: uuid.UUID, *, eligible: bool) -> None:
        """Add the next device."""
        member = pk.bytes + (b"+" if eligible else b"-")
        self._hash.update(member)
        self._body += self._packed.compress(member)

    def hexdigest(self) -> str:
        """64 hexadecimal digits."""
        return self._hash.hexdigest()

    def packed(self) -> bytes:
        """The members for ``Preview.members``; call it once, last."""
        return bytes(self._body + self._packed.flush())


def unpack(members: bytes) -> dict[uuid.UUID, bool]:
    """Device id → eligible, of what ``Digest.packed`` gave."""
    raw = zlib.decompress(members)
    return {uuid.UUID(bytes=raw[at : at + 16]): raw[at + 16 : at + 17] == b"+" for at in range(0, len(raw), 17)}


def difference(
    before: Mapping[uuid.UUID, bool], now: Iterable[tuple[uuid.UUID, bool]]
) -> tuple[list[uuid.UUID], list[uuid.UUID]]:
    """(added, removed) devices since the preview; one that turned eligible is added, the reverse is removed."""
    rest, added, removed = dict(before), [], []
    for pk, eligible in now:
        was = rest.pop(pk, None)
        if was is None or (eligible and not was):
            added.append(pk)
        elif was and not eligible:
            removed.append(pk)
    return added, removed + list(rest)
