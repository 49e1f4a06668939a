"""Host keys in the admin: shown, compared, accepted; of one device, of many, or from a known_hosts file."""

from typing import TYPE_CHECKING, Any, Final

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget, UnfoldBooleanSwitchWidget

from orchestrator import actions
from orchestrator.access import Right
from orchestrator.admin.scoped import OrganizationScopedAdmin, access_of, choices_for
from orchestrator.exceptions import HostKeyChangedError, OrchestratorError
from orchestrator.host_keys import Outcome
from orchestrator.models import Organization

if TYPE_CHECKING:
    Base = OrganizationScopedAdmin
else:
    Base = object

_AT_ONCE: Final = 200  # devices scanned for one page, twenty at a time
_NAMED: Final = 10  # devices named in a message
_COMPARED: Final = (Outcome.SHOWN, Outcome.CHANGED)  # outcomes whose fingerprints a person looks at
_TELL: Final[dict[Outcome, tuple[Any, str]]] = {
    Outcome.PINNED: (messages.success, "{} have the shown key pinned now: {}."),
    Outcome.UNCHANGED: (messages.success, "{} need nothing: {}."),
    Outcome.SHOWN: (messages.info, "{} show a new key. Compare the fingerprints, then accept those shown: {}"),
    Outcome.CHANGED: (messages.error, "{} show another key than the pinned one. Look at each on its page: {}"),
    Outcome.SILENT: (messages.warning, "{} did not answer with a host key: {}."),
}


class KnownHostsForm(forms.Form):
    """A known_hosts file for the devices of an organization."""

    organization = forms.ModelChoiceField(Organization.objects.none(), widget=UnfoldAdminSelectWidget)
    known_hosts = forms.CharField(
        label="Lines of a known_hosts file", strip=False, max_length=2 * 1024 * 1024,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 12, "spellcheck": "false"}),
        help_text="Names in the open or hashed; the devices are found by their address and port.",
    )  # fmt: skip
    replace = forms.BooleanField(
        label="Also where another key is pinned", required=False, widget=UnfoldBooleanSwitchWidget
    )

    def __init__(self, *args: Any, organizations: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["organization"].queryset = organizations  # type: ignore[attr-defined]


class EnrolmentPages(Base):
    """What the pages of devices have for their host keys."""

    def enrolment_addresses(self) -> list[URLPattern]:
        """Before Django's own addresses."""
        wrap = self.admin_site.admin_view
        return [
            path("known-hosts/", wrap(self.known_hosts_view), name="orchestrator_device_known_hosts"),
            path("<uuid:pk>/enrol/", wrap(self.enrol_view), name="orchestrator_device_enrol"),
        ]

    def has_manage_permission(self, request: HttpRequest) -> bool:
        """Whether the user administrates any organization: for the list actions."""
        return access_of(request).can_anywhere(Right.MANAGE)

    def manageable(self, request: HttpRequest, rows: QuerySet[Any]) -> QuerySet[Any]:
        """Those of the rows that the user administrates."""
        return access_of(request).visible(rows, right=Right.MANAGE)

    @admin.action(description="Host keys: scan and show", permissions=["manage"])
    def scan_these(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Show the fingerprints of these devices, to be compared; nothing is pinned."""
        actor: Any = request.user
        devices = list(self.manageable(request, queryset).select_related("organization").order_by("name")[:_AT_ONCE])
        self._tell(request, actions.enrol_all(actor=actor, devices=devices), queryset.count() - len(devices))

    @admin.action(description="Host keys: accept those shown", permissions=["manage"])
    def accept_these(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Pin the keys that were shown and compared; a pinned key is never replaced here."""
        actor: Any = request.user
        devices = list(self.manageable(request, queryset).select_related("organization").order_by("name"))
        self._tell(request, actions.accept_shown(actor=actor, devices=devices), queryset.count() - len(devices))

    def _tell(self, request: HttpRequest, found: list[actions.Enrolment], left: int) -> None:
        """What became of each; fingerprints where somebody has to look at them."""
        for outcome, (say, text) in _TELL.items():
            rows = [each for each in found if each.outcome is outcome]
            compared = outcome in _COMPARED
            names = [each.device.name + (f" ({each.fingerprint})" if compared else "") for each in rows]
            if names:
                shown = names if compared else names[:_NAMED]
                more = f" and {len(names) - len(shown):,} more" if len(names) > len(shown) else ""
                say(request, text.format(f"{len(names):,} devices", ", ".join(shown) + more))
        if left:
            messages.warning(
                request, f"{left:,} devices were left alone: more than {_AT_ONCE}, or you don't administrate them."
            )

    def enrol_view(self, request: HttpRequest, pk: Any) -> HttpResponse:
        """Scan one device, show the fingerprint, and pin the key when it is accepted."""
        device = get_object_or_404(self.get_queryset(request), pk=pk)
        if not self.has_change_permission(request, device):
            raise PermissionDenied
        here = reverse("admin:orchestrator_device_change", args=[device.pk])
        actor: Any = request.user
        accepted = request.POST.get("fingerprint", "")
        if request.method == "POST":
            try:
                device = actions.enrol(actor=actor, device=device, fingerprint=accepted)
            except HostKeyChangedError:
                device.refresh_from_db()  # with the key that it shows
                if accepted:
                    messages.error(request, "The device shows another key than the one that you accepted. Look again.")
            except OrchestratorError as error:
                messages.error(request, f"{device.name}: {error.detail}")
                return HttpResponseRedirect(here)
            if accepted and device.fingerprint == accepted:
                LogEntry.objects.log_actions(
                    actor.pk, [device], action_flag=CHANGE, change_message=f"Host key pinned: {accepted}"
                )
                messages.success(request, f"The host key of {device.name} is pinned: {accepted}.")
                return HttpResponseRedirect(here)
            if device.host_key_state == "pinned":
                messages.success(request, f"{device.name} shows the pinned host key.")
        context = {
            **self.admin_site.each_context(request),
            "title": f"Enrol {device.name}", "device": device, "back": here,
            "key_type": device.shown_key.partition(" ")[0],
        }  # fmt: skip
        return TemplateResponse(request, "orchestrator/enrol.html", context)

    def known_hosts_view(self, request: HttpRequest) -> HttpResponse:
        """Pin the keys of a known_hosts file; first it is shown what would be."""
        if not self.has_manage_permission(request):
            raise PermissionDenied
        form = KnownHostsForm(request.POST or None, organizations=choices_for(Organization, request))
        context: dict[str, Any] = {"form": form}
        if request.method == "POST" and form.is_valid():
            actor: Any = request.user
            values = form.cleaned_data
            accept = "accept" in request.POST
            try:
                found, ignored = actions.import_known_hosts(
                    actor=actor, organization=values["organization"], text=values["known_hosts"], accept=accept,
                    replace=accept and values["replace"],
                )  # fmt: skip
            except OrchestratorError as error:
                form.add_error("known_hosts", str(getattr(error, "message", error.detail)))
            else:
                if accept:
                    self._tell(request, found, 0)
                    return HttpResponseRedirect(reverse("admin:orchestrator_device_changelist"))
                context |= {"found": found, "ignored": ignored, "looked": True}
        context |= {**self.admin_site.each_context(request), "title": "Import known hosts"}
        return TemplateResponse(request, "orchestrator/known_hosts.html", context)
