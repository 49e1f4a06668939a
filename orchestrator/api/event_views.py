"""A run as it happens, as Server-Sent Events (HTML, section 9.2)."""

from collections.abc import AsyncIterator
from typing import Any, Final

from django.db import connection
from django.http import HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import generics
from rest_framework.exceptions import NotAcceptable, Throttled, ValidationError
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.request import Request

from orchestrator.api.permissions import RolePermission, access_of, actor
from orchestrator.models import MassCommand
from orchestrator.states import RUN_FINISHED
from orchestrator.streaming import AREA, HEADERS, Position, Subscription, Viewer, snapshot_events

MEDIA_TYPE: Final = "text/event-stream"
_ACCEPTED: Final = frozenset({MEDIA_TYPE, "text/*", "*/*", ""})
_MOST: Final = 100  # streams of one user in one web process
_BREATH: Final = 10  # seconds until somebody with too many may ask again
_PARAMETERS: Final = ("after", "rows")
_ROWS: Final = ("all", "none")
_LAST: Final = "Last-Event-ID"
_EVENT: Final = {
    "type": "object",
    "description": "Each event of the stream.",
    "required": ["event", "data"],
    "properties": {
        "event": {"type": "string", "enum": ["snapshot", "changes", "end"]},
        "id": {"type": "string", "description": "To be sent as Last-Event-ID, to go on from here."},
        "data": {"type": "string", "description": 'JSON: {"run": …}, with "commands": […] in changes.'},
    },
}


class _EventStream(BaseContentNegotiation):
    """``Accept: text/event-stream``; errors are JSON as everywhere."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        """The only one."""
        return parsers[0]

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        """That of errors.

        Raises:
            NotAcceptable: the client does not take events.
        """
        wanted = {part.split(";")[0].strip().lower() for part in request.headers.get("Accept", "").split(",")}
        if request.method == "GET" and not wanted & _ACCEPTED:
            raise NotAcceptable(f"This address answers with {MEDIA_TYPE} only: send Accept: {MEDIA_TYPE}.")
        return renderers[0], renderers[0].media_type


class RunEventsView(generics.GenericAPIView[MassCommand]):
    """What happens in a mass command, while it happens."""

    queryset = MassCommand.objects.none()
    permission_classes = (RolePermission,)
    content_negotiation_class = _EventStream
    pagination_class = None

    @extend_schema(
        parameters=[
            OpenApiParameter("after", str, description="The id of an event to go on after; Last-Event-ID prevails."),
            OpenApiParameter("rows", str, enum=_ROWS, default="all", description="none: only the run with its counts."),
            OpenApiParameter(_LAST, str, OpenApiParameter.HEADER, description="The id of the last event received."),
        ],
        responses={
            (200, MEDIA_TYPE): _EVENT,
            204: OpenApiResponse(description="The last event was received already. EventSource stops then."),
            400: OpenApiResponse(OpenApiTypes.OBJECT, description="A parameter is not valid."),
        },
    )
    def get(self, request: Request, pk: Any) -> HttpResponse | StreamingHttpResponse:
        """Server-Sent Events: ``snapshot`` first, then ``changes``, and ``end`` when the run has ended.

        To go on after a broken connection without a loss, send the id of the last event as ``Last-Event-ID``.
        """
        run = get_object_or_404(access_of(request).visible(MassCommand.objects.all()), pk=pk)
        rows, position = _asked(request)
        if position.end and run.status in RUN_FINISHED and position.change == run.changes:
            return HttpResponse(status=204)
        if position.change > run.changes:  # from a future that a restored backup knows nothing of
            position = Position()
        subscription = Subscription(
            run=run.pk, organization=run.organization_id, viewer=_viewer(request),
            position=Position(position.change, position.row), rows=rows == "all",
        )  # fmt: skip
        content = self._go_on(request, subscription) or snapshot_events(subscription)
        return StreamingHttpResponse(content, content_type=MEDIA_TYPE, headers=HEADERS)

    def _go_on(self, request: Request, subscription: Subscription) -> AsyncIterator[bytes] | None:
        """Leave the stream to the server, where it can hold streams open."""
        area = getattr(request._request, "scope", {}).get(AREA)
        if area is None:
            return None
        if area["hub"].count(subscription.viewer.user) >= _MOST:
            raise Throttled(_BREATH, f"You have {_MOST} streams open. Close some.")
        if request.method == "GET":
            area["subscription"] = subscription
        connection.close()  # this thread's, which would live as long as the thread does
        return _nothing()


def _asked(request: Request) -> tuple[str, Position]:
    errors: dict[str, list[str]] = {
        name: [f"Unknown parameter. There are: {', '.join(_PARAMETERS)}."]
        for name in sorted(set(request.query_params) - set(_PARAMETERS))
    }
    rows = request.query_params.get("rows", "all")
    if rows not in _ROWS:
        errors["rows"] = [f"Choose one of {', '.join(_ROWS)}."]
    position = Position()
    given = {_LAST: request.headers.get(_LAST, ""), "after": request.query_params.get("after", "")}
    for name, text in reversed(given.items()):
        try:
            position = Position.parse(text) if text else position
        except ValueError:
            errors[name] = ["Send the id of an event of this stream, as it was."]
    if errors:
        raise ValidationError(errors)
    return rows, position


def _viewer(request: Request) -> Viewer:
    user = actor(request)
    if user.token:
        return Viewer(user.pk, token=user.token.pk)
    session = request._request.session
    if not session.session_key:
        return Viewer(user.pk)
    return Viewer(user.pk, session=session.session_key, session_hash=user.get_session_auth_hash())


async def _nothing() -> AsyncIterator[bytes]:
    for part in tuple[bytes]():
        yield part
