"""API tokens: everybody sees and revokes their own, superusers all.  They are made over the API."""

import uuid
from typing import Any, cast

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import models
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html

from orchestrator.actions import revoke_token
from orchestrator.admin.scoped import ReadOnlyAdmin, access_of
from orchestrator.models import Token, User


@admin.register(Token)
class TokenAdmin(ReadOnlyAdmin):
    """The list of tokens, and a page to revoke one."""

    list_display = (
        "name", "beginning", "user", "organization", "read_only", "created", "expires", "last_used", "revoke",
    )  # fmt: skip
    list_display_links = None
    list_select_related = ("user", "organization")
    search_fields = ("name", "user__username")
    ordering = ("-created",)
    actions = None
    list_per_page = 50

    def get_queryset(self, request: HttpRequest) -> "models.QuerySet[Any]":
        """One's own; superusers see all."""
        rows = super().get_queryset(request)
        return rows if access_of(request).everything else rows.filter(user=request.user.pk)

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Everybody may look after their own tokens."""
        return True

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """The list is for everybody; there is no page of a single token."""
        return True

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Refused: there is no page of a single token."""
        raise PermissionDenied

    def history_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Refused: there is no page of a single token."""
        raise PermissionDenied

    def get_urls(self) -> list[URLPattern]:
        """The page to revoke a token, before Django's own addresses."""
        view = self.admin_site.admin_view(self.revoke_view)
        return [path("<uuid:pk>/revoke/", view, name="orchestrator_token_revoke"), *super().get_urls()]

    @admin.display(description="begins with")
    def beginning(self, token: Any) -> str:
        """Enough to tell one's tokens apart."""
        return f"{token.prefix}…"

    @admin.display(description="expires", ordering="expiry")
    def expires(self, token: Any) -> str:
        """When it ends, if it does."""
        if token.expiry is None:
            return "never"
        day = timezone.localtime(token.expiry).strftime("%Y-%m-%d %H:%M")
        return f"{day} (ended)" if token.expiry < timezone.now() else day

    @admin.display(description="")
    def revoke(self, token: Any) -> str:
        """The link to the page that asks."""
        address = reverse("admin:orchestrator_token_revoke", args=[token.pk])
        return format_html('<a class="o-link" href="{}">Revoke<span class="o-hidden"> {}</span></a>', address, token)

    def revoke_view(self, request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
        """Ask, then delete the token; a program that uses it is signed out at once."""
        token = get_object_or_404(self.get_queryset(request).select_related("user"), pk=pk)
        here = reverse("admin:orchestrator_token_changelist")
        if request.method == "POST":
            revoke_token(actor=cast("User", request.user), token=token)
            messages.success(request, f"The token {token} of {token.user} is revoked.")
            return HttpResponseRedirect(here)
        context = {
            **self.admin_site.each_context(request),
            "title": "Revoke a token",
            "question": f"Revoke the token {token} of {token.user}?",
            "explanation": "Programs that use it can no longer sign in. This can't be undone.",
            "button": "Revoke the token",
            "danger": True,
            "back": here,
        }
        return TemplateResponse(request, "orchestrator/confirm.html", context)
