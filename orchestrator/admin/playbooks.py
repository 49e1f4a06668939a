"""The catalogue of playbooks, to be read: what there is, what each takes, what is wrong with the broken ones."""

import json
from typing import Any, Final

from django.contrib import admin
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.safestring import SafeString
from unfold.decorators import display

from orchestrator import catalogue
from orchestrator.access import Right
from orchestrator.admin.labels import local_time
from orchestrator.admin.playbook_inputs import described
from orchestrator.admin.scoped import OrganizationScopedAdmin, ReadOnlyAdmin, access_of
from orchestrator.models import CommandType, MassCommand, Organization, Playbook

_RUNS: Final = 10  # of a playbook, that its page lists
_NAMED: Final = 20  # organizations named


@admin.register(Playbook)
class PlaybookAdmin(ReadOnlyAdmin, OrganizationScopedAdmin):
    """Playbooks belong to no organization: they exist for members of those that allow them."""

    list_display = ("name", "state", "about", "takes", "source", "version", "found")
    list_filter = ("status",)
    search_fields = ("name", "description")
    search_help_text = "Name or description"
    ordering = ("name",)
    actions = None
    list_before_template = "orchestrator/playbook_list_note.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Those that exist for the user."""
        return catalogue.playbooks(access_of(request)).order_by(*self.ordering)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Members of any organization; which rows, says ``get_queryset``."""
        return access_of(request).can_anywhere(Right.VIEW)

    def history_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """There is none: nothing is changed here."""
        raise Http404

    @display(description="state", ordering="status", label={"ok": "success", "broken": "danger"})  # type: ignore[untyped-decorator]
    def state(self, row: Playbook) -> tuple[str, str]:
        """Whether it can be run."""
        return row.status, row.get_status_display()

    @admin.display(description="description")
    def about(self, row: Playbook) -> str:
        """The first line of it; of a broken one what is wrong."""
        return (row.message if row.broken else row.description).strip().partition("\n")[0][:120]

    @admin.display(description="inputs")
    def takes(self, row: Playbook) -> int:
        """How many it knows."""
        return len(row.schema.get("properties", {}))

    @admin.display(description="from")
    def source(self, row: Playbook) -> str:
        """Where it comes from; where directories are on the server is nobody's concern."""
        return row.url or "a directory"

    @admin.display(description="version")
    def version(self, row: Playbook) -> str:
        """The commit, or the beginning of the digest."""
        return row.commit[:12] or row.digest[:12]

    @admin.display(description="found", ordering="refreshed")
    def found(self, row: Playbook) -> SafeString:
        """When this version was found."""
        return local_time(row.refreshed)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """The page of one."""
        row = self.get_object(request, object_id)
        if row is None:
            raise Http404
        access = access_of(request)
        organizations = access.visible(Organization.objects.all(), organization="pk")
        allowing = [one for one in organizations if one.allows(CommandType.PLAYBOOK) and one.allows_playbook(row.name)]
        runs = access.visible(MassCommand.objects.filter(playbook=row.name))
        context = {
            **self.admin_site.each_context(request),
            "title": row.name, "subtitle": "", "opts": self.opts, "row": row, "inputs": described(row),
            "schema": json.dumps(row.schema, indent=2, ensure_ascii=False),
            "allowing": [one.name for one in allowing[:_NAMED]], "more": max(0, len(allowing) - _NAMED),
            "everybody": len(allowing) == len(organizations) and access.everything,
            "may_run": not row.broken and access.can_anywhere(Right.RUN),
            "runs": list(runs.select_related("organization", "created_by")[:_RUNS]),
        }  # fmt: skip
        return TemplateResponse(request, "orchestrator/playbook.html", context)
