"""Recurring mass commands as CRUD."""

from orchestrator.access import Right
from orchestrator.api import filters
from orchestrator.api.fleet_views import FleetViewSet
from orchestrator.api.schedule_serializers import ScheduleSerializer
from orchestrator.models import Schedule


class ScheduleViewSet(FleetViewSet):
    """Schedules; whoever may run commands in their organization may change them."""

    queryset = Schedule.objects.select_related("created_by")
    serializer_class = ScheduleSerializer
    filterset_class = filters.ScheduleFilter
    write_right = Right.RUN
