"""What stands in playbook files: which files are playbooks, what input each takes, which hosts it is for.

Read as YAML, never by Ansible: whoever imports this stays light, and nothing of a playbook is evaluated.
"""

import json
import keyword
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

import yaml
from jsonschema.exceptions import SchemaError
from jsonschema.validators import Draft202012Validator, validator_for

from orchestrator.models.playbooks import is_secret
from orchestrator.playbook_vaults import Vault
from orchestrator.playbook_yaml import Loader, UnusablePlaybookError, mapping, read, sequence
from orchestrator.role_arguments import of_roles

SUFFIXES: Final = (".yml", ".yaml")
SIDECARS: Final = (".schema.yml", ".schema.yaml", ".schema.json")
# Where Ansible looks for something else; what stands there is no playbook, whatever it looks like.
_OTHERS: Final = frozenset({
    "roles", "tasks", "handlers", "vars", "defaults", "meta", "templates", "files", "group_vars", "host_vars",
    "collections", "library", "module_utils", "filter_plugins", "action_plugins", "lookup_plugins", "molecule",
})  # fmt: skip
_PLAY: Final = re.compile(r"^\s*-?\s*['\"]?(hosts|(ansible\.builtin\.)?import_playbook)['\"]?\s*:", re.MULTILINE)
_IMPORTS: Final = ("import_playbook", "ansible.builtin.import_playbook")
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
        plays = yaml.load(text, Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError):
        return False
    return isinstance(plays, list) and any(isinstance(play, dict) and "roles" in play for play in plays)


def describe(
    path: Path,
    *,
    root: Path,
    roles: Sequence[Path] = (),
    collections: Sequence[Path] = (),
    vaults: Sequence[Vault] = (),
) -> PlaybookFile:
    """What a playbook's files say of it; never raises for what stands in them.

    ``roles``, ``collections``: where Ansible looks for them, beside the playbook itself; those of ``root`` unless told.
    ``vaults`` open files of variables.
    """
    relative = path.relative_to(root).as_posix()
    try:
        found = list(islice(_plays(path, root), _MOST_PLAYS + 1))
        if len(found) > _MOST_PLAYS:
            raise UnusablePlaybookError(f"It has more than {_MOST_PLAYS:,} plays, with those that it imports.")
        plays = [play for _, play in found]
        _refuse_endless(*(play.get(key) for play in plays for key in ("hosts", "vars_prompt", "name")))
        schema = _sidecar(path) or of_roles(
            found, root, roles=roles or [root / "roles"], collections=collections or [root / "collections"],
            vaults=vaults,
        )  # fmt: skip
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


def _plays(path: Path, root: Path, above: tuple[Path, ...] = ()) -> Iterator[tuple[Path, dict[str, Any]]]:
    """(file, play) of the plays of a playbook; those that it imports belong to it.

    An import whose name is a template, or that of a collection's playbook, is known to Ansible only: it stays as it is.
    """
    way, home = (*above, path.resolve()), root.resolve()
    plays = read(path)
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
            yield file, {**inner, "vars": {**mapping(inner.get("vars")), **mapping(play.get("vars"))}}


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
        schema = read(beside)
        if not isinstance(schema, dict):
            raise UnusablePlaybookError(f"{beside.name} is no JSON Schema of an object.")
        _refuse_endless(schema)
        try:
            validator_for(schema, default=Draft202012Validator).check_schema(schema)
        except SchemaError as error:
            raise UnusablePlaybookError(f"{beside.name} is no JSON Schema: {error.message}") from error
        return schema
    return {}


def _add_prompts(schema: Schema, plays: list[dict[str, Any]]) -> dict[str, Any]:
    """Let the input have what the plays would ask a person for; the answers where it leaves them out."""
    defaults: dict[str, Any] = {}
    for play in plays:
        for prompt in sequence(play.get("vars_prompt")):
            name = str(mapping(prompt).get("name") or "")
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
    for name, about in mapping(schema.get("properties")).items():
        if problem := name_problem(str(name)):
            raise UnusablePlaybookError(problem)
        if is_secret(about) and mapping(about).get("type") != "string":
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
        for name, about in mapping(schema.get("properties")).items()
    }
    rest = {key: value for key, value in schema.items() if key != "x-check-mode"}
    return {"additionalProperties": False, **rest, "type": "object", "properties": properties}


def _as_json(value: Any) -> Any:
    """What YAML knows and JSON does not, such as dates, as text."""
    return json.loads(json.dumps(value, default=str))
