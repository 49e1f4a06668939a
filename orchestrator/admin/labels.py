"""How each status looks: the word is always there, the colour only helps."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from django.utils.html import format_html
from django.utils.safestring import SafeString

from orchestrator.states import CommandStatus, RunStatus

_C, _R = CommandStatus, RunStatus

# unfold's label colours
COMMAND_LABELS: Final[Mapping[str, str]] = {
    _C.SUCCESS.value: "success", _C.RUNNING.value: "info", _C.FAILED.value: "danger", _C.UNREACHABLE.value: "warning",
    _C.TIMED_OUT.value: "danger", _C.LOST.value: "danger",
}  # fmt: skip
RUN_LABELS: Final[Mapping[str, str]] = {
    _R.SUCCESS.value: "success", _R.PARTIAL.value: "warning", _R.FAILED.value: "danger", _R.RUNNING.value: "info",
    _R.CANCELLING.value: "warning",
}  # fmt: skip
# The order in a bar: what went well first, what is still to come last.
BAR_ORDER: Final = (
    _C.SUCCESS, _C.FAILED, _C.TIMED_OUT, _C.UNREACHABLE, _C.LOST, _C.CANCELLED, _C.TERMINATED, _C.SKIPPED,
    _C.RUNNING, _C.QUEUED,
)  # fmt: skip


def local_time(moment: datetime) -> SafeString:
    """A moment that page.js shows in the reader's zone; in UTC without scripts."""
    return format_html('<time datetime="{}">{}</time>', moment.isoformat(), f"{moment:%Y-%m-%d %H:%M}")
