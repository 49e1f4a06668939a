"""The rights of access.py as DRF asks for them."""

from typing import Any

from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from orchestrator.access import Access, Right
from orchestrator.models import Organization


class RolePermission(BasePermission):
    """Reading needs *view*; writing needs the view's ``write_right``: somewhere at first, then for the row.

    Rows of other organizations are never found in the first place, so what is missing here is a right: 403.
    """

    message = "Your role does not allow this."

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Whether the user could do this anywhere at all."""
        if not request.user.is_authenticated:
            return False
        return request.method in SAFE_METHODS or Access.of(request.user).can_anywhere(_write_right(view))

    def has_object_permission(self, request: Request, view: APIView, obj: Any) -> bool:
        """Whether the user may do it to this row."""
        if request.method in SAFE_METHODS:
            return True
        owner = obj.pk if isinstance(obj, Organization) else obj.organization_id
        return Access.of(request.user).can(_write_right(view), owner)


class OrganizationPermission(RolePermission):
    """Organizations are made and deleted by superusers; their administrators may change them."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """As said."""
        if request.method in {"POST", "DELETE"} and request.user.is_authenticated:
            return Access.of(request.user).everything
        return super().has_permission(request, view)


def _write_right(view: APIView) -> Right:
    right: Right = getattr(view, "write_right", Right.MANAGE)
    return right
