"""What a hostile playbook can reach on the worker: its run, the playbooks beside it, and the network; nothing else."""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from orchestrator import sandbox
from tests.integration.engine import Engine, shared_memory

pytestmark = pytest.mark.lab

MARK = "c4nary-0f-the-Worker"
# Run by Ansible on the worker itself. argv: JSON with the paths and addresses to try.
PROBE = f"""
import json, os, pathlib, socket, sys
todo = json.loads(sys.argv[1])
def tried(what):
    try:
        return what()
    except Exception as error:
        return type(error).__name__
def connects(path):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        return "connected"
def holds(path):
    return {MARK!r} in path.read_bytes().decode(errors="replace")
procs = [p for p in pathlib.Path("/proc").iterdir() if p.name.isdigit()]
print(json.dumps({{
    "read": {{path: tried(lambda: pathlib.Path(path).read_text()[:200]) for path in todo["read"]}},
    "listed": {{path: tried(lambda: sorted(os.listdir(path))) for path in todo["list"]}},
    "written": {{path: tried(lambda: pathlib.Path(path, "written").write_text("x")) for path in todo["write"]}},
    "connected": {{path: tried(lambda: connects(path)) for path in todo["connect"]}},
    "environment": dict(os.environ),
    "marked": [str(p) for p in procs if tried(lambda: holds(p / "environ") or holds(p / "cmdline")) is True],
    "processes": len(procs),
    "highest": max(int(p.name) for p in procs),
    "capabilities": [line.split()[1] for line in open("/proc/self/status") if line.startswith("CapEff")][0],
    "lookups": todo["lookups"],
}}))
"""
PLAYBOOK = """
- hosts: all
  gather_facts: false
  tasks:
    - command:
        argv:
          - "{{ ansible_playbook_python }}"
          - "{{ playbook_dir }}/probe.py"
          - "{{ todo | combine({'lookups': {
              'env': lookup('env', 'ORCHESTRATOR_CANARY'),
              'pipe': lookup('pipe', 'env; id'),
              'file': lookup('file', todo.read[0], errors='ignore') | default('', true),
            }}) | to_json }}"
      delegate_to: localhost
      vars:
        ansible_connection: local
        ansible_python_interpreter: "{{ ansible_playbook_python }}"
"""


@dataclass
class Worker:
    """What there is on a worker that a run must not reach."""

    files: list[str]
    sockets: list[str]
    runs: str  # the directory of run directories


@pytest.fixture
def worker(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    """A database, keys, another run's directory, an agent and a queue, each with the mark; and the mark around us."""
    monkeypatch.setenv("ORCHESTRATOR_CANARY", MARK)
    monkeypatch.setenv("DATABASE_URL", f"postgres://x:{MARK}@127.0.0.1/x")
    data = Path(tempfile.mkdtemp(prefix="data-", dir=settings.DATA_DIR))
    other = Path(settings.RUN_DIR) / "orchestrator-run-0ther"
    other.mkdir()
    paths = [
        data / "db.sqlite3",
        data / "secret_keys",
        other / "inventory",
        Path(shared_memory() or "/tmp") / "t5b-mark",
    ]
    for path in paths:
        path.write_text(MARK)
    listening = []
    for name in ("redis.sock", "agent.sock"):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(data / name))
        listener.listen()
        listening.append(listener)
    sockets = [str(data / "redis.sock"), str(data / "agent.sock")]
    monkeypatch.setenv("SSH_AUTH_SOCK", sockets[1])
    sleeper = subprocess.Popen(["sleep", "60"], env=os.environ | {"MARK": MARK})  # a process beside the run
    yield Worker([str(path) for path in paths], sockets, settings.RUN_DIR)
    sleeper.kill()
    sleeper.wait()
    for listener in listening:
        listener.close()
    for path in (*paths, *map(Path, sockets)):
        path.unlink()
    other.rmdir()
    data.rmdir()


def probe(engine: Engine, worker: Worker, folder: Path) -> dict[str, Any]:
    """What the hostile playbook found."""
    (folder / "probe.py").write_text(PROBE)
    playbook = folder / "hostile.yml"
    playbook.write_text(PLAYBOOK)
    more = [
        "/etc/shadow",
        "/proc/1/environ",
        f"{sandbox.PROJECT}/orchestrator/settings.py",
        f"{sandbox.PROJECT}/README.md",
    ]
    todo = {
        "read": [*worker.files, *more],
        "list": [worker.runs, str(settings.DATA_DIR), "/home", "/run", "/root", "/etc", "/tmp", str(sandbox.PROJECT)],
        "write": [str(folder), sys.prefix, str(sandbox.PLUGINS), "/usr/bin", "/etc", "/proc/sys/kernel", "/dev/shm"],
        "connect": worker.sockets,
    }
    event = engine.run(engine.request([engine.target("openwrt1")], playbook, todo=todo)).finished["openwrt1"]
    assert event.status == "success", event
    return dict(json.loads(event.stdout))


def test_a_hostile_playbook_reaches_nothing_of_the_service(engine: Engine, worker: Worker, tmp_path: Path) -> None:
    if not sandbox.isolated():
        pytest.skip("bubblewrap does not work here")
    found = probe(engine, worker, tmp_path)
    assert set(found["read"].values()) - {"FileNotFoundError"} == {found["read"]["/proc/1/environ"]}
    assert MARK not in json.dumps(found)
    assert found["marked"] == []
    assert found["connected"] == dict.fromkeys(worker.sockets, "FileNotFoundError")
    assert found["lookups"]["env"] == found["lookups"]["file"] == ""
    listed = found["listed"]
    assert listed[worker.runs] == [Path(found["environment"]["ORCHESTRATOR_RUN"]).name]
    for path in ("/home", "/run", "/root"):  # of them no more than the way to Python
        way = [Path(x).relative_to(path).parts[0] for x in (sys.prefix, sys.base_prefix) if x.startswith(f"{path}/")]
        assert listed[path] == (sorted(set(way)) or "FileNotFoundError")
    assert "shadow" not in listed["/etc"]
    assert "ssh" not in listed["/etc"]
    assert set(listed[str(sandbox.PROJECT)]) <= {".venv", "ansible_plugins", "inventory_plugins", "playbooks"}
    written = {path for path, done in found["written"].items() if done == 1}
    assert written <= {"/dev/shm"}  # its own, gone with it
    assert found["processes"] < 30
    assert found["highest"] < 500  # a PID namespace of its own
    assert int(found["capabilities"], 16) == 0
