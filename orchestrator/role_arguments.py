"""What roles take: the argument_specs of the roles that a playbook names, and of those that these depend on.

Read as YAML, never by Ansible.  What is given to a role where it is named is no input, and what is set nearby need not
be one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from orchestrator.playbook_vaults import Vault, is_encrypted, opened
from orchestrator.playbook_yaml import UnusablePlaybookError, mapping, parsed, read, sequence, text

_ROLE_TASKS: Final = ("import_role", "include_role", "ansible.builtin.import_role", "ansible.builtin.include_role")
_TYPES: Final[Mapping[str, str]] = {  # of argument_specs → of JSON Schema
    "str": "string", "path": "string", "int": "integer", "float": "number", "bool": "boolean", "list": "array",
    "dict": "object", "json": "string", "jsonarg": "string", "bytes": "string", "bits": "string", "sid": "string",
}  # fmt: skip
_SUFFIXES: Final = (".yml", ".yaml")
_MOST_TASKS: Final = 50_000  # of a play: aliases of YAML make a few lines endless
_MOST_ROLES: Final = 1_000  # of a play, dependencies of dependencies included

type Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Places:
    """Where roles are looked for."""

    beside: Path  # the folder of the playbook
    root: Path
    roles: tuple[Path, ...]
    collections: tuple[Path, ...]
    vaults: tuple[Vault, ...]  # that open files of variables


@dataclass(frozen=True, slots=True)
class _Role:
    """A role where it is named."""

    name: str
    entry: str  # its entry point
    given: frozenset[str]  # the variables that it is given there
    known: frozenset[str]  # those that are set nearby, and may be set anew by an input
    beside: Path | None = None  # of a dependency: the folder of the role that depends on it


def of_roles(
    plays: list[tuple[Path, dict[str, Any]]],
    root: Path,
    *,
    roles: Sequence[Path],
    collections: Sequence[Path],
    vaults: Sequence[Vault] = (),
) -> Schema:
    """The input of the roles that (file, play) name, as JSON Schema; empty when they declare none.

    ``roles`` and ``collections`` are Ansible's places for them; nothing outside of ``root`` is read.  ``vaults`` open
    files of variables: what these set need not be given, and nothing but its names is looked at.

    Raises:
        UnusablePlaybookError: a role's files can't be read, or depend on more than anybody wrote.
    """
    properties: dict[str, Any] = {}
    required: list[str] = []
    for path, play in plays:
        places = _Places(path.parent, root.resolve(), tuple(roles), tuple(collections), tuple(vaults))
        for role in _with_dependencies(list(_named(path, play, places)), places):
            for option, about in _argument_spec(role, places).items():
                if option in role.given:
                    continue
                known = properties.setdefault(option, _property(about))
                if about.get("no_log"):  # a secret of one role is none the less one where another shares it
                    known["writeOnly"] = True
                if about.get("required") and option not in role.known and option not in required:
                    required.append(option)
    return {"type": "object", "properties": properties, "required": required} if properties else {}


# ---------------------------------------------------------------- which roles
def _named(path: Path, play: Mapping[str, Any], places: _Places) -> Iterator[_Role]:
    """The roles that a play names in plain words."""
    known = frozenset(mapping(play.get("vars"))) | _known(path, play, places)
    for role in sequence(play.get("roles")):
        if named := _entry(role, known):
            yield named
    for part in ("pre_tasks", "tasks", "post_tasks", "handlers"):
        for task in islice(_tasks(play.get(part)), _MOST_TASKS):
            told = next((mapping(task[key]) for key in _ROLE_TASKS if key in task), {})
            if told.get("name"):
                entry = Path(str(told.get("tasks_from") or "main")).stem
                yield _Role(str(told["name"]), entry, frozenset(mapping(task.get("vars"))), known)


def _known(path: Path, play: Mapping[str, Any], places: _Places) -> frozenset[str]:
    """The variables of the play's files, and of all hosts."""
    files = [
        name for entry in sequence(play.get("vars_files")) for name in (entry if isinstance(entry, list) else [entry])
    ]
    found = [path.parent / name for name in files if isinstance(name, str) and "{{" not in name]
    home = path.parent / "group_vars"
    found += [home / f"all{suffix}" for suffix in ("", *_SUFFIXES)]
    found += [file for suffix in _SUFFIXES for file in sorted((home / "all").glob(f"*{suffix}"))]
    return frozenset().union(*(_variables(file, places) for file in found))


def _variables(file: Path, places: _Places) -> frozenset[str]:
    """The names in a file of variables; none of one that no vault opens, that is broken or somewhere else."""
    if not file.is_file() or not file.resolve().is_relative_to(places.root):
        return frozenset()
    try:
        said = text(file)
        if is_encrypted(said):
            said = opened(said, places.vaults) or ""
        return frozenset(map(str, mapping(parsed(said, file.name))))
    except UnusablePlaybookError:
        return frozenset()


def _entry(role: Any, known: frozenset[str]) -> _Role | None:
    entry = {"role": role} if isinstance(role, str) else mapping(role)
    name = entry.get("role") or entry.get("name")
    return _Role(str(name), "main", frozenset({*mapping(entry.get("vars")), *entry}), known) if name else None


def _tasks(entries: Any) -> Iterator[dict[Any, Any]]:
    """The tasks of a list, those within blocks included."""
    for task in sequence(entries):
        if isinstance(task, dict):
            yield task
            for part in ("block", "rescue", "always"):
                yield from _tasks(task.get(part))


def _with_dependencies(roles: list[_Role], places: _Places) -> Iterator[_Role]:
    """The roles, and what their meta/main.yml says that they depend on; each place and what it is given once."""
    waiting, seen = list(reversed(roles)), set()
    while waiting:
        role = waiting.pop()
        if (key := (role.name, role.entry, role.given, role.beside)) in seen:
            continue
        seen.add(key)
        if len(seen) > _MOST_ROLES:
            raise UnusablePlaybookError(f"It names more than {_MOST_ROLES:,} roles, with those that they depend on.")
        yield role
        waiting += reversed(list(_dependencies(role, places)))


def _dependencies(role: _Role, places: _Places) -> Iterator[_Role]:
    """A dependency knows what its parent sets and is given."""
    for folder in _folders(role, places)[:1]:
        files = [folder / part / f"main{suffix}" for part in ("defaults", "vars") for suffix in _SUFFIXES]
        known = role.known.union(role.given, *(_variables(file, places) for file in files))
        for entry in sequence(_meta(folder).get("dependencies")):
            if named := _entry(entry, known):
                yield _Role(named.name, "main", named.given, known, beside=folder)


# ---------------------------------------------------------------- what each takes
def _meta(folder: Path) -> dict[Any, Any]:
    file = next((file for suffix in _SUFFIXES if (file := folder / "meta" / f"main{suffix}").is_file()), None)
    return mapping(read(file)) if file else {}


def _argument_spec(role: _Role, places: _Places) -> dict[str, dict[str, Any]]:
    """The options of the role's entry point, by name."""
    for folder in _folders(role, places)[:1]:
        files = [folder / "meta" / f"argument_specs{suffix}" for suffix in _SUFFIXES]
        file = next((file for file in files if file.is_file()), None)
        specs = mapping((mapping(read(file)) if file else _meta(folder)).get("argument_specs"))
        options = mapping(mapping(specs.get(role.entry)).get("options"))
        return {str(option): mapping(about) for option, about in options.items()}
    return {}


def _folders(role: _Role, places: _Places) -> list[Path]:
    """Where the role may be, in Ansible's order; those that there are."""
    beside = [role.beside.parent / role.name] if role.beside else []
    if role.name.count(".") == 2:
        namespace, collection, name = role.name.split(".")
        inner = Path("ansible_collections") / namespace / collection / "roles" / name
        found = [base / inner for base in (places.beside / "collections", *places.collections)]
    else:
        found = [place / role.name for place in (places.beside / "roles", *places.roles, places.beside)]
    return [place for place in (*beside, *found) if place.is_dir() and place.resolve().is_relative_to(places.root)]


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
    if choices := sequence(about.get("choices")):
        (_items(found) if kind == "list" else found)["enum"] = choices
    if kind == "list" and "elements" in about:
        element = {name: about[name] for name in ("options",) if name in about} | {"type": about["elements"]}
        _items(found).update({k: v for k, v in _property(element).items() if k != "x-argument"})
    if kind == "dict" and (options := mapping(about.get("options"))):
        found["properties"] = {str(name): _inner(mapping(part)) for name, part in options.items()}
        found["required"] = [str(name) for name, part in options.items() if mapping(part).get("required")]
    if about.get("no_log"):
        found["writeOnly"] = True
    return found


def _inner(about: Mapping[str, Any]) -> Schema:
    return {name: value for name, value in _property(about).items() if name != "x-argument"}


def _items(found: Schema) -> Schema:
    items: Schema = found.setdefault("items", {})
    return items
