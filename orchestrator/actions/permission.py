"""Who may steer a run."""

from orchestrator.access import Access, Right
from orchestrator.exceptions import NotPermittedError
from orchestrator.models import MassCommand, User


def permit_control(actor: User, run: MassCommand) -> None:
    """Whether the user may steer this run.

    Raises:
        NotPermittedError: the user may not run commands in its organization.
    """
    if not Access.of(actor).can(Right.RUN, run.organization_id):
        raise NotPermittedError
