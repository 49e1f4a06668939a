"""What all pages share: rows and rights as access.py says; Django's model permissions are not asked.

The one door to django-unfold's classes.
"""

import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from django import forms
from django.contrib.admin import ModelAdmin as BaseAdmin
from django.contrib.admin import RelatedFieldListFilter
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.options import ActionLocation
from django.db import models, transaction
from django.http import Http404, HttpRequest

from orchestrator import audit
from orchestrator.access import Access, Right
from orchestrator.models import Membership, Organization

if TYPE_CHECKING:  # unfold has no types; its classes are Django's with other templates
    from django.contrib import admin

    _ModelAdmin = admin.ModelAdmin[Any]
    _TabularInline = admin.TabularInline[Any, Any]
    RowForm = forms.ModelForm[Any]
    RowFormSet = forms.BaseInlineFormSet[Any, Any, Any]
else:
    from django.forms import BaseInlineFormSet as RowFormSet
    from django.forms import ModelForm as RowForm
    from unfold.admin import ModelAdmin as _ModelAdmin
    from unfold.admin import TabularInline as _TabularInline

__all__ = (
    "OrganizationScopedAdmin", "OwnedForm", "ReadOnlyAdmin", "RowForm", "RowFormSet", "UnfoldAdmin", "UnfoldInline",
    "VisibleFilter", "access_of", "choices_for", "log_changes", "owner_of",
)  # fmt: skip


_CHOICES: Final = 200  # of a filter beside a list; more are found by the search


class UnfoldAdmin(_ModelAdmin):
    """unfold's pages for a model; what they change is written to the audit log, in the same transaction."""

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Save, and remember what was there before."""
        if change:
            self.remember(request, obj)
        super().save_model(request, obj, form, change)

    def remember(self, request: HttpRequest, obj: Any) -> None:
        """Keep what is stored of a row, to tell what has changed once it is saved."""
        stored = self.model._default_manager.get(pk=obj.pk)
        request._audit_before = audit.snapshot(stored)  # type: ignore[attr-defined]

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        """Save the rows within the page; roles have entries of their own."""
        if formset.model is not Membership:
            super().save_formset(request, form, formset, change)
            return
        actor: Any = request.user
        before = {row.pk: audit.snapshot(row) for row in Membership.objects.filter(pk__in=formset.get_queryset())}
        for gone in formset.deleted_forms:
            if gone.instance.pk in before:
                audit.deleted(gone.instance, actor=actor)
        super().save_formset(request, form, formset, change)
        for row in formset.new_objects:
            audit.created(row, actor=actor)
        for row, _ in formset.changed_objects:
            audit.changed(row, actor=actor, before=before[row.pk])

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """In the row's history, and in the audit log."""
        actor: Any = request.user
        audit.created(obj, actor=actor)
        return super().log_addition(request, obj, message)

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """In the row's history, and in the audit log what has changed."""
        actor: Any = request.user
        if before := request.__dict__.pop("_audit_before", None):
            audit.changed(obj, actor=actor, before=before)
        return super().log_change(request, obj, message)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        """Delete one row."""
        actor: Any = request.user
        with transaction.atomic():
            audit.deleted(obj, actor=actor)
            super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        """Delete ticked rows."""
        actor: Any = request.user
        with transaction.atomic():
            for row in queryset:
                audit.deleted(row, actor=actor)
            super().delete_queryset(request, queryset)

    def get_action_choices(
        self, request: HttpRequest, default_choices: Any = None, action_location: Any = ActionLocation.CHANGE_LIST
    ) -> Any:
        """unfold 0.110 overrides this with the signature of Django before 6.1, which warns."""
        choices = default_choices or [("", "Select action")]
        return BaseAdmin.get_action_choices(self, request, choices, action_location)


class UnfoldInline(_TabularInline):
    """Rows within the page of another row."""

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Each input names itself: unfold's table has its headings in no relation to them."""
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if field is not None:
            widget: Any = getattr(field.widget, "widget", field.widget)
            widget.attrs["aria-label"] = str(field.label or db_field.verbose_name)
        return field


def access_of(request: HttpRequest) -> Access:
    """The rights of who asks, read once per request."""
    user: Any = request.user
    kept: tuple[Any, Access] | None = getattr(request, "_access", None)
    if kept is None or kept[0] != user.pk:  # a request may sign somebody in
        kept = (user.pk, Access.of(user))
        request._access = kept  # type: ignore[attr-defined]
    return kept[1]


def owner_of(row: Any) -> uuid.UUID | None:
    """The id of the organization that the row belongs to; None: of the system."""
    owner: uuid.UUID | None = row.pk if isinstance(row, Organization) else row.organization_id
    return owner


def log_changes(request: HttpRequest, rows: models.QuerySet[Any], message: str) -> None:
    """Note a change to many rows in their histories."""
    actor: Any = request.user.pk
    LogEntry.objects.log_actions(actor, rows, action_flag=CHANGE, change_message=message)


class OwnedForm(RowForm):
    """A row of an organization.  It stays there: what refers to it would be torn apart."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.instance._state.adding and "organization" in self.fields:
            self.fields["organization"].disabled = True


class ReadOnlyAdmin(UnfoldAdmin):
    """Pages of rows that nobody makes, changes or deletes by Django's forms; named before what says who sees them."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Never."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Never."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Never."""
        return False


class OrganizationScopedAdmin(UnfoldAdmin):
    """Rows exist for members of their organization, and may be changed by its administrators."""

    organization_lookup = "organization"
    warn_unsaved_form = True
    list_filter_submit = True
    show_full_result_count = False  # a second COUNT over all rows on each page
    list_per_page = 50

    def get_queryset(self, request: HttpRequest) -> "models.QuerySet[Any]":
        """Only rows that the user may see: all else is not found."""
        return access_of(request).visible(super().get_queryset(request), organization=self.organization_lookup)

    def _get_obj_does_not_exist_redirect(self, request: HttpRequest, opts: Any, object_id: str) -> Any:
        """404, where Django's own leads to the first page: a stranger's row does not exist."""
        raise Http404

    def _may(self, right: Right, request: HttpRequest, obj: Any) -> bool:
        access = access_of(request)
        # a new row without organization yet is refused by the choices of its form
        return access.can_anywhere(right) if obj is None else access.can(right, owner_of(obj))

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Whether the rows are listed in the menu."""
        return access_of(request).can_anywhere(Right.VIEW)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Members see."""
        return self._may(Right.VIEW, request, obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Administrators add; to which organization is limited by the choices."""
        return access_of(request).can_anywhere(Right.MANAGE)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Administrators change."""
        return self._may(Right.MANAGE, request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Administrators delete."""
        return self._may(Right.MANAGE, request, obj)

    def has_run_permission(self, request: HttpRequest) -> bool:
        """Whether the user may run commands anywhere: for the list actions."""
        return access_of(request).can_anywhere(Right.RUN)

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Only rows that exist for the user can be chosen; of organizations only those that they administrate."""
        kwargs.setdefault("queryset", choices_for(db_field.remote_field.model, request))
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def get_deleted_objects(self, objs: Iterable[Any], request: HttpRequest) -> Any:
        """What goes with the rows, in numbers: an organization may have 100,000 results, too many to list."""
        rows = list(objs)
        lacking = {str(self.opts.verbose_name) for row in rows if not self.has_delete_permission(request, row)}
        return [str(row) for row in rows], self.consequences(rows), lacking, []

    def consequences(self, rows: list[Any]) -> dict[str, int]:
        """Name → number of the rows that are deleted."""
        return {str(self.opts.verbose_name_plural): len(rows)}


class VisibleFilter(RelatedFieldListFilter):
    """Filters a list by a related row; Django's own would offer strangers' rows as well."""

    def field_choices(self, field: Any, request: HttpRequest, model_admin: Any) -> Any:
        """The rows that exist for the user; with their organization where names may be there twice."""
        access, model = access_of(request), field.remote_field.model
        if model is Organization:
            return [(row.pk, row.name) for row in access.visible(model.objects.all(), organization="pk")[:_CHOICES]]
        rows = access.visible(model.objects.select_related("organization"))[:_CHOICES]
        several = access.spans_several()
        return [(row.pk, f"{row.name} ({row.organization.name})" if several else row.name) for row in rows]


def choices_for(model: type[models.Model], request: HttpRequest) -> "models.QuerySet[Any]":
    """The rows of a model that a form may offer to this user."""
    access, rows = access_of(request), model._default_manager.all()
    if model is Organization:
        return access.visible(rows, organization="pk", right=Right.MANAGE)
    return access.visible(rows)
