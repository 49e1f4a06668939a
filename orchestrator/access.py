"""Who may see and do what: the one place.

A superuser may do everything.  For the others, each organization gives one role: an *administrator* may do
everything in it, an *operator* may view, preview, run, cancel and retry, a *viewer* may only read.  What belongs
to no organization (a run over several of them) is for superusers alone.
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
    RUN = "run"
    MANAGE = "manage"


RIGHTS: Final = {
    Role.ADMINISTRATOR: frozenset(Right),
    Role.OPERATOR: frozenset({Right.VIEW, Right.RUN}),
    Role.VIEWER: frozenset({Right.VIEW}),
}


@dataclass(frozen=True, slots=True)
class Access:
    """The rights of one user, read once per request: never kept longer, so that a revoked right ends at once."""

    everything: bool = False
    roles: dict[uuid.UUID, Role] = field(default_factory=dict)

    @classmethod
    def of(cls, user: Any) -> Self:
        """The rights of this user; an anonymous or inactive one has none."""
        if not getattr(user, "is_active", False) or not getattr(user, "pk", None):
            return cls()
        if user.is_superuser:
            return cls(everything=True)
        pairs = user.memberships.values_list("organization_id", "role")
        return cls(roles={organization: Role(role) for organization, role in pairs})

    def can(self, right: Right, organization_id: uuid.UUID | None) -> bool:
        """Whether the user has this right in the organization; ``None`` stands for the whole system."""
        if self.everything:
            return True
        if organization_id is None or organization_id not in self.roles:
            return False
        return right in RIGHTS[self.roles[organization_id]]

    def can_anywhere(self, right: Right) -> bool:
        """Whether there is any organization in which the user has this right."""
        return self.everything or any(right in RIGHTS[role] for role in self.roles.values())

    def organizations(self, right: Right = Right.VIEW) -> frozenset[uuid.UUID]:
        """The ids of the organizations in which the right is held by a membership."""
        return frozenset(org for org, role in self.roles.items() if right in RIGHTS[role])

    def visible[M: models.Model](
        self, rows: models.QuerySet[M], *, organization: str = "organization"
    ) -> models.QuerySet[M]:
        """The rows that exist for this user; ``organization`` is the lookup that leads to their organization."""
        if self.everything:
            return rows
        return rows.filter(**{f"{organization}__in": self.organizations()})
