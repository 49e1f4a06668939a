"""Git repositories as sources of playbooks: one commit of each, with the collections and roles that it requires."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import yaml

from orchestrator.snapshots import PROJECT, pulled_directory

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_PROTOCOLS: Final = "https:ssh:git"
_LOCAL: Final = ("file://", "/")
_OURS: Final = ("DJANGO_", "ORCHESTRATOR_", "DATABASE_URL", "REDIS_URL")  # settings; some of them are secrets
_STEP_LIMIT: Final = 900.0  # seconds, for each program that is run
_WORDS: Final = 2_000  # characters kept of what a program said when it failed
_REQUIREMENTS: Final = ("requirements.yml", "collections/requirements.yml", "roles/requirements.yml")


class PullFailedError(Exception):
    """The repository was not pulled, and what was there before stays; the message says why."""


def pull(name: str, *, url: str, commit: str) -> Path:
    """Put this commit, with what its requirements name, in the place of the source's earlier one.

    Raises:
        PullFailedError: a name, address or commit is not valid, or a program failed.
    """
    if not _NAME.fullmatch(name):
        raise PullFailedError("A source's name has lower-case letters, digits, - and _.")
    if not _COMMIT.fullmatch(commit):
        raise PullFailedError("Name the commit in full, 40 or 64 hexadecimal digits: a branch can move.")
    if not url or url.startswith("-") or any(ord(character) < 33 for character in url):
        raise PullFailedError("This is no address of a repository.")
    if _holds_secret(url):
        raise PullFailedError(
            "An address with a password or a token would be seen by everybody on this machine, and stored: let git ask "
            "a credential helper, or use a key."
        )
    parent = pulled_directory()
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=parent))
    try:
        _check_out(draft / PROJECT, url, commit)
        _install(draft)
        (draft / "source.json").write_text(json.dumps({"url": url, "commit": commit}))
        return _exchange(draft, parent / name)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def remove(name: str) -> bool:
    """Forget a source; False when there is none of this name."""
    place = pulled_directory() / name
    if not _NAME.fullmatch(name) or not place.is_dir():
        return False
    shutil.rmtree(place)
    return True


def _check_out(project: Path, url: str, commit: str) -> None:
    project.mkdir()
    _git(project, "init", "--quiet")
    # Local ones are for whoever types the address, not for what the repository itself refers to.
    also = ":file" if url.startswith(_LOCAL) else ""
    try:
        _git(project, "fetch", "--quiet", "--depth", "1", "--", url, commit, also=also)
    except PullFailedError:  # a server may give out branches and tags only
        _git(project, "fetch", "--quiet", "--tags", "--", url, "+refs/heads/*:refs/remotes/origin/*", also=also)
    _git(project, "-c", "advice.detachedHead=false", "checkout", "--quiet", "--detach", commit)
    if _git(project, "rev-parse", "HEAD").strip() != commit:
        raise PullFailedError("The repository gave out another commit.")
    if (project / ".gitmodules").exists():
        _git(project, "submodule", "--quiet", "update", "--init", "--recursive")
    shutil.rmtree(project / ".git")


def _holds_secret(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False  # no address at all; git says so
    return bool(parts.password or (parts.username and parts.scheme in ("http", "https")))


def _environment(*, also: str = "") -> dict[str, str]:
    """Ours without the service's secrets: what is run here deals with other people's repositories."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return inherited | {"GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": _PROTOCOLS + also}


def _git(project: Path, *words: str, also: str = "") -> str:
    careful = ("-c", "core.hooksPath=/dev/null", "-c", "protocol.ext.allow=never")
    return _run(["git", "-C", str(project), *careful, *words], project, _environment(also=also))


def _install(draft: Path) -> None:
    """The collections and roles of the requirements files, below the source's own directory."""
    for file in (draft / PROJECT / name for name in _REQUIREMENTS):
        if not file.is_file():
            continue
        try:
            wanted: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise PullFailedError(f"{file.name} can't be read as YAML: {error}") from error
        kinds = {"collections", "roles"} & set(wanted) if isinstance(wanted, dict) else {"roles"} if wanted else set()
        for kind in sorted(kinds):
            _galaxy(kind, file, draft)


def _galaxy(kind: str, file: Path, draft: Path) -> None:
    program = str(Path(sys.executable).parent / "ansible-galaxy")
    words = [program, kind.removesuffix("s"), "install", "-r", str(file), "-p", str(draft / kind)]
    _run(words, draft / PROJECT, _environment() | {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCAL_TEMP": str(draft / ".tmp")})
    shutil.rmtree(draft / ".tmp", ignore_errors=True)


def _run(words: list[str], folder: Path, environment: dict[str, str]) -> str:
    try:
        done = subprocess.run(
            words, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors="replace", timeout=_STEP_LIMIT, check=False,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise PullFailedError(f"{words[0]} is not installed.") from error
    except subprocess.TimeoutExpired as error:
        raise PullFailedError(f"{words[0]} has not ended in {_STEP_LIMIT:g} s.") from error
    if done.returncode:
        raise PullFailedError((done.stderr or done.stdout).strip()[:_WORDS] or f"{words[0]} failed.")
    return done.stdout


def _exchange(draft: Path, place: Path) -> Path:
    """Put the new one where the old one is; only for a moment there is none."""
    old = draft.with_name(f"{draft.name}-old")
    if place.exists():
        place.rename(old)
    draft.rename(place)
    shutil.rmtree(old, ignore_errors=True)
    return place
