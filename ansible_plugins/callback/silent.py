"""A stdout callback that prints nothing: the service reads events.  Spares the printing of each failed result."""

from __future__ import annotations

from ansible.plugins.callback import CallbackBase

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
    """All of CallbackBase, which does nothing."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "silent"
