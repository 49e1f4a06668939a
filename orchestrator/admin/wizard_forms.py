"""The two forms of the run wizard: which devices, and what to run."""

import uuid
from typing import Any, Final

from django import forms
from unfold.widgets import INPUT_CLASSES, UnfoldAdminSelectWidget

from orchestrator.access import Access, Right
from orchestrator.admin.drafts import Draft
from orchestrator.exceptions import InvalidFieldError
from orchestrator.models import CommandType, DeviceGroup, Location, Organization
from orchestrator.models.mass_commands import LABEL_LENGTH, NOTES_LENGTH
from orchestrator.playbooks import check_input, specification
from orchestrator.targeting import TargetFilter

SHOWN_PICKS: Final = 200  # picked devices that are listed one by one
_INPUT: Final = " ".join(INPUT_CLASSES)

SCOPES: Final = (
    ("filter", "By organization, group or location"),
    ("devices", "Picked devices"),
    ("all", "All devices"),
)
TYPE_HELP: Final = {
    CommandType.CUSTOM: "One command line, run on each device as it would be typed there.",
    CommandType.CHANGE_PASSWORD: "Sets a login password. The stored credential of a device follows when it was "
    "that user's.",
    CommandType.REBOOT: "Restarts each device and waits until it answers again. Success means that it came back.",
}
_LABELS: Final = {
    "command": "Command line",
    "password": "New password",
    "confirm_password": "New password again",
    "username": "User name",
}
_HELP: Final = {
    "command": "Nothing in it is a template: it reaches the devices letter by letter.",
    "username": "Left blank: the user that the service logs in as.",
}


def _row_field(rows: Any, label: str) -> "forms.ModelChoiceField[Any]":
    widget = UnfoldAdminSelectWidget()
    return forms.ModelChoiceField(rows, label=label, required=False, empty_label="Any", widget=widget)


class TargetsForm(forms.Form):
    """The devices: by a filter, picked one by one, or all of them (superusers)."""

    scope = forms.ChoiceField(choices=SCOPES, widget=forms.RadioSelect, label="Which devices")

    def __init__(self, *args: Any, access: Access, picked: tuple[uuid.UUID, ...] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.picked = picked
        if not access.everything:
            self.fields["scope"].choices = SCOPES[:2]  # type: ignore[attr-defined]
        own = access.organizations(Right.RUN)
        organizations = Organization.objects.all() if access.everything else Organization.objects.filter(pk__in=own)
        parts = {"group": DeviceGroup.objects.all(), "location": Location.objects.all()}
        self.fields["organization"] = _row_field(organizations, "Organization")
        for name, rows in parts.items():
            chosen = rows if access.everything else rows.filter(organization__in=own)
            self.fields[name] = _row_field(chosen.select_related("organization"), name.capitalize())
            self.fields[name].label_from_instance = _with_organization if len(own) != 1 else str  # type: ignore[attr-defined]

    def picks(self) -> tuple[uuid.UUID, ...]:
        """The picked devices: those ticked, and those of the draft that are too many to list."""
        kept = self.picked if self.data.get("keep_picked") else ()
        return tuple(dict.fromkeys((*kept, *uuids(self.data.getlist("devices")))))  # type: ignore[attr-defined]

    def target_filter(self) -> TargetFilter:
        """What the form says.  Fields of another scope count for nothing."""
        scope, values = self.cleaned_data["scope"], self.cleaned_data
        if scope == "all":
            return TargetFilter(all_devices=True)
        if scope == "devices":
            return TargetFilter(devices=self.picks())
        given = {name: values[name].pk for name in ("organization", "group", "location") if values.get(name)}
        return TargetFilter(**given)

    def refuse(self, error: InvalidFieldError) -> None:
        """Show an error of the targeting at the field it belongs to."""
        self.add_error(
            error.field if error.field in {"organization", "group", "location"} else None, str(error.message)
        )


def _with_organization(row: Any) -> str:
    return f"{row.name} ({row.organization.name})"


def uuids(texts: list[str]) -> list[uuid.UUID]:
    found = []
    for text in texts:
        try:
            found.append(uuid.UUID(text))
        except ValueError:
            continue  # not one of our checkboxes
    return found


class CommandForm(forms.Form):
    """What to run: a form drawn from what each command type takes."""

    type = forms.ChoiceField(
        choices=CommandType.choices, widget=forms.RadioSelect, label="What to run",
        error_messages={"required": "Choose what to run."},
    )  # fmt: skip
    label = forms.CharField(
        label="Label", max_length=LABEL_LENGTH, required=False, widget=forms.TextInput(attrs={"class": _INPUT}),
        help_text="To find the run again.",
    )  # fmt: skip
    notes = forms.CharField(
        label="Notes", max_length=NOTES_LENGTH, required=False,
        widget=forms.Textarea(attrs={"class": _INPUT, "rows": 3}),
    )  # fmt: skip

    def __init__(self, *args: Any, draft: Draft, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.draft = draft
        for command_type in CommandType:
            spec = specification(command_type)
            for name in spec.required + spec.optional:
                stored = draft.input.get(name, "") if draft.type == command_type else ""
                secret = name in spec.secret
                self.fields[f"{command_type}__{name}"] = self._input_field(name, stored, secret=secret)

    def _input_field(self, name: str, stored: str, *, secret: bool) -> forms.CharField:
        attrs = {"class": _INPUT, "autocomplete": "new-password" if secret else "off", "spellcheck": "false"}
        attrs |= {"class": f"{_INPUT} o-mono"} if name == "command" else {}
        widget = forms.PasswordInput(attrs=attrs) if secret else forms.TextInput(attrs=attrs)
        help_text = _HELP.get(name, "")
        if secret and stored:
            help_text = "One is stored for this run. Left blank, it is kept."
        label = _LABELS.get(name, name.replace("_", " ").capitalize())
        return forms.CharField(
            label=label, required=False, strip=False, widget=widget, help_text=help_text,
            initial="" if secret else stored,
        )  # fmt: skip

    def sections(self) -> list[dict[str, Any]]:
        """For each type its name, what it does and its fields, as the template draws them."""
        drawn = []
        for command_type in CommandType:
            spec = specification(command_type)
            fields = [self[f"{command_type}__{name}"] for name in spec.required + spec.optional]
            drawn.append(
                {
                    "value": command_type.value,
                    "label": str(command_type.label),
                    "help": TYPE_HELP.get(command_type, ""),
                    "fields": fields,
                    "chosen": self["type"].value() == command_type.value,
                }
            )
        return drawn

    def clean(self) -> dict[str, Any]:
        """The input by the rules of its type; each complaint beside its field."""
        values = super().clean() or {}
        if "type" not in values:
            return values
        spec = specification(values["type"])
        given = {name: values.get(f"{spec.type}__{name}") or "" for name in spec.required}
        given |= {name: text for name in spec.optional if (text := values.get(f"{spec.type}__{name}"))}
        if self.draft.type == spec.type and not any(given.get(name) for name in spec.secret):
            given |= {name: text for name, text in self.draft.input.items() if name in spec.secret}
        try:
            check_input(spec.type, given)
        except InvalidFieldError as error:
            problems = error.message if isinstance(error.message, dict) else {"": [str(error.message)]}
            for name, messages in problems.items():
                field = f"{spec.type}__{name}"
                self.add_error(field if field in self.fields else None, messages)
        values["input"] = given
        return values
