"""The users' own playbooks as command types: which there are, and whether an input is one that a playbook takes.

Reads the index that ``cataloguing.refresh`` keeps in the database, so that no request ever waits for Ansible.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from django.db.models import QuerySet
from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import ValidationError
from jsonschema.validators import validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from orchestrator.access import Access
from orchestrator.exceptions import InvalidFieldError
from orchestrator.models import CommandType, MassCommand, Organization, Playbook
from orchestrator.playbook_files import MARKUP, name_problem
from orchestrator.playbooks import CheckedInput, Errors, playbook_variables, specification
from orchestrator.playbooks import check_input as check_input_of_type
from orchestrator.secrets import mask

INPUT_DEPTH: Final = 32  # of lists and objects in each other
_MESSAGE: Final = 300  # characters of an error, which may repeat the input
_WHOLE: Final = "non_field_errors"


def playbooks(access: Access) -> QuerySet[Playbook]:
    """The playbooks that exist for a user: those that an organization of theirs allows."""
    rows = Playbook.objects.all()
    if access.everything:
        return rows
    allowed: set[str] = set()
    for organization in Organization.objects.filter(pk__in=access.organizations()):
        if organization.allowed_playbooks is None:
            return rows
        allowed.update(organization.allowed_playbooks)
    return rows.filter(name__in=allowed)


def find(name: str, access: Access) -> Playbook:
    """The playbook of this name, whole or broken.

    Raises:
        InvalidFieldError: for the field ``playbook``: there is none that exists for this user.
    """
    row = playbooks(access).filter(name=name).first() if name else None
    if row is None:
        problem = "There is no such playbook." if name else "Name the playbook."
        raise InvalidFieldError("playbook", problem)
    return row


def launchable(name: str, access: Access) -> Playbook:
    """The playbook of this name, fit to be run.

    Raises:
        InvalidFieldError: for the field ``playbook``: there is none, or it is broken; the message is the parser's.
    """
    row = find(name, access)
    if row.broken:
        raise InvalidFieldError("playbook", f"This playbook is broken and can't be launched. {row.message}")
    return row


def check_input(command_type: str, values: Any, *, access: Access, playbook: str = "") -> CheckedInput:
    """Validate the input of a command of any type; ``access`` says which playbooks there are.

    Raises:
        InvalidFieldError: for ``playbook`` where it is missing, unknown, broken or not to be given; for ``input``
            with a message that maps each wrong key to what is wrong with it.
    """
    if command_type != CommandType.PLAYBOOK:
        if playbook:
            raise InvalidFieldError("playbook", f'Commands of type "{command_type}" have no playbook to choose.')
        return check_input_of_type(command_type, values)
    row = launchable(playbook, access)
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise InvalidFieldError("input", "Enter an object; the playbook's schema says what of.")
    if errors := _errors(row, values):
        raise InvalidFieldError("input", errors)
    secret = {name: value for name, value in values.items() if name in row.secret_names}
    return CheckedInput(shown=mask(values, row.secret_names), secret=secret, playbook=row)


def secret_names(command_type: str, playbook: str = "") -> frozenset[str]:
    """Which inputs of a command are secrets; none of a playbook that is no longer there."""
    if command_type != CommandType.PLAYBOOK:
        return specification(command_type).secret
    row = Playbook.objects.filter(name=playbook).first()
    return row.secret_names if row else frozenset()


def variables(run: MassCommand) -> dict[str, Any]:
    """What the playbook of a run is given: users' values, which reach Ansible marked as untrusted.

    Raises:
        SecretUnreadableError: no key of the ring opens the secrets of the input.
    """
    if run.type != CommandType.PLAYBOOK:
        return playbook_variables(run.type, run.input, run.secret_input())
    return {**run.playbook_defaults, **run.input, **run.secret_input()}


def secrets(run: MassCommand) -> frozenset[str]:
    """What no output of a run may show: the secrets of its input, and what stands for those that were left out.

    Raises:
        SecretUnreadableError: no key of the ring opens the secrets of the input.
    """
    names = secret_names(run.type, run.playbook) & run.playbook_defaults.keys()
    return frozenset(run.secret_input().values()) | {str(run.playbook_defaults[name]) for name in names}


def _errors(row: Playbook, values: Mapping[str, Any]) -> Errors:
    """What is wrong with an input: its keys, each with what is wrong there."""
    errors: Errors = {}
    for name, value in values.items():
        if problem := name_problem(name) or _value_problem(value):
            errors[name] = [problem]
    if errors:
        return errors
    # An empty registry: a schema of somebody's repository makes this process fetch nothing.
    cls = validator_for(row.schema, default=Draft202012Validator)
    validator = cls(row.schema, registry=Registry(), format_checker=FormatChecker())
    try:
        found = list(validator.iter_errors(values))
    except (Unresolvable, RecursionError) as broken:
        raise InvalidFieldError("playbook", "The playbook's schema refers to nothing, or to itself.") from broken
    for error in found:
        for name, message in _told(error, row):
            known = errors.setdefault(name, [])
            if message not in known:
                known.append(message)
    return errors


def _told(error: ValidationError, row: Playbook) -> Iterator[tuple[str, str]]:
    """(key of the input, message) of an error of the schema's; a secret's value is not repeated."""
    path = [str(part) for part in error.absolute_path]
    if not path and error.validator == "required":
        missing = [name for name in error.validator_value if name not in error.instance]
        yield from ((name, "This field is required.") for name in missing)
        return
    if not path and error.validator == "additionalProperties":
        known = row.schema.get("properties", {})
        if unknown := [name for name in error.instance if name not in known]:
            yield from ((name, "The playbook has no such input.") for name in unknown)
            return
    name, inner = (path[0], ".".join(path[1:])) if path else (_WHOLE, "")
    hidden = name in row.secret_names or name == _WHOLE
    message = f"This value is not valid: {error.validator} {error.validator_value}." if hidden else error.message
    yield name, (f"{inner}: {message}" if inner else message)[:_MESSAGE]


def _value_problem(value: Any, depth: int = 0) -> str:
    """What a playbook, a file or a database could not take."""
    if depth > INPUT_DEPTH:
        return f"Lists and objects are nested more than {INPUT_DEPTH} deep."
    if isinstance(value, str):
        if "\x00" in value:
            return "Null characters are not allowed."
        try:
            value.encode()
        except UnicodeEncodeError:
            return "The text is not valid Unicode: it holds a lone surrogate."
    if isinstance(value, dict) and any(str(key).startswith(MARKUP) for key in value):
        return f'Names that begin with "{MARKUP}" mean something to Ansible.'
    parts = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return next((problem for part in parts if (problem := _value_problem(part, depth + 1))), "")
