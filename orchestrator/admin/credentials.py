"""Credentials.  Their secrets can be written and never read; a field left blank keeps what is stored."""

from dataclasses import replace
from typing import Any, Final

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import Count
from django.http import HttpRequest
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget, UnfoldAdminPasswordWidget, UnfoldAdminTextareaWidget

from orchestrator.admin.scoped import OrganizationScopedAdmin, OwnedForm, VisibleFilter
from orchestrator.exceptions import SecretUnreadableError
from orchestrator.models import Credential, CredentialSecrets, Source
from orchestrator.secret_stores import configured

_SECRETS: Final = {
    "password": "Password",
    "private_key": "Private key",
    "passphrase": "Passphrase of the key",
    "become_password": "Password for sudo",
}


def _secret(label: str, help_text: str = "") -> forms.CharField:
    widget = UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"})  # never rendered with a value
    return forms.CharField(
        label=label, required=False, strip=False, max_length=1_024, widget=widget, help_text=help_text
    )


class KeyWidget(UnfoldAdminTextareaWidget):  # type: ignore[misc]
    """A text area that never shows what it holds, also not after an error."""

    def get_context(self, name: str, value: Any, attrs: dict[str, Any] | None) -> dict[str, Any]:
        """Without the value."""
        context: dict[str, Any] = super().get_context(name, "", attrs)
        return context


class CredentialForm(OwnedForm):
    """Secrets go in and never come out."""

    password = _secret(_SECRETS["password"])
    private_key = forms.CharField(
        label=_SECRETS["private_key"], required=False, strip=False, max_length=32_768,
        widget=KeyWidget(attrs={"rows": 6, "autocomplete": "off", "spellcheck": "false"}),
        help_text="In OpenSSH or PEM format.",
    )  # fmt: skip
    passphrase = _secret(_SECRETS["passphrase"])
    become_password = _secret(_SECRETS["become_password"], "Where it is not the login password.")
    forget = forms.MultipleChoiceField(
        label="Forget", required=False, choices=tuple(_SECRETS.items()), widget=UnfoldAdminCheckboxSelectMultipleWidget,
        help_text="A secret left blank above is kept. Tick it here to remove it.",
    )  # fmt: skip

    class Meta:
        model = Credential
        fields = ("organization", "name", "username", "source", "references")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "source" in self.fields:
            self.fields["source"].required = False

    def clean_source(self) -> str:
        """As it was, unless another one is chosen."""
        return str(self.cleaned_data["source"] or self.instance.source)

    def clean(self) -> dict[str, Any]:
        """A password or a key must be left, each fit for its use."""
        values = super().clean() or {}
        self.secrets: CredentialSecrets | None = None
        if values.get("source", Source.STORED) != Source.STORED:
            self._check_references(values)
            return values
        given = {name: values[name] for name in _SECRETS if values.get(name)}
        removed = {name: "" for name in values.get("forget", ()) if name not in given}
        if values.get("references"):
            self.add_error("references", "Choose the source that they refer to.")
        for name in ("password", "passphrase", "become_password"):
            if not given.get(name, "").isprintable():
                self.add_error(name, "Only printable characters can be entered at a login.")
        try:
            old = CredentialSecrets() if self.instance._state.adding else self.instance.secrets()
        except SecretUnreadableError:
            old = CredentialSecrets()  # a key of the ring was lost: what is given now is all there is
        self.secrets = replace(old, **given, **removed)
        if not self.secrets.password and not self.secrets.private_key:
            self.add_error("password", "Give a password or a private key.")
        elif "private_key" in given or "passphrase" in given:
            self._check_key(self.secrets)
        return values

    def _check_references(self, values: dict[str, Any]) -> None:
        """Where the secrets are, below the organization's folder there."""
        organization = values.get("organization") or getattr(self.instance, "organization", None)
        if not configured(values["source"]):
            self.add_error("source", "The settings of this service name no store of this kind.")
        if typed := [name for name in _SECRETS if values.get(name)]:
            self.add_error(typed[0], "It is looked up elsewhere; or choose the source that is stored.")
        if organization is None:
            return
        try:
            Credential(organization=organization).refer(values["source"], values.get("references") or {})
        except ValidationError as error:
            self.add_error("references", error)

    def _check_key(self, secrets: CredentialSecrets) -> None:
        """The private key as ssh reads it."""
        try:
            self.secrets = secrets.with_readable_key()
        except ValidationError as error:
            self.add_error("private_key", error)

    def save(self, commit: bool = True) -> Any:
        """Seal the secrets into the row, or say where they are."""
        if self.secrets is None:
            self.instance.refer(self.instance.source, self.instance.references)
        else:
            self.instance.set_secrets(self.secrets)
        return super().save(commit)


@admin.register(Credential)
class CredentialAdmin(OrganizationScopedAdmin):
    """Credentials."""

    form = CredentialForm
    list_display = ("name", "organization", "username", "has_password", "has_private_key", "device_count")
    list_filter = (("organization", VisibleFilter), "has_password", "has_private_key")
    list_select_related = ("organization",)
    search_fields = ("name", "username")
    ordering = ("name", "pk")  # a counting query does not take the model's own

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Those who may not change it see which secrets there are, and nothing else of them."""
        about = ("organization", "name", "username", "source", "references")
        stored = (None, {"fields": (*about, "has_password", "has_private_key")})
        if obj is None:
            names = tuple(_SECRETS)
            return ((None, {"fields": about}), ("Secrets", {"fields": names}))
        if not self.has_change_permission(request, obj):
            return (stored,)
        hint = "They are never shown. Left blank, each stays as it is."
        return (stored, ("New secrets", {"fields": (*_SECRETS, "forget"), "description": hint}))

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Which secrets are there is a fact, not an input."""
        return () if obj is None else ("has_password", "has_private_key")

    def get_queryset(self, request: HttpRequest) -> Any:
        """With the number of devices, without the secrets."""
        rows = super().get_queryset(request).annotate(devices_total=Count("device_credentials"))
        return rows.defer("sealed")

    @admin.display(description="devices", ordering="devices_total")
    def device_count(self, row: Any) -> int:
        """How many use it."""
        return int(row.devices_total)
