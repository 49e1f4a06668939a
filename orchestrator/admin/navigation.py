"""The menu of the admin: only what the user may open."""

from typing import Any, Final

from django.contrib import admin
from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse

from orchestrator.access import Right
from orchestrator.admin.scoped import access_of

_MODELS: Final = (
    ("Fleet", "orchestrator", (
        ("Devices", "device", "router"), ("Device groups", "devicegroup", "workspaces"),
        ("Locations", "location", "location_on"), ("Saved target sets", "savedtargets", "bookmarks"),
        ("Credentials", "credential", "key"),
        ("Organizations", "organization", "domain"),
    )),
    ("Access", "", (
        ("Users", "orchestrator_user", "group"), ("API tokens", "orchestrator_token", "vpn_key"),
        ("Webhooks", "orchestrator_webhook", "webhook"), ("Audit log", "orchestrator_auditentry", "policy"),
    )),
)  # fmt: skip


def stylesheet(request: HttpRequest) -> str:
    """Our style sheet, on every page of the admin."""
    return static("orchestrator/admin.css")


def styles_by_script(request: HttpRequest) -> str:
    """What lets unfold's scripts move things under a policy without inline styles; before all of them."""
    return static("orchestrator/styles.js")


def favicon(*_: HttpRequest) -> str:
    """The mark of the service."""
    return static("orchestrator/favicon.svg")


def sidebar(request: HttpRequest) -> list[dict[str, Any]]:
    """The groups of the menu, as unfold reads them."""
    listed = {
        f"{model._meta.app_label}_{model._meta.model_name}": page
        for model, page in admin.site._registry.items()
        if page.has_module_permission(request)
    }
    groups = [{"title": "Commands", "items": _commands(request)}]
    for title, app, entries in _MODELS:
        named = [(label, f"{app}_{name}" if app else name, icon) for label, name, icon in entries]
        items = [
            {"title": label, "icon": icon, "link": reverse(f"admin:{name}_changelist")}
            for label, name, icon in named
            if name in listed
        ]
        groups.append({"title": title, "items": items})
    groups.append({"title": "Service", "items": _service(request)})
    return groups


def _commands(request: HttpRequest) -> list[dict[str, Any]]:
    access, wizard = access_of(request), reverse("admin:orchestrator_run_new")
    items = [{"title": "Dashboard", "icon": "dashboard", "link": reverse("admin:index")}]
    if access.can_anywhere(Right.RUN):
        items.append({"title": "Run a command", "icon": "play_arrow", "link": wizard})
    if access.can_anywhere(Right.VIEW):
        runs = reverse("admin:orchestrator_masscommand_changelist")
        active: Any = request.path.startswith(runs) and not request.path.startswith(wizard)
        items.append({"title": "Runs", "icon": "checklist", "link": runs, "active": active})
        playbooks = reverse("admin:orchestrator_playbook_changelist")
        items.append({"title": "Playbooks", "icon": "menu_book", "link": playbooks})
        schedules = reverse("admin:orchestrator_schedule_changelist")
        items.append({"title": "Schedules", "icon": "event_repeat", "link": schedules})
        history = reverse("admin:orchestrator_command_changelist")
        items.append({"title": "Device results", "icon": "history", "link": history})
    return items


def _service(request: HttpRequest) -> list[dict[str, Any]]:
    items = [
        {"title": "API reference", "icon": "api", "link": reverse("docs")},
        {"title": "API in the browser", "icon": "data_object", "link": reverse("batch-command-list")},
    ]
    if access_of(request).everything:
        items.insert(0, {"title": "Queue", "icon": "stacks", "link": reverse("django_rq:home")})
    return items
