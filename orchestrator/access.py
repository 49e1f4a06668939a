"""Who may see and do what: the one place.

A superuser may do everything.  For the others, each organization gives one role: an *administrator* may do
everything in it, an *operator* may view, preview, run, cancel and retry, a *viewer* may only read.  What belongs
to no organization (a run over several of them) is for superusers alone.

A token that is limited leaves a part of its user's rights: those in one organization (a superuser is administrator
there, and no more), those to read, or both.
"""

import enum
import uuid
from dataclasses import dataclass, field
from typing import Any, Final, Self

from django.db import models


class Role(models.TextChoices):
    """What a membership allows within its organization."""

    ADMINISTRATOR = "administrator", "administrator"
    OPERATOR = "operator", "operator"
    VIEWER = "viewer", "viewer"


class Right(enum.StrEnum):
    """What a request wants to do."""

    VIEW = "view"
    VIEW_ROLES = "view_roles"
    VIEW_AUDIT = "view_audit"
    VIEW_WEBHOOKS = "view_webhooks"
    RUN = "run"
    MANAGE = "manage"


RIGHTS: Final = {
    Role.ADMINISTRATOR: frozenset(Right),
    Role.OPERATOR: frozenset({Right.VIEW, Right.RUN}),
    Role.VIEWER: frozenset({Right.VIEW}),
}


# what a read-only token leaves
READING: Final = frozenset({Right.VIEW, Right.VIEW_ROLES, Right.VIEW_AUDIT, Right.VIEW_WEBHOOKS})


@dataclass(frozen=True, slots=True)
class Access:
    """The rights of one user, read once per request: never kept longer, so that a revoked right ends at once."""

    everything: bool = False
    roles: dict[uuid.UUID, Role] = field(default_factory=dict)
    read_only: bool = False  # whatever the roles say

    @classmethod
    def of(cls, user: Any) -> Self:
        """The rights of this user within the limits of ``user.token``; an anonymous or inactive one has none."""
        if not getattr(user, "is_active", False) or not getattr(user, "pk", None):
            return cls()
        token: Any = getattr(user, "token", None)
        only, read_only = (token.organization_id, token.read_only) if token else (None, False)
        if user.is_superuser:
            held = {only: Role.ADMINISTRATOR} if only else dict[uuid.UUID, Role]()
            return cls(everything=not only, roles=held, read_only=read_only)
        # All of them: for users that were read together with their memberships this costs no query (streaming/).
        held = {row.organization_id: Role(row.role) for row in user.memberships.all()}
        return cls(roles={pk: role for pk, role in held.items() if only in (None, pk)}, read_only=read_only)

    @classmethod
    def now(cls, user: Any) -> Self:
        """The same as it stands in the database by now: for what goes on long after its request was let in.

        A user that was deleted or deactivated has no rights left, nor has a token that was revoked or has expired.
        """
        current = user.__class__._default_manager.filter(pk=user.pk).first()
        token: Any = getattr(user, "token", None)
        if current is None or token is None:
            return cls.of(current)
        current.token = type(token).objects.valid().filter(pk=token.pk).first()
        return cls.of(current) if current.token else cls()

    def can(self, right: Right, organization_id: uuid.UUID | None) -> bool:
        """Whether the user has this right in the organization; ``None`` stands for the whole system."""
        if self.read_only and right not in READING:
            return False
        if self.everything:
            return True
        if organization_id is None or organization_id not in self.roles:
            return False
        return right in RIGHTS[self.roles[organization_id]]

    def can_anywhere(self, right: Right) -> bool:
        """Whether there is any organization in which the user has this right."""
        if self.everything:
            return right in READING or not self.read_only
        return any(self.can(right, organization) for organization in self.roles)

    def organizations(self, right: Right = Right.VIEW) -> frozenset[uuid.UUID]:
        """The ids of the organizations in which the right is held by a membership."""
        return frozenset(organization for organization in self.roles if self.can(right, organization))

    def spans_several(self, right: Right = Right.VIEW) -> bool:
        """Whether the right is held in more than one organization, so that rows have to be told apart by theirs."""
        return self.everything or len(self.organizations(right)) > 1

    def visible[M: models.Model](
        self, rows: models.QuerySet[M], *, organization: str = "organization", right: Right = Right.VIEW
    ) -> models.QuerySet[M]:
        """The rows for which the user has the right; ``organization`` is the lookup that leads to their organization.

        Those to view are the ones that exist for the user.
        """
        if self.everything:
            return rows
        return rows.filter(**{f"{organization}__in": self.organizations(right)})
