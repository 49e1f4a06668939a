"""Keeps the catalogue: finds the playbooks, lets Ansible's parser read each, and writes the index.

Ansible runs in a process of its own, within the sandbox of runs: parsing a playbook may already evaluate it.
"""

import json
import logging
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from orchestrator import audit, playbook_vaults, snapshots
from orchestrator.exceptions import VaultUnreadableError
from orchestrator.models import AuditAction, CommandType, MassCommand, Playbook, PlaybookStatus
from orchestrator.origin import Door, through
from orchestrator.playbook_files import SUFFIXES, PlaybookFile, describe, find
from orchestrator.playbook_vaults import Vault
from orchestrator.redaction import Redactor
from orchestrator.sandbox import PLUGINS, PROJECT, sandbox
from orchestrator.snapshots import Source, UnusableDirectoryError

log = logging.getLogger(__name__)

_PARSE_LIMIT: Final = 120.0  # seconds, for one start of Ansible
_MESSAGE: Final = 2_000  # characters kept of the parser's words
_NAMES: Final = 100  # of playbooks that an audit entry lists
_NOISE: Final = re.compile(r"^(\[WARNING\]|\[DEPRECATION WARNING\]).*?(?=^\S|\Z)", re.MULTILINE | re.DOTALL)
_SHIPPED: Final = frozenset(f"{kind}.yml" for kind in CommandType if kind != CommandType.PLAYBOOK)
_SAMPLES: Final[Mapping[str, Any]] = {
    "string": "all", "integer": 1, "number": 1.0, "boolean": False, "array": [], "object": {},
}  # fmt: skip


@dataclass(slots=True)
class Refreshed:
    """What a refresh found."""

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)  # name → message
    problems: list[str] = field(default_factory=list)  # directories that could not be read
    total: int = 0


@dataclass(frozen=True, slots=True)
class _Found:
    """A playbook in a copy of its directory."""

    name: str
    source: Source
    digest: str
    file: PlaybookFile


def refresh(*, again: bool = False) -> Refreshed:
    """Bring the index up to date.  ``again``: let Ansible read also what has not changed since the last time."""
    report = Refreshed()
    found: dict[str, _Found] = {}
    for source in snapshots.sources():
        try:
            digest = snapshots.take(source.root)
        except UnusableDirectoryError as error:
            report.problems.append(str(error))
            continue
        known = {} if again else _known(digest)
        for entry in _read(source, digest, known):
            name = entry.name if entry.name not in found else f"{source.root.name}/{entry.name}"
            found.setdefault(name, replace(entry, name=name))
    _store(found, report)
    _prune()
    return report


class Watch:
    """Refreshes the catalogue when a directory, or a vault's password, has changed since the last look."""

    def __init__(self) -> None:
        self._seen: dict[Source, str] = {}

    def look(self) -> Refreshed | None:
        """One look; what was found, or None when nothing has changed."""
        seen = {
            source: snapshots.signature(source.root) + playbook_vaults.stamp(source.root)
            for source in snapshots.sources()
        }
        if seen == self._seen:
            return None
        with through(Door.SCHEDULER):  # of the service's own accord
            report = refresh()
        self._seen = seen
        for problem in report.problems:
            log.warning("%s", problem)
        for name, message in report.broken.items():
            log.warning("The playbook %s is broken: %s", name, message.partition("\n")[0])
        return report


def _read(source: Source, digest: str, known: Mapping[str, str]) -> list[_Found]:
    """The playbooks of a source, with what is wrong with each."""
    try:
        vaults = playbook_vaults.vaults(source.root)
    except VaultUnreadableError as error:
        return [_with(entry, error.detail) for entry in _entries(source, digest, ())]
    return _parsed(digest, _entries(source, digest, vaults), known, vaults)


def _entries(source: Source, digest: str, vaults: Sequence[Vault]) -> list[_Found]:
    copy = snapshots.path(digest)
    shipped = source.root == settings.PLAYBOOK_DIR
    told = snapshots.environment(copy)
    roles, collections = (
        [Path(place) for place in told[f"ANSIBLE_{kind}_PATH"].split(":")] for kind in ("ROLES", "COLLECTIONS")
    )
    found = []
    for path in find(copy / source.base):
        if shipped and path.parent == copy and path.name in _SHIPPED:
            continue
        name = source.prefix + path.relative_to(copy / source.base).as_posix()
        name = next(name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix))
        file = describe(path, root=copy, roles=roles, collections=collections, vaults=vaults)
        found.append(_Found(name=name, source=source, digest=digest, file=file))
    return found


def _known(digest: str) -> dict[str, str]:
    """Path → the parser's message, of what it has read in this very version, and would read again today."""
    rows = Playbook.objects.filter(digest=digest).exclude(message__contains=playbook_vaults.SETTING)
    return dict(rows.values_list("path", "message"))


def _parsed(digest: str, entries: Iterable[_Found], known: Mapping[str, str], vaults: Sequence[Vault]) -> list[_Found]:
    """The entries with what Ansible's parser says of each."""
    done: list[_Found] = []
    together: list[_Found] = []
    for entry in entries:
        if entry.file.problem:
            done.append(entry)
        elif entry.file.path in known:
            done.append(_with(entry, known[entry.file.path]))
        elif entry.file.schema["properties"]:
            done.append(_with(entry, _parse(digest, [entry], _sample(entry.file), vaults)))
        else:
            together.append(entry)
    return sorted(done + _bisect(digest, together, vaults), key=lambda entry: entry.name)


def _bisect(digest: str, entries: list[_Found], vaults: Sequence[Vault]) -> list[_Found]:
    """One start of Ansible for all that are whole: it ends at the first that is broken, without saying which."""
    message = _parse(digest, entries, {}, vaults) if entries else ""
    if not message or len(entries) == 1:
        return [_with(entry, message) for entry in entries]
    half = len(entries) // 2
    return _bisect(digest, entries[:half], vaults) + _bisect(digest, entries[half:], vaults)


def _with(entry: _Found, message: str) -> _Found:
    return replace(entry, file=replace(entry.file, problem=message))


def _parse(digest: str, entries: list[_Found], variables: Mapping[str, Any], vaults: Sequence[Vault]) -> str:
    """What ``ansible-playbook --syntax-check`` has against these playbooks; empty when nothing."""
    copy = snapshots.path(digest)
    with tempfile.TemporaryDirectory(prefix="playbook-", dir=settings.RUN_DIR or None) as name:
        directory = Path(name)
        (directory / "ansible.cfg").touch()
        (directory / "variables.json").write_text(json.dumps(variables))
        (directory / "hosts").write_text("device ansible_connection=local\n")
        program = [str(Path(sys.executable).parent / "ansible-playbook"), "--syntax-check", "-i", "hosts"]
        command = [*sandbox(directory, copy, files=[vault.file for vault in vaults]), *program, "-e", "@variables.json"]
        try:
            done = subprocess.run(
                [*command, *(str(copy / entry.file.path) for entry in entries)],
                cwd=directory, env=_environment(directory, copy, vaults), stdin=subprocess.DEVNULL, capture_output=True,
                timeout=_PARSE_LIMIT, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"Ansible has not read it in {_PARSE_LIMIT:g} s."
    if done.returncode == 0:
        return ""
    said = done.stderr.decode(errors="replace") or done.stdout.decode(errors="replace")
    said = _NOISE.sub("", said).replace(f"{copy}/", "").replace("[ERROR]: ", "").strip()
    said = Redactor(vault.secret for vault in vaults).clean(said)  # a playbook may evaluate, and say, what it likes
    said = playbook_vaults.advised(said[:_MESSAGE])
    return said or f"ansible-playbook --syntax-check ended with status {done.returncode}."


def _environment(directory: Path, copy: Path, vaults: Sequence[Vault]) -> dict[str, str]:
    told = {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(directory),
        "TMPDIR": str(directory),
        "PYTHONPATH": str(PROJECT),
        "LC_ALL": "C.UTF-8",
        "ANSIBLE_HOME": str(directory / "home"),
        "ANSIBLE_LOCAL_TEMP": str(directory / "tmp"),
        "ANSIBLE_ACTION_PLUGINS": str(PLUGINS / "action"),
        "ANSIBLE_CONFIG": str(directory / "ansible.cfg"),
        "ANSIBLE_DEPRECATION_WARNINGS": "False",
        "ANSIBLE_LOCALHOST_WARNING": "False",
        "ANSIBLE_NOCOLOR": "1",
    }
    return told | snapshots.environment(copy) | playbook_vaults.environment(vaults)


def _sample(file: PlaybookFile) -> dict[str, Any]:
    """A value for each input, so that a play whose hosts are an input can be read."""
    found = dict(file.defaults)
    for name, about in file.schema["properties"].items():
        if name in found or not isinstance(about, dict):
            continue
        kind = about.get("type", "string")
        kind = kind[0] if isinstance(kind, list) and kind else kind
        found[name] = about["enum"][0] if about.get("enum") else _SAMPLES.get(str(kind), "all")
    return found


def _store(found: Mapping[str, _Found], report: Refreshed) -> None:
    """Write the index; rows of playbooks that are gone go."""
    now = timezone.now()
    with transaction.atomic():
        rows = {row.name: row for row in Playbook.objects.select_for_update()}
        for name, entry in found.items():
            values = _values(entry)
            row = rows.pop(name, None)
            if row is None:
                Playbook.objects.create(name=name, refreshed=now, **values)
                report.added.append(name)
            elif any(getattr(row, field) != value for field, value in values.items()):
                Playbook.objects.filter(pk=row.pk).update(refreshed=now, **values)
                report.changed.append(name)
            if entry.file.problem:
                report.broken[name] = entry.file.problem
        Playbook.objects.filter(pk__in=[row.pk for row in rows.values()]).delete()
        report.removed += sorted(rows)
        if report.added or report.changed or report.removed:
            audit.record(AuditAction.CATALOGUE_CHANGE, about=audit.Subject("catalogue"), details=_told(found, report))
    report.total = len(found)


def _told(found: Mapping[str, _Found], report: Refreshed) -> dict[str, Any]:
    """What an audit entry says of a refresh; a run's entry has the digest that is found here."""
    lists = {"added": report.added, "changed": report.changed, "removed": report.removed, "broken": report.broken}
    told: dict[str, Any] = {kind: sorted(names)[:_NAMES] for kind, names in lists.items() if names}
    told |= {f"{kind}_count": len(names) for kind, names in lists.items() if len(names) > _NAMES}
    sources = {entry.source: entry.digest for entry in found.values()}
    told["directories"] = [
        {"directory": str(source.root), "digest": digest} | ({"commit": source.commit} if source.commit else {})
        for source, digest in sources.items()
    ]
    return told


def _values(entry: _Found) -> dict[str, Any]:
    file, source = entry.file, entry.source
    return {
        "description": file.description.replace("\0", "\ufffd"),
        "status": PlaybookStatus.BROKEN if file.problem else PlaybookStatus.OK,
        "message": file.problem.replace("\0", "\ufffd"),
        "schema": file.schema,
        "defaults": file.defaults,
        "check_mode": file.check_mode,
        "hosts": list(file.hosts),
        "digest": entry.digest,
        "path": file.path,
        "directory": str(source.root),
        "url": source.url,
        "commit": source.commit,
    }


def _prune() -> None:
    """Copies are kept while the catalogue or a run that goes on needs them."""
    keep = set(Playbook.objects.values_list("digest", flat=True))
    keep |= set(MassCommand.objects.active().exclude(playbook_digest="").values_list("playbook_digest", flat=True))
    snapshots.prune(keep)
