"""The digest of a set of targets, and what has changed since."""

import itertools
import random
import tracemalloc
import uuid
from collections.abc import Iterator

import pytest

from orchestrator.digest import Digest, changes, unpack

Members = dict[uuid.UUID, bool]


def _packed(members: Members) -> bytes:
    digest = Digest()
    for pk, eligible in sorted(members.items()):
        digest.add(pk, eligible=eligible)
    return digest.packed()


def _some(number: int, seed: int = 0) -> Members:
    made = random.Random(seed)
    return {uuid.UUID(int=made.getrandbits(128)): made.random() < 0.9 for _ in range(number)}


@pytest.mark.parametrize("number", [0, 1, 4_999, 5_000, 5_001, 12_345])
def test_what_was_packed_is_unpacked_in_its_order(number: int) -> None:
    members = _some(number)
    assert list(unpack(_packed(members))) == sorted(members.items())


def test_ids_that_are_packed_to_next_to_nothing_are_unpacked_whole() -> None:
    members = {uuid.UUID(int=number): True for number in range(20_000)}
    assert list(unpack(_packed(members))) == list(members.items())


def test_changes_are_those_of_the_sets() -> None:
    pks = sorted(_some(6))
    for before, now in itertools.product(itertools.product([None, False, True], repeat=3), repeat=2):
        was = {pk: eligible for pk, eligible in zip(pks, before, strict=False) if eligible is not None}
        is_ = {pk: eligible for pk, eligible in zip(pks, now, strict=False) if eligible is not None}
        found = list(changes(was.items(), is_.items()))
        added = {pk for pk in is_ if pk not in was or (is_[pk] and not was[pk])}
        removed = {pk for pk in was if pk not in is_ or (was[pk] and not is_[pk])}
        assert found == sorted([(pk, True) for pk in added] + [(pk, False) for pk in removed])


def test_neither_of_two_large_sets_is_held_in_memory() -> None:
    def fleet() -> Iterator[tuple[uuid.UUID, bool]]:
        return ((uuid.UUID(int=number << 64), True) for number in range(30_000))

    digest = Digest()
    for pk, eligible in fleet():
        digest.add(pk, eligible=eligible)
    members = digest.packed()
    tracemalloc.start()
    try:
        assert next(changes(unpack(members), fleet()), None) is None
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1024 * 1024
