"""What a task may wait for without holding up the tasks of other hosts in the same process.

Under the strategy `device_linear` a task is a greenlet of Ansible's main process: what blocks is done by a thread, and
meanwhile the other tasks go on.  Anywhere else, a forked worker included, these functions just do it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol


class Turns(Protocol):
    """Who gives the tasks of this process their turns."""

    closed: bool  # the play is over; what still goes on is to be given up

    def offload[Answer](self, work: Callable[[], Answer]) -> Answer:
        """Do it in a thread, and let other tasks go on meanwhile."""

    def wait_for[Answer](self, future: Future[Answer]) -> Answer:
        """Let other tasks go on until the answer is there."""

    def pause(self, seconds: float) -> None:
        """Let other tasks go on for at least so long."""

    def concerns_caller(self) -> bool:
        """Whether the caller is one of these tasks."""


_turns: tuple[int, Turns] | None = None  # of which process, for a fork takes it along


def install(turns: Turns | None) -> None:
    """From now on tasks of this process are given their turns so."""
    global _turns  # noqa: PLW0603  # one a process, as Ansible's strategy is
    _turns = (os.getpid(), turns) if turns else None


def _own() -> Turns | None:
    if _turns is None or _turns[0] != os.getpid() or not _turns[1].concerns_caller():
        return None
    return _turns[1]


def aborted() -> bool:
    """Whether the play was aborted under the work that a thread does.  To be asked by that work."""
    return _turns is not None and _turns[0] == os.getpid() and _turns[1].closed


def offload[Answer](work: Callable[[], Answer]) -> Answer:
    """Do what may block, and touches nothing of Ansible that its threads don't share safely."""
    turns = _own()
    return turns.offload(work) if turns else work()


def shares() -> bool:
    """Whether the caller is a task beside others in one process."""
    return _own() is not None


def wait_for[Answer](future: Future[Answer]) -> Answer:
    """The answer of something that a thread does already."""
    turns = _own()
    return turns.wait_for(future) if turns else future.result()


def sleep(seconds: float) -> None:
    """Wait, in seconds."""
    turns = _own()
    if turns:
        turns.pause(seconds)
    else:
        time.sleep(seconds)
