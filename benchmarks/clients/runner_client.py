"""ansible-runner alone: what drives ansible-playbook with its events, and stores nothing."""

import sys
import tempfile
from typing import Any

import ansible_runner


def handle(event: dict[str, Any]) -> bool:
    """Tell a device's success; no event is kept in a file."""
    if event["event"] == "runner_on_ok":
        print("ok", event["event_data"]["host"], flush=True)
    return False


with tempfile.TemporaryDirectory() as folder:
    ansible_runner.run(
        private_data_dir=folder, inventory=sys.argv[1], playbook=sys.argv[2], forks=int(sys.argv[3]), quiet=True,
        event_handler=handle,
    )  # fmt: skip
