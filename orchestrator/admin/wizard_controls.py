"""How a run is to be paced, as the wizard asks for it: folded until wanted, all of it optional."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone
from unfold.widgets import INPUT_CLASSES, UnfoldAdminSelectWidget

from orchestrator.models import CommandType, OnConflict
from orchestrator.pacing import Controls

_INPUT: Final = " ".join(INPUT_CLASSES)
_PERCENT: Final = re.compile(r"(?:100|[0-9]{1,2}(?:\.[0-9]{1,3})?)%", re.ASCII)
_MOST: Final = 1_000_000  # devices
_DAY: Final = 86_400  # seconds
_YEAR: Final = timedelta(days=366)
_MOMENTS: Final = ("run_at", "wait_for_offline_until")

# What each control is called where it is shown; its field has the same name.
NAMES: Final = {
    "max_concurrency": "Devices at once",
    "canary": "First try it on",
    "pause": "Pause between waves",
    "max_errors": "Stop after errors",
    "execution_timeout": "Seconds for each device",
    "deadline": "Seconds for the whole run",
    "on_conflict": "A device that another run holds",
    "run_at": "Start at (UTC)",
    "wait_for_offline_until": "Wait for offline devices until (UTC)",
    "ramp": "Growing waves",
    "check": "Check mode",
    "connect_timeout": "Seconds to connect",
    "diff": "Keep what changes in files",
    "job_tags": "Only tasks tagged",
    "skip_tags": "No tasks tagged",
    "verbosity": "Verbosity",
}
_OF_PLAYBOOKS: Final = ("diff", "job_tags", "skip_tags", "verbosity")
_MOST_TAGS: Final = 64
_TAG_LENGTH: Final = 64  # characters


class AmountField(forms.CharField):
    """A number of devices, or a percentage of the eligible ones."""

    def __init__(self, *, least: int, **options: Any) -> None:
        self.least = least
        attrs = {"class": _INPUT, "placeholder": "10 or 5%", "autocomplete": "off"}
        super().__init__(required=False, max_length=12, widget=forms.TextInput(attrs=attrs), **options)

    def clean(self, value: Any) -> int | str | None:
        """The amount, as pacing.py takes it."""
        text = super().clean(value).replace(" ", "")
        if not text:
            return None
        if _PERCENT.fullmatch(text) and (float(text[:-1]) > 0 or not self.least):
            return str(text)
        if text.isascii() and text.isdigit() and self.least <= int(text) <= _MOST:
            return int(text)
        raise ValidationError(f"Enter a number of at least {self.least}, or a percentage such as 10%.")


class TaskTagsField(forms.CharField):
    """Tags of tasks, separated as Ansible has them."""

    def __init__(self, **options: Any) -> None:
        attrs = {"class": _INPUT, "autocomplete": "off", "spellcheck": "false"}
        super().__init__(required=False, widget=forms.TextInput(attrs=attrs), help_text="Between commas.", **options)

    def prepare_value(self, value: Any) -> Any:
        """The list as a line."""
        return ", ".join(value) if isinstance(value, list | tuple) else value

    def clean(self, value: Any) -> list[str] | None:
        """The tags, or None where there is none."""
        tags = [tag for part in super().clean(value).split(",") if (tag := part.strip())]
        if len(tags) > _MOST_TAGS or any(len(tag) > _TAG_LENGTH for tag in tags):
            raise ValidationError(f"Enter at most {_MOST_TAGS} tags of at most {_TAG_LENGTH} characters.")
        return tags or None


def _seconds(name: str, help_text: str = "") -> forms.FloatField:
    widget = forms.NumberInput(attrs={"class": _INPUT})
    return forms.FloatField(
        label=NAMES[name], required=False, min_value=1, max_value=30 * _DAY, widget=widget, help_text=help_text
    )


def _moment(name: str, help_text: str) -> forms.DateTimeField:
    widget = forms.DateTimeInput(attrs={"class": _INPUT, "type": "datetime-local"}, format="%Y-%m-%dT%H:%M")
    return forms.DateTimeField(label=NAMES[name], required=False, widget=widget, help_text=help_text)


class ControlsForm(forms.Form):
    """Pace and limits."""

    max_concurrency = AmountField(least=1, label=NAMES["max_concurrency"], help_text="Over all workers.")
    canary = AmountField(least=1, label=NAMES["canary"], help_text="The rest follows only if these succeed.")
    max_errors = AmountField(
        least=0, label=NAMES["max_errors"], help_text="More failed devices than this end the run."
    )  # fmt: skip
    pause = forms.ChoiceField(
        label=NAMES["pause"], required=False, widget=UnfoldAdminSelectWidget,
        choices=(("", "None"), ("60", "1 minute"), ("600", "10 minutes"), ("3600", "1 hour"),
                 ("manual", "Until a person goes on")),
    )  # fmt: skip
    execution_timeout = _seconds("execution_timeout", "A device that takes longer has timed out.")
    deadline = _seconds("deadline", "What has not started by then is not started.")
    on_conflict = forms.ChoiceField(
        label=NAMES["on_conflict"], required=False, choices=OnConflict.choices, widget=UnfoldAdminSelectWidget
    )
    run_at = _moment("run_at", "Left blank: at once.")
    wait_for_offline_until = _moment("wait_for_offline_until", "Left blank: a device that is offline is unreachable.")
    check = forms.BooleanField(
        label=NAMES["check"],
        required=False,
        help_text="Change nothing; tell what would change, as far as that is known.",
    )
    diff = forms.BooleanField(label=NAMES["diff"], required=False, help_text="As ansible-playbook --diff.")
    job_tags = TaskTagsField(label=NAMES["job_tags"])
    skip_tags = TaskTagsField(label=NAMES["skip_tags"])
    verbosity = forms.ChoiceField(
        label=NAMES["verbosity"], required=False, widget=UnfoldAdminSelectWidget, help_text="How much modules tell.",
        choices=(("", "As usual"), *((str(level), f"-{level * 'v'}") for level in range(1, 5))),
    )  # fmt: skip

    @property
    def pace(self) -> list[Any]:
        """The fields of any type, but for check mode, which has a place of its own."""
        return [field for field in self if field.name not in {*_OF_PLAYBOOKS, "check"}]

    @property
    def of_playbooks(self) -> list[Any]:
        """Ansible's own options."""
        return [self[name] for name in _OF_PLAYBOOKS]

    @property
    def options_given(self) -> bool:
        """Whether there is something to see among Ansible's own options."""
        return any(field.errors or field.value() for field in self.of_playbooks)

    @property
    def pace_given(self) -> bool:
        """Whether there is something to see among the others."""
        return any(field.errors or field.value() for field in self.pace)

    def clean_verbosity(self) -> int | None:
        """A number."""
        return int(self.cleaned_data["verbosity"]) if self.cleaned_data["verbosity"] else None

    def clean(self) -> dict[str, Any]:
        """Moments are to come."""
        values = super().clean() or {}
        for name in _MOMENTS:
            moment = values.get(name)
            if moment is not None and not timezone.now() < moment < timezone.now() + _YEAR:
                self.add_error(name, "Enter a moment within the coming year.")
        return values

    def refuse_check(self, *, possible: bool) -> bool:
        """Complain, and say so, when check mode was asked for where there is none."""
        if possible or not self.cleaned_data["check"]:
            return False
        self.add_error("check", "What was chosen has no check mode: it would be run in earnest.")
        return True

    def given(self, command_type: str) -> dict[str, Any]:
        """What was asked for, fit for JSON; nothing that was left as it is, or that the type has not."""
        values = {name: value for name, value in self.cleaned_data.items() if value not in (None, "")}
        other = () if command_type == CommandType.PLAYBOOK else _OF_PLAYBOOKS
        values = {name: value for name, value in values.items() if value is not False and name not in other}
        if values.get("on_conflict") == OnConflict.QUEUE:
            del values["on_conflict"]
        return {name: value.isoformat() if name in _MOMENTS else value for name, value in values.items()}


def initial(controls: Mapping[str, Any]) -> dict[str, Any]:
    """The form's fields for what was asked for before."""
    values = dict(controls)
    values |= {name: datetime.fromisoformat(values[name]).astimezone(UTC) for name in _MOMENTS if name in values}
    if isinstance(values.get("pause"), float):
        values["pause"] = f"{values['pause']:g}"
    return values


def controls_of(given: Mapping[str, Any]) -> Controls:
    """What pacing.py takes."""
    values: dict[str, Any] = dict(given)
    values |= {name: datetime.fromisoformat(values[name]) for name in _MOMENTS if name in values}
    if values.get("pause") not in {None, "manual"}:
        values["pause"] = float(values["pause"])
    return Controls(**values)


def shown(given: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and value of each control, for people."""
    words = {"manual": "until a person goes on", "True": "yes"}
    texts = {name: ", ".join(value) if isinstance(value, list) else str(value) for name, value in given.items()}
    return [(NAMES.get(name, name), words.get(text, text)) for name, text in texts.items()
            if (name, text) != ("on_conflict", "queue")]  # fmt: skip
