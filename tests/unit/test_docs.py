"""The docs name what there is, and what they name is there."""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from django.urls import URLPattern, URLResolver, get_resolver
from drf_spectacular.generators import SchemaGenerator

from orchestrator import exceptions
from orchestrator.api.target_serializers import TargetsSerializer
from orchestrator.pacing import Controls
from orchestrator.settings import BASE_DIR
from orchestrator.states import RUN_TRANSITIONS, TRANSITIONS, CommandStatus, RunStatus

README, CHANGELOG = BASE_DIR / "README.md", BASE_DIR / "CHANGELOG.md"
ARCHITECTURE, API = BASE_DIR / "docs" / "architecture.md", BASE_DIR / "docs" / "api.md"
DOCUMENTS = [README, CHANGELOG, *sorted((BASE_DIR / "docs").rglob("*.md"))]

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FILE = re.compile(r"`((?:orchestrator|tests|ansible_plugins|inventory_plugins|playbooks|demo|lab)/[^`*\s]*)`")
ARROW = re.compile(r"^ *(\w+) --> (\w+)(?: : .*)?$", re.MULTILINE)
LOCAL_PATH = re.compile(r"/(?:work|root|home)/")
URL_HOST = re.compile(r"https?://([^/\s`)>]+)")
HOSTS = {
    "127.0.0.1:8000",
    "example.org",
    "fleet.example.org",
    "semver.org",
    "www.standardwebhooks.com",
    "html.spec.whatwg.org",
}


def settings_read() -> dict[str, object]:
    """The environment variables that settings.py reads, each with its default; None if that is computed."""
    found: dict[str, object] = {}
    for node in ast.walk(ast.parse((BASE_DIR / "orchestrator" / "settings.py").read_text())):
        if not (isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)):
            continue
        reader = ast.unparse(node.func)
        if reader not in {"_required_or_kept", "_given"} and not reader.startswith("env."):
            continue
        defaults = [keyword.value for keyword in node.keywords if keyword.arg == "default"]
        found[str(node.args[0].value)] = _constant(defaults[0]) if defaults else None
    return found


def _constant(node: ast.expr) -> object:
    """The value of a constant or of a product of numbers, else None."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        left, right = _constant(node.left), _constant(node.right)
        return left * right if isinstance(left, int) and isinstance(right, int) else None
    return node.value if isinstance(node, ast.Constant) else None


def described(default: object) -> str:
    """How the README begins the cell of this default."""
    if isinstance(default, bool):
        return "on" if default else "off"
    return f"{default:g}" if isinstance(default, float) else str(default)


def routes(patterns: list[URLPattern | URLResolver], prefix: str = "") -> Iterator[str]:
    """The addresses below the API, with {id} for ids."""
    for pattern in patterns:
        here = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from routes(pattern.url_patterns, here)
        elif pattern.name != "without-slash":  # no address: what answers for those that lack their last slash
            yield re.sub(r"\(\?P<pk>[^)]*\)|<uuid:pk>", "{id}", here).replace("^", "").removesuffix("$")


def diagram(document: str, after: str) -> dict[str, set[str]]:
    """The arrows of the first mermaid diagram behind a heading or a sentence; those from and to [*] left out."""
    _, _, rest = document.partition(after)
    found: dict[str, set[str]] = {}
    for source, target in ARROW.findall(rest.partition("```mermaid")[2].partition("```")[0]):
        found.setdefault(source, set()).add(target)
    return found


def as_text(transitions: Mapping[str, frozenset[str]]) -> dict[str, set[str]]:
    """Transitions as a diagram has them."""
    return {str(source): {str(target) for target in targets} for source, targets in transitions.items() if targets}


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives to a document's headings."""
    titles = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_readme_has_every_setting_with_its_default() -> None:
    cells = dict(re.findall(r"^\| `([A-Z_]+)` \| (.*?) \|", README.read_text(), re.MULTILINE))
    read = settings_read()
    assert set(cells) == set(read)
    wrong = {
        name: cells[name]
        for name, default in read.items()
        if isinstance(default, bool | int | float) and cells[name].split()[0] != described(default)
    }
    assert not wrong


@pytest.mark.parametrize(
    ("sentence", "transitions"), [("(`CommandStatus`)", TRANSITIONS), ("(`RunStatus`)", RUN_TRANSITIONS)]
)
def test_the_state_diagrams_are_the_transitions(sentence: str, transitions: Mapping[str, frozenset[str]]) -> None:
    assert diagram(ARCHITECTURE.read_text(), sentence) == as_text(transitions)


def test_the_layout_names_every_module() -> None:
    modules = {path.name for path in (BASE_DIR / "orchestrator").glob("*.py")} - {"__init__.py"}
    named = set(re.findall(r"`(\w+\.py)`", ARCHITECTURE.read_text()))
    assert named == modules


def test_the_api_page_lists_every_address_with_its_methods() -> None:
    listed = dict(re.findall(r"^\| `(/api/v1/[^`]*)` \| ([A-Z, ]+) \|", API.read_text(), re.MULTILINE))
    api = next(pattern for pattern in get_resolver().url_patterns if str(pattern.pattern) == "api/v1/")
    assert isinstance(api, URLResolver)
    assert set(listed) == {f"/api/v1/{route}" for route in routes(api.url_patterns)}
    generator: Any = SchemaGenerator
    paths = generator().get_schema(request=None, public=True)["paths"]
    methods = {path: {method.upper() for method in described} for path, described in paths.items()}
    assert {path: set(listed[path].split(", ")) for path in methods} == methods


def test_the_api_page_names_every_status_target_control_and_error() -> None:
    text = API.read_text()
    errors = [exceptions.OrchestratorError, *exceptions.OrchestratorError.__subclasses__()]
    codes = [error.code for error in errors]
    words = [*CommandStatus, *RunStatus, *TargetsSerializer().fields, *Controls.__slots__, *codes]
    assert not {str(word) for word in words if f"`{word}`" not in text}


def test_the_readme_names_make_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (BASE_DIR / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)`|^\$ make ([a-z-]+)", README.read_text(), re.MULTILINE))
    assert {first or second for first, second in named} <= targets
    assert {"demo", "test"} <= {first or second for first, second in named}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(BASE_DIR)))
def test_links_lead_somewhere(document: Path) -> None:
    for link in LINK.findall(document.read_text()):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(BASE_DIR)))
def test_files_and_tests_that_are_named_exist(document: Path) -> None:
    for name in FILE.findall(document.read_text()):
        path, _, test = name.partition("::")
        assert (BASE_DIR / path).exists(), name
        assert not test or f"def {test}(" in (BASE_DIR / path).read_text(), name


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(BASE_DIR)))
def test_docs_are_for_everybody(document: Path) -> None:
    text = document.read_text()
    assert not LOCAL_PATH.findall(text)
    assert set(URL_HOST.findall(text)) <= HOSTS
