"""A play of one of our own actions on many devices, without Ansible's TaskExecutor.

TaskExecutor works everything out for each device anew: the fields and arguments of the task, variables, the options of
the connection.  Of our own playbooks nothing of that depends on the device but how it is logged in to, so here it is
worked out once; that was two thirds of the CPU for a device.  Results go to the service as lines of a file, for
an event of ansible-runner cost as much again.  The action, the connection and the recap are those of any play.  What is
not as plain as our own playbooks are is left to TaskExecutor.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from ansible import constants
from ansible._internal._task import HostTaskResult, TaskContext, UnifiedTaskResult
from ansible._internal._templating._engine import TemplateEngine
from ansible.errors import AnsibleError
from ansible.plugins import loader as plugins

from ansible_plugins.device_action import DeviceAction
from ansible_plugins.run_state import Results, begin

PLAIN_PLAY = frozenset({"name", "hosts", "gather_facts", "tasks"})
CONNECTION = "device_ssh"
NO_OPTION = frozenset({"ansible_connection", "ansible_become_password", "orchestrator_platform"})  # of it
Start = Callable[[Callable[[], None], Callable[[], None]], bool]  # (announce, work) → False: the run is over


def is_wanted() -> bool:
    """Whether the service says that the playbook is one of its own: no variables come from anywhere but the slice."""
    return os.environ.get("ORCHESTRATOR_OWN_PLAY") == "True"


class OwnPlay:
    """The one task of a play of ours.  Raises AnsibleError when it has to be left to TaskExecutor."""

    def __init__(self, strategy: Any, play: Any, play_context: Any) -> None:
        self._tqm, self._loader = strategy._tqm, strategy._loader
        self._play_context = play_context
        self.hosts = [strategy._inventory.get_host(name) for name in strategy._hosts_cache]
        self.task = _final(_only_task(play), strategy)
        self._action = plugins.action_loader.get(self.task.action, class_only=True)
        if not issubclass(self._action or object, DeviceAction):
            raise AnsibleError("Not of our own playbooks: the action")
        self._connection = plugins.connection_loader.get(CONNECTION, play_context)
        self._connection.set_options(var_options={})
        self._options = self._options_of_variables()
        self.failed = self.unreachable = False
        self._results = Results()

    def _options_of_variables(self) -> dict[str, list[str]]:
        """Variable → the options of the connection that it sets."""
        names = {name for host in self.hosts for name in host.vars} - NO_OPTION
        found = {
            name: constants.config.get_plugin_options_from_var("connection", CONNECTION, name)
            for name in sorted(names) if not name.startswith("inventory_")
        }  # fmt: skip
        if unknown := [name for name, options in found.items() if not options]:
            raise AnsibleError(f"Not of our own playbooks: {unknown}")
        return found

    def run(self, start: Start) -> None:
        """Begin the task on each device; `start` waits for room."""
        self._tqm.send_callback("v2_playbook_on_task_start", self.task, is_conditional=False)
        for host in self.hosts:
            if not start(partial(begin, host.name), partial(self._carry_out, host)):
                return

    def _carry_out(self, host: Any) -> None:
        with TaskContext.create(task=self.task, task_vars={}, host_name=host.name):
            try:
                action = self._action(
                    task=self.task, connection=self._connect(host), play_context=self._play_context,
                    loader=self._loader, templar=None, shared_loader_obj=plugins.get_plugin_loader_namespace(),
                )  # fmt: skip
                result = action.perform(host.vars)
            except Exception as error:  # noqa: BLE001  # as TaskExecutor does
                result = {"failed": True, "msg": UnifiedTaskResult.create_from_action_exception(error).msg}
        self._tell(host, result)

    def _connect(self, host: Any) -> Any:
        """The connection plugin with the host's own options."""
        own = copy.copy(self._connection)
        own._options = self._connection._options | {
            option: value for name, value in host.vars.items() for option in self._options.get(name, ())
        }
        return own

    def _tell(self, host: Any, result: dict[str, Any]) -> None:
        """What the strategy would do with it."""
        kind, stats = "runner_on_ok", self._tqm._stats
        if result.get("failed"):
            kind, self.failed = "runner_on_failed", True
            self._tqm._failed_hosts[host.name] = True
            stats.increment("failures", host.name)
        elif result.get("unreachable"):
            kind, self.unreachable = "runner_on_unreachable", True
            self._tqm._unreachable_hosts[host.name] = True
            stats.increment("dark", host.name)
        else:
            stats.increment("ok", host.name)
            if result.get("changed"):
                stats.increment("changed", host.name)
        if not self._results.add(kind, time.time(), host.name, result):
            utr = UnifiedTaskResult.from_action_result_dict(result)
            self._tqm.send_callback(f"v2_{kind}", HostTaskResult(host=host, task=self.task, utr=utr))


def _only_task(play: Any) -> Any:
    plain = set(play._ds) == PLAIN_PLAY and not play._ds["gather_facts"]
    if not plain or len(play.tasks) != 1 or len(play.tasks[0].block) != 1:
        raise AnsibleError("Not of our own playbooks: the play")
    task = play.tasks[0].block[0]
    if set(task._ds) != {"name", task.action}:
        raise AnsibleError("Not of our own playbooks: the task")
    return task


def _final(task: Any, strategy: Any) -> Any:
    """The task as TaskExecutor would have it, from what the service gives to all devices alike."""
    own = task.copy(exclude_parent=True, exclude_tasks=True)
    own._parent = task._parent
    own.squash()
    own.post_validate(TemplateEngine(loader=strategy._loader, variables=strategy._variable_manager.extra_vars))
    return own
