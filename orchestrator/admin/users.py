"""People and what they may do: users (for superusers), memberships (for administrators of an organization)."""

from typing import TYPE_CHECKING, Any, cast

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.db import transaction
from django.forms.models import BaseModelForm
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from orchestrator import audit
from orchestrator.access import Right
from orchestrator.admin.scoped import UnfoldAdmin, UnfoldInline, access_of
from orchestrator.models import Membership, Organization, User

if TYPE_CHECKING:
    Base = DjangoUserAdmin[User]
else:

    class Base(DjangoUserAdmin, UnfoldAdmin):
        """Django's pages for users, drawn by unfold."""


admin.site.unregister(Group)  # rights come from memberships alone (access.py)


class MembershipInline(UnfoldInline):
    """Roles, on the page of a user or of an organization."""

    model = Membership
    fields = ("user", "organization", "role")
    extra = 0
    verbose_name_plural = "members and their roles"

    def _may(self, request: HttpRequest, obj: Any) -> bool:
        access = access_of(request)
        return access.everything or (isinstance(obj, Organization) and access.can(Right.MANAGE, obj.pk))

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Members see who else is one."""
        access = access_of(request)
        if obj is None:  # Django asks so before it reads the rows of an organization that was found already
            return access.can_anywhere(Right.VIEW)
        return access.everything or (isinstance(obj, Organization) and access.can(Right.VIEW, obj.pk))

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Administrators of the organization give roles in it."""
        return self._may(request, obj)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Administrators of the organization change roles in it."""
        return self._may(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Administrators of the organization end memberships in it."""
        return self._may(request, obj)

    def get_autocomplete_fields(self, request: HttpRequest) -> tuple[str, ...]:
        """Search as you type for those who may see all users."""
        return ("user",) if access_of(request).everything and self.parent_model is Organization else ()

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Administrators choose among the members of their organizations; superusers bring in new people."""
        access = access_of(request)
        if db_field.name == "user" and not access.everything:
            own = access.organizations(Right.MANAGE)
            kwargs["queryset"] = User.objects.filter(memberships__organization__in=own).distinct()
        return super().formfield_for_foreignkey(db_field, request, **kwargs)


class PersonForm(UserChangeForm):  # type: ignore[misc]
    """A user without anything of the password, of which Django's form shows the salt's beginning."""

    password = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        BaseModelForm.__init__(self, *args, **kwargs)  # unfold's own dresses the field that is not there


@admin.register(User)
class UserAdmin(Base):
    """Users, for superusers alone."""

    form = PersonForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("username", "first_name", "last_name", "email", "is_active", "is_staff", "is_superuser")
    list_filter = ("is_active", "is_staff", "is_superuser")
    readonly_fields = ("password_link", "last_login", "date_joined")
    filter_horizontal = ()
    inlines = (MembershipInline,)
    fieldsets = (
        (None, {"fields": ("username", "password_link")}),
        ("Person", {"fields": ("first_name", "last_name", "email")}),
        (
            "Rights",
            {
                "fields": ("is_active", "is_staff", "is_superuser"),
                "description": "Staff may use these pages; what they see and do there follows from their memberships. "
                "A superuser may do everything.",
            },
        ),
        ("Dates", {"fields": ("last_login", "date_joined")}),
    )

    @admin.display(description="Password")
    def password_link(self, user: User) -> str:
        """Where to set a new one; nothing of the stored one."""
        state = "Set." if user.has_usable_password() else "None: this user can't sign in with a password."
        address = reverse("admin:auth_user_password_change", args=[user.pk])
        return format_html('{} <a class="o-link" href="{}">Set a new password</a>', state, address)

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> Any:  # noqa: A002 - Django's
        """Set a password, or take it away."""
        with transaction.atomic():
            row = self.get_object(request, unquote(id))  # None also for what is no id at all
            before = row and audit.snapshot(row)
            response = super().user_change_password(request, id, form_url)
            if row and before:
                row.refresh_from_db()
                audit.changed(row, actor=cast("User", request.user), before=before)
        return response

    def _superuser(self, request: HttpRequest) -> bool:
        return access_of(request).everything

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Superusers."""
        return self._superuser(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Superusers."""
        return self._superuser(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Superusers."""
        return self._superuser(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Superusers."""
        return self._superuser(request)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Superusers; nobody deletes themselves."""
        return self._superuser(request) and (obj is None or obj.pk != request.user.pk)
