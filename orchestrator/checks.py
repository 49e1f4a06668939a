"""What an operator should know before trusting this machine with runs (``manage.py check``)."""

from typing import Any

from django.core.checks import CheckMessage, Warning, register  # noqa: A004 - Django's name

from orchestrator.sandbox import isolated


@register("orchestrator", deploy=True)
def check_isolation(app_configs: Any, **options: Any) -> list[CheckMessage]:
    """Warn where runs have no sandbox of their own (only with --deploy: it starts a process)."""
    if isolated():
        return []
    return [
        Warning(
            "Runs are not isolated on this machine: bubblewrap is missing or may not make namespaces.",
            hint="Install the package bubblewrap; in a container, allow unprivileged user namespaces.",
            id="orchestrator.W001",
        )
    ]
