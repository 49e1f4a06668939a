"""The Django application."""

from django.apps import AppConfig


class OrchestratorConfig(AppConfig):
    """One application: its modules are the architecture."""

    name = "orchestrator"
    verbose_name = "Orchestrator"

    def ready(self) -> None:
        """Register the system checks."""
        from orchestrator import checks  # noqa: F401, PLC0415 - registers itself, once the settings are there
