"""Rotation of the keys that seal stored secrets: every sealed value is opened and sealed anew with the first key.

It goes on while the service runs.  Each write is guarded by the value that was read, so that what somebody changes
meanwhile wins; and there is nothing to remember: a rotation that was cut is started again, and finds what is left.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from django.conf import settings
from django.db import transaction

from orchestrator.exceptions import SecretUnreadableError
from orchestrator.models.sealed import SealedColumn, sealed_columns
from orchestrator.secrets import SEALED, current_key, key_of, open_sealed, seal

BATCH: Final = 200  # rows in one transaction: short ones, so that runs go on beside it
PASSES: Final = 5  # over a column into which a process that has not been restarted still seals with an old key


@dataclass(slots=True)
class Resealed:
    """What was done with one column."""

    column: SealedColumn
    resealed: int = 0
    overtaken: int = 0  # changed by somebody else between our read and our write; looked at again
    unreadable: list[str] = field(default_factory=list)  # the rows' ids


def reseal() -> Iterator[Resealed]:
    """Seal everything anew that another key than the first one has sealed, column by column."""
    for column in sealed_columns():
        done = Resealed(column)
        for _ in range(PASSES):
            done.unreadable.clear()
            before = done.resealed + done.overtaken
            _pass_over(done)
            if done.resealed + done.overtaken == before:
                break
        yield done


def keys_in_use() -> dict[str, Counter[str]]:
    """Column → key id → number of values that this key has sealed; also of keys that the ring does not hold."""
    return {str(column): Counter(map(key_of, _sealed(column))) for column in sealed_columns()}


def _sealed(column: SealedColumn) -> Iterator[str]:
    values: Any = _rows(column).values_list(column.column, flat=True)
    return values.iterator()  # type: ignore[no-any-return]


def _rows(column: SealedColumn) -> Any:
    rows = column.model._default_manager.filter(**column.where)
    return rows.filter(**{f"{column.column}__startswith": SEALED}).order_by("pk")


def _pass_over(done: Resealed) -> None:
    """Look once at every value that another key has sealed."""
    column, last = done.column, None
    old = _rows(column).exclude(**{f"{column.column}__startswith": f"{SEALED}{current_key()}$"})
    while True:
        with transaction.atomic():
            rest = old if last is None else old.filter(pk__gt=last)
            batch = list(rest.values_list("pk", column.column)[:BATCH])
            for pk, sealed in batch:
                _reseal(done, pk, sealed)
        if not batch:
            return
        last = batch[-1][0]


def _reseal(done: Resealed, pk: Any, sealed: str) -> None:
    column = done.column
    try:
        anew = seal(open_sealed(sealed, row=column.name(pk)), row=column.name(pk))
    except SecretUnreadableError:
        done.unreadable.append(str(pk))
        return
    unchanged = column.model._default_manager.filter(pk=pk, **{column.column: sealed})
    if unchanged.update(**{column.column: anew}):
        done.resealed += 1
    else:
        done.overtaken += 1


def old_keys() -> list[str]:
    """The keys of the ring that only open."""
    return list(settings.SECRET_KEY_RING)[1:]
