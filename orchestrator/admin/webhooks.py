"""Webhooks: who is told of runs, what each was told, and whether it arrived."""

import uuid
from typing import Any, Final, cast
from urllib.parse import urlsplit

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import OuterRef, Subquery
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.views.decorators.http import require_POST
from unfold.decorators import display
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget

from orchestrator import webhooks
from orchestrator.access import Access, Right
from orchestrator.admin.scoped import OrganizationScopedAdmin, OwnedForm, VisibleFilter, access_of
from orchestrator.models import DeliveryStatus, User, Webhook, WebhookDelivery, WebhookEvent
from orchestrator.models.webhooks import SUBSCRIBABLE

_SHOWN: Final = 30  # deliveries on a webhook's page
_LABELS: Final = {
    DeliveryStatus.DELIVERED: "success",
    DeliveryStatus.PENDING: "info",
    DeliveryStatus.FAILED: "danger",
}


class WebhookForm(OwnedForm):
    """A webhook; its secret is made, not given."""

    events = forms.MultipleChoiceField(
        label="What it is told", choices=[(event.value, event.label) for event in SUBSCRIBABLE],
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
    )  # fmt: skip

    access = Access()  # of who looks at the form; set by the page

    class Meta:
        model = Webhook
        fields = ("organization", "name", "url", "events", "enabled")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "organization" in self.fields and not self.access.everything:
            self.fields["organization"].required = True
            self.fields["organization"].help_text = "Whose runs it is told of."


@admin.register(Webhook)
class WebhookAdmin(OrganizationScopedAdmin):
    """Webhooks, for the administrators of their organization."""

    form = WebhookForm
    fields = ("organization", "name", "url", "events", "enabled")
    list_display = ("name", "whose", "host", "told", "enabled", "last")
    list_filter = (("organization", VisibleFilter), "enabled")
    list_select_related = ("organization",)
    search_fields = ("name",)
    actions = None
    change_form_outer_before_template = "orchestrator/webhook_tools.html"
    change_form_outer_after_template = "orchestrator/webhook_deliveries.html"

    def get_queryset(self, request: HttpRequest) -> Any:
        """A URL is often a secret: only those of the organizations that the user administrates."""
        newest = WebhookDelivery.objects.filter(webhook=OuterRef("pk")).values("status")[:1]
        rows = Webhook.objects.annotate(last_status=Subquery(newest))
        return access_of(request).visible(rows, right=Right.VIEW_WEBHOOKS)

    def get_list_filter(self, request: HttpRequest) -> Any:
        """Only whoever sees several organizations has to tell them apart."""
        several = access_of(request).spans_several(Right.VIEW_WEBHOOKS)
        return self.list_filter if several else ("enabled",)

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Whether the rows are listed in the menu."""
        return access_of(request).can_anywhere(Right.VIEW_WEBHOOKS)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Administrators."""
        return self._may(Right.VIEW_WEBHOOKS, request, obj)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """A form that asks whoever is no superuser for the organization."""
        made: Any = super().get_form(request, obj, change, **kwargs)
        return type(made.__name__, (made,), {"access": access_of(request)})

    def get_urls(self) -> list[URLPattern]:
        """What can be done with one, before Django's own addresses."""
        wrap = self.admin_site.admin_view
        return [
            path("<uuid:pk>/secret/", wrap(self.secret_view), name="orchestrator_webhook_secret"),
            path("<uuid:pk>/test/", wrap(require_POST(self.test_view)), name="orchestrator_webhook_test"),
            path("delivery/<uuid:pk>/", wrap(require_POST(self.send_view)), name="orchestrator_webhook_send"),
            *super().get_urls(),
        ]

    # ------------------------------------------------------------ the list

    @admin.display(description="runs of", ordering="organization__name")
    def whose(self, row: Webhook) -> str:
        """Whose runs it is told of."""
        return str(row.organization or "all organizations")

    @admin.display(description="sent to")
    def host(self, row: Webhook) -> str:
        """Without the path, which is often a secret."""
        return urlsplit(row.url).netloc

    @admin.display(description="told when")
    def told(self, row: Webhook) -> str:
        """The events in words."""
        return ", ".join(str(WebhookEvent(event).label) for event in row.events)

    @display(description="last delivery", label=_LABELS)  # type: ignore[untyped-decorator]
    def last(self, row: Any) -> tuple[str, str] | None:
        """What became of the newest one."""
        return (row.last_status, str(DeliveryStatus(row.last_status).label)) if row.last_status else None

    # ------------------------------------------------------------ one webhook

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """With what it was told."""
        reply: Any = super().changeform_view(request, *args, **kwargs)
        context = getattr(reply, "context_data", None) or {}
        if (row := context.get("original")) is not None:
            rows = WebhookDelivery.objects.filter(webhook=row).select_related("mass_command").defer("body")
            context |= {"deliveries": list(rows[:_SHOWN])}
            reply.context_data = context
        return reply

    def save_model(self, request: HttpRequest, obj: Webhook, form: Any, change: bool) -> None:
        """Save, with a secret where it is new."""
        if change:
            self.remember(request, obj)
        obj._new_secret = webhooks.store(obj)  # type: ignore[attr-defined]

    def response_add(self, request: HttpRequest, obj: Webhook, post_url_continue: Any = None) -> HttpResponse:
        """Show the secret, this once."""
        return self._secret_page(request, obj, obj._new_secret)  # type: ignore[attr-defined]

    def secret_view(self, request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
        """Ask, then make a new secret."""
        webhook = self._changeable(request, pk)
        if request.method == "POST":
            secret = webhooks.replace_secret(webhook, actor=cast("User", request.user))
            return self._secret_page(request, webhook, secret)
        context = {
            **self.admin_site.each_context(request),
            "title": "New secret",
            "question": f"Give {webhook} a new secret?",
            "explanation": "It is shown once. For a day the one before signs as well, so the receiver has time.",
            "button": "Make a new secret",
            "back": reverse("admin:orchestrator_webhook_change", args=[webhook.pk]),
        }
        return TemplateResponse(request, "orchestrator/confirm.html", context)

    def test_view(self, request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
        """Send a test."""
        webhook = self._changeable(request, pk)
        webhooks.test(webhook, actor=cast("User", request.user))
        messages.success(request, "A test is on its way. Reload the page to see what becomes of it.")
        return HttpResponseRedirect(reverse("admin:orchestrator_webhook_change", args=[webhook.pk]))

    def send_view(self, request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
        """Send a delivery again."""
        delivery = get_object_or_404(WebhookDelivery.objects.filter(webhook__in=self.get_queryset(request)), pk=pk)
        webhook = self._changeable(request, delivery.webhook_id)
        if webhooks.send_again(delivery, actor=cast("User", request.user)):
            messages.success(request, "It is sent again.")
        else:
            messages.info(request, "It is still on its way.")
        return HttpResponseRedirect(reverse("admin:orchestrator_webhook_change", args=[webhook.pk]))

    def _changeable(self, request: HttpRequest, pk: uuid.UUID) -> Webhook:
        webhook: Webhook = get_object_or_404(self.get_queryset(request).select_related("organization"), pk=pk)
        if not self.has_change_permission(request, webhook):
            raise PermissionDenied
        return webhook

    def _secret_page(self, request: HttpRequest, webhook: Webhook, secret: str) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": f"The secret of {webhook}",
            "secret": secret,
            "back": reverse("admin:orchestrator_webhook_change", args=[webhook.pk]),
        }
        return TemplateResponse(request, "orchestrator/webhook_secret.html", context)  # which nothing caches
