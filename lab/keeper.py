"""Starting a lab: its lock, images and addresses, and the process that keeps it."""

import fcntl
import os
import select
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from lab import image
from lab.exceptions import LabError
from lab.fleet import Front, Plan
from lab.namespaces import contained, owner_id
from lab.supervisor import READY, Start, run

LOG_TAIL = 2_000  # characters of the log to show when a start failed


def up_in_background(plan: Plan) -> None:
    """Start a lab that stays until `down`; return once all its devices are up.

    Raises:
        LabError: it did not start.
    """
    start, ready = _prepare(plan)
    if os.fork() == 0:
        _keep(start)
    os.close(start.ready)
    _await_ready(ready, plan.directory)


def up_in_foreground(plan: Plan, on_ready: Callable[[], None], die_with: int | None = None) -> int:
    """Start a lab that goes with this process, and with the process `die_with`; stay until its end.

    `on_ready` is called once all devices are up.

    Raises:
        LabError: it did not start.
    """
    # A pidfd and not PR_SET_PDEATHSIG: that one fires when the parent's *thread* ends.
    watched = None if die_with is None else os.pidfd_open(die_with)
    if die_with is not None and os.getppid() != die_with:
        raise LabError("the process that started the lab is gone")
    start, ready = _prepare(plan)
    supervisor = _supervise(start)
    os.close(start.ready)
    _await_ready(ready, plan.directory)
    on_ready()
    ended = os.pidfd_open(supervisor)
    descriptors = [ended] if watched is None else [ended, watched]
    readable, _, _ = select.select(descriptors, [], [])
    if ended not in readable:
        return 1  # our end is the lab's end
    return os.waitstatus_to_exitcode(os.waitpid(supervisor, 0)[1])


def await_end(directory: Path) -> None:
    """Wait until the last process of the lab is gone."""
    with (directory / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


def _prepare(plan: Plan) -> tuple[Start, int]:
    """Do what must be done outside of the lab; return also the reading end of the pipe for READY."""
    plan.directory.mkdir(parents=True, exist_ok=True)
    _lock(plan.directory)  # shared with all processes of the lab: the kernel keeps it until the last is gone
    images = image.ensure(plan.counts(), plan.images)
    front = Front.open(plan)
    if os.geteuid() == 0:
        os.chown(plan.directory, owner_id(), owner_id())
    shutil.rmtree(plan.directory / "devices", ignore_errors=True)
    ready, writer = os.pipe()
    log = os.open(plan.directory / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    started = replace(plan, port=front.port)
    return Start(plan=started, images=images, front=front, ready=writer, log=log), ready


def _lock(directory: Path) -> int:
    """Take the lab's lock, or raise LabError: a lab is up already."""
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise LabError(f"a lab is already up in {directory}") from None
    return lock


def _supervise(start: Start) -> int:
    """Start the supervisor; return the PID of a process that ends with it."""
    folders = {"lab": start.plan.directory, "images": start.plan.images}
    sys.stdout.flush()
    return contained(lambda: run(start), folders)


def _await_ready(ready: int, directory: Path) -> None:
    with open(ready, "rb") as pipe:
        if pipe.read(1) == READY:
            return
    raise LabError("the lab did not start: " + (directory / "log").read_text()[-LOG_TAIL:].strip())


def _keep(start: Start) -> NoReturn:
    """In the child: be the process that keeps a lab in the background, and end as its supervisor does."""
    status = 1
    try:
        os.setsid()
        for target in (0, 1, 2):  # whoever reads our output must not wait for the lab's end
            os.dup2(start.log, target)
        status = 0 if os.waitpid(_supervise(start), 0)[1] == 0 else 1
    finally:
        os._exit(status)
