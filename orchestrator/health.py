"""For load balancers and monitors: is this process alive, and can the service do its work?"""

from django.db import DatabaseError, connection
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_safe
from redis.exceptions import RedisError

from orchestrator import dispatch
from orchestrator.sandbox import isolated


@require_safe
def alive(request: HttpRequest) -> JsonResponse:
    """200 while the process answers; nothing else is asked."""
    return JsonResponse({"status": "ok"})


@require_safe
def ready(request: HttpRequest) -> JsonResponse:
    """200 when a run could start now, 503 when not; each part is named, and no address or version is told.

    ``isolation`` is about this machine: "none" means that bubblewrap is missing or forbidden, and that runs which
    start here are ended by their recorded processes instead of a PID namespace.  It does not make the service unready.
    """
    parts = {"database": _database(), "queue": "ok" if dispatch.reachable() else "down", "workers": _workers()}
    ok = all(state == "ok" for state in parts.values())
    body = {"status": "ok" if ok else "unavailable", **parts, "isolation": "ok" if isolated() else "none"}
    return JsonResponse(body, status=200 if ok else 503)


def _database() -> str:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        return "down"
    return "ok"


def _workers() -> str:
    try:
        if dispatch.draining():
            return "draining"
        return "ok" if dispatch.worker_count() else "none"
    except (RedisError, OSError):
        return "unknown"
