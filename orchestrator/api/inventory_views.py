"""The fleet as other programs use it: an inventory for plain Ansible, and the pinned host keys for ssh."""

import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

from django.db.models import F, OuterRef, Subquery
from django.http import QueryDict, StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from orchestrator.access import Access
from orchestrator.api.fields import IdField
from orchestrator.api.files import AsAsked, streamed
from orchestrator.api.permissions import RolePermission, access_of, actor
from orchestrator.api.target_serializers import TargetsSerializer
from orchestrator.exceptions import InvalidFieldError
from orchestrator.inventory import group_names, known_host
from orchestrator.models import DeviceCredential, Platform, User
from orchestrator.targeting import TargetFilter, selected

_PAGE: Final = 500  # devices, unless told
_MOST: Final = 1_000  # devices in a page
_LISTS: Final = frozenset({"devices", "tags"})
_EXCLUDED: Final[Mapping[str, str]] = {"exclude_devices": "devices", "exclude_groups": "groups"}
_COLUMNS: Final = ("id", "name", "host", "port", "platform", "tags", "host_key")
_NAMES: Final = ("organization", "group", "location")
_PARAMETERS: Final = [
    *(OpenApiParameter(name, OpenApiTypes.UUID, description=f"Its id; devices of this {name}.") for name in _NAMES),
    OpenApiParameter("devices", OpenApiTypes.UUID, many=True, description="Picked devices."),
    OpenApiParameter("platform", str, enum=Platform.values),
    OpenApiParameter("name", str, description="A pattern for the whole name: * is any text, ? is one character."),
    OpenApiParameter("tags", str, many=True, description="Devices that have all of them."),
    OpenApiParameter("exclude_devices", OpenApiTypes.UUID, many=True, description="Never these devices."),
    OpenApiParameter("exclude_groups", OpenApiTypes.UUID, many=True, description="Never devices of these groups."),
]


class InventoryDeviceSerializer(serializers.Serializer[Any]):
    """A device as Ansible needs it, with the names of what it belongs to."""

    id = serializers.UUIDField()
    name = serializers.CharField()
    organization = serializers.CharField()
    group = serializers.CharField(allow_null=True)
    location = serializers.CharField(allow_null=True)
    host = serializers.CharField()
    port = serializers.IntegerField()
    platform = serializers.ChoiceField(choices=Platform.choices)
    tags = serializers.ListField(child=serializers.CharField())
    username = serializers.CharField(allow_null=True, help_text="Of the credential that is tried first.")
    host_key = serializers.CharField(help_text="The pinned host keys; empty: not enrolled.")
    groups = serializers.ListField(child=serializers.CharField(), help_text="The Ansible groups that it is in.")


class InventorySerializer(serializers.Serializer[Any]):
    """A page of the inventory."""

    next = serializers.URLField(allow_null=True, help_text="The next page; null on the last one.")
    results = InventoryDeviceSerializer(many=True)


class InventoryView(APIView):
    """The fleet as an inventory."""

    permission_classes = (RolePermission,)

    @extend_schema(
        parameters=[
            *_PARAMETERS,
            OpenApiParameter("after", OpenApiTypes.UUID, description="Devices whose id comes after this one."),
            OpenApiParameter("page_size", int, description=f"Devices in a page, {_MOST} at most."),
        ],
        responses={
            200: InventorySerializer,
            400: OpenApiResponse(OpenApiTypes.OBJECT, description="A parameter is not valid."),
        },
    )
    def get(self, request: Request) -> Response:
        """Active devices in the order of their ids, in big pages; each page is one query, however many there are.

        The parameters are those of the target filter, and without any these are all devices that you may see.
        """
        query = request.query_params.copy()
        after, size = _id_of(query.pop("after", [])), _size_of(query.pop("page_size", []))
        rows = _rows(_filter_of(query), access_of(request))
        if after:
            rows = rows.filter(pk__gt=after)
        page = list(rows[: size + 1])
        results = page[:size]
        following = None
        if len(page) > size:
            query["after"], query["page_size"] = str(results[-1]["id"]), str(size)
            following = request.build_absolute_uri(f"{request.path}?{query.urlencode()}")
        return Response({"next": following, "results": [_presented(row) for row in results]})


class KnownHostsView(APIView):
    """The pinned host keys of the fleet."""

    permission_classes = (RolePermission,)
    content_negotiation_class = AsAsked

    @extend_schema(
        parameters=_PARAMETERS,
        responses={
            (200, "text/plain"): OpenApiTypes.STR,
            400: OpenApiResponse(OpenApiTypes.OBJECT, description="A parameter is not valid."),
        },
    )
    def get(self, request: Request) -> StreamingHttpResponse:
        """The pinned host keys as a known_hosts file, so that ssh and plain Ansible keep checking them.

        The parameters are those of the inventory.  A device that is not enrolled has no line.
        """
        targets = _filter_of(request.query_params)
        _rows(targets, access_of(request))  # refused now, not in the middle of the file
        body = streamed(request, _known_hosts(targets, actor(request)))
        return StreamingHttpResponse(body, content_type="text/plain; charset=utf-8")


def _filter_of(query: QueryDict) -> TargetFilter:
    """The target filter of the parameters.

    Raises:
        ValidationError: one is unknown, given twice, or not valid.
    """
    given: dict[str, Any] = {}
    for name, values in query.lists():
        if name in _EXCLUDED:
            given.setdefault("exclude", {})[_EXCLUDED[name]] = values
        elif name in _LISTS:
            given[name] = values
        elif len(values) > 1:
            raise ValidationError({name: ["Give this parameter once."]})
        elif name in ("exclude", "all_devices"):
            raise ValidationError({name: ["Unknown parameter."]})
        else:
            given[name] = values[0]
    targets = TargetsSerializer(data=given)
    try:
        targets.is_valid(raise_exception=True)
    except ValidationError as error:
        found: dict[str, Any] = dict(cast("dict[str, Any]", error.detail))
        within = found.pop("exclude", {})
        raise ValidationError(found | {f"exclude_{name}": each for name, each in within.items()}) from error
    return targets.target_filter()


def _id_of(values: list[Any]) -> uuid.UUID | None:
    try:
        return IdField().to_internal_value(values[-1]) if values else None
    except ValidationError as error:
        raise ValidationError({"after": error.detail}) from error


def _size_of(values: list[Any]) -> int:
    if not values:
        return _PAGE
    # int() refuses numbers of thousands of digits with a ValueError of its own
    given = str(values[-1])
    if not given.isascii() or not given.isdigit() or not given.strip("0"):
        raise ValidationError({"page_size": [f"Enter a number from 1 to {_MOST}."]})
    return _MOST if len(given.lstrip("0")) > len(str(_MOST)) else min(int(given), _MOST)


def _rows(targets: TargetFilter, access: Access) -> Any:
    """What a page tells, one query for all of it."""
    first = DeviceCredential.objects.filter(device=OuterRef("pk")).order_by("position")
    try:
        found = selected(targets, access=access)
    except InvalidFieldError as error:
        kind = "groups" if "group" in str(error.message) else "devices"
        raise InvalidFieldError(
            f"exclude_{kind}" if error.field == "exclude" else error.field, error.message
        ) from error
    rows = found.filter(is_active=True, organization__is_active=True)
    names = {f"{name}_title": F(f"{name}__name") for name in _NAMES}
    username = Subquery(first.values("credential__username")[:1])
    return rows.order_by("pk").annotate(username=username).values(*_COLUMNS, "username", **names)


def _presented(row: dict[str, Any]) -> dict[str, Any]:
    names = {name: row.pop(f"{name}_title") for name in _NAMES}
    belongs = {name: value or "" for name, value in names.items()}
    groups = group_names(platform=row["platform"], tags=row["tags"], **belongs)
    return {**row, **names, "groups": groups}


def _known_hosts(targets: TargetFilter, user: User) -> Iterator[bytes]:
    """The file, some devices at a time; it ends short when the user's rights ended meanwhile."""
    after: uuid.UUID | None = None
    while True:
        access = Access.now(user)
        rows = _rows(targets, access)
        page = list(rows.filter(pk__gt=after)[:_MOST] if after else rows[:_MOST])
        yield "".join(known_host(row["host"], row["port"], row["host_key"]) for row in page).encode()
        if len(page) < _MOST:
            return
        after = page[-1]["id"]
