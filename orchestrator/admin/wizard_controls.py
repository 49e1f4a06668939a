"""How a run is to be paced, as the wizard asks for it: folded until wanted, all of it optional."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone
from unfold.widgets import INPUT_CLASSES, UnfoldAdminSelectWidget

from orchestrator.models import OnConflict
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
}


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

    def clean(self) -> dict[str, Any]:
        """Moments are to come."""
        values = super().clean() or {}
        for name in _MOMENTS:
            moment = values.get(name)
            if moment is not None and not timezone.now() < moment < timezone.now() + _YEAR:
                self.add_error(name, "Enter a moment within the coming year.")
        return values

    def given(self) -> dict[str, Any]:
        """What was asked for, fit for JSON; nothing that was left as it is."""
        values = {name: value for name, value in self.cleaned_data.items() if value not in (None, "")}
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
    return [(NAMES.get(name, name), words.get(str(value), str(value))) for name, value in given.items()
            if (name, value) != ("on_conflict", "queue")]  # fmt: skip
