"""Stopping, pausing, resuming and retrying a run."""

from typing import Any, cast

from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse
from rest_framework.viewsets import GenericViewSet

from orchestrator import actions
from orchestrator.api.control_serializers import CancelSerializer, NothingSerializer, RetrySerializer
from orchestrator.api.filters import refuse_parameters
from orchestrator.api.idempotency import KEY_REUSED, PARAMETER, once_of
from orchestrator.api.permissions import actor
from orchestrator.api.run_serializers import ErrorSerializer, MassCommandSerializer
from orchestrator.exceptions import NotActiveError
from orchestrator.models import MassCommand

_ENDED = OpenApiResponse(ErrorSerializer, description="It has ended already.")
_GOES_ON = OpenApiResponse(ErrorSerializer, description="It has not finished yet.")


class ControlActions(GenericViewSet[MassCommand]):
    """What an operator may do to a run once it was launched."""

    @extend_schema(request=CancelSerializer, responses={202: MassCommandSerializer, 409: _ENDED}, filters=False)
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: str) -> Response:
        """Stop the run, or some of its devices.  What waits ends at once, what runs within seconds.

        With ``devices`` only those are stopped, and the others go on.
        """
        run, values = self._begin(request, CancelSerializer)
        if not run.is_active:
            raise NotActiveError
        actions.cancel(actor=actor(request), run=run, devices=values.get("devices"))
        return self._shown(run, status.HTTP_202_ACCEPTED)

    @extend_schema(request=NothingSerializer, responses={200: MassCommandSerializer, 409: _ENDED}, filters=False)
    @action(detail=True, methods=["post"])
    def pause(self, request: Request, pk: str) -> Response:
        """Start nothing more; devices on which it runs go on to their end."""
        run, _ = self._begin(request, NothingSerializer)
        actions.pause(actor=actor(request), run=run)
        return self._shown(run)

    @extend_schema(request=NothingSerializer, responses={200: MassCommandSerializer, 409: _ENDED}, filters=False)
    @action(detail=True, methods=["post"])
    def resume(self, request: Request, pk: str) -> Response:
        """Go on after a pause; where the run waits between two waves, let the next one begin."""
        run, _ = self._begin(request, NothingSerializer)
        actions.resume(actor=actor(request), run=run)
        return self._shown(run)

    @extend_schema(
        request=RetrySerializer,
        responses={201: MassCommandSerializer, 409: _GOES_ON, 422: KEY_REUSED},
        parameters=[PARAMETER],
        filters=False,
    )
    @action(detail=True, methods=["post"])
    def retry(self, request: Request, pk: str) -> Response:
        """A new run, with the same controls, on the devices of a finished one that ended in one of the statuses.

        With an ``Idempotency-Key`` it is safe to send it again, when a reply was lost.
        """
        parent, once = self.get_object(), once_of(request)
        child = actions.launched(actor=actor(request), once=once) if once else None
        if child is None:
            values = _checked(request, RetrySerializer)
            child = actions.retry(
                actor=actor(request), run=parent, statuses=values["statuses"], command_input=values["input"], once=once
            )
        address = reverse("batch-command-detail", args=[child.pk], request=request)
        data = MassCommandSerializer(child).data
        return Response(data, status=status.HTTP_201_CREATED, headers={"Location": address})

    def _begin(self, request: Request, body: Any) -> tuple[MassCommand, dict[str, Any]]:
        """The run of the address, then the body: whoever may not act on it learns nothing of its fields."""
        return self.get_object(), _checked(request, body)

    def _shown(self, run: MassCommand, code: int = status.HTTP_200_OK) -> Response:
        run.refresh_from_db()
        return Response(MassCommandSerializer(run).data, status=code)


def _checked(request: Request, body: Any) -> dict[str, Any]:
    refuse_parameters(request)
    given = body(data=request.data)
    given.is_valid(raise_exception=True)
    return cast("dict[str, Any]", given.validated_data)
