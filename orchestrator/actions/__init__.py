"""What people do: preview, launch, cancel, delete, enrol.  The only writers outside a run.

Each is one durable transaction, and what leaves the process happens on commit.
"""

from orchestrator.actions.control import cancel, pause, resume
from orchestrator.actions.deletion import busy_organizations, delete, delete_organization
from orchestrator.actions.enrolment import enrol
from orchestrator.actions.launching import LaunchRequest, launch, launched, preview, retry

__all__ = (
    "LaunchRequest",
    "busy_organizations",
    "cancel",
    "delete",
    "delete_organization",
    "enrol",
    "launch",
    "launched",
    "pause",
    "preview",
    "resume",
    "retry",
)
