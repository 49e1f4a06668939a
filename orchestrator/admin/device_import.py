"""Import of devices: a CSV table or an Ansible inventory, shown as what it would change before it changes anything."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from unfold.widgets import INPUT_CLASSES, UnfoldAdminSelectWidget

from orchestrator import actions, inventory_source
from orchestrator.access import Access, Right
from orchestrator.admin.scoped import access_of
from orchestrator.adoption import Draft, Rules, adopt
from orchestrator.device_table import COLUMNS, Complaint, read_table
from orchestrator.exceptions import OrchestratorError, SecretUnreadableError
from orchestrator.models import Credential, Organization, Platform
from orchestrator.secrets import open_sealed, seal

_MOST: Final = 2 * 1024 * 1024  # bytes
_SHOWN: Final = 200  # changes listed
_INPUT: Final = " ".join(INPUT_CLASSES)
_KINDS: Final = (("csv", "CSV table"), ("inventory", "Ansible inventory (INI or YAML)"))


class ImportForm(forms.Form):
    """What to import, and where to.  Between preview and import the text travels sealed: it may hold passwords."""

    organization = forms.ModelChoiceField(Organization.objects.none(), widget=UnfoldAdminSelectWidget())
    kind = forms.ChoiceField(choices=_KINDS, label="What it is", widget=UnfoldAdminSelectWidget())
    file = forms.FileField(required=False, label="File")
    text = forms.CharField(
        required=False, strip=False, label="Or its text",
        widget=forms.Textarea(attrs={"class": f"{_INPUT} o-mono", "rows": 8, "spellcheck": "false"}),
    )  # fmt: skip
    platform = forms.ChoiceField(
        choices=Platform.choices, label="Platform of new devices that name none", widget=UnfoldAdminSelectWidget()
    )
    credential = forms.CharField(
        required=False, max_length=128, label="Credential for devices without one", help_text="Its name. May be blank.",
        widget=forms.TextInput(attrs={"class": _INPUT, "autocomplete": "off"}),
    )  # fmt: skip
    sealed = forms.CharField(required=False, widget=forms.HiddenInput)

    def __init__(self, *args: Any, access: Access, user: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        own = access.visible(Organization.objects.all(), organization="pk", right=Right.MANAGE)
        self.fields["organization"].queryset = own  # type: ignore[attr-defined]
        self.row = f"import:{user.pk}"

    def clean(self) -> dict[str, Any]:
        """``content`` is the text, and ``login`` the credential."""
        values = super().clean() or {}
        values["content"] = self._content(values)
        name, organization = values.get("credential"), values.get("organization")
        values["login"] = None
        if name and organization:
            values["login"] = Credential.objects.filter(organization=organization, name=name).first()
            if values["login"] is None:
                self.add_error("credential", "This organization has no credential of this name.")
        return values

    def _content(self, values: dict[str, Any]) -> str:
        if values.get("file"):
            if values["file"].size > _MOST:
                self.add_error("file", f"A file may have {_MOST // 1024 // 1024} MB.")
                return ""
            try:
                return str(values["file"].read().decode("utf-8-sig"))
            except UnicodeDecodeError:
                self.add_error("file", "The file is no UTF-8 text. Save it as “CSV UTF-8”.")
                return ""
        if values.get("text", "").strip():
            return str(values["text"])
        try:
            return open_sealed(values["sealed"], row=self.row)["text"] if values.get("sealed") else self._nothing()
        except SecretUnreadableError:
            return self._nothing()

    def _nothing(self) -> str:
        self.add_error("file", "Choose a file, or paste its text.")
        return ""


@dataclass(slots=True)
class _Found:
    """What the text says, or what is wrong with it."""

    drafts: list[Draft] = field(default_factory=list)
    complaints: list[Complaint] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def import_view(request: HttpRequest) -> HttpResponse:
    """Ask, show what would change, and change it."""
    access = access_of(request)
    if not access.can_anywhere(Right.MANAGE):
        raise PermissionDenied
    own = access.organizations(Right.MANAGE)
    initial = {"organization": next(iter(own)) if len(own) == 1 else None}
    data: Any = request.POST if request.method == "POST" else None
    form = ImportForm(data, request.FILES or None, access=access, user=request.user, initial=initial)
    context: dict[str, Any] = {"form": form, "columns": ", ".join(COLUMNS)}
    if data is not None and form.is_valid():
        outcome = _outcome(request, form, apply="apply" in data)
        if isinstance(outcome, HttpResponse):
            return outcome
        context |= outcome
    context |= {**admin.site.each_context(request), "title": "Import devices"}
    return TemplateResponse(request, "orchestrator/import.html", context)


def _outcome(request: HttpRequest, form: ImportForm, *, apply: bool) -> HttpResponse | dict[str, Any]:
    values, actor = form.cleaned_data, request.user
    try:
        found = _read(values["kind"], values["content"])
        if found.complaints:
            return {"complaints": found.complaints}
        report = actions.import_devices(
            organization=values["organization"], drafts=found.drafts, apply=apply, actor=actor,  # type: ignore[arg-type]
            platform=values["platform"], credential=values["login"],
        )  # fmt: skip
    except OrchestratorError as error:
        form.add_error(None, str(getattr(error, "message", error.detail)))
        return {}
    counts = ", ".join(f"{what}: {number:,}" for what, number in report.counts().items())
    if apply:
        messages.success(
            request, f"Imported. {counts or 'Nothing had to be changed'}; unchanged: {report.unchanged:,}."
        )
        return HttpResponseRedirect(reverse("admin:orchestrator_device_changelist"))
    return {
        "report": report, "counts": counts, "changes": report.changes[:_SHOWN], "notes": found.notes,
        "more": max(0, len(report.changes) - _SHOWN),
        "sealed": seal({"text": values["content"]}, row=form.row),
    }  # fmt: skip


def _read(kind: str, text: str) -> _Found:
    if kind == "csv":
        drafts, complaints = read_table(text)
        return _Found(drafts, complaints)
    rules = Rules(key_files=False)  # paths of this machine are not a stranger's to name
    with tempfile.TemporaryDirectory(dir=settings.RUN_DIR or None) as folder:
        path = Path(folder) / ("inventory.yml" if text.lstrip().startswith(("all:", "---", "{")) else "inventory.ini")
        path.write_text(text, encoding="utf-8")
        hosts = inventory_source.read(str(path), variables=rules.variables, static=True)
    drafts, findings = adopt(hosts, rules)
    return _Found(drafts, [], [f"{sentence}: {', '.join(names[:5])}" for sentence, names in findings.hosts.items()])
