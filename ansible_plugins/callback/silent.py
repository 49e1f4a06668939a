"""A stdout callback that prints nothing, and writes down which hosts were started, before they are.

The service reads events, so nothing need be printed; this spares the printing of each failed result.

A host's task is started only after the host's file in the run directory's `waiting` was moved to `begun`, by Ansible's
main process, which calls this before it starts a worker for the task.  Whoever takes a dead run over renames `waiting`:
if we are alive after all, we then find no file, and end instead of contacting a device.  A single host that the service
has withdrawn has no file either, but one in `stopped`: the connection plugin refuses it.
"""

from __future__ import annotations

import contextlib
import gc
import os
from typing import Any

from ansible.plugins.callback import CallbackBase

from ansible_plugins.run_state import MATCHED, STOPPED, WAITING, begin, end, has, path

DOCUMENTATION = """
name: silent
type: stdout
short_description: Prints nothing
description:
  - ansible-runner's own callback builds on the one that is configured, and passes results on as events.
  - The default one prints a failed task's whole output once more, for nobody.
extends_documentation_fragment: [default_callback]
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]  # Ansible has no types
    """CallbackBase does nothing at all else."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "silent"

    def v2_playbook_on_start(self, playbook: Any) -> None:
        gc.freeze()  # what was loaded stays, so that to look at all of it every now and then finds nothing
        gc.enable()  # see ansible_plugins/ansible-playbook
        for play in playbook.get_plays():
            self._note_hosts(play)

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._note_hosts(play)

    def _note_hosts(self, play: Any) -> None:
        """Write down which hosts the play is for, whether or not it will come to them: a line for each."""
        file, pattern = path(MATCHED).rstrip("/"), play.hosts
        if not file or "{{" in str(pattern):  # one that is not known before its play starts
            return
        inventory = play.get_variable_manager()._inventory
        names = {host.name for host in inventory.get_hosts(pattern, ignore_restrictions=True)}
        known = self.__dict__.setdefault("_matched", set())
        with contextlib.suppress(OSError), open(file, "a", encoding="utf-8") as lines:
            lines.writelines(f"{name}\n" for name in names - known)
        known |= names

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        waiting = path(WAITING)
        if not waiting:  # a playbook that is run by hand
            return
        try:
            self._start(waiting, host.name, alone=not (task.run_once or task.delegate_to))
        except OSError:  # the run was taken from us, with all that waited
            end()

    def _start(self, waiting: str, host: str, *, alone: bool) -> None:
        """Move the host's file, once.  A task that may concern any device of the run starts all of them."""
        started = self.__dict__.setdefault("_started", set())
        if host in started and alone:
            return
        known = set(os.listdir(waiting))
        if host in known and alone:
            begin(host)
        elif not (alone and has(STOPPED, host)):
            for name in known:
                begin(name)
        started.add(host)
