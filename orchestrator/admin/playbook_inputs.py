"""The fields of a form, drawn from the JSON Schema of a playbook's input.

A field only reads what was typed; whether that may be given says the schema itself, by catalogue.py, as for the API.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from django import forms
from django.core.exceptions import ValidationError
from unfold.widgets import (
    INPUT_CLASSES,
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
)

from orchestrator.models import Playbook
from orchestrator.models.playbooks import is_secret

LEFT_OUT: Final[Any] = object()
"""What a field that was left blank reads: no value at all, which null and "" are."""
MORE: Final = ""
"""The name of the field for inputs that the schema lets in without naming them."""

_INPUT: Final = " ".join(INPUT_CLASSES)
_SIMPLE: Final = frozenset({"string", "integer", "number", "boolean"})
_LINE: Final = 255  # characters of a text that a field of one line is fit for
_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,300}", re.ASCII)
_SHOWN: Final = 200  # characters of a value in a text
_KEPT: Final = "One is stored for this run. Left blank, it is kept."

type Reader = Callable[[str], Any]


class TypedField(forms.Field):
    """One value, read from a text; blank is no value."""

    def __init__(self, *, read: Reader, **options: Any) -> None:
        self.read = read
        super().__init__(required=False, **options)

    def clean(self, value: Any) -> Any:
        """The value, of the type that the schema asks for."""
        text = str(value or "").replace("\r\n", "\n")
        return self.read(text) if text.strip() else LEFT_OUT


class ChoiceField(forms.ChoiceField):
    """One of some values, which may be of any type; each is named by its JSON."""

    def clean(self, value: Any) -> Any:
        """The value itself."""
        text = super().clean(value)
        return json.loads(text) if text else LEFT_OUT


class ChoicesField(forms.MultipleChoiceField):
    """A list of some of the values."""

    def clean(self, value: Any) -> Any:
        """The values themselves."""
        chosen = super().clean(value)
        return [json.loads(text) for text in chosen] if chosen else LEFT_OUT


def fields_of(playbook: Playbook, stored: Mapping[str, Any], hidden: Iterable[str]) -> dict[str, forms.Field]:
    """A field for each input.  ``stored`` is shown in them, but for secrets and what is named in ``hidden``."""
    schema, secret = playbook.schema, playbook.secret_names | frozenset(hidden)
    required = frozenset(_names(schema.get("required")))
    fields = {}
    for name, told in schema.get("properties", {}).items():
        about = _resolved(told, schema)
        value = LEFT_OUT if name in secret else stored.get(name, LEFT_OUT)
        fields[name] = _field(name, about, value, required=name in required)
        if name in playbook.secret_names and stored.get(name):
            fields[name].help_text = f"{_KEPT} {fields[name].help_text}".strip()
    if schema.get("additionalProperties", False) is not False or schema.get("patternProperties"):
        more = {name: value for name, value in stored.items() if name not in fields and name not in secret}
        about = {"description": "Inputs that the playbook takes without naming them, as an object of JSON."}
        fields[MORE] = _json_field("Further inputs", about, more or LEFT_OUT, "")
    return fields


@dataclass(frozen=True, slots=True)
class Described:
    """An input in words."""

    name: str
    kind: str
    required: bool
    about: str


def described(playbook: Playbook) -> list[Described]:
    """What a playbook takes, for people who want to know before they run it."""
    required = frozenset(_names(playbook.schema.get("required")))
    told = []
    for name, field in fields_of(playbook, {}, ()).items():
        about = _resolved(playbook.schema["properties"].get(name), playbook.schema)
        kind = "secret" if is_secret(about) else _kind(about) or "any"
        if isinstance(about.get("enum"), list):
            kind = f"one of {shown(about['enum'])}"
        default = f"Left blank: {shown(about['default'])[:_SHOWN]}." if "default" in about else ""
        text = str(field.help_text)
        text = text if default in text else f"{text} {default}".strip()
        told.append(Described(name or "others", kind, name in required, text))
    return told


def shown(value: Any) -> str:
    """A value as people read it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list) and value and all(isinstance(part, str | int | float) for part in value):
        return ", ".join(map(shown, value))
    return json.dumps(value, ensure_ascii=False)


def words_of(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """An input as a page shows it; its secrets are masked already."""
    return [(name.replace("_", " "), shown(value)) for name, value in values.items()]


# ---------------------------------------------------------------- which field
def _field(name: str, about: Mapping[str, Any], value: Any, *, required: bool) -> forms.Field:
    label = str(about.get("title") or name.replace("_", " ").capitalize()) + (" (required)" if required else "")
    blank = "" if required or "default" not in about else f"Left blank: {shown(about['default'])[:_SHOWN]}."
    if required and value is LEFT_OUT and not is_secret(about):
        value = about.get("default", LEFT_OUT)
    kind = _kind(about)
    if is_secret(about):
        return _secret_field(label, about)
    if kind == "boolean" or "enum" in about:
        return _choice_field(label, about, value, blank, required=required)
    if kind in _READERS:
        return _text_field(label, about, value, blank)
    if kind == "array" and (items := _items(about)) is not None:
        return _list_field(label, about, items, value, blank)
    return _json_field(label, about, value, blank)


def _secret_field(label: str, about: Mapping[str, Any]) -> forms.Field:
    widget = forms.PasswordInput(attrs={"class": _INPUT, "autocomplete": "new-password", "spellcheck": "false"})
    return TypedField(read=str, label=label, widget=widget, help_text=_help(about, "Sealed, and never shown again."))


def _choice_field(label: str, about: Mapping[str, Any], value: Any, blank: str, *, required: bool) -> forms.Field:
    values = about["enum"] if isinstance(about.get("enum"), list) else [True, False]
    none = "Choose…" if required else blank.rstrip(".") or "Left out"
    choices = [("", none), *((json.dumps(one), shown(one)[:_SHOWN]) for one in values)]
    return ChoiceField(
        label=label, required=False, choices=choices, widget=UnfoldAdminSelectWidget, help_text=_help(about),
        initial="" if value is LEFT_OUT else json.dumps(value),
    )  # fmt: skip


def _text_field(label: str, about: Mapping[str, Any], value: Any, blank: str) -> forms.Field:
    kind = _kind(about)
    text = "" if value is LEFT_OUT else value if isinstance(value, str) else json.dumps(value)
    attrs = {"class": _INPUT, "autocomplete": "off", "spellcheck": "false"}
    # Not type="number": a browser sends nothing at all for what it does not take for one, and so a typing mistake
    # would be the default.
    attrs |= {"integer": {"inputmode": "numeric"}, "number": {"inputmode": "decimal"}}.get(kind, {})
    long = kind == "string" and (_long(about) or "\n" in text)
    widget = UnfoldAdminTextareaWidget(attrs={"rows": 4}) if long else forms.TextInput(attrs=attrs)
    return TypedField(read=_READERS[kind], label=label, widget=widget, help_text=_help(about, blank), initial=text)


def _list_field(
    label: str, about: Mapping[str, Any], items: Mapping[str, Any], value: Any, blank: str
) -> forms.Field:  # fmt: skip
    if isinstance(items.get("enum"), list):
        chosen = value if isinstance(value, list) else []
        return ChoicesField(
            label=label, required=False, choices=[(json.dumps(one), shown(one)[:_SHOWN]) for one in items["enum"]],
            widget=UnfoldAdminCheckboxSelectMultipleWidget, help_text=_help(about, blank.replace("blank", "empty")),
            initial=[json.dumps(one) for one in chosen],
        )  # fmt: skip
    lines = [one if isinstance(one, str) else json.dumps(one) for one in value] if isinstance(value, list) else []
    each = " ".join(_limits(items))
    text = _help(about, "One a line." + (f" Each: {each}" if each else ""), blank)
    return TypedField(
        read=_lines_reader(_READERS[_kind(items) or "string"]), label=label, help_text=text,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 4}), initial="\n".join(lines),
    )  # fmt: skip


def _json_field(label: str, about: Mapping[str, Any], value: Any, blank: str) -> forms.Field:
    text = "" if value is LEFT_OUT else json.dumps(value, indent=2, ensure_ascii=False)
    inner = "".join(f", with {', '.join(names)}" for names in [_names(about.get("properties"))] if names)
    kind = {"object": f"an object{inner}", "array": "a list"}.get(_kind(about), "a value")
    widget = UnfoldAdminTextareaWidget(attrs={"rows": 6, "spellcheck": "false", "class": "o-mono"})
    return TypedField(
        read=_read_json, label=label, widget=widget, initial=text, help_text=_help(about, f"As JSON: {kind}.", blank)
    )


def _kind(about: Mapping[str, Any]) -> str:
    """The one type that a value may have, null aside; empty where there are several or none."""
    kind = about.get("type")
    kinds = [one for one in kind if one != "null"] if isinstance(kind, list) else [kind]
    return str(kinds[0]) if len(kinds) == 1 and isinstance(kinds[0], str) else ""


def _items(about: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What the entries of a list are, where a line is enough for each; None where it is not."""
    items = about.get("items", {})
    if not isinstance(items, dict) or "prefixItems" in about:
        return None
    if "enum" in items or _kind(items) in _SIMPLE:
        return items
    return items if not items else None


def _long(about: Mapping[str, Any]) -> bool:
    limit = about.get("maxLength")
    return "contentMediaType" in about or (isinstance(limit, int) and limit > _LINE)


def _resolved(told: Any, schema: Mapping[str, Any]) -> dict[str, Any]:
    """What a property is; one that only refers to a definition of the schema is that definition."""
    about: dict[str, Any] = told if isinstance(told, dict) else {}
    reference = str(about.get("$ref", ""))
    for place in ("$defs", "definitions"):
        found = schema.get(place, {})
        name = reference.removeprefix(f"#/{place}/")
        if isinstance(found, dict) and isinstance(found.get(name), dict) and name != reference:
            return {**found[name], **{key: value for key, value in about.items() if key != "$ref"}}
    return about


def _names(value: Any) -> list[str]:
    return [str(name) for name in value] if isinstance(value, list | dict) else []


# ---------------------------------------------------------------- what is told beside it
def _help(about: Mapping[str, Any], *more: str) -> str:
    said = str(about.get("description") or "").strip()
    said = said if not said or said.endswith((".", "!", "?", ":")) else f"{said}."
    examples = about.get("examples")
    such = f"Such as {shown(examples[0])[:_SHOWN]}." if isinstance(examples, list) and examples else ""
    return " ".join(part for part in (said, *_limits(about), such, *more) if part)


def _limits(about: Mapping[str, Any]) -> list[str]:
    """What a value must keep to, in words."""
    told = [
        _range(about.get("minimum"), about.get("maximum")),
        _range(about.get("minLength"), about.get("maxLength"), " character", " characters"),
        _range(about.get("minItems"), about.get("maxItems"), " entry", " entries"),
    ]
    words = {
        "exclusiveMinimum": "More than {}.", "exclusiveMaximum": "Less than {}.", "multipleOf": "A multiple of {}.",
        "pattern": "Must match {}", "format": "Format: {}.",
    }  # fmt: skip
    told += [sentence.format(about[key]) for key, sentence in words.items() if key in about]
    if about.get("uniqueItems") is True:
        told.append("No entry twice.")
    return [text for text in told if text and text != "Format: password."]


def _range(least: Any, most: Any, one: str = "", many: str = "") -> str:
    """``one`` and ``many``: what is counted."""
    if least is not None and most is not None:
        return f"{least} to {most}{one if most == 1 else many}."
    if least is not None:
        return f"At least {least}{one if least == 1 else many}."
    return f"At most {most}{one if most == 1 else many}." if most is not None else ""


# ---------------------------------------------------------------- reading what was typed
def _read_integer(text: str) -> int:
    if not _WHOLE.fullmatch(text.strip()):
        raise ValidationError("Enter a whole number.")
    return int(text)


def _read_number(text: str) -> int | float:
    if _WHOLE.fullmatch(text.strip()):
        return int(text)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValidationError("Enter a number, such as 2.5.")
    return value


def _read_boolean(text: str) -> bool:
    word = text.strip().lower()
    if word not in {"true", "false", "yes", "no"}:
        raise ValidationError("Enter yes or no.")
    return word in {"true", "yes"}


def _read_json(text: str) -> Any:
    def refuse(name: str) -> Any:
        raise ValidationError(f"{name} is no number of JSON.")

    try:
        return json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ValidationError(f"This is no JSON: {error.msg} ({where}).") from error
    except (RecursionError, ValueError) as error:
        raise ValidationError("This JSON is nested too deep, or has a number that is too long.") from error


def _lines_reader(read: Reader) -> Reader:
    def lines(text: str) -> list[Any]:
        values = []
        for number, line in enumerate(text.split("\n"), start=1):
            if not line.strip():
                continue
            try:
                values.append(read(line.strip()))
            except ValidationError as error:
                raise ValidationError(f"Line {number}: {error.message}") from error
        return values

    return lines


_READERS: Final[Mapping[str, Reader]] = {
    "string": str, "integer": _read_integer, "number": _read_number, "boolean": _read_boolean,
}  # fmt: skip
