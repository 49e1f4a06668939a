"""The digest of a set of targets: what was previewed is what runs, or the difference is told."""

import hashlib
import uuid
import zlib
from collections.abc import Iterable, Iterator
from typing import Final

_MEMBER: Final = 17  # bytes: an id, and whether it is eligible
_PIECE: Final = 5_000 * _MEMBER  # unpacked at a time


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
        self._body += self._packed.flush()
        return bytes(self._body)


def unpack(members: bytes) -> Iterator[tuple[uuid.UUID, bool]]:
    """(device id, eligible) in the order of ids, of what ``Digest.packed`` gave; unpacked some at a time."""
    opened, left = zlib.decompressobj(), b""
    piece = opened.decompress(members, _PIECE)
    while piece:
        raw = left + piece
        whole = len(raw) - len(raw) % _MEMBER
        for at in range(0, whole, _MEMBER):
            yield uuid.UUID(bytes=raw[at : at + 16]), raw[at + 16 : at + _MEMBER] == b"+"
        left, piece = raw[whole:], opened.decompress(opened.unconsumed_tail, _PIECE)


def changes(
    before: Iterable[tuple[uuid.UUID, bool]], now: Iterable[tuple[uuid.UUID, bool]]
) -> Iterator[tuple[uuid.UUID, bool]]:
    """(device id, added or else removed) since the preview; one that turned eligible is added, the reverse is removed.

    Both must be in the order of ids: they are gone through side by side, and neither is held.
    """
    old = iter(before)
    was = next(old, None)
    for pk, eligible in now:
        while was and was[0] < pk:
            yield was[0], False
            was = next(old, None)
        if was is None or was[0] != pk:
            yield pk, True
            continue
        if was[1] != eligible:
            yield pk, eligible
        was = next(old, None)
    while was:
        yield was[0], False
        was = next(old, None)
