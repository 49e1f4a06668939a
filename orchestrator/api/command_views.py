"""Per-device rows: those of a run, and a device's own history."""

import uuid
from functools import cached_property
from typing import Any

from django.shortcuts import get_object_or_404
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import generics, status
from rest_framework.request import Request
from rest_framework.response import Response

from orchestrator import actions
from orchestrator.access import Right
from orchestrator.api import filters
from orchestrator.api.idempotency import KEY_REUSED, PARAMETER, once_of
from orchestrator.api.permissions import RolePermission, access_of, actor
from orchestrator.api.run_serializers import (
    CommandSerializer,
    DeviceCommandRequestSerializer,
    DeviceCommandSerializer,
    ErrorSerializer,
    TaskResultSerializer,
)
from orchestrator.api.throttles import LaunchThrottle
from orchestrator.exceptions import RunDeletedError
from orchestrator.models import Command, Device, MassCommand, TaskResult


class RunCommandsView(generics.ListAPIView[Command]):
    """The per-device results of a mass command, by device name."""

    queryset = Command.objects.none()
    serializer_class = CommandSerializer
    filterset_class = filters.CommandFilter
    permission_classes = (RolePermission,)

    def get_queryset(self) -> Any:
        """The rows of the run of the address, if it exists for the user."""
        if getattr(self, "swagger_fake_view", False):
            return super().get_queryset()
        runs = access_of(self.request).visible(MassCommand.objects.all())
        run = get_object_or_404(runs, pk=self.kwargs["pk"])
        return Command.objects.filter(mass_command=run)


class CommandTasksView(generics.ListAPIView[TaskResult]):
    """What each task of a playbook did on a device, in the order of their starts."""

    queryset = TaskResult.objects.none()
    serializer_class = TaskResultSerializer
    filterset_class = filters.TaskResultFilter
    permission_classes = (RolePermission,)

    def get_queryset(self) -> Any:
        """The tasks of the row of the address, if it exists for the user."""
        if getattr(self, "swagger_fake_view", False):
            return super().get_queryset()
        row = get_object_or_404(access_of(self.request).visible(Command.objects.all()), pk=self.kwargs["pk"])
        return TaskResult.objects.filter(command=row)


class DeviceCommandsView(generics.ListAPIView[Command]):
    """A device's own history, newest first; POST runs one command on it."""

    queryset = Command.objects.none()
    serializer_class = DeviceCommandSerializer
    filterset_class = filters.DeviceCommandFilter
    permission_classes = (RolePermission,)
    write_right = Right.RUN

    def get_throttles(self) -> list[Any]:
        """Who starts something is counted."""
        return [LaunchThrottle()] if self.request.method == "POST" else []

    @cached_property
    def _device(self) -> Device:
        devices = access_of(self.request).visible(Device.objects.all())
        device = get_object_or_404(devices, pk=self.kwargs["pk"])
        self.check_object_permissions(self.request, device)
        return device

    def get_queryset(self) -> Any:
        """The device's rows; those from a time in another organization exist for that one only."""
        if getattr(self, "swagger_fake_view", False):
            return super().get_queryset()
        rows = Command.objects.filter(device=self._device).select_related("mass_command")
        return access_of(self.request).visible(rows).order_by("-created", "-pk")

    @extend_schema(
        request=DeviceCommandRequestSerializer,
        responses={
            201: DeviceCommandSerializer,
            409: OpenApiResponse(ErrorSerializer, description="What the Idempotency-Key has started was deleted."),
            422: KEY_REUSED,
        },
        parameters=[PARAMETER],
    )
    def post(self, request: Request, pk: uuid.UUID) -> Response:
        """Run one command on this device, as a mass command of one.

        With an ``Idempotency-Key`` it is safe to send it again, when a reply was lost.
        """
        device, once = self._device, once_of(request)
        filters.refuse_parameters(request)
        run = actions.launched(actor=actor(request), once=once) if once else None
        if run is None:
            given = DeviceCommandRequestSerializer(data=request.data)
            given.is_valid(raise_exception=True)
            run = actions.launch(actor=actor(request), request=given.request(device), once=once)
        row = Command.objects.select_related("mass_command").filter(mass_command=run).first()
        if row is None:  # retention has deleted it
            raise RunDeletedError
        return Response(DeviceCommandSerializer(row).data, status=status.HTTP_201_CREATED)
