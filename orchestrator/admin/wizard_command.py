"""What to run: the form of the run wizard's second step."""

from typing import Any, Final

from django import forms
from unfold.widgets import INPUT_CLASSES

from orchestrator.admin.drafts import Draft
from orchestrator.exceptions import InvalidFieldError
from orchestrator.models import CommandType
from orchestrator.models.mass_commands import LABEL_LENGTH, NOTES_LENGTH
from orchestrator.playbooks import SHIPPED, check_input, specification

_INPUT: Final = " ".join(INPUT_CLASSES)

TYPE_HELP: Final = {
    CommandType.PING: "Logs in to each device and changes nothing: are address, host key and credential right?",
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


class CommandForm(forms.Form):
    """What to run: a form drawn from what each command type takes."""

    type = forms.ChoiceField(
        choices=[(kind.value, kind.label) for kind in SHIPPED], widget=forms.RadioSelect, label="What to run",
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
        for command_type in SHIPPED:
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
        for command_type in SHIPPED:
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
