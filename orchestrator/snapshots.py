"""Directories of playbooks, and copies of them that never change: a run uses the version that it was launched with.

    <DATA_DIR>/playbooks/<digest>/          a copy of a directory; the digest is that of its content
    <DATA_DIR>/playbook_sources/<name>/     what ``manage.py pull_playbooks`` made of a git repository:
        source.json     its address and commit
        project/        the checkout
        collections/ roles/     what its requirements.yml names

An edit, or a pull, in the middle of a run changes the directory, never the copy.
"""

import configparser
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from django.conf import settings

from orchestrator.exceptions import PlaybookGoneError

log = logging.getLogger(__name__)

PROJECT: Final = "project"
_DRAFT: Final = ".draft-"
_PRUNE_AGE: Final = 3_600.0  # seconds
_MOST_FILES: Final = 50_000
_MOST_BYTES: Final = 1 << 30
_LEFT_OUT: Final = frozenset({"__pycache__", "node_modules"})  # and what begins with a dot


@dataclass(frozen=True, slots=True)
class Source:
    """A directory whose playbooks are command types."""

    root: Path  # what is copied
    base: str = ""  # where in it playbooks are looked for
    prefix: str = ""  # of their names
    url: str = ""
    commit: str = ""


class UnusableDirectoryError(Exception):
    """The directory can't be copied; the message says why."""


def sources() -> list[Source]:
    """The configured directories, the shipped one first, and the git repositories that were pulled."""
    configured = [Source(root=directory) for directory in settings.PLAYBOOK_DIRS]
    pulled = []
    for about in sorted(pulled_directory().glob("*/source.json")):
        told = json.loads(about.read_text())
        name = about.parent.name
        pulled.append(
            Source(root=about.parent, base=PROJECT, prefix=f"{name}/", url=told["url"], commit=told["commit"])
        )
    return configured + pulled


def pulled_directory() -> Path:
    """Where git repositories are pulled to."""
    return Path(settings.DATA_DIR) / "playbook_sources"


def path(digest: str) -> Path:
    """Where the copy with this digest is, if it was made here."""
    return _store() / digest


def take(root: Path) -> str:
    """Copy the directory as it is now, if that was not done before; its digest.

    Raises:
        UnusableDirectoryError: it can't be read, or is too large to be a directory of playbooks.
    """
    _store().mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=_store()))
    try:
        _copy(root, draft)
        digest = _digest(draft)
        if not path(digest).exists():
            try:
                draft.rename(path(digest))
            except OSError:  # another process was faster
                if not path(digest).exists():
                    raise
        return digest
    except OSError as error:
        raise UnusableDirectoryError(f"{root} can't be copied: {error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def held(digest: str) -> Path:
    """The copy with this digest; made now where another machine's refresh was first and ours holds the same.

    Raises:
        PlaybookGoneError: this machine's directories hold another version.
    """
    if not path(digest).is_dir():
        for source in sources():
            try:
                take(source.root)
            except UnusableDirectoryError as error:
                log.warning("%s", error)
    if not path(digest).is_dir():
        raise PlaybookGoneError
    return path(digest)


def prune(keep: Collection[str]) -> int:
    """Delete the copies that nothing has needed for an hour; how many.

    Not at once: a launch that read the index a moment ago may be about to pin one.
    """
    gone = 0
    for entry in _store().glob("*"):
        if entry.name in keep:
            os.utime(entry)
        elif time.time() - entry.stat().st_mtime > _PRUNE_AGE:
            shutil.rmtree(entry, ignore_errors=True)
            gone += 1
    return gone


def signature(root: Path) -> str:
    """What changes when anything below the directory does; cheap, for it reads no file."""
    found = hashlib.sha256()
    try:
        for relative, file in _files(root):
            about = file.stat()
            found.update(f"{relative}\0{about.st_size}\0{about.st_mtime_ns}\0{about.st_ino}\n".encode(errors="replace"))
    except (OSError, UnusableDirectoryError) as error:
        found.update(str(error).encode(errors="replace"))
    return found.hexdigest()


def environment(root: Path) -> dict[str, str]:
    """What Ansible must be told of a copy: where its roles and collections are, and its ansible.cfg if it has one."""
    bases = [root, root / PROJECT]
    configs = [base / "ansible.cfg" for base in bases if (base / "ansible.cfg").is_file()]
    said = _paths(configs[0], root) if configs else {}
    told = {
        f"ANSIBLE_{kind.upper()}_PATH": ":".join([*said.get(kind, ()), *(str(base / kind) for base in reversed(bases))])
        for kind in ("roles", "collections")
    }
    return told | ({"ANSIBLE_CONFIG": str(configs[0])} if configs else {})


def _paths(config: Path, root: Path) -> dict[str, list[str]]:
    """Where an ansible.cfg says that roles and collections are, as far as that is within the directory.

    Ours are told by the environment, which for Ansible is worth more than the file.
    """
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read(config, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):  # Ansible will say so
        return {}
    found: dict[str, list[str]] = {}
    for kind, names in (("roles", ("roles_path",)), ("collections", ("collections_path", "collections_paths"))):
        told = next((value for name in names if (value := parser.get("defaults", name, fallback=""))), "")
        places = [(config.parent / part.strip()).resolve() for part in told.split(":") if part.strip()]
        found[kind] = [str(place) for place in places if place.is_relative_to(root.resolve())]
    return found


def _store() -> Path:
    return Path(settings.DATA_DIR) / "playbooks"


def _files(root: Path) -> Iterator[tuple[str, Path]]:
    """(path within the directory, file) in the order of paths; links are followed, loops are not.

    A link that leads elsewhere would carry what this service may read, such as its keys, to where runs may.
    """
    if not root.is_dir():
        raise UnusableDirectoryError(f"{root} is no directory.")
    store, seen, number, size = _store().resolve(), set(), 0, 0
    homes = [home.resolve() for home in {root, *(settings.PLAYBOOK_DIRS if root in settings.PLAYBOOK_DIRS else ())}]
    for folder, folders, names in os.walk(root, followlinks=True):
        here = Path(folder).resolve()
        if here in seen or here == store:
            folders[:] = []
            continue
        _refuse_elsewhere(Path(folder), here, homes)
        seen.add(here)
        folders[:] = sorted(name for name in folders if name not in _LEFT_OUT and not name.startswith("."))
        for name in sorted(names):
            file = Path(folder) / name
            if name.startswith(".") or not file.is_file():
                continue
            if file.is_symlink():
                _refuse_elsewhere(file, file.resolve(), homes)
            number, size = number + 1, size + file.stat().st_size
            if number > _MOST_FILES or size > _MOST_BYTES:
                raise UnusableDirectoryError(f"{root} holds too much to be a directory of playbooks.")
            yield file.relative_to(root).as_posix(), file


def _refuse_elsewhere(path: Path, real: Path, homes: Collection[Path]) -> None:
    if not any(real.is_relative_to(home) for home in homes):
        raise UnusableDirectoryError(f"{path} is a link that leads out of the directories of playbooks.")


def _copy(root: Path, draft: Path) -> None:
    for relative, file in _files(root):
        target = draft / relative
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copyfile(file, target)
        target.chmod(0o700 if os.access(file, os.X_OK) and file.stat().st_mode & 0o100 else 0o600)


def _digest(draft: Path) -> str:
    """SHA-256 over the paths, the executable bits and the contents of all files."""
    total = hashlib.sha256()
    for relative, file in _files(draft):
        with file.open("rb") as content:
            inner = hashlib.file_digest(content, "sha256").hexdigest()
        mark = "x" if file.stat().st_mode & 0o100 else "-"
        total.update(f"{relative}\0{mark}\0{inner}\n".encode(errors="surrogateescape"))
    return total.hexdigest()
