"""The embedded stack as its users see it: a URL that answers, and nothing left afterwards, however it ends."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue

from orchestrator.stack import BASE_DIR, QUEUE, SOCKET_PATH_LIMIT, Stack, StackError, child_environment, socket_path
from orchestrator.supervisor import descendants
from tests.acceptance.service import prepare

HOLDER = """
import sys, time
from pathlib import Path
from orchestrator.stack import Stack
with Stack(data_dir=Path(sys.argv[1]), port=0, workers=1, quiet=True) as stack:
    print(stack.pid, flush=True)
    time.sleep(100)
"""


@pytest.fixture(autouse=True)
def _own_services(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stack here has a database and a queue of its own, whatever the tests at large run on."""
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "orchestrator.settings")  # not those of the tests


@pytest.fixture
def stack(tmp_path: Path, _own_services: None) -> Iterator[Stack]:
    prepare(tmp_path / "data")
    with Stack(data_dir=tmp_path / "data", port=0, workers=1, worker_grace=2.0, quiet=True) as stack:
        yield stack


def until(condition: Callable[[], bool], limit: float = 20.0) -> bool:
    """Whether the condition came true within `limit` seconds."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


def status(url: str) -> int:
    # Not urlopen: Ansible's own requests, in the same process, put an opener in its place that follows nothing.
    with urllib.request.build_opener().open(url, timeout=20) as response:
        return int(response.status)


def processes(stack: Stack) -> dict[int, str]:
    """The command line of each process of the stack."""
    found = {}
    for pid in descendants(stack.pid):
        with contextlib.suppress(OSError):  # it ended meanwhile
            found[pid] = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return found


def pid_of(stack: Stack, words: str) -> int:
    return next((pid for pid, line in processes(stack).items() if words in line), 0)


def gone(pids: list[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_it_serves_pages_and_leaves_neither_process_nor_socket(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Stack(data_dir=data, port=0, workers=2, quiet=True) as stack:
        assert status(f"{stack.url}/admin/login/") == 200
        pids = [stack.pid, *processes(stack)]
        assert sum("rqworker" in line for line in processes(stack).values()) == 2
        assert data.stat().st_mode & 0o777 == 0o700
        assert socket_path(data).stat().st_mode & 0o077 == 0
    assert gone(pids)
    assert not socket_path(data).exists()
    assert {path.stem for path in (data / "logs").iterdir()} >= {"redis", "worker-1", "worker-2", "recovery", "web"}


def test_a_kill_of_its_holder_leaves_no_process(tmp_path: Path) -> None:
    prepare(tmp_path / "data")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "data")], cwd=BASE_DIR, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        supervisor = int(holder.stdout.readline())
        pids = [supervisor, *descendants(supervisor)]
        assert len(pids) >= 5
        holder.kill()
    assert until(lambda: gone(pids))


def test_a_kill_of_the_supervisor_takes_its_programs_along(stack: Stack) -> None:
    pids = list(processes(stack))
    os.kill(stack.pid, signal.SIGKILL)
    assert stack.wait() == -signal.SIGKILL
    # Zombies would be reaped by whoever adopts them; none of them runs any more.
    assert until(lambda: all(_dead(pid) for pid in pids))


def _dead(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_dead_worker_is_replaced_and_says_so(stack: Stack, tmp_path: Path) -> None:
    first = pid_of(stack, "rqworker")
    os.kill(first, signal.SIGKILL)
    assert until(lambda: pid_of(stack, "rqworker") not in {0, first})
    line = (tmp_path / "data/logs/stack.log").read_text()
    assert f"worker-1 (process {first}) was killed by SIGKILL; starting it again in 0.5 s" in line


def test_a_dead_web_server_comes_back_at_the_same_address(stack: Stack) -> None:
    os.kill(pid_of(stack, "uvicorn"), signal.SIGKILL)
    assert status(f"{stack.url}/admin/login/") == 200  # the socket stays open, so that the request only waits


def test_a_stop_ends_a_running_job_and_all_that_it_started(stack: Stack) -> None:
    with Redis.from_url(stack.environment["REDIS_URL"]) as redis:
        # A session of its own, as Ansible's ssh clients have it: out of reach of the worker's process group.
        Queue(QUEUE, connection=redis).enqueue("subprocess.run", ["setsid", "sleep", "98765"])
    assert until(lambda: bool(pid_of(stack, "sleep 98765")))
    pids = [stack.pid, *processes(stack)]
    stack.stop()
    assert gone(pids)


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(StackError, match=f"port {port}: Address already in use.*--port"):
            Stack(data_dir=tmp_path / "data", port=port, quiet=True).start()


def test_one_data_directory_carries_one_stack(stack: Stack) -> None:
    with pytest.raises(StackError, match=f"already running.*process {stack.pid}"):
        Stack(data_dir=stack.config.data_dir, port=0, quiet=True).start()


def test_an_operators_queue_server_is_used_instead_of_a_private_one(stack: Stack, tmp_path: Path) -> None:
    given = {"REDIS_URL": stack.environment["REDIS_URL"]}
    prepare(tmp_path / "other")
    with Stack(data_dir=tmp_path / "other", port=0, workers=1, quiet=True, environment=given) as other:
        assert status(f"{other.url}/admin/login/") == 200
        assert not any("valkey-server" in line or "redis-server" in line for line in processes(other).values())


def test_what_ends_while_starting_is_explained(tmp_path: Path) -> None:
    stack = Stack(data_dir=tmp_path / "data", port=0, quiet=True, environment={"DATABASE_URL": "sqlite:////proc/none"})
    with pytest.raises(StackError, match="(?s)migrate ended with exit status 1.*unable to open database file"):
        stack.start()


def test_a_long_data_directory_gets_a_short_private_socket(tmp_path: Path) -> None:
    data = tmp_path / ("deep/" * 30)
    path = socket_path(data)
    assert len(os.fsencode(path)) <= SOCKET_PATH_LIMIT
    prepare(data)
    with Stack(data_dir=data, port=0, workers=1, quiet=True) as stack:
        assert status(f"{stack.url}/admin/login/") == 200
        assert path.parent.stat().st_mode & 0o777 == 0o700
    assert not path.parent.exists()


def test_the_commands_of_the_environment_are_found_without_activating_it(tmp_path: Path) -> None:
    first, _, _ = child_environment(tmp_path, {"PATH": "/usr/bin"})["PATH"].partition(":")
    assert Path(first) == Path(sys.executable).parent


@contextlib.contextmanager
def serve(data: Path) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "manage.py", "serve", "--port", "0", "--workers", "1"],
        cwd=BASE_DIR,
        env={**os.environ, "ORCHESTRATOR_DATA_DIR": str(data)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.terminate()


def until_ready(process: "subprocess.Popen[str]") -> str:
    """What it prints up to the hint how to stop it."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith("Stop:"):
            break
    return said


def test_serve_makes_an_administrator_whose_password_is_shown_once(tmp_path: Path) -> None:
    for expected in (1, 0):
        with serve(tmp_path / "data") as process:
            said = until_ready(process)
            assert len(re.findall(r"admin, password \S{12,}", said)) == expected
            url = re.search(r"http://127\.0\.0\.1:\d+/admin/", said)
            assert url is not None
            assert status(url[0]) == 200
            process.terminate()
            assert process.stdout is not None
            assert process.stdout.read() == "Stopped.\n"
        assert process.returncode == 0
