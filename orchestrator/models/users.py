"""People, and what they may do in each organization."""

import uuid
from typing import TYPE_CHECKING

from django.contrib.auth.models import AbstractUser
from django.db import models

from orchestrator.access import Role

if TYPE_CHECKING:
    from orchestrator.models.tokens import Token


class User(AbstractUser):
    """A person or a script that signs in."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)

    # The token that this request came with, if any.  It travels with the user, as whatever asks for the user's rights
    # (``Access.of``) must meet its limits: one that is forgotten on the way would be a way around them.
    token: "Token | None" = None

    class Meta(AbstractUser.Meta):
        ordering = ("username",)


class Membership(models.Model):
    """The role of a user in an organization."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    organization = models.ForeignKey("orchestrator.Organization", on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=16, choices=Role)

    class Meta:
        ordering = ("organization__name", "user__username")
        constraints = (
            # access.Access reads one role per organization.
            models.UniqueConstraint(fields=("user", "organization"), name="membership_one_role_per_organization"),
        )

    def __str__(self) -> str:
        return f"{self.user} is {self.role} of {self.organization}"
