"""ansible-runner's stdout callback without an event for each start: half of what events cost for a play of one task.

The service sees what was started in the run directory's `begun`, which callback/silent.py, the base of runner's own,
fills.
"""

from __future__ import annotations

from typing import Any

from ansible.plugins.loader import callback_loader

DOCUMENTATION = """
name: results_only
type: stdout
short_description: The events of ansible-runner, but for those of starts
description:
  - For playbooks of one task, of which the service needs the results.
extends_documentation_fragment: [default_callback]
"""

Events: Any = callback_loader.get("awx_display", class_only=True)


class CallbackModule(Events):  # type: ignore[misc]  # Ansible has no types
    """Those of runner."""

    CALLBACK_NAME = "results_only"

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        super(Events, self).v2_runner_on_start(host, task)
