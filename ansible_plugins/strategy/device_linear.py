"""Ansible's `linear` without a fork for each host and task: about 30 ms of CPU each, the greatest part of a short task.

Ansible's own TaskExecutor runs in greenlets of the main process, so a task means what it always means: templating,
conditions, loops, `register`, `become`, results and events are Ansible's.  Only what waits for a device gives way to
other tasks (ansible_plugins/cooperation.py).  A task that could hold up the whole process by something else goes to
one of the stock's forked workers, task by task; see `_may_share`.

This uses private parts of ansible-core, so orchestrator/runner.py chooses it for the releases only that our tests
cover, and `linear` for any other (docs/decisions/0008-no-fork-per-task.md).
"""

from __future__ import annotations

import contextvars
import gc
import heapq
import itertools
import pickle
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import greenlet
from ansible import constants
from ansible._internal._task import TaskContext, UnifiedTaskResult, WireTaskResult
from ansible.errors import AnsibleError
from ansible.executor.task_executor import TaskExecutor
from ansible.executor.task_queue_manager import CallbackSend
from ansible.plugins import loader as plugins
from ansible.plugins.strategy.linear import StrategyModule as Linear

from ansible_plugins import cooperation
from ansible_plugins.own_play import OwnPlay, is_wanted

DOCUMENTATION = """
name: device_linear
short_description: linear, with the tasks of many hosts in one process
description:
  - Like linear in all that a playbook can tell, but tasks over the connection device_ssh are not given a process each.
author: the maintainers
"""

# Action plugins that block for nothing but their connection.  Modules without an action plugin run on the device.
SHARING = frozenset({
    "device_command", "device_password", "device_reboot",
    "raw", "command", "shell", "debug", "set_fact", "assert", "fail", "service", "package",
})  # fmt: skip
WITHOUT_CONNECTION = frozenset({"debug", "set_fact", "assert", "fail"})
BUILTIN = ("ansible.builtin.", "ansible.legacy.")
IDLE = 0.05  # seconds between two looks at the run as a whole while all tasks wait


class Turns:
    """The tasks of this process, each a greenlet; who waits for a thread or a moment gives way to the others."""

    def __init__(self, most: int) -> None:
        self.most, self.running, self.closed = most, 0, False
        self._main = greenlet.getcurrent()
        self._ready: deque[greenlet.greenlet] = deque()
        self._woken = threading.Event()
        self._sleeping: list[tuple[float, int, greenlet.greenlet]] = []
        self._number = itertools.count()
        self._threads = ThreadPoolExecutor(most, thread_name_prefix="device")

    def close(self) -> None:
        """End the threads.  What they still do, after an abort, is given up."""
        self.closed = True
        self._threads.shutdown(cancel_futures=True)

    def start(self, work: Callable[[], None]) -> None:
        """Begin a task, up to its first wait."""
        self.running += 1
        task = greenlet.greenlet(partial(self._run, work), self._main)
        task.gr_context = contextvars.copy_context()  # Ansible keeps in it which play this is
        task.switch()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        finally:
            self.running -= 1

    def go_on(self, patience: float) -> None:
        """Give those their turn whose wait is over; wait for the first one for so many seconds at most."""
        if self._sleeping:
            patience = max(0.0, min(patience, self._sleeping[0][0] - time.monotonic()))
        if patience and not self._ready:
            self._woken.wait(patience)
        self._woken.clear()
        while self._sleeping and self._sleeping[0][0] <= time.monotonic():
            self._ready.append(heapq.heappop(self._sleeping)[2])
        while self._ready:
            self._ready.popleft().switch()

    # ---------------------------------------------------------------- cooperation.Turns
    def concerns_caller(self) -> bool:
        """Whether the caller is one of these tasks: a thread or the strategy itself is not."""
        return greenlet.getcurrent().parent is self._main

    def offload[Answer](self, work: Callable[[], Answer]) -> Answer:
        """Do it in a thread, and let other tasks go on meanwhile."""
        return self.wait_for(self._threads.submit(contextvars.copy_context().run, work))

    def wait_for[Answer](self, future: Future[Answer]) -> Answer:
        """Let other tasks go on until the answer is there."""
        task = greenlet.getcurrent()

        def wake(_: Future[Answer]) -> None:
            self._ready.append(task)
            self._woken.set()

        future.add_done_callback(wake)
        self._main.switch()
        return future.result()

    def pause(self, seconds: float) -> None:
        """Let other tasks go on for at least so long."""
        heapq.heappush(self._sleeping, (time.monotonic() + seconds, next(self._number), greenlet.getcurrent()))
        self._main.switch()


class Callbacks:
    """What TaskExecutor calls its queue: events of single loop items, in the form that a worker would send."""

    def __init__(self, strategy: StrategyModule) -> None:
        self._strategy = strategy

    def send_callback(self, method_name: str, host: Any, task: Any, utr: Any) -> None:
        """Send it as the stock's results thread does."""
        sent = _by_wire(
            CallbackSend(method_name=method_name, wire_task_result=WireTaskResult.create(host=host, task=task, utr=utr))
        )
        result = self._strategy._convert_wire_task_result_to_host_task_result(sent.wire_task_result)
        self._strategy._tqm.send_callback(sent.method_name, result)


class StrategyModule(Linear):  # type: ignore[misc]  # Ansible has no types
    """Linear, but for how a task is carried out."""

    def __init__(self, tqm: Any) -> None:
        super().__init__(tqm)
        self._turns = Turns(len(self._workers))
        self._callbacks = Callbacks(self)
        self._shared: dict[str, bool] = {}  # uuid of a task → whether it may share the process
        cooperation.install(self._turns)
        gc.freeze()  # what was loaded since callback/silent.py did so

    def cleanup(self) -> None:
        """Also when the play was aborted."""
        self._turns.close()
        cooperation.install(None)
        super().cleanup()

    def run(self, iterator: Any, play_context: Any) -> int:
        """The whole play: in a shorter way if it is one of ours."""
        if not is_wanted():
            return int(super().run(iterator, play_context))
        self._set_hosts_cache(iterator._play)
        try:
            own = OwnPlay(self, iterator._play, play_context)
        except AnsibleError:
            return int(super().run(iterator, play_context))
        own.run(self._start)
        while self._turns.running and not self._tqm._terminated:
            self._turns.go_on(IDLE)
        if own.unreachable:
            return int(self._tqm.RUN_UNREACHABLE_HOSTS)
        return int(self._tqm.RUN_FAILED_HOSTS if own.failed else self._tqm.RUN_OK)

    def _start(self, announce: Callable[[], None], work: Callable[[], None]) -> bool:
        """Begin a task when there is room for it, after it was announced.  False: the run is over."""
        while self._turns.running >= self._turns.most and not self._tqm._terminated:
            self._turns.go_on(IDLE)
        if self._tqm._terminated:
            return False
        announce()
        self._turns.start(work)
        self._turns.go_on(0)
        return True

    def _queue_task(self, host: Any, task: Any, task_vars: dict[str, Any], play_context: Any) -> None:
        if not self._may_share(task, task_vars):
            super()._queue_task(host, task, task_vars, play_context)
            return
        queued = {"host": host, "task": task, "task_vars": task_vars, "play_context": play_context}
        self._queued_task_cache[host.name, task._uuid] = queued
        self._pending_results += 1
        announce = partial(self._tqm.send_callback, "v2_runner_on_start", host, task)
        self._start(announce, partial(self._carry_out, **queued))

    def _wait_on_pending_results(self, iterator: Any) -> list[Any]:
        results: list[Any] = []
        while self._pending_results > 0 and not self._tqm._terminated:
            if self._tqm.has_dead_workers():
                raise AnsibleError("A worker was found in a dead state")
            forked = any(worker and worker.is_alive() for worker in self._workers)
            self._turns.go_on(constants.DEFAULT_INTERNAL_POLL_INTERVAL if forked else IDLE)
            results.extend(self._process_pending_results(iterator))
        return results

    def _carry_out(self, host: Any, task: Any, task_vars: dict[str, Any], play_context: Any) -> None:
        """What ansible.executor.process.worker.WorkerProcess does, its serialization included."""
        own = task.copy(exclude_parent=True, exclude_tasks=True)
        own._parent = task._parent
        own.timeout = 0  # for all tasks alike, see _waits: an alarm would be the whole process's
        with TaskContext.create(task=own, task_vars=task_vars, host_name=host.name):
            try:
                own.squash()
                namespace = plugins.get_plugin_loader_namespace()
                executor = TaskExecutor(
                    host, play_context, self._loader, namespace, self._callbacks, self._variable_manager
                )
                utr = executor.run()
                utr.finalize_registered_values()
                own.ignore_errors, own.ignore_unreachable = utr.ignore_errors, utr.ignore_unreachable
                sent = _by_wire(WireTaskResult.create(host=host, task=own, utr=utr))
            except Exception as error:  # noqa: BLE001  # the worker's own answer to a result that can't be sent
                utr = UnifiedTaskResult.create_from_action_exception(error)
                utr.finalize_registered_values()
                sent = WireTaskResult.create(host=host, task=own, utr=utr)
        result = self._convert_wire_task_result_to_host_task_result(sent)
        with self._results_lock:
            self._results.append(result)

    # ---------------------------------------------------------------- which tasks
    def _may_share(self, task: Any, task_vars: dict[str, Any]) -> bool:
        """Whether nothing of the task can block but its connection to the device."""
        if task._uuid not in self._shared:
            self._shared[task._uuid] = self._action_may_share(task) and not _waits(task)
        if not self._shared[task._uuid] or self._step or self.debugger_active:
            return False
        if _short(task.action) in WITHOUT_CONNECTION:
            return True
        return bool((task_vars.get("ansible_connection") or task.connection) == "device_ssh")

    def _action_may_share(self, task: Any) -> bool:
        name = _short(task.action)
        if name in SHARING:
            return True
        if task.action in constants._ACTION_META or name.split("_", 1)[0] in constants.NETWORK_GROUP_MODULES:
            return False
        if plugins.action_loader.has_plugin(task.action, collection_list=task.collections):
            return False
        return bool(plugins.module_loader.has_plugin(task.action, collection_list=task.collections))


def _short(action: Any) -> str:
    name = str(action)
    for prefix in BUILTIN:
        name = name.removeprefix(prefix)
    return name


def _waits(task: Any) -> bool:
    """Keywords that make TaskExecutor itself wait, set an alarm, or work on another connection.

    A timeout that was set for all tasks alike needs no alarm here: what they wait for is their connection, and that
    ends each command by itself (its option execution_timeout).
    """
    pause = task.loop_control and task.loop_control.pause
    return bool(
        task.async_val or task.until or task.retries or task.timeout != constants.TASK_TIMEOUT or task.delegate_to
        or task.throttle or task.debugger or pause
    )  # fmt: skip


def _by_wire[Message](message: Message) -> Message:
    """As it would come from a worker: what Ansible's serialization changes or refuses, it changes and refuses here."""
    copied: Message = pickle.loads(pickle.dumps(message))  # noqa: S301  # our own
    return copied
