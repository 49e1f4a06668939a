"""Signing in and out of the admin, and one's own password: Django's pages, each of them written down."""

from math import ceil
from typing import Any, Final

from django.contrib import admin
from django.contrib.auth import get_user
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.views.decorators.cache import never_cache

from orchestrator import audit
from orchestrator.models import AuditAction, User
from orchestrator.origin import client_address
from orchestrator.rates import sign_in_wait
from orchestrator.secrets import MASK

_NAME: Final = 150  # characters of a user name


@never_cache
def sign_in(request: HttpRequest) -> HttpResponse:
    """Django's page; who came in is written down, and who did not.  Passwords can't be tried at will."""
    username = request.POST.get("username", "")[:_NAME]
    if request.method == "POST":
        wait = sign_in_wait(address=client_address(request), username=username)
        if wait is not None:
            seconds = ceil(wait)
            headers = {"Retry-After": str(seconds)}
            return TemplateResponse(request, "429.html", {"seconds": seconds}, status=429, headers=headers)
    response: HttpResponse = admin.site.login(request)
    if request.method != "POST":
        return response
    if response.status_code == 302 and isinstance(request.user, User):
        audit.signed_in(request.user)
    else:
        audit.sign_in_failed(username)
    return response


@never_cache
def sign_out(request: HttpRequest) -> HttpResponse:
    """Django's page."""
    user = request.user
    response: HttpResponse = admin.site.logout(request)
    if isinstance(user, User) and not isinstance(request.user, User):
        audit.record(AuditAction.SIGN_OUT, actor=user, about=user)
    return response


def change_password(request: HttpRequest) -> HttpResponse:
    """Django's page for one's own password."""
    user: Any = get_user(request)
    with transaction.atomic():
        response: HttpResponse = admin.site.password_change(request)
        if request.method == "POST" and response.status_code == 302 and isinstance(user, User):
            audit.record(
                AuditAction.USER_CHANGE, actor=user, about=user, details={"changes": {"password": [MASK, MASK]}}
            )
    return response


def addresses() -> list[URLPattern]:
    """In front of the admin's own, which lead to the same names."""
    return [
        path("login/", sign_in),
        path("logout/", sign_out),
        path("password_change/", admin.site.admin_view(change_password)),
    ]
