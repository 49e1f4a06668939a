"""What people do: preview, launch, cancel, delete, enrol.  The only writers outside a run.

Each is one durable transaction, and what leaves the process happens on commit.
"""

from orchestrator.actions.control import cancel, pause, resume
from orchestrator.actions.deletion import busy_organizations, delete, delete_organization
from orchestrator.actions.enrolment import (
    Enrolment,
    accept_shown,
    compare_known_hosts,
    enrol,
    enrol_all,
    import_known_hosts,
)
from orchestrator.actions.importing import Change, ImportReport, Missing, import_devices
from orchestrator.actions.launching import LaunchRequest, launch, launched, preview, retry
from orchestrator.actions.tokens import TokenRequest, create_token, revoke_token

__all__ = (
    "Change",
    "Enrolment",
    "ImportReport",
    "LaunchRequest",
    "Missing",
    "TokenRequest",
    "accept_shown",
    "busy_organizations",
    "cancel",
    "compare_known_hosts",
    "create_token",
    "delete",
    "delete_organization",
    "enrol",
    "enrol_all",
    "import_devices",
    "import_known_hosts",
    "launch",
    "launched",
    "pause",
    "preview",
    "resume",
    "retry",
    "revoke_token",
)
