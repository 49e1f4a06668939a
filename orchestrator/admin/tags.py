"""A form field for tags."""

from typing import Any

from django import forms
from unfold.widgets import UnfoldAdminTextareaWidget

from orchestrator.models.addresses import validate_tags


class TagsField(forms.CharField):
    """Tags, one a line: a tag may hold blanks and commas."""

    def __init__(self, **options: Any) -> None:
        widget = UnfoldAdminTextareaWidget(attrs={"rows": 3})
        super().__init__(**{"required": False, "widget": widget, "help_text": "One a line."} | options)
        self.validators.append(validate_tags)

    def prepare_value(self, value: Any) -> Any:
        """The list as lines."""
        return "\n".join(value) if isinstance(value, list | tuple) else value

    def to_python(self, value: Any) -> Any:
        """The lines as a list."""
        lines = (line.strip() for line in str(value or "").splitlines())
        return list(dict.fromkeys(line for line in lines if line))

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Compared as lists."""
        return bool(self.to_python(data) != list(initial or []))
