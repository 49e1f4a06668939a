"""Saved target sets as CRUD."""

from collections.abc import Sequence
from typing import Any

from rest_framework import serializers

from orchestrator.access import Right
from orchestrator.api import filters
from orchestrator.api.fields import LineField, VisibleRelatedField
from orchestrator.api.fleet_serializers import RowSerializer
from orchestrator.api.fleet_views import FleetViewSet
from orchestrator.api.permissions import access_of
from orchestrator.api.target_serializers import TargetsSerializer, filter_of
from orchestrator.exceptions import InvalidFieldError
from orchestrator.models import Organization, SavedTargets
from orchestrator.targeting import TargetFilter, check_saved

_DATES = ("created", "modified")


class SavedFilterSerializer(TargetsSerializer):
    """The target filter of a launch, within one organization."""

    all_devices: Any = None
    saved: Any = None


class SavedTargetsSerializer(RowSerializer):
    """A target filter with a name.  Runs and schedules that name it mean what it means when they start."""

    organization = VisibleRelatedField(queryset=Organization.objects.all(), organization="pk")
    name = LineField(max_length=128)
    targets = SavedFilterSerializer(help_text="The filter; of the organization whether it names it or not.")

    class Meta:
        model = SavedTargets
        fields = ("id", "organization", "name", "targets", *_DATES)
        read_only_fields = _DATES
        validators: Sequence[Any] = ()

    def to_representation(self, instance: SavedTargets) -> dict[str, Any]:
        """The filter as it was given, without what was left out."""
        return {**super().to_representation(instance), "targets": instance.targets}

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """What a launch would refuse is refused now; and names are unique within the organization."""
        row = self.instance if isinstance(self.instance, SavedTargets) else None
        organization: Organization = row.organization if row else attrs["organization"]
        if attrs.get("organization", organization) != organization:
            raise serializers.ValidationError({"organization": ["This stays. Make another set there."]})
        if "targets" in attrs:
            targets = filter_of(attrs["targets"])
            self._check(targets, organization)
            attrs["targets"] = targets.as_json()
        same = SavedTargets.objects.filter(organization=organization, name=attrs.get("name", row and row.name))
        if any(pk != getattr(row, "pk", None) for pk in same.values_list("pk", flat=True)):
            raise serializers.ValidationError({"name": ["The organization has one of this name."]})
        return attrs

    def _check(self, targets: TargetFilter, organization: Organization) -> None:
        try:
            check_saved(targets, organization=organization, access=access_of(self.context["request"]))
        except InvalidFieldError as error:
            inner = [error.message] if error.field == "targets" else {error.field: [error.message]}
            raise serializers.ValidationError({"targets": inner}) from error

    def create(self, validated_data: dict[str, Any]) -> SavedTargets:
        """Insert."""
        return SavedTargets.objects.create(**validated_data)

    def update(self, instance: SavedTargets, validated_data: dict[str, Any]) -> SavedTargets:
        """Update."""
        for name, value in validated_data.items():
            setattr(instance, name, value)
        instance.save(update_fields=[*validated_data, "modified"])
        return instance


class SavedTargetsViewSet(FleetViewSet):
    """Saved target sets; whoever may run commands in their organization may change them."""

    queryset = SavedTargets.objects.all()
    serializer_class = SavedTargetsSerializer
    filterset_class = filters.SavedTargetsFilter
    write_right = Right.RUN
