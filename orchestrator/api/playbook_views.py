"""The catalogue of playbooks over REST: which there are, what input each takes, and which are broken."""

from typing import Any

from rest_framework import mixins, serializers, viewsets

from orchestrator import catalogue
from orchestrator.api import filters
from orchestrator.api.fleet_views import UUID_PATTERN
from orchestrator.api.permissions import RolePermission, access_of
from orchestrator.models import Playbook


class PlaybookSerializer(serializers.ModelSerializer[Playbook]):
    """A playbook that can be launched with ``"type": "playbook"`` and its name; a broken one says why it can't."""

    schema = serializers.DictField(read_only=True, help_text="JSON Schema of its input; writeOnly ones are secrets.")
    hosts = serializers.ListField(child=serializers.CharField(), read_only=True)

    class Meta:
        model = Playbook
        fields: tuple[str, ...] = (
            "id", "name", "description", "status", "message", "schema", "check_mode", "hosts", "digest", "url",
            "commit", "refreshed",
        )  # fmt: skip
        read_only_fields = fields


class PlaybookViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Playbook]):
    """The playbooks that an organization of the user's allows, by name."""

    queryset = Playbook.objects.all()
    serializer_class = PlaybookSerializer
    filterset_class = filters.PlaybookFilter
    lookup_value_regex = UUID_PATTERN
    permission_classes = (RolePermission,)

    def get_queryset(self) -> Any:
        """Those that exist for the user."""
        if getattr(self, "swagger_fake_view", False):
            return super().get_queryset()
        return catalogue.playbooks(access_of(self.request))
