"""What the catalogue reads in playbook files."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.playbook_files import PlaybookFile, describe, find
from tests.integration.api_addresses import case

PLAY = "- hosts: all\n  tasks:\n    - ansible.builtin.ping:\n"


def write(root: Path, **files: str) -> None:
    """Files below a directory; "__" in a name is a slash."""
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("·", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def described(root: Path, text: str = PLAY, **files: str) -> PlaybookFile:
    write(root, site·yml=text, **files)
    return describe(root / "site.yml", root=root)


def test_only_playbooks_are_found(tmp_path: Path) -> None:
    write(
        tmp_path,
        **{
            "site·yml": PLAY, "net__vlans·yaml": PLAY, "import·yml": "- import_playbook: site.yml\n",
            "roles__web__tasks__main·yml": PLAY, "tasks__more·yml": PLAY, "group_vars__all·yml": "hosts: 1\n",
            "site·schema·yml": "type: object\n", "requirements·yml": "roles: []\n", "·hidden·yml": PLAY,
            "notes·txt": PLAY, "broken·yml": "- hosts: all\n  tasks: [\n", "list·yml": "- a\n- b\n",
        },
    )  # fmt: skip
    found = [path.relative_to(tmp_path).as_posix() for path in find(tmp_path)]
    assert sorted(found) == ["broken.yml", "import.yml", "net/vlans.yaml", "site.yml"]


def test_a_playbook_without_declared_inputs_takes_none(tmp_path: Path) -> None:
    found = described(tmp_path, "# Look whether\n# it lives.\n" + PLAY)
    assert found.schema == {"type": "object", "additionalProperties": False, "properties": {}}
    assert (found.description, found.hosts, found.problem) == ("Look whether\nit lives.", ("all",), "")


def test_a_sidecar_is_the_schema(tmp_path: Path) -> None:
    sidecar = "properties:\n  port: {type: integer, default: 80}\nrequired: [port]\nx-check-mode: false\n"
    found = described(tmp_path, site·schema·yml=sidecar)
    assert found.schema["properties"] == {"port": {"type": "integer", "default": 80}}
    assert (found.schema["required"], found.defaults, found.check_mode) == (["port"], {"port": 80}, False)


ROLE = """
argument_specs:
  main:
    options:
      port: {type: int, required: true, description: [The, port.]}
      paths: {type: list, elements: path}
      mode: {choices: [a, b], default: a}
      token: {type: str, no_log: true}
      given: {type: str, required: true}
      server: {type: dict, options: {name: {type: str, required: true}}}
"""


@pytest.mark.parametrize("play", [
    "- hosts: all\n  roles: [{role: web, given: x}]\n",
    "- hosts: all\n  tasks: [{import_role: {name: web}, vars: {given: x}}]\n",
])  # fmt: skip
def test_the_argument_specs_of_roles_are_the_schema(tmp_path: Path, play: str) -> None:
    found = described(tmp_path, play, roles__web__meta__argument_specs·yml=ROLE)
    assert found.schema["properties"] == {
        "port": {"type": "integer", "description": "The port."},
        "paths": {"type": "array", "items": {"type": "string"}},
        "mode": {"type": "string", "default": "a", "enum": ["a", "b"]},
        "token": {"type": "string", "writeOnly": True},
        "server": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    }
    assert (found.schema["required"], found.defaults) == (["port"], {})  # the role has its own defaults


def test_what_a_play_would_ask_for_is_input(tmp_path: Path) -> None:
    play = """
- hosts: all
  vars_prompt:
    - {name: where, prompt: Where to, private: false, default: here}
    - {name: pin, prompt: The PIN}
"""
    found = described(tmp_path, play)
    assert found.schema["properties"] == {
        "where": {"type": "string", "title": "Where to", "default": "here"},
        "pin": {"type": "string", "title": "The PIN", "writeOnly": True},
    }
    assert (found.schema["required"], found.defaults) == (["pin"], {"where": "here"})


BOMB = ", ".join(  # lists of lists, each of ten times the one before
    ["&a [x, x]", *(f"&{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 10)}]" for n in range(8))]
)
BROKEN: list[tuple[dict[str, str], str]] = [
    ({"site·yml": "- hosts: all\n  tasks: [\n"}, "can't be read as YAML"),
    ({"site·yml": "hosts: all\n"}, "no list of plays"),
    ({"site·schema·yml": "type: 7\n"}, "is no JSON Schema"),
    ({"site·schema·yml": "type: array\n"}, "of an object"),
    ({"site·schema·yml": "properties: {ansible_host: {type: string}}\n"}, "may not be named"),
    ({"site·schema·yml": "properties: {a-b: {type: string}}\n"}, "may not be named"),
    ({"site·schema·yml": "properties: {pin: {type: integer, writeOnly: true}}\n"}, "must be of type string"),
    ({"site·schema·yml": "properties: {a: {properties: {b: {writeOnly: true}}}}\n"}, "of its own"),
    ({"site·schema·yml": "properties: {a: {$ref: '#/$defs/b'}}\n$defs: {b: {writeOnly: true}}\n"}, "by $ref"),
    ({"site·schema·yml": "allOf: [{properties: {a: {format: password}}}]\n"}, "among the properties"),
    ({"site·schema·yml": "additionalProperties: {writeOnly: true}\n"}, "among the properties"),
    ({"site·schema·yml": "properties: {a: {$ref: 'https://example.org/a.json'}}\n"}, "in it itself"),
    ({"site·schema·yml": "properties: {a: {default: .nan}}\n"}, "no number of JSON"),
    ({"site·schema·yml": "properties: &a {a: *a}\n"}, "more than 50,000 parts"),
    ({"site·schema·yml": f"properties: {{p: {{enum: [{BOMB}]}}}}\n"}, "more than 50,000 parts"),
    ({"site·yml": "- hosts: &a [all, *a]\n"}, "more than 50,000 parts"),
    ({"site·schema·yml": "properties: {hostvars: {type: object}}\n"}, "means something to Ansible"),
    ({"site·schema·yml": "properties: {__ansible_unsafe: {type: string}}\n"}, "means something to Ansible"),
    ({"site·yml": "- hosts: all\n  vars_prompt: [{name: a, encrypt: sha512_crypt}]\n"}, "encrypt"),
]


@pytest.mark.parametrize(("files", "problem"), BROKEN, ids=case)
def test_what_can_t_be_launched_says_why(tmp_path: Path, files: dict[str, Any], problem: str) -> None:
    rest = {name: text for name, text in files.items() if name != "site·yml"}
    assert problem in described(tmp_path, files.get("site·yml", PLAY), **rest).problem


def test_tags_of_yaml_are_no_code(tmp_path: Path) -> None:
    text = "- hosts: all\n  vars: {a: !vault abc, b: !!python/object/apply:os.system [id]}\n"
    assert described(tmp_path, text).problem == ""


PROMPTS = "- hosts: switches\n  vars_prompt:\n    - {name: pin}\n  roles: [web]\n"
SPEC = "argument_specs: {main: {options: {port: {type: int, required: true}, more: {required: true}}}}\n"


def test_what_an_imported_playbook_takes_is_taken(tmp_path: Path) -> None:
    text = "- name: Both\n  import_playbook: inner/web.yml\n  vars: {more: given}\n" + PLAY
    files = {"inner__web·yml": PROMPTS, "inner__roles__web__meta__argument_specs·yml": SPEC}
    found = described(tmp_path, text, **files)
    assert found.hosts == ("switches", "all")
    assert set(found.schema["properties"]) == {"port", "more", "pin"}
    assert found.schema["properties"]["pin"]["writeOnly"]
    assert sorted(found.schema["required"]) == ["pin", "port"]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("site.yml", "imports it in turn"),
        ("inner/back.yml", "imports it in turn"),
        ("../outside.yml", "outside of its directory"),
        ("{{ name }}.yml", ""),
        ("some.collection.playbook", ""),
    ],
)
def test_an_import_that_cannot_be_followed(tmp_path: Path, name: str, problem: str) -> None:
    (tmp_path / "outside.yml").write_text(PLAY)
    back = "- import_playbook: ../site.yml\n"
    found = described(tmp_path / "root", f'- import_playbook: "{name}"\n', inner__back·yml=back)
    assert problem in found.problem
    assert bool(found.problem) == bool(problem)


def test_a_role_within_blocks_is_seen(tmp_path: Path) -> None:
    task = "{include_role: {name: web}}"
    text = f"- hosts: all\n  tasks:\n    - block: [{{ping: }}]\n      rescue:\n        - block: [{task}]\n"
    found = described(tmp_path, text, roles__web__meta__argument_specs·yml=SPEC)
    assert set(found.schema["properties"]) == {"port", "more"}


def test_what_a_role_depends_on_takes_its_input_too(tmp_path: Path) -> None:
    meta = "dependencies: [base, {role: acme.net.wires, vars: {more: given}}, {role: web}]\n"
    token = "argument_specs: {main: {options: {token: {no_log: true}, own: {required: true}, port: {}}}}\n"
    found = described(
        tmp_path, "- hosts: all\n  roles: [web]\n", roles__web__meta__main·yml=meta + SPEC.replace("more", "token"),
        roles__web__defaults__main·yml="own: set\n", roles__base__meta__argument_specs·yaml=token,
        **{
            f"collections__ansible_collections__acme__net__roles__{name}·yml": meta
            for name, meta in (("wires__meta__main", "dependencies: [plugs]\n" + SPEC),
                               ("plugs__meta__argument_specs", SPEC.replace("port", "plug")))
        },
    )  # fmt: skip
    assert found.problem == ""
    assert set(found.schema["properties"]) == {"port", "token", "own", "plug", "more"}
    assert sorted(found.schema["required"]) == ["plug", "port", "token"]
    assert [name for name, about in found.schema["properties"].items() if about.get("writeOnly")] == ["token"]


def test_what_files_of_variables_set_need_not_be_given(tmp_path: Path) -> None:
    text = "- hosts: all\n  vars_files: [v.yml, ['{{ x }}.yml', /etc/none.yml]]\n  roles: [web, ../../elsewhere]\n"
    (tmp_path / "elsewhere" / "meta").mkdir(parents=True)
    (tmp_path / "elsewhere" / "meta" / "argument_specs.yml").write_text(SPEC.replace("port", "outside"))
    found = described(
        tmp_path / "root", text, v·yml="port: 1\n", roles__web__meta__argument_specs·yml=SPEC,
        group_vars__all__one·yml="$ANSIBLE_VAULT;1.1;AES256\n3031\n", group_vars__all__two·yml="more: 1\n",
    )  # fmt: skip
    assert (set(found.schema["properties"]), found.schema["required"]) == ({"port", "more"}, [])


def test_imports_that_multiply_come_to_an_end(tmp_path: Path) -> None:
    for number in range(8):
        write(tmp_path, **{f"p{number}·yml": f"- import_playbook: p{number + 1}.yml\n" * 4})
    write(tmp_path, p8·yml=PLAY)
    assert describe(tmp_path / "p0.yml", root=tmp_path).problem.startswith("It has more than 1,000 plays")
