"""What stands in playbook files: which files are playbooks, what input each takes, which hosts it is for.

Read as YAML, never by Ansible: whoever imports this stays light, and nothing of a playbook is evaluated.
"""

import json
import keyword
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

import yaml
from jsonschema.exceptions import SchemaError
from jsonschema.validators import Draft202012Validator, validator_for

from orchestrator.models.playbooks import is_secret

SUFFIXES: Final = (".yml", ".yaml")
SIDECARS: Final = (".schema.yml", ".schema.yaml", ".schema.json")
# Where Ansible looks for something else; what stands there is no playbook, whatever it looks like.
_OTHERS: Final = frozenset({
    "roles", "tasks", "handlers", "vars", "defaults", "meta", "templates", "files", "group_vars", "host_vars",
    "collections", "library", "module_utils", "filter_plugins", "action_plugins", "lookup_plugins", "molecule",
})  # fmt: skip
_PLAY: Final = re.compile(r"^\s*-?\s*['\"]?(hosts|(ansible\.builtin\.)?import_playbook)['\"]?\s*:", re.MULTILINE)
_IMPORTS: Final = ("import_playbook", "ansible.builtin.import_playbook")
_ROLE_TASKS: Final = ("import_role", "include_role", "ansible.builtin.import_role", "ansible.builtin.include_role")
_TYPES: Final[Mapping[str, str]] = {  # of argument_specs → of JSON Schema
    "str": "string", "path": "string", "int": "integer", "float": "number", "bool": "boolean", "list": "array",
    "dict": "object", "json": "string", "jsonarg": "string", "bytes": "string", "bits": "string", "sid": "string",
}  # fmt: skip
_LARGEST: Final = 1 << 20  # bytes of a YAML file that is read
_MOST_PARTS: Final = 50_000  # of a schema: aliases of YAML make a few lines endless
_MOST_IMPORTS: Final = 8  # playbooks above one another
_MOST_PLAYS: Final = 1_000  # a few files that import each other again and again would have no end of them
_OURS: Final = ("ansible_", "orchestrator_")
MARKUP: Final = "__ansible"  # begins the keys with which Ansible's JSON says what a value is
_MAGIC: Final = frozenset({
    "group_names", "groups", "hostvars", "inventory_dir", "inventory_file", "inventory_hostname",
    "inventory_hostname_short", "omit", "play_hosts", "playbook_dir", "role_name", "role_names", "role_path",
})  # fmt: skip

type Schema = dict[str, Any]


class UnusablePlaybookError(Exception):
    """The playbook can't be launched; the message says why."""


@dataclass(frozen=True, slots=True)
class PlaybookFile:
    """A playbook as its files describe it; ``problem`` says why it can't be launched."""

    path: str  # within its directory
    description: str = ""
    hosts: tuple[str, ...] = ()
    schema: Schema = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)
    check_mode: bool = True
    problem: str = ""


class _Loader(yaml.SafeLoader):
    """Takes any tag (!vault, !unsafe) for the text behind it."""


def _untagged(loader: _Loader, _suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node)
    return node.value


_Loader.add_multi_constructor("", _untagged)


def find(directory: Path) -> Iterator[Path]:
    """The playbooks below a directory, in the order of their paths."""
    for folder, folders, names in os.walk(directory, followlinks=False):
        folders[:] = sorted(name for name in folders if name not in _OTHERS and not name.startswith("."))
        for name in sorted(names):
            path = Path(folder) / name
            usable = path.suffix in SUFFIXES and not name.startswith(".") and not name.endswith(SIDECARS)
            if usable and _is_playbook(path):
                yield path


def _is_playbook(path: Path) -> bool:
    try:
        if path.stat().st_size > _LARGEST:
            return False
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    if _PLAY.search(text):
        return True
    try:
        plays = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError):
        return False
    return isinstance(plays, list) and any(isinstance(play, dict) and "roles" in play for play in plays)


def describe(path: Path, *, root: Path) -> PlaybookFile:
    """What a playbook's files say of it; never raises for what stands in them."""
    relative = path.relative_to(root).as_posix()
    try:
        found = list(islice(_plays(path, root), _MOST_PLAYS + 1))
        if len(found) > _MOST_PLAYS:
            raise UnusablePlaybookError(f"It has more than {_MOST_PLAYS:,} plays, with those that it imports.")
        plays = [play for _, play in found]
        _refuse_endless(*(play.get(key) for play in plays for key in ("hosts", "vars_prompt", "name")))
        schema = _sidecar(path) or _of_roles(found, root)
        _refuse_endless(schema)
        description = _description(path, plays, schema)
        defaults = _add_prompts(schema, plays)
        _refuse_unusable(schema)
    except UnusablePlaybookError as error:
        return PlaybookFile(path=relative, problem=str(error))
    except RecursionError:
        return PlaybookFile(path=relative, problem="Its schema is nested too deep.")
    own = schema.get("properties", {})
    defaults |= {
        name: about["default"] for name, about in own.items() if "x-argument" not in about and "default" in about
    }
    hosts = [str(play["hosts"]) for play in plays if "hosts" in play]
    return PlaybookFile(
        path=relative,
        description=description,
        hosts=tuple(dict.fromkeys(hosts)),
        schema=_as_json(_shown(schema)),
        defaults=_as_json(defaults),
        check_mode=schema.get("x-check-mode", True) is not False,
    )


def _read(path: Path) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise UnusablePlaybookError(f"{path.name} can't be read as YAML: {error}") from error
    except OSError as error:
        raise UnusablePlaybookError(f"{path.name} can't be read: {error.strerror}") from error


def _plays(path: Path, root: Path, above: tuple[Path, ...] = ()) -> Iterator[tuple[Path, dict[str, Any]]]:
    """(file, play) of the plays of a playbook; those that it imports belong to it.

    An import whose name is a template, or that of a collection's playbook, is known to Ansible only: it stays as it is.
    """
    way, home = (*above, path.resolve()), root.resolve()
    plays = _read(path)
    if not isinstance(plays, list) or not all(isinstance(play, dict) for play in plays) or not plays:
        raise UnusablePlaybookError(f"{path.name} is no list of plays.")
    for play in plays:
        name = next((str(play[key]) for key in _IMPORTS if key in play), "")
        imported = (path.parent / name).resolve()
        if not name or "{{" in name or not imported.is_file():
            yield path, play
            continue
        if not imported.is_relative_to(home):
            raise UnusablePlaybookError(f"{path.name} imports {name}, which is outside of its directory.")
        if imported in way:
            raise UnusablePlaybookError(f"{path.name} imports {name}, which imports it in turn.")
        if len(way) > _MOST_IMPORTS:
            raise UnusablePlaybookError(f"{path.name} is imported by way of more than {_MOST_IMPORTS} others.")
        for file, inner in _plays(imported, root, way):
            yield file, {**inner, "vars": {**_mapping(inner.get("vars")), **_mapping(play.get("vars"))}}


def _description(path: Path, plays: list[dict[str, Any]], schema: Schema) -> str:
    """Of the schema, else the comment at the head of the file, else the first play's name."""
    if told := schema.get("description") or schema.get("title"):
        return str(told)
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#") and line.strip() != "---":
            break
        lines.append(line.lstrip("# ").rstrip())
    head = "\n".join(line for line in lines if line != "---").strip()
    return head or str(plays[0].get("name") or "")


# ---------------------------------------------------------------- where inputs are declared
def _sidecar(path: Path) -> Schema:
    """``<name>.schema.yml``: a JSON Schema; empty when there is none."""
    for suffix in SIDECARS:
        beside = path.with_name(path.stem + suffix)
        if not beside.is_file():
            continue
        schema = _read(beside)
        if not isinstance(schema, dict):
            raise UnusablePlaybookError(f"{beside.name} is no JSON Schema of an object.")
        _refuse_endless(schema)
        try:
            validator_for(schema, default=Draft202012Validator).check_schema(schema)
        except SchemaError as error:
            raise UnusablePlaybookError(f"{beside.name} is no JSON Schema: {error.message}") from error
        return schema
    return {}


def _of_roles(plays: list[tuple[Path, dict[str, Any]]], root: Path) -> Schema:
    """The argument_specs of the roles that the playbook names; what the play gives a role is no input."""
    properties: dict[str, Any] = {}
    required: list[str] = []
    for path, play in plays:
        known = set(_mapping(play.get("vars")))
        for name, entry, given in _roles(play):
            for option, about in _argument_spec(name, entry, path, root).items():
                if option in given:
                    continue
                properties.setdefault(option, _property(about))
                if about.get("required") and option not in known and option not in required:
                    required.append(option)
    return {"type": "object", "properties": properties, "required": required} if properties else {}


def _roles(play: Mapping[str, Any]) -> Iterator[tuple[str, str, set[str]]]:
    """(role, entry point, variables it is given) of each role that a play names in plain words."""
    for role in _list(play.get("roles")):
        entry = {"role": role} if isinstance(role, str) else _mapping(role)
        name = entry.get("role") or entry.get("name")
        if name:
            yield str(name), "main", set(_mapping(entry.get("vars"))) | set(entry)
    for part in ("pre_tasks", "tasks", "post_tasks"):
        for task in islice(_tasks(play.get(part)), _MOST_PARTS):
            told = next((_mapping(task[key]) for key in _ROLE_TASKS if key in task), {})
            if told.get("name"):
                entry_point = Path(str(told.get("tasks_from") or "main")).stem
                yield str(told["name"]), entry_point, set(_mapping(task.get("vars")))


def _tasks(entries: Any) -> Iterator[dict[Any, Any]]:
    """The tasks of a list, those within blocks included."""
    for task in _list(entries):
        if isinstance(task, dict):
            yield task
            for part in ("block", "rescue", "always"):
                yield from _tasks(task.get(part))


def _argument_spec(role: str, entry: str, path: Path, root: Path) -> dict[str, dict[str, Any]]:
    for folder in _role_folders(role, path, root):
        for name, key in (("argument_specs.yml", None), ("argument_specs.yaml", None), ("main.yml", "argument_specs")):
            file = folder / "meta" / name
            if file.is_file():
                specs = _mapping(_mapping(_read(file)).get("argument_specs"))
                if key is None or specs:
                    options = _mapping(_mapping(specs.get(entry)).get("options"))
                    return {str(option): _mapping(about) for option, about in options.items()}
        return {}
    return {}


def _role_folders(role: str, path: Path, root: Path) -> list[Path]:
    """Where the role may be, in Ansible's order; those that there are."""
    if role.count(".") == 2:
        namespace, collection, name = role.split(".")
        inner = Path("ansible_collections") / namespace / collection / "roles" / name
        places = [path.parent / "collections" / inner, root / "collections" / inner]
    else:
        places = [path.parent / "roles" / role, root / "roles" / role, root / "project" / "roles" / role]
        places.append(path.parent / role)
    return [place for place in places if place.is_dir()]


def _property(about: Mapping[str, Any]) -> Schema:
    """An option of argument_specs as JSON Schema."""
    kind = str(about.get("type", "str"))
    found: Schema = {"x-argument": True}
    if kind in _TYPES:
        found["type"] = _TYPES[kind]
    if description := about.get("description"):
        found["description"] = " ".join(map(str, description)) if isinstance(description, list) else str(description)
    if "default" in about:
        found["default"] = about["default"]
    if choices := _list(about.get("choices")):
        (_items(found) if kind == "list" else found)["enum"] = choices
    if kind == "list" and "elements" in about:
        element = {name: about[name] for name in ("options",) if name in about} | {"type": about["elements"]}
        _items(found).update({k: v for k, v in _property(element).items() if k != "x-argument"})
    if kind == "dict" and (options := _mapping(about.get("options"))):
        found["properties"] = {str(name): _inner(_mapping(part)) for name, part in options.items()}
        found["required"] = [str(name) for name, part in options.items() if _mapping(part).get("required")]
    if about.get("no_log"):
        found["writeOnly"] = True
    return found


def _inner(about: Mapping[str, Any]) -> Schema:
    return {name: value for name, value in _property(about).items() if name != "x-argument"}


def _items(found: Schema) -> Schema:
    items: Schema = found.setdefault("items", {})
    return items


def _add_prompts(schema: Schema, plays: list[dict[str, Any]]) -> dict[str, Any]:
    """Let the input have what the plays would ask a person for; the answers where it leaves them out."""
    defaults: dict[str, Any] = {}
    for play in plays:
        for prompt in _list(play.get("vars_prompt")):
            name = str(_mapping(prompt).get("name") or "")
            if not name:
                continue
            if prompt.get("encrypt"):
                raise UnusablePlaybookError(
                    f'vars_prompt "{name}" wants its answer encrypted, which Ansible does for typed answers only: '
                    "take encrypt away and use the filter password_hash."
                )
            properties = schema.setdefault("properties", {})
            about: Schema = {"type": "string", "title": str(prompt.get("prompt") or name)}
            if prompt.get("private", True):
                about["writeOnly"] = True
            properties.setdefault(name, about)
            if prompt.get("default") is not None:
                defaults[name] = str(prompt["default"])
                if not is_secret(properties[name]):
                    properties[name].setdefault("default", defaults[name])
            elif name not in schema.setdefault("required", []):
                schema["required"].append(name)
    return defaults


# ---------------------------------------------------------------- what an input may be
def _refuse_endless(*parts: Any) -> None:
    """Raise for what would never end when it is written out, and for numbers that JSON does not have."""
    stack = list(parts)
    for _ in range(_MOST_PARTS):
        if not stack:
            return
        part = stack.pop()
        if isinstance(part, float) and not math.isfinite(part):
            raise UnusablePlaybookError(f"{part} is no number of JSON.")
        stack += part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    raise UnusablePlaybookError(f"What is declared has more than {_MOST_PARTS:,} parts.")


def _refuse_unusable(schema: Schema) -> None:
    if schema.get("type", "object") != "object":
        raise UnusablePlaybookError("The schema must be that of an object.")
    rest = {key: part for key, part in schema.items() if key != "properties"}
    if _holds_secret(rest):
        raise UnusablePlaybookError("A secret must be declared among the properties themselves, not by $ref or allOf.")
    if foreign := next(_foreign_references(schema), ""):
        raise UnusablePlaybookError(f'The schema refers to "{foreign}": only what stands in it itself is looked up.')
    for name, about in _mapping(schema.get("properties")).items():
        if problem := name_problem(str(name)):
            raise UnusablePlaybookError(problem)
        if is_secret(about) and _mapping(about).get("type") != "string":
            raise UnusablePlaybookError(f'The secret input "{name}" must be of type string.')
        if not is_secret(about) and _holds_secret(about):
            raise UnusablePlaybookError(f'A secret within "{name}" could be shown: make it an input of its own.')
        if is_secret(about) and isinstance(about, dict):
            about.pop("default", None)


def name_problem(name: str) -> str:
    """Why a variable may not be named so; empty when it may."""
    if not name.isidentifier() or not name.isascii() or keyword.iskeyword(name):
        return f'An input may not be named "{name}": Ansible takes letters, digits and underscores.'
    if name.startswith(_OURS):
        return f'An input may not be named "{name}": it would change how devices are connected to.'
    if name.startswith(MARKUP) or name in _MAGIC:
        return f'An input may not be named "{name}": the name means something to Ansible.'
    return ""


def _holds_secret(about: Any) -> bool:
    if isinstance(about, dict):
        return is_secret(about) or any(_holds_secret(part) for part in about.values())
    return isinstance(about, list) and any(_holds_secret(part) for part in about)


def _foreign_references(part: Any) -> Iterator[str]:
    """What a schema refers to outside of itself; nobody fetches it."""
    if isinstance(part, dict):
        for key in ("$ref", "$dynamicRef"):
            if isinstance(part.get(key), str) and not part[key].startswith("#"):
                yield part[key]
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from _foreign_references(inner)


def _shown(schema: Schema) -> Schema:
    """The schema as it is served: of an object, closed unless it says otherwise."""
    properties = {
        str(name): {key: value for key, value in about.items() if key != "x-argument"}
        if isinstance(about, dict)
        else about
        for name, about in _mapping(schema.get("properties")).items()
    }
    rest = {key: value for key, value in schema.items() if key != "x-check-mode"}
    return {"additionalProperties": False, **rest, "type": "object", "properties": properties}


def _as_json(value: Any) -> Any:
    """What YAML knows and JSON does not, such as dates, as text."""
    return json.loads(json.dumps(value, default=str))


def _mapping(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
