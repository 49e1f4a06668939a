"""What to run: the form of the run wizard's second step."""

from collections.abc import Iterable
from typing import Any, Final

from django import forms
from unfold.widgets import INPUT_CLASSES, UnfoldAdminSelectWidget

from orchestrator import catalogue
from orchestrator.access import Access
from orchestrator.admin.drafts import Draft
from orchestrator.admin.playbook_inputs import LEFT_OUT, MORE, fields_of
from orchestrator.exceptions import InvalidFieldError
from orchestrator.models import CommandType, Organization, Playbook, PlaybookStatus
from orchestrator.models.mass_commands import LABEL_LENGTH, NOTES_LENGTH
from orchestrator.playbooks import SHIPPED, specification

_INPUT: Final = " ".join(INPUT_CLASSES)
_ABOUT: Final = 80  # characters of a description beside the name

TYPE_HELP: Final = {
    CommandType.PING: "Logs in to each device and changes nothing: are address, host key and credential right?",
    CommandType.CUSTOM: "One command line, run on each device as it would be typed there.",
    CommandType.CHANGE_PASSWORD: "Sets a login password. The stored credential of a device follows when it was "
    "that user's.",
    CommandType.REBOOT: "Restarts each device and waits until it answers again. Success means that it came back.",
    CommandType.PLAYBOOK: "One of your own Ansible playbooks, as it is in the catalogue at this moment.",
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


def usable_playbooks(access: Access, organization: Organization | None = None) -> list[Playbook]:
    """Those that are whole, and that the organization of the targets allows if they have one."""
    rows = catalogue.playbooks(access).filter(status=PlaybookStatus.OK)
    return [row for row in rows if organization is None or organization.allows_playbook(row.name)]


class CommandForm(forms.Form):
    """What to run: a form drawn from what each command type takes, and the chosen playbook."""

    type = forms.ChoiceField(
        choices=[(kind.value, kind.label) for kind in TYPE_HELP], widget=forms.RadioSelect, label="What to run",
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

    def __init__(
        self, *args: Any, draft: Draft, access: Access, playbooks: Iterable[Playbook], chosen: str = "", **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.draft, self.access = draft, access
        for command_type in SHIPPED:
            spec = specification(command_type)
            for name in spec.required + spec.optional:
                stored = draft.input.get(name, "") if draft.type == command_type else ""
                secret = name in spec.secret
                self.fields[f"{command_type}__{name}"] = self._input_field(name, stored, secret=secret)
        self._add_playbook({row.name: row for row in playbooks}, chosen or self.data.get("playbook", draft.playbook))

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

    def _add_playbook(self, rows: dict[str, Playbook], chosen: str) -> None:
        """The choice of a playbook, and the fields of the chosen one."""
        self.has_playbooks = bool(rows)
        self.entry = rows.get(chosen)
        named = [(name, " — ".join(filter(None, (name, _first_line(row.description))))) for name, row in rows.items()]
        gone = "There is no such playbook for these devices, or it is broken: the catalogue says why."
        self.fields["playbook"] = forms.ChoiceField(
            choices=[("", "Choose a playbook…"), *named], required=False, widget=UnfoldAdminSelectWidget,
            label="Playbook", error_messages={"invalid_choice": gone}, initial=self.draft.playbook,
        )  # fmt: skip
        if self.entry is not None:
            same = (self.draft.type, self.draft.playbook) == (CommandType.PLAYBOOK, self.entry.name)
            stored = self.draft.input if same else {}
            for name, field in fields_of(self.entry, stored, self.draft.hidden).items():
                self.fields[_key(name)] = field

    @property
    def chosen_playbook(self) -> str:
        """Its name; empty with every other type."""
        return self.entry.name if self.entry and self.data.get("type") == CommandType.PLAYBOOK else ""

    @property
    def hidden(self) -> tuple[str, ...]:
        """The inputs of the chosen playbook that are secrets."""
        return tuple(sorted(self.entry.secret_names)) if self.entry and self.chosen_playbook else ()

    @property
    def has_check_mode(self) -> bool:
        """Whether what was chosen can be tried without changing anything."""
        if self.entry and self.chosen_playbook:
            return self.entry.check_mode
        return specification(self.cleaned_data["type"]).check_mode

    @property
    def inputs(self) -> list[Any]:
        """The fields of the chosen playbook."""
        return [self[name] for name in self.fields if name.startswith("playbook__")]

    def sections(self) -> list[dict[str, Any]]:
        """For each type its name, what it does and its fields, as the template draws them."""
        drawn = []
        for command_type, about in TYPE_HELP.items():
            fields = [self[name] for name in self.fields if name.startswith(f"{command_type}__")]
            drawn.append(
                {
                    "value": command_type.value,
                    "label": str(command_type.label),
                    "help": about,
                    "fields": fields if command_type in SHIPPED else [],
                    "playbook": command_type == CommandType.PLAYBOOK,
                    "chosen": self["type"].value() == command_type.value,
                }
            )
        return drawn

    def clean(self) -> dict[str, Any]:
        """The input by the rules of its type; each complaint beside its field."""
        values = super().clean() or {}
        if "type" not in values:
            return values
        self._forget_other_types(values["type"])
        playbook, given = "", self._given(values)
        if values["type"] == CommandType.PLAYBOOK:
            if self._must_be_filled_in():
                return values
            playbook = self.chosen_playbook
        values["input"] = given
        if self.errors.keys() & self._drawn():  # what can't be read at all is told first
            return values
        try:
            catalogue.check_input(values["type"], given, access=self.access, playbook=playbook)
        except InvalidFieldError as error:
            problems = error.message if isinstance(error.message, dict) else {"": [str(error.message)]}
            for name, messages in problems.items():
                field = f"{values['type']}__{name}" if error.field == "input" else error.field
                self.add_error(field if field in self.fields else None, messages)
        return values

    def _forget_other_types(self, chosen: str) -> None:
        """What is wrong with a type that was not chosen is nobody's concern."""
        for name in [*self.errors]:
            if name.partition("__")[0] in {*TYPE_HELP} - {chosen}:
                del self.errors[name]

    def _must_be_filled_in(self) -> bool:
        """Whether there is more to say of the playbook first: which one, or the input that was not asked for yet."""
        if self.entry is None:
            if "playbook" not in self.errors:
                self.add_error("playbook", "Choose a playbook.")
            return True
        if self.inputs and self.data.get("playbook_shown") != self.entry.name:
            self.add_error("playbook", f"Fill in what {self.entry.name} takes.")
            return True
        return False

    def _given(self, values: dict[str, Any]) -> dict[str, Any]:
        """What was typed for the chosen type; a secret that was left blank is the stored one."""
        if values["type"] == CommandType.PLAYBOOK:
            read = {name.removeprefix("playbook__"): value for name, value in values.items() if name in self._drawn()}
            more = read.pop(MORE, LEFT_OUT)
            given = {name: value for name, value in read.items() if value is not LEFT_OUT}
            if isinstance(more, dict):
                given = more | given
            elif more is not LEFT_OUT:
                self.add_error(_key(MORE), "Enter an object of JSON.")
            kept = self.entry.secret_names if self.entry and self.draft.playbook == self.entry.name else frozenset()
            return self._stored(kept - given.keys()) | given
        spec = specification(values["type"])
        given = {name: values.get(f"{spec.type}__{name}") or "" for name in spec.required}
        given |= {name: text for name in spec.optional if (text := values.get(f"{spec.type}__{name}"))}
        if self.draft.type == spec.type and not any(given.get(name) for name in spec.secret):
            given |= self._stored(spec.secret)
        return given

    def _drawn(self) -> set[str]:
        return {field.name for field in self.inputs}

    def _stored(self, names: Iterable[str]) -> dict[str, Any]:
        return {name: self.draft.input[name] for name in names if name in self.draft.input}


def _key(name: str) -> str:
    return f"playbook__{name}"


def _first_line(text: str) -> str:
    line = text.strip().partition("\n")[0]
    return line if len(line) <= _ABOUT else f"{line[: _ABOUT - 1]}…"
