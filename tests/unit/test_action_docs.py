"""What our actions say of themselves: read by ansible-doc, and true of the playbooks that use them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).parents[2]
ACTIONS = PROJECT / "ansible_plugins" / "action"
NAMES = sorted(path.stem for path in ACTIONS.glob("*.py"))


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What ansible-doc makes of them, by name."""
    home = tmp_path_factory.mktemp("home")
    environment = os.environ | {"ANSIBLE_HOME": str(home), "ANSIBLE_LOCAL_TEMP": str(home / "tmp")}
    program = [str(Path(sys.executable).parent / "ansible-doc"), "-M", str(ACTIONS), "--json", *NAMES]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False, timeout=90)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", NAMES)
def test_an_action_is_documented_as_it_is_used(documents: Any, name: str) -> None:
    about = documents[name]
    assert about["doc"]["name"] == name
    assert about["doc"]["short_description"]
    assert {"rc", "orchestrator"} <= about["return"].keys()
    [example] = yaml.safe_load(about["examples"])
    used = [
        task[name]
        for path in (PROJECT / "playbooks").glob("*.yml")
        for play in yaml.safe_load(path.read_text())
        for task in play["tasks"]
        if name in task
    ]
    options = about["doc"]["options"]
    assert used
    for arguments in (*used, example[name]):
        assert arguments.keys() <= options.keys()
        assert {option for option, told in options.items() if told.get("required")} <= arguments.keys()
    source = (ACTIONS / f"{name}.py").read_text()
    assert all(f'arguments["{option}"]' in source for option in options)
