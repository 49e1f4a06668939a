"""All per-device rows of a run in one file, streamed: memory and the database see some rows at a time."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, Final

from django.db.models import Q
from django.http import StreamingHttpResponse
from django.shortcuts import get_object_or_404
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import generics
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from orchestrator import audit
from orchestrator.access import Access, Right
from orchestrator.api import filters
from orchestrator.api.files import AsAsked, streamed
from orchestrator.api.permissions import RolePermission, access_of, actor
from orchestrator.exceptions import NotPermittedError
from orchestrator.models import AuditAction, Command, MassCommand, User

_COLUMNS: Final = (
    "id", "mass_command", "organization", "device", "device_name", "type", "playbook", "status", "reason", "rc",
    "recap", "stdout", "stderr", "truncated", "bytes_total", "created", "started", "finished",
)  # fmt: skip
_CHUNK: Final = 50  # rows read at a time; each may hold some hundred KiB of output
_TYPES: Final[Mapping[str, str]] = {"csv": "text/csv; charset=utf-8", "ndjson": "application/x-ndjson"}
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")  # what makes a spreadsheet compute a cell (OWASP, CSV injection)


class RunExportView(generics.GenericAPIView[Command]):
    """The per-device results of a mass command as one file."""

    queryset = Command.objects.none()
    filterset_class = filters.CommandFilter
    permission_classes = (RolePermission,)
    content_negotiation_class = AsAsked
    pagination_class = None

    def get_queryset(self) -> Any:
        """The rows of the run of the address, if it exists for the user."""
        if getattr(self, "swagger_fake_view", False):
            return super().get_queryset()
        run = get_object_or_404(access_of(self.request).visible(MassCommand.objects.all()), pk=self.kwargs["pk"])
        return Command.objects.filter(mass_command=run)

    @extend_schema(
        parameters=[
            OpenApiParameter("format", str, enum=sorted(_TYPES), default="csv", description="The kind of file.")
        ],
        responses={
            (200, "text/csv"): OpenApiTypes.STR,
            (200, "application/x-ndjson"): OpenApiTypes.STR,
            400: OpenApiResponse(OpenApiTypes.OBJECT, description="A parameter is not valid."),
        },
    )
    def get(self, request: Request, pk: Any) -> StreamingHttpResponse:
        """All rows by device name, in one file.  The filters of the list apply."""
        kind = request.query_params.get("format", "csv")
        if kind not in _TYPES:
            raise ValidationError({"format": [f"Choose one of {', '.join(sorted(_TYPES))}."]})
        rows = self.filter_queryset(self.get_queryset())
        run = MassCommand.objects.select_related("organization").get(pk=pk)
        audit.record(
            AuditAction.RUN_EXPORT, actor=actor(request), about=run, details={"filters": request.query_params.dict()}
        )
        chunks = _chunks(rows, actor(request), run)
        lines = _csv(chunks) if kind == "csv" else _ndjson(chunks)
        body = streamed(request, lines)
        headers = {
            "Content-Disposition": f'attachment; filename="mass-command-{pk}.{kind}"',
            "Cache-Control": "no-store",
        }
        return StreamingHttpResponse(body, content_type=_TYPES[kind], headers=headers)


def _chunks(rows: Any, user: User, run: MassCommand) -> Iterator[list[dict[str, Any]]]:
    """The rows, some at a time by where the last ones ended: no transaction stays open while a client reads slowly.

    Raises:
        NotPermittedError: the right was revoked meanwhile; the file ends short, and the client is told by that.
    """
    rows = rows.order_by("device_name", "pk")
    after = Q()
    while True:
        if not Access.now(user).can(Right.VIEW, run.organization_id):
            raise NotPermittedError
        chunk = list(rows.filter(after).values(*_COLUMNS)[:_CHUNK])
        if chunk:
            yield chunk
        if len(chunk) < _CHUNK:
            return
        last = chunk[-1]
        after = Q(device_name__gt=last["device_name"]) | Q(device_name=last["device_name"], pk__gt=last["id"])


def _csv(chunks: Iterator[list[dict[str, Any]]]) -> Iterator[bytes]:
    for rows in chain([[dict(zip(_COLUMNS, _COLUMNS, strict=True))]], chunks):
        text = io.StringIO()
        csv.writer(text).writerows([_cell(row[name]) for name in _COLUMNS] for row in rows)
        yield text.getvalue().encode()


def _cell(value: Any) -> Any:
    """The value of a cell; what a spreadsheet would take for a formula is marked as text."""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) else value
    return _plain(value) if value is not None else ""


def _ndjson(chunks: Iterator[list[dict[str, Any]]]) -> Iterator[bytes]:
    for rows in chunks:
        yield b"".join(json.dumps(row, default=_plain, ensure_ascii=False).encode() + b"\n" for row in rows)


def _plain(value: Any) -> Any:
    if hasattr(value, "isoformat"):
        return value.isoformat().replace("+00:00", "Z")  # as in all other replies
    return value if isinstance(value, bool | int) else str(value)
