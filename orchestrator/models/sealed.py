"""Columns that hold sealed secrets: all of them are known, so that a rotation of the keys forgets none.

A column of ours is a ``SealedField``; a place in a table that is not ours says so with ``register``.  A test looks
that nothing else seals.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from django.apps import apps
from django.db import models

from orchestrator.secrets import open_sealed, seal


class SealedField(models.TextField):  # type: ignore[type-arg]  # Django has no generic fields
    """The secrets of a row, encrypted and bound to it (orchestrator/secrets.py); a text column in the database."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"blank": True, "editable": False} | options)

    def deconstruct(self) -> Any:
        """A plain text column, for migrations."""
        name, _, args, options = super().deconstruct()
        return name, "django.db.models.TextField", args, options


def seal_into(row: models.Model, column: str, values: Mapping[str, str]) -> None:
    """Seal these secrets into a column of the row, in the place of what was there; the caller saves it."""
    setattr(row, column, seal(values, row=row_name(type(row), row.pk)))


def open_from(row: models.Model, column: str) -> dict[str, str]:
    """The secrets of a column in the open.

    Raises:
        SecretUnreadableError: no key of the ring opens them.
    """
    return open_sealed(getattr(row, column), row=row_name(type(row), row.pk))


def row_name(model: type[models.Model], pk: Any) -> str:
    """What binds a sealed value to its row: ``mass_command:<id>``."""
    return f"{re.sub(r'(?<=[a-z])(?=[A-Z])', '_', model.__name__).lower()}:{pk}"


@dataclass(frozen=True, slots=True)
class SealedColumn:
    """Where sealed values are: in this column of the rows that ``where`` selects, each bound to ``name`` of its pk."""

    model: type[models.Model]
    column: str
    name: Callable[[Any], str]
    where: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.model._meta.model_name}.{self.column}"


_others: Final[dict[str, SealedColumn]] = {}


def register(column: SealedColumn) -> None:
    """Make a place known where sealed values are kept in a table that is not ours."""
    _others[str(column)] = column


def sealed_columns() -> list[SealedColumn]:
    """Every place where sealed values are kept."""
    fields = [x for model in apps.get_models() for x in model._meta.local_fields if isinstance(x, SealedField)]
    ours = [SealedColumn(x.model, x.attname, _binding(x.model)) for x in fields]
    return [*ours, *_others.values()]


def _binding(model: type[models.Model]) -> Callable[[Any], str]:
    return lambda pk: row_name(model, pk)
