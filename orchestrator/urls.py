"""All addresses."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from orchestrator import health
from orchestrator.admin import queue, sign_in

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("healthz", health.alive, name="healthz"),
    path("readyz", health.ready, name="readyz"),
    path("api/v1/", include("orchestrator.api.urls")),
    path("admin/django-rq/", include(queue.addresses())),
    path("admin/", include(sign_in.addresses())),
    path("admin/", admin.site.urls),
]

handler400 = "orchestrator.api.errors.bad_request"
handler404 = "orchestrator.api.errors.not_found"
handler500 = "orchestrator.api.errors.server_error"
