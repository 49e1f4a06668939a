"""Webhooks as CRUD, and their deliveries: for the administrators of each organization."""

from typing import Any

from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import status, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from orchestrator import webhooks
from orchestrator.access import Access, Right
from orchestrator.api import filters
from orchestrator.api.fields import StrictSerializer
from orchestrator.api.fleet_views import UUID_PATTERN, FleetViewSet, save_named
from orchestrator.api.membership_views import PeoplePermission
from orchestrator.api.permissions import access_of, actor
from orchestrator.api.run_serializers import ErrorSerializer
from orchestrator.api.throttles import LaunchThrottle
from orchestrator.api.webhook_serializers import DeliverySerializer, NewWebhookSerializer, WebhookSerializer
from orchestrator.exceptions import StillPendingError
from orchestrator.models import Webhook, WebhookDelivery

_NO_STORE = {"Cache-Control": "no-store"}


class WebhookPermission(PeoplePermission):
    """A URL is often a secret: who may not change webhooks does not see them."""

    def may_list(self, access: Access) -> bool:
        """Administrators."""
        return access.can_anywhere(Right.VIEW_WEBHOOKS)


class WebhookViewSet(FleetViewSet):
    """Webhooks."""

    queryset = Webhook.objects.select_related("organization")
    serializer_class = WebhookSerializer
    filterset_class = filters.WebhookFilter
    permission_classes = (WebhookPermission,)

    def get_queryset(self) -> Any:
        """Those of the organizations that the user administrates."""
        rows = Webhook.objects.select_related("organization")
        return access_of(self.request).visible(rows, right=Right.VIEW_WEBHOOKS)

    def get_throttles(self) -> list[Any]:
        """Who has something sent is counted."""
        return [LaunchThrottle()] if self.action == "test" else super().get_throttles()

    @extend_schema(request=WebhookSerializer, responses={201: NewWebhookSerializer})
    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Make a webhook.  The reply shows its secret, this once."""
        filters.refuse_parameters(request)
        given = WebhookSerializer(data=request.data, context=self.get_serializer_context())
        given.is_valid(raise_exception=True)
        save_named(given, by=actor(request))
        headers = {**self.get_success_headers(given.data), **_NO_STORE}
        return Response(self._shown(given.instance, given.secret), status.HTTP_201_CREATED, headers=headers)

    @extend_schema(request=None, responses={200: NewWebhookSerializer}, filters=False)
    @action(detail=True, methods=["post"])
    def secret(self, request: Request, pk: str) -> Response:
        """Give it a new secret, shown this once.  The one before signs as well for a day."""
        webhook = self.get_object()
        _refuse_all(request)
        text = webhooks.replace_secret(webhook, actor=actor(request))
        webhook.refresh_from_db()
        return Response(self._shown(webhook, text), headers=_NO_STORE)

    @extend_schema(request=None, responses={202: DeliverySerializer}, filters=False)
    @action(detail=True, methods=["post"])
    def test(self, request: Request, pk: str) -> Response:
        """Send it a test; what becomes of it is in the delivery."""
        webhook = self.get_object()
        _refuse_all(request)
        delivery = webhooks.test(webhook, actor=actor(request))
        return Response(DeliverySerializer(delivery).data, status.HTTP_202_ACCEPTED)

    def _shown(self, webhook: Any, secret: str) -> Any:
        return NewWebhookSerializer(webhook, context={**self.get_serializer_context(), "secret": secret}).data


class DeliveryViewSet(viewsets.ReadOnlyModelViewSet[WebhookDelivery]):
    """What webhooks were told, newest first; kept for 30 days."""

    queryset = WebhookDelivery.objects.all()
    serializer_class = DeliverySerializer
    filterset_class = filters.WebhookDeliveryFilter
    lookup_value_regex = UUID_PATTERN
    permission_classes = (WebhookPermission,)

    def get_queryset(self) -> Any:
        """Those of the user's webhooks."""
        rows = WebhookDelivery.objects.all()
        return access_of(self.request).visible(rows, organization="webhook__organization", right=Right.VIEW_WEBHOOKS)

    def get_throttles(self) -> list[Any]:
        """Who has something sent is counted."""
        return [LaunchThrottle()] if self.action == "send" else super().get_throttles()

    @extend_schema(
        request=None,
        responses={
            202: DeliverySerializer,
            409: OpenApiResponse(ErrorSerializer, description="It is still on its way."),
        },
        filters=False,
    )
    @action(detail=True, methods=["post"])
    def send(self, request: Request, pk: str) -> Response:
        """Send it again, under the same id."""
        delivery = self.get_object()
        _refuse_all(request)
        if not webhooks.send_again(delivery, actor=actor(request)):
            raise StillPendingError
        delivery.refresh_from_db()
        return Response(DeliverySerializer(delivery).data, status.HTTP_202_ACCEPTED)


def _refuse_all(request: Request) -> None:
    """What takes nothing ignores nothing either."""
    filters.refuse_parameters(request)
    StrictSerializer(data=request.data).is_valid(raise_exception=True)
