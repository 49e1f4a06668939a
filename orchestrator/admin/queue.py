"""django-rq's pages, behind a gate of our own: they would show every queue's jobs to any staff user.

Its addresses are walked and each view is wrapped, so that one which a new version adds is gated as well.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.apps import apps
from django.contrib import admin
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, URLResolver, include
from redis.exceptions import RedisError

from orchestrator.access import Access

# django-rq puts a second set of the same views below /admin/django_rq/: there is one door only.
admin.site.unregister(apps.get_model("django_rq", "Dashboard"))


def superusers_only(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """For everybody else the view does not exist."""

    @wraps(view)
    def gated(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if not Access.of(request.user).everything or not admin.site.has_permission(request):
            raise Http404
        try:
            return view(request, *args, **kwargs)
        except (RedisError, OSError) as error:
            context = {**admin.site.each_context(request), "title": "Queue", "detail": str(error)}
            return TemplateResponse(request, "orchestrator/queue_down.html", context, status=503)

    return gated


def _gate(entry: URLPattern | URLResolver) -> URLPattern | URLResolver:
    if isinstance(entry, URLPattern):
        return URLPattern(entry.pattern, superusers_only(entry.callback), entry.default_args, entry.name)
    children = [_gate(child) for child in entry.url_patterns]
    return URLResolver(entry.pattern, children, entry.default_kwargs, entry.app_name, entry.namespace)


def addresses() -> tuple[list[URLPattern | URLResolver], str]:
    """All of django-rq's addresses, gated, for ``include``."""
    module: Any
    module, app_name, _ = include("django_rq.urls")
    return [_gate(entry) for entry in module.urlpatterns], str(app_name)
