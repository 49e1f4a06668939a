"""The YAML of users' playbooks and roles as data: never by Ansible, so that nothing in it is evaluated."""

from pathlib import Path
from typing import Any

import yaml


class UnusablePlaybookError(Exception):
    """The playbook can't be launched; the message says why."""


class Loader(yaml.SafeLoader):
    """Takes any tag (!vault, !unsafe) for the text behind it."""


def _untagged(loader: Loader, _suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node)
    return node.value


Loader.add_multi_constructor("", _untagged)


def read(path: Path) -> Any:
    """What a file holds.

    Raises:
        UnusablePlaybookError: it can't be read, or is no YAML.
    """
    return parsed(text(path), path.name)


def text(path: Path) -> str:
    """The text of a file.

    Raises:
        UnusablePlaybookError: it can't be read, or holds no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UnusablePlaybookError(f"{path.name} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UnusablePlaybookError(f"{path.name} can't be read as YAML: {error}") from error


def parsed(text: str, name: str) -> Any:
    """What a text holds; ``name`` is its file's.

    Raises:
        UnusablePlaybookError: it is no YAML.
    """
    try:
        return yaml.load(text, Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UnusablePlaybookError(f"{name} can't be read as YAML: {error}") from error


def mapping(value: Any) -> dict[Any, Any]:
    """The value where it is a mapping, else an empty one: files hold whatever somebody typed."""
    return value if isinstance(value, dict) else {}


def sequence(value: Any) -> list[Any]:
    """The value where it is a list, else an empty one."""
    return value if isinstance(value, list) else []
