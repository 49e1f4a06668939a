"""Enrolment of many devices: asked at the same time, or from a known_hosts file."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from orchestrator import actions
from orchestrator.api.filters import refuse_parameters
from orchestrator.api.host_key_serializers import (
    EnrolmentsSerializer,
    HostKeysSerializer,
    KnownHostsImportSerializer,
    KnownHostsSerializer,
)
from orchestrator.api.inventory_views import KnownHostsView
from orchestrator.api.permissions import RolePermission, access_of, actor
from orchestrator.exceptions import InvalidFieldError
from orchestrator.models import Device


class HostKeysView(APIView):
    """Host keys of several devices."""

    permission_classes = (RolePermission,)

    @extend_schema(request=HostKeysSerializer, responses={200: EnrolmentsSerializer})
    def post(self, request: Request) -> Response:
        """Ask these devices for their SSH host keys, and pin those that are accepted."""
        refuse_parameters(request)
        given = HostKeysSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        values: dict[str, Any] = given.validated_data
        wanted = list(dict.fromkeys(values.pop("devices")))
        visible = access_of(request).visible(Device.objects.select_related("organization"))
        found = {device.pk: device for device in visible.filter(pk__in=wanted)}
        if missing := [str(pk) for pk in wanted if pk not in found]:
            raise InvalidFieldError("devices", f"There is no such device: {', '.join(missing[:5])}.")
        results = actions.enrol_all(actor=actor(request), devices=[found[pk] for pk in wanted], **values)
        return Response(EnrolmentsSerializer({"results": results}).data)


class KnownHostsFileView(KnownHostsView):
    """The pinned host keys of the fleet as a known_hosts file, out and in."""

    @extend_schema(request=KnownHostsSerializer, responses={200: KnownHostsImportSerializer})
    def post(self, request: Request) -> Response:
        """Pin the keys that a known_hosts file has for the devices of an organization.

        Names in the open and hashed ones are understood; patterns, revoked keys and certificate authorities are not,
        and are told.
        """
        refuse_parameters(request)
        given = KnownHostsSerializer(data=request.data, context={"request": request})
        given.is_valid(raise_exception=True)
        values: dict[str, Any] = given.validated_data
        text = values.pop("known_hosts")
        results, ignored = actions.import_known_hosts(actor=actor(request), text=text, **values)
        return Response(KnownHostsImportSerializer({"results": results, "ignored": ignored}).data)
