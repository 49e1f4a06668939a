"""The rights of access.py as DRF asks for them."""

from typing import Any, cast

from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from orchestrator.access import Access, Right
from orchestrator.models import Organization, User


def access_of(request: Request) -> Access:
    """What the user of this request may do, read once for the request."""
    known: Access | None = getattr(request, "_orchestrator_access", None)
    if known is None:
        known = Access.of(request.user)
        request._orchestrator_access = known  # type: ignore[attr-defined]
    return known


def actor(request: Request) -> User:
    """Who asks; for views that let nobody in anonymously."""
    return cast("User", request.user)


class RolePermission(BasePermission):
    """Reading needs *view*; writing needs the view's ``write_right``.

    For an address with an id, the row decides: one of another organization is never found (404), so what is missing
    for one that is found is a right (403).  Without an id, the right must be held somewhere.
    """

    message = "Your role does not allow this."

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Whether the user could do this anywhere at all."""
        if not request.user.is_authenticated:
            return False
        if request.method in SAFE_METHODS or "pk" in view.kwargs or not _offers(view, request.method):
            return True
        return self.may_create(access_of(request), view)

    def may_create(self, access: Access, view: APIView) -> bool:
        """Whether there may be a row that the user could make."""
        return access.can_anywhere(_write_right(view))

    def has_object_permission(self, request: Request, view: APIView, obj: Any) -> bool:
        """Whether the user may do it to this row."""
        if request.method in SAFE_METHODS:
            return True
        owner = obj.pk if isinstance(obj, Organization) else obj.organization_id
        return access_of(request).can(_write_right(view), owner)


class OrganizationPermission(RolePermission):
    """Organizations are made and deleted by superusers; their administrators may change them."""

    def may_create(self, access: Access, view: APIView) -> bool:
        """Only superusers."""
        return access.everything

    def has_object_permission(self, request: Request, view: APIView, obj: Any) -> bool:
        """As said."""
        if request.method == "DELETE":
            return access_of(request).everything
        return super().has_object_permission(request, view, obj)


def _offers(view: APIView, method: str | None) -> bool:
    """Whether the address has this method at all; if not, 405 is the answer, whatever the rights."""
    return hasattr(view, (method or "").lower())


def _write_right(view: APIView) -> Right:
    right: Right = getattr(view, "write_right", Right.MANAGE)
    return right
