"""Mass commands: preview, launch, list, read, delete."""

from typing import Any

from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import mixins, status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from orchestrator import actions
from orchestrator.access import Right
from orchestrator.api import filters
from orchestrator.api.control_views import ControlActions
from orchestrator.api.fleet_views import UUID_PATTERN
from orchestrator.api.idempotency import KEY_REUSED, PARAMETER, once_of
from orchestrator.api.pagination import Pages
from orchestrator.api.permissions import RolePermission, access_of, actor
from orchestrator.api.run_serializers import (
    CommandSerializer,
    ConfirmationRequestSerializer,
    ConfirmationSerializer,
    ErrorSerializer,
    LaunchSerializer,
    MassCommandDetailSerializer,
    MassCommandSerializer,
    TargetsChangedSerializer,
)
from orchestrator.api.throttles import LaunchThrottle
from orchestrator.models import Command, MassCommand
from orchestrator.targeting import REASONS


class MassCommandViewSet(
    mixins.ListModelMixin,
    mixins.RetrieveModelMixin,
    mixins.DestroyModelMixin,
    ControlActions,
):
    """Mass commands, newest first."""

    queryset = MassCommand.objects.select_related("created_by")
    serializer_class = MassCommandSerializer
    filterset_class = filters.MassCommandFilter
    lookup_value_regex = UUID_PATTERN
    permission_classes = (RolePermission,)

    @property
    def write_right(self) -> Right:
        """Deleting is an administrator's right, everything else an operator's."""
        return Right.MANAGE if self.action == "destroy" else Right.RUN

    def get_throttles(self) -> list[Any]:
        """Who starts something is counted."""
        return [LaunchThrottle()] if self.action in ("create", "retry") else []

    def get_queryset(self) -> Any:
        """Runs of the user's organizations; system-wide ones are for superusers."""
        return access_of(self.request).visible(super().get_queryset())

    @extend_schema(
        request=LaunchSerializer,
        responses={
            201: MassCommandSerializer,
            409: OpenApiResponse(TargetsChangedSerializer, description="The set is no longer the previewed one."),
            422: KEY_REUSED,
        },
        parameters=[PARAMETER],
    )
    def create(self, request: Request) -> Response:
        """Start a mass command.  The reply comes before any device is contacted.

        With an ``Idempotency-Key`` it is safe to send it again, when a reply was lost.
        """
        filters.refuse_parameters(request)
        once = once_of(request)
        # Before the body is looked at: what it says of the future may be over when it is sent again.
        run = actions.launched(actor=actor(request), once=once) if once else None
        if run is None:
            given = LaunchSerializer(data=request.data)
            given.is_valid(raise_exception=True)
            run = actions.launch(actor=actor(request), request=given.request(), once=once)
        address = reverse("batch-command-detail", args=[run.pk], request=request)
        data = MassCommandSerializer(run).data
        return Response(data, status=status.HTTP_201_CREATED, headers={"Location": address})

    @extend_schema(
        request=ConfirmationRequestSerializer,
        responses={200: ConfirmationSerializer},
        parameters=[
            OpenApiParameter("page", int, description="The page of results."),
            OpenApiParameter("page_size", int, description="Results in a page."),
        ],
        filters=False,
    )
    @action(detail=False, methods=["post"])
    def confirmation(self, request: Request) -> Response:
        """Preview: which devices a launch would run on, which not and why.  Nothing is created.

        ``?page=`` and ``?page_size=`` choose the page of ``results``; send the same body for each.
        """
        filters.refuse_parameters(request, Pages.page_query_param, str(Pages.page_size_query_param))
        given = ConfirmationRequestSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        values = given.validated_data
        found, digest = actions.preview(
            actor=actor(request),
            targets=given.target_filter(),
            command_type=values.get("type", ""),
            playbook=values["playbook"],
            command_input=values.get("input"),
        )
        count, eligible = found.totals()
        rows = found.rows.order_by("name", "pk").values("pk", "name", "organization_id", "ineligible")
        page = self.get_paginated_response(
            [
                {
                    "device": row["pk"],
                    "name": row["name"],
                    "organization": row["organization_id"],
                    "eligible": not row["ineligible"],
                    "reason": REASONS.get(row["ineligible"], ""),
                }
                for row in self.paginate_queryset(rows) or ()
            ]
        ).data
        summary = {
            "count": count,
            "eligible_count": eligible,
            "ineligible_count": count - eligible,
            "digest": digest,
            "breakdown": found.breakdown(),
        }
        return Response(ConfirmationSerializer(page | summary).data)

    @extend_schema(responses={200: MassCommandDetailSerializer})
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """One mass command: targets, progress and the first page of per-device results."""
        run = self.get_object()
        context = {**self.get_serializer_context(), "commands": self._first_page(run)}
        return Response(MassCommandDetailSerializer(run, context=context).data)

    def _first_page(self, run: MassCommand) -> dict[str, Any]:
        address = reverse("batch-command-commands", args=[run.pk], request=self.request)
        size = Pages.page_size
        results = list(Command.objects.filter(mass_command=run)[:size])
        more = run.device_count > len(results)
        return {
            "url": address,
            "count": run.device_count,
            "next": f"{address}?page=2" if more else None,
            "previous": None,
            "results": CommandSerializer(results, many=True).data,
        }

    @extend_schema(responses={204: None, 409: OpenApiResponse(ErrorSerializer, description="It has not finished yet.")})
    def destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Delete a finished mass command; its devices keep their history."""
        actions.delete(actor=actor(request), run=self.get_object())
        return Response(status=status.HTTP_204_NO_CONTENT)
