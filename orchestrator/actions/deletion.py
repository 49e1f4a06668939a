"""Delete runs and organizations."""

from collections.abc import Iterable

from django.db import transaction
from django.db.models import Exists, OuterRef

from orchestrator import audit
from orchestrator.access import Access, Right
from orchestrator.exceptions import NotPermittedError, StillActiveError
from orchestrator.models import AuditAction, Command, MassCommand, Organization, User
from orchestrator.states import RUN_FINISHED


def delete(*, actor: User, run: MassCommand) -> None:
    """Delete a finished run; the rows stay as their devices' history, and keep what was run.

    Raises:
        NotPermittedError: the user is no administrator of its organization.
        StillActiveError: the run has not ended.
    """
    if not Access.of(actor).can(Right.MANAGE, run.organization_id):
        raise NotPermittedError("Only administrators of its organization may delete a mass command.")
    with transaction.atomic(durable=True):
        locked = MassCommand.objects.select_for_update().filter(pk=run.pk).first()
        if locked is None:
            return
        if locked.status not in RUN_FINISHED:
            raise StillActiveError
        Command.objects.filter(mass_command=locked).update(input=locked.input, mass_command=None, slice=None)
        details = {
            "type": locked.type, "status": locked.status, "device_count": locked.device_count, "created": locked.created
        }  # fmt: skip
        audit.record(AuditAction.RUN_DELETE, actor=actor, about=locked, details=details)
        locked.delete()


def busy_organizations(organizations: Iterable[Organization]) -> list[Organization]:
    """Those in which a run goes on, be it one over several organizations."""
    runs = MassCommand.objects.active().filter(organization=OuterRef("pk"))
    rows = Command.objects.open().filter(organization=OuterRef("pk"))
    ids = [organization.pk for organization in organizations]
    return list(Organization.objects.filter(Exists(runs) | Exists(rows), pk__in=ids))


def delete_organization(*, actor: User, organization: Organization) -> None:
    """Delete an organization with all that is its own.

    Raises:
        NotPermittedError: the user is no superuser.
        StillActiveError: a run goes on there.  Its devices may be carrying it out, and in a run over several
            organizations the rest would wait for rows that are gone.
    """
    if not Access.of(actor).everything:
        raise NotPermittedError("Only superusers may delete an organization.")
    with transaction.atomic():  # within the one of an admin page; nothing leaves the process here
        # Who launches meanwhile waits for this lock, and then finds the organization gone.
        locked = Organization.objects.select_for_update().filter(pk=organization.pk).first()
        if locked is None:
            return
        if busy_organizations([locked]):
            raise StillActiveError("A mass command goes on in this organization. Wait for its end, or cancel it first.")
        audit.deleted(locked, actor=actor)
        locked.delete()
