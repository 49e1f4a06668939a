"""People and their roles: users for superusers, memberships for administrators too, and who one is."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers, viewsets
from rest_framework.permissions import SAFE_METHODS, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from orchestrator.access import Access, Right
from orchestrator.api import filters
from orchestrator.api.fleet_views import UUID_PATTERN, delete_named, save_named
from orchestrator.api.membership_serializers import MembershipSerializer, MeSerializer, UserSerializer
from orchestrator.api.permissions import RolePermission, access_of, actor
from orchestrator.exceptions import NotPermittedError
from orchestrator.models import Membership, User


class PeoplePermission(RolePermission):
    """Not everybody may even look at the list; single rows don't exist for anybody else."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Whether the user could do this anywhere at all."""
        if not request.user.is_authenticated:
            return False
        if "pk" in view.kwargs:
            return True
        access = access_of(request)
        return self.may_list(access) if request.method in SAFE_METHODS else self.may_create(access, view)

    def may_list(self, access: Access) -> bool:
        """Whether there may be a row that the user could see."""
        return access.can_anywhere(Right.VIEW_ROLES)

    def has_object_permission(self, request: Request, view: APIView, obj: Any) -> bool:
        """The view shows only those that may be changed."""
        return True


class UsersPermission(PeoplePermission):
    """Users are the superusers' business."""

    def may_list(self, access: Access) -> bool:
        """Only superusers."""
        return access.everything

    def may_create(self, access: Access, view: APIView) -> bool:
        """Only superusers."""
        return access.everything


class UserViewSet(viewsets.ModelViewSet[User]):
    """Users, for superusers."""

    queryset = User.objects.all()
    serializer_class = UserSerializer
    filterset_class = filters.UserFilter
    lookup_value_regex = UUID_PATTERN
    permission_classes = (UsersPermission,)

    def get_queryset(self) -> Any:
        """All of them, or none."""
        rows = super().get_queryset()
        return rows if access_of(self.request).everything else rows.none()

    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Make one."""
        filters.refuse_parameters(request)
        return super().create(request, *args, **kwargs)

    def perform_create(self, serializer: serializers.BaseSerializer[Any]) -> None:
        """Save; two that race for one name are told so."""
        save_named(serializer, "username", by=actor(self.request))

    def perform_update(self, serializer: serializers.BaseSerializer[Any]) -> None:
        """Save; two that race for one name are told so."""
        save_named(serializer, "username", by=actor(self.request))

    def perform_destroy(self, instance: User) -> None:
        """Delete; what the user started stays.

        Raises:
            NotPermittedError: it is oneself.
        """
        if instance == actor(self.request):
            raise NotPermittedError("Nobody deletes themselves.")
        delete_named(instance, by=actor(self.request))


class MeView(APIView):
    """Who asks."""

    permission_classes = (IsAuthenticated,)

    @extend_schema(responses={200: MeSerializer})
    def get(self, request: Request) -> Response:
        """The user of this request, with the roles that count now."""
        filters.refuse_parameters(request)
        return Response(MeSerializer(actor(request), context={"request": request}).data)


class MembershipViewSet(viewsets.ModelViewSet[Membership]):
    """Who has which role where, for the administrators of each organization."""

    queryset = Membership.objects.select_related("user", "organization").order_by(
        "organization__name", "user__username", "pk"
    )
    serializer_class = MembershipSerializer
    filterset_class = filters.MembershipFilter
    lookup_value_regex = UUID_PATTERN
    permission_classes = (PeoplePermission,)

    def get_queryset(self) -> Any:
        """Those of the organizations of which the user is administrator."""
        return access_of(self.request).visible(super().get_queryset(), right=Right.VIEW_ROLES)

    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Make one."""
        filters.refuse_parameters(request)
        return super().create(request, *args, **kwargs)

    def perform_create(self, serializer: serializers.BaseSerializer[Any]) -> None:
        """Save; two that race for one user are told so."""
        save_named(serializer, "user", by=actor(self.request))

    def perform_update(self, serializer: serializers.BaseSerializer[Any]) -> None:
        """Save another role."""
        save_named(serializer, "user", by=actor(self.request))

    def perform_destroy(self, instance: Membership) -> None:
        """Take the role away."""
        delete_named(instance, by=actor(self.request))
