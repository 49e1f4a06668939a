"""The audit log: for the administrators of each organization, of the whole system for superusers."""

import json
from collections.abc import Iterator
from typing import Any, Final

from django.db.models import Q
from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import generics, serializers, viewsets
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from orchestrator import audit
from orchestrator.access import Access, Right
from orchestrator.api import filters
from orchestrator.api.files import AsAsked, streamed
from orchestrator.api.fleet_views import UUID_PATTERN
from orchestrator.api.permissions import access_of, actor
from orchestrator.exceptions import NotPermittedError
from orchestrator.models import AuditAction, AuditEntry, Organization, User

_CHUNK: Final = 500  # entries read at a time


class AuditEntrySerializer(serializers.ModelSerializer[AuditEntry]):
    """One thing that somebody did; names are those of then."""

    organization = serializers.UUIDField(source="organization_id", allow_null=True, read_only=True)
    actor = serializers.UUIDField(source="actor_id", allow_null=True, read_only=True)
    object = serializers.CharField(source="object_id", read_only=True)
    details = serializers.JSONField(read_only=True, help_text="What exactly; secrets masked.")

    class Meta:
        model = AuditEntry
        fields = (
            "id", "at", "action", "organization", "organization_name", "actor", "actor_name", "door", "address",
            "user_agent", "token", "object_type", "object", "object_name", "details",
        )  # fmt: skip
        read_only_fields = fields


class AuditPermission(BasePermission):
    """A list is for who may see some entries; single ones don't exist for anybody else."""

    message = "Your role does not allow this."

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Whether the user may see any entries at all."""
        if not request.user.is_authenticated:
            return False
        return "pk" in view.kwargs or access_of(request).can_anywhere(Right.VIEW_AUDIT)


class AuditViewSet(viewsets.ReadOnlyModelViewSet[AuditEntry]):
    """Who did what, newest first."""

    queryset = AuditEntry.objects.all()
    serializer_class = AuditEntrySerializer
    filterset_class = filters.AuditFilter
    lookup_value_regex = UUID_PATTERN
    permission_classes = (AuditPermission,)

    def get_queryset(self) -> Any:
        """Those of the organizations that the user administrates; all of them for superusers."""
        return AuditEntry.objects.visible_to(access_of(self.request))


class AuditExportView(generics.GenericAPIView[AuditEntry]):
    """The audit log as one file."""

    queryset = AuditEntry.objects.all()
    filterset_class = filters.AuditFilter
    permission_classes = (AuditPermission,)
    content_negotiation_class = AsAsked
    pagination_class = None

    @extend_schema(
        responses={
            (200, "application/x-ndjson"): OpenApiTypes.STR,
            400: OpenApiResponse(OpenApiTypes.OBJECT, description="A parameter is not valid."),
        }
    )
    def get(self, request: Request) -> StreamingHttpResponse:
        """All entries, oldest first, one JSON object a line.  The filters of the list apply."""
        rows = self.filter_queryset(AuditEntry.objects.visible_to(access_of(request)))
        given = request.query_params.dict()
        about = audit.Subject("audit", organization=_only_organization(access_of(request), given))
        audit.record(AuditAction.AUDIT_EXPORT, actor=actor(request), about=about, details={"filters": given})
        headers = {"Content-Disposition": 'attachment; filename="audit.ndjson"', "Cache-Control": "no-store"}
        body = streamed(request, _lines(rows, actor(request)))
        return StreamingHttpResponse(body, content_type="application/x-ndjson", headers=headers)


def _only_organization(access: Access, given: dict[str, str]) -> Organization | None:
    """The one that is exported, where it is one."""
    own = [given["organization"]] if "organization" in given else access.organizations(Right.VIEW_AUDIT)
    return Organization.objects.filter(pk__in=own).first() if len(own) == 1 else None


def _lines(rows: Any, user: User) -> Iterator[bytes]:
    """The entries, some at a time by where the last ones ended: no transaction stays open for a slow client.

    Raises:
        NotPermittedError: the right was revoked meanwhile; the file ends short, and the client is told by that.
    """
    rows, after = rows.order_by("at", "pk"), Q()
    while True:
        access = Access.now(user)
        if not access.can_anywhere(Right.VIEW_AUDIT):
            raise NotPermittedError
        chunk = list(rows.visible_to(access).filter(after)[:_CHUNK])
        if chunk:
            shown = AuditEntrySerializer(chunk, many=True).data
            yield b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in shown)
        if len(chunk) < _CHUNK:
            return
        after = Q(at__gt=chunk[-1].at) | Q(at=chunk[-1].at, pk__gt=chunk[-1].pk)
