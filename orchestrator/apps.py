"""The Django application."""

from django.apps import AppConfig


class OrchestratorConfig(AppConfig):
    """One application: its modules are the architecture."""

    name = "orchestrator"
    verbose_name = "Orchestrator"
