"""Which command types are shipped: the playbook of each, what its input may be, and what of it is secret.

Pure translation: neither database, queue nor subprocess.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import ValidationError

from orchestrator.exceptions import InvalidFieldError
from orchestrator.models import CommandType, Playbook
from orchestrator.models.addresses import validate_username
from orchestrator.secrets import mask

# dropbear drops the connection when the command passes about 9,000 bytes (found by experiment).
COMMAND_BYTES: Final = 8_000
PASSWORD_LENGTH: Final = range(6, 129)  # characters

type Errors = dict[str, list[str]]
type Values = dict[str, str]


@dataclass(frozen=True, slots=True)
class CommandSpec:
    """One command type, as far as the service must know it."""

    type: CommandType
    playbook: Path
    required: tuple[str, ...]
    optional: tuple[str, ...]
    secret: frozenset[str]
    check: Callable[[Values], Errors]
    variables: Callable[[Values], dict[str, Any]]
    example: Mapping[str, str]
    check_mode: bool = False  # whether the playbook has one: where it has none, "check" would run it in earnest


@dataclass(frozen=True, slots=True)
class CheckedInput:
    """An input that was found valid, parted into what may be shown and what may not."""

    shown: dict[str, Any]
    secret: dict[str, str]
    playbook: Playbook | None = None  # that of the catalogue by whose schema it was judged


def specification(command_type: str) -> CommandSpec:
    """What is known about a shipped command type; catalogue.py knows the users' own playbooks."""
    return _SPECS[CommandType(command_type)]


def check_input(command_type: str, values: Any) -> CheckedInput:
    """Validate the input of a command.

    Raises:
        InvalidFieldError: for the field ``input``; its message maps each wrong key to what is wrong with it.
    """
    spec = specification(command_type)
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise InvalidFieldError("input", "Enter an object, such as " + repr(dict(spec.example)).replace("'", '"') + ".")
    errors: Errors = {}
    for name in spec.required:
        if name not in values:
            errors[name] = ["This field is required."]
    for name, value in values.items():
        if name not in spec.required + spec.optional:
            errors[str(name)] = [f"The input of {spec.type} has no such field."]
        elif problem := _not_text(value):
            errors[name] = [problem]
    if errors or (errors := spec.check(values)):
        raise InvalidFieldError("input", errors)
    secret = {name: value for name, value in values.items() if name in spec.secret}
    return CheckedInput(shown=mask(values, spec.secret), secret=secret)


def playbook_variables(command_type: str, shown: Mapping[str, Any], secret: Mapping[str, str]) -> dict[str, Any]:
    """What the playbook is given; the values are users' text, and reach Ansible marked as untrusted."""
    return specification(command_type).variables({**shown, **secret})


def _not_text(value: Any) -> str:
    if not isinstance(value, str):
        return "Enter a text."
    if "\x00" in value:
        return "Null characters are not allowed."
    try:
        value.encode()
    except UnicodeEncodeError:
        return "The text is not valid Unicode: it holds a lone surrogate."
    return ""


def _check_custom(values: Values) -> Errors:
    command = values["command"]
    if not command.strip():
        return {"command": ["This field may not be blank."]}
    if "\n" in command or "\r" in command:
        return {"command": ["Enter one line; join several commands with ';' or '&&'."]}
    if len(command.encode()) > COMMAND_BYTES:
        return {"command": [f"The command has more than {COMMAND_BYTES} bytes; some devices drop longer ones."]}
    return {}


def _check_change_password(values: Values) -> Errors:
    errors: Errors = {}
    password = values["password"]
    if len(password) not in PASSWORD_LENGTH:
        errors["password"] = [f"Enter {PASSWORD_LENGTH.start} to {PASSWORD_LENGTH.stop - 1} characters."]
    elif not password.isprintable():
        errors["password"] = ["Only printable characters can be set on every device."]
    if values["confirm_password"] != password:
        errors["confirm_password"] = ["The two passwords are not the same."]
    if values.get("username"):
        try:
            validate_username(values["username"])
        except ValidationError as error:
            errors["username"] = error.messages
    return errors


def _check_nothing(values: Values) -> Errors:
    return {}


_SPECS: Final = {
    CommandType.PING: CommandSpec(
        type=CommandType.PING,
        playbook=settings.PLAYBOOK_DIR / "ping.yml",
        required=(),
        optional=(),
        secret=frozenset(),
        check=_check_nothing,
        variables=lambda _: {},
        example={},
        check_mode=True,
    ),
    CommandType.REBOOT: CommandSpec(
        type=CommandType.REBOOT,
        playbook=settings.PLAYBOOK_DIR / "reboot.yml",
        required=(),
        optional=(),
        secret=frozenset(),
        check=_check_nothing,
        variables=lambda _: {"reboot_timeout": settings.REBOOT_TIMEOUT},
        example={},
        check_mode=True,
    ),
    CommandType.CHANGE_PASSWORD: CommandSpec(
        type=CommandType.CHANGE_PASSWORD,
        playbook=settings.PLAYBOOK_DIR / "change_password.yml",
        required=("password", "confirm_password"),
        optional=("username",),
        secret=frozenset({"password", "confirm_password"}),
        check=_check_change_password,
        variables=lambda values: {"username": values.get("username", ""), "new_password": values["password"]},
        example={"password": "correct horse battery", "confirm_password": "correct horse battery"},
        check_mode=True,
    ),
    CommandType.CUSTOM: CommandSpec(
        type=CommandType.CUSTOM,
        playbook=settings.PLAYBOOK_DIR / "custom.yml",
        required=("command",),
        optional=(),
        secret=frozenset(),
        check=_check_custom,
        variables=lambda values: {"command": values["command"]},
        example={"command": "uptime"},
        check_mode=True,
    ),
}

SHIPPED: Final = tuple(_SPECS)
"""The command types whose playbooks are ours."""
