"""The fleet as CRUD, and enrolment."""

from typing import Any

from django.db import IntegrityError, transaction
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers, status, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from orchestrator import actions, audit
from orchestrator.api import filters
from orchestrator.api.fleet_serializers import (
    CredentialSerializer,
    DeviceGroupSerializer,
    DeviceSerializer,
    LocationSerializer,
    OrganizationSerializer,
)
from orchestrator.api.host_key_serializers import HostKeySerializer
from orchestrator.api.permissions import OrganizationPermission, RolePermission, access_of, actor
from orchestrator.api.run_serializers import ErrorSerializer
from orchestrator.models import Credential, Device, DeviceGroup, Location, Organization, User

UUID_PATTERN = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"


class FleetViewSet(viewsets.ModelViewSet[Any]):
    """List, create, read, update and delete rows that exist for the user."""

    lookup_value_regex = UUID_PATTERN
    permission_classes = (RolePermission,)
    organization_lookup = "organization"

    def get_queryset(self) -> Any:
        """Rows of the user's organizations."""
        rows = super().get_queryset()
        return access_of(self.request).visible(rows, organization=self.organization_lookup)

    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Make one; a parameter would be a misunderstanding."""
        filters.refuse_parameters(request)
        return super().create(request, *args, **kwargs)

    def perform_create(self, serializer: serializers.BaseSerializer[Any]) -> None:
        """Save; two that race for one name are told so."""
        save_named(serializer, by=actor(self.request))

    def perform_update(self, serializer: serializers.BaseSerializer[Any]) -> None:
        """Save; two that race for one name are told so."""
        save_named(serializer, by=actor(self.request))

    def perform_destroy(self, instance: Any) -> None:
        """Delete."""
        delete_named(instance, by=actor(self.request))


def save_named(serializer: serializers.BaseSerializer[Any], field: str = "name", *, by: User) -> None:
    """Save, and write down who did and what has changed.

    Raises:
        ValidationError: somebody else has taken the name since it was looked at.
    """
    before = None if serializer.instance is None else audit.snapshot(serializer.instance)
    try:
        with transaction.atomic():
            row = serializer.save()
            if before is None:
                audit.created(row, actor=by)
            else:
                audit.changed(row, actor=by, before=before)
    except IntegrityError as error:
        raise ValidationError({field: ["Another one of this name was made at the same moment."]}) from error


def delete_named(row: Any, *, by: User) -> None:
    """Delete, and write down who did."""
    with transaction.atomic():
        audit.deleted(row, actor=by)
        row.delete()


class OrganizationViewSet(FleetViewSet):
    """Organizations."""

    queryset = Organization.objects.all()
    serializer_class = OrganizationSerializer
    filterset_class = filters.NamedFilter
    permission_classes = (OrganizationPermission,)
    organization_lookup = "pk"

    @extend_schema(responses={204: None, 409: OpenApiResponse(ErrorSerializer, description="A run goes on there.")})
    def destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Delete an organization with its fleet, its runs and their results."""
        actions.delete_organization(actor=actor(request), organization=self.get_object())
        return Response(status=status.HTTP_204_NO_CONTENT)


class LocationViewSet(FleetViewSet):
    """Locations."""

    queryset = Location.objects.all()
    serializer_class = LocationSerializer
    filterset_class = filters.OwnedFilter


class DeviceGroupViewSet(FleetViewSet):
    """Device groups."""

    queryset = DeviceGroup.objects.all()
    serializer_class = DeviceGroupSerializer
    filterset_class = filters.OwnedFilter


class CredentialViewSet(FleetViewSet):
    """Credentials; their secrets can't be read."""

    queryset = Credential.objects.all()
    serializer_class = CredentialSerializer
    filterset_class = filters.CredentialFilter


class DeviceViewSet(FleetViewSet):
    """Devices."""

    queryset = Device.objects.prefetch_related("device_credentials")
    serializer_class = DeviceSerializer
    filterset_class = filters.DeviceFilter

    @extend_schema(
        request=HostKeySerializer,
        responses={
            200: DeviceSerializer,
            409: OpenApiResponse(ErrorSerializer, description="It shows another key than the pinned one."),
            502: OpenApiResponse(ErrorSerializer, description="It shows no key."),
        },
        filters=False,
    )
    @action(detail=True, methods=["post"], url_path="host-key", url_name="host-key")
    def host_key(self, request: Request, pk: str) -> Response:
        """Ask the device for its SSH host key, and pin it if it is accepted.

        Without a word of acceptance its fingerprint is shown, to be compared with the device's own.
        """
        device = self.get_object()
        given = HostKeySerializer(data=request.data)
        given.is_valid(raise_exception=True)
        device = actions.enrol(actor=actor(request), device=device, **given.validated_data)
        return Response(self.get_serializer(device).data)
