"""Addresses of the API."""

from django.urls import include, path, re_path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView
from rest_framework.routers import SimpleRouter

from orchestrator.api import (
    audit_views,
    command_views,
    errors,
    event_views,
    export_views,
    fleet_views,
    host_key_views,
    inventory_views,
    membership_views,
    playbook_views,
    run_views,
    saved_targets,
    schedule_views,
    schemes,  # noqa: F401 - registers itself
    user_views,
    webhook_views,
)

router = SimpleRouter()
router.register("organization", fleet_views.OrganizationViewSet, basename="organization")
router.register("location", fleet_views.LocationViewSet, basename="location")
router.register("group", fleet_views.DeviceGroupViewSet, basename="group")
router.register("credential", fleet_views.CredentialViewSet, basename="credential")
router.register("device", fleet_views.DeviceViewSet, basename="device")
router.register("batch-command", run_views.MassCommandViewSet, basename="batch-command")

router.register("playbook", playbook_views.PlaybookViewSet, basename="playbook")
router.register("schedule", schedule_views.ScheduleViewSet, basename="schedule")
router.register("saved-targets", saved_targets.SavedTargetsViewSet, basename="saved-targets")
router.register("webhook", webhook_views.WebhookViewSet, basename="webhook")
router.register("webhook-delivery", webhook_views.DeliveryViewSet, basename="webhook-delivery")
router.register("membership", membership_views.MembershipViewSet, basename="membership")
router.register("audit", audit_views.AuditViewSet, basename="audit")
people = SimpleRouter()
people.register("user", membership_views.UserViewSet, basename="user")

urlpatterns = [
    path(
        "controller/batch-command/<uuid:pk>/events/",
        event_views.RunEventsView.as_view(),
        name="batch-command-events",
    ),
    path(
        "controller/batch-command/<uuid:pk>/export/",
        export_views.RunExportView.as_view(),
        name="batch-command-export",
    ),
    path(
        "controller/batch-command/<uuid:pk>/commands/",
        command_views.RunCommandsView.as_view(),
        name="batch-command-commands",
    ),
    path("controller/device/host-keys/", host_key_views.HostKeysView.as_view(), name="device-host-keys"),
    path("controller/device/inventory/", inventory_views.InventoryView.as_view(), name="device-inventory"),
    path("controller/device/known-hosts/", host_key_views.KnownHostsFileView.as_view(), name="device-known-hosts"),
    path("controller/commands/<uuid:pk>/tasks/", command_views.CommandTasksView.as_view(), name="command-tasks"),
    path("controller/device/<uuid:pk>/command/", command_views.DeviceCommandsView.as_view(), name="device-command"),
    path("controller/audit/export/", audit_views.AuditExportView.as_view(), name="audit-export"),
    path("controller/", include(router.urls)),
    path("users/me/", membership_views.MeView.as_view(), name="user-me"),
    path("users/", include(people.urls)),
    path("users/token/", user_views.TokenView.as_view(), name="token"),
    path("users/token/<uuid:pk>/", user_views.TokenDetailView.as_view(), name="token-detail"),
    path("schema/", SpectacularAPIView.as_view(permission_classes=()), name="schema"),
    path("docs/", SpectacularSwaggerSplitView.as_view(url_name="schema", permission_classes=()), name="docs"),
    re_path(r"^.*[^/]\Z", errors.without_slash, name="without-slash"),
]
