"""Search and pick: rows are found by what is typed, so that no page lists a fleet or its thousands of groups."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from django import forms
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from unfold.widgets import INPUT_CLASSES, UnfoldAdminSelectWidget

from orchestrator.access import Access, Right
from orchestrator.admin.scoped import access_of
from orchestrator.models import Device, DeviceGroup, Location, Organization, SavedTargets

SHOWN_PICKS: Final = 200  # picked rows that are listed one by one
_FOUND: Final = 20  # rows offered by a search
_FEW: Final = 30  # rows that fit a drop-down list
_LENGTH: Final = 300  # characters of a name with its organization's
_KINDS: Final[Mapping[str, Any]] = {
    "device": Device, "group": DeviceGroup, "location": Location, "organization": Organization, "saved": SavedTargets,
}  # fmt: skip


def title(kind: str) -> str:
    """What rows of a kind are called."""
    return "saved set" if kind == "saved" else kind


def uuids(texts: list[str]) -> list[uuid.UUID]:
    """The ids among these texts; what is none did not come from our checkboxes."""
    found = []
    for text in texts:
        try:
            found.append(uuid.UUID(text))
        except ValueError:
            continue
    return found


def pickable(kind: str, access: Access) -> Any:
    """The rows of a kind on which, or in which, the user may run commands.

    Raises:
        KeyError: there is no such kind.
    """
    model = _KINDS[kind]
    if access.everything:
        return model.objects.all()
    lookup = "pk__in" if model is Organization else "organization__in"
    return model.objects.filter(**{lookup: access.organizations(Right.RUN)})


def find(kind: str, access: Access, text: str) -> list[Any]:
    """The first rows whose name (of a device: or host) holds the text.

    Raises:
        KeyError: there is no such kind.
    """
    rows, text = pickable(kind, access), text.replace("\x00", "").strip()[:128]
    found = rows.filter(name__icontains=text)
    if kind == "device":
        found |= rows.filter(host__icontains=text)
    if kind != "organization":
        found = found.select_related("organization")
    return list(found.order_by("name", "pk")[:_FOUND])


def named(row: Any) -> str:
    """The name of a row with that of its organization, as a list offers it."""
    return row.name if isinstance(row, Organization) else f"{row.name} ({row.organization.name})"


class FoundRowField(forms.CharField):
    """A row by its name, offered while it is typed; its cleaned value is the row.  Takes an id as well."""

    def __init__(self, kind: str, *, access: Access, label: str) -> None:
        self.kind, self.rows = kind, pickable(kind, access)
        attrs = {"class": " ".join(INPUT_CLASSES), "list": f"offers_{kind}", "data-find": kind, "autocomplete": "off",
                 "placeholder": "Any: type to search"}  # fmt: skip
        super().__init__(
            label=label, required=False, max_length=_LENGTH, widget=forms.TextInput(attrs=attrs), empty_value=""
        )

    def prepare_value(self, value: Any) -> Any:
        """The name for an id."""
        found = uuids([str(value)]) if value else []
        row = self._rows().filter(pk=found[0]).first() if found else None
        return named(row) if row else value

    def clean(self, value: Any) -> Any:
        """The one row of that name, or None for a blank.

        Raises:
            ValidationError: there is none, or several have the name.
        """
        text = super().clean(value)
        if not text:
            return None
        if ids := uuids([text]):
            found = list(self._rows().filter(pk=ids[0]))
        else:
            name, _, owner = text.removesuffix(")").rpartition(" (")
            rows = self._rows()
            found = list(rows.filter(name=text)[:2])
            if not found and name and self.kind != "organization":
                found = list(rows.filter(name=name, organization__name=owner))
        if not found:
            raise ValidationError(
                f"There is no {title(self.kind)} of this name. Choose one of those offered while you type."
            )
        if len(found) > 1:
            raise ValidationError(f"Several have this name. Add its organization: {named(found[0])}.")
        return found[0]

    def _rows(self) -> Any:
        return self.rows if self.kind == "organization" else self.rows.select_related("organization")


def row_field(kind: str, *, access: Access) -> Any:
    """The field for a row of this kind: a drop-down list where there are few, else a search."""
    rows = pickable(kind, access)
    if rows.order_by()[: _FEW + 1].count() > _FEW:
        return FoundRowField(kind, access=access, label=title(kind).capitalize())
    if kind != "organization":
        rows = rows.select_related("organization")
    field = forms.ModelChoiceField(
        rows, label=title(kind).capitalize(), required=False, empty_label="Any", widget=UnfoldAdminSelectWidget()
    )
    several = access.spans_several(Right.RUN)
    field.label_from_instance = named if several else str  # type: ignore[assignment,method-assign]
    return field


@dataclass(frozen=True, slots=True)
class Picker:
    """Checkboxes named ``name`` for rows of a kind: those found by a search, and those picked."""

    name: str
    kind: str
    label: str
    search: str
    found: list[Any]
    picked: list[Any]
    picked_count: int

    @property
    def many(self) -> bool:
        """Whether they are too many to be listed one by one."""
        return self.picked_count > SHOWN_PICKS

    @classmethod
    def of(cls, request: HttpRequest, name: str, kind: str, *, label: str, chosen: tuple[uuid.UUID, ...]) -> "Picker":
        """As the request has it; ``q_<name>`` is what was searched for, ``chosen`` are the picked rows."""
        access = access_of(request)
        search = (request.POST if request.method == "POST" else request.GET).get(f"q_{name}", "")
        picked: list[Any] = []
        if 0 < len(chosen) <= SHOWN_PICKS:
            rows = access.visible(_KINDS[kind].objects.filter(pk__in=chosen))
            picked = list(rows.select_related("organization").order_by("name", "pk"))
        there = {row.pk for row in picked}
        found = [row for row in find(kind, access, search) if row.pk not in there] if search else []
        return cls(name, kind, label, search, found, picked, len(chosen))
