"""What an operator should know before trusting this machine with runs (``manage.py check``)."""

import stat
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004 - Django's name

from orchestrator.playbook_vaults import SETTING, problem
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


@register("orchestrator", deploy=True)
def check_data_directory(app_configs: Any, **options: Any) -> list[CheckMessage]:
    """Warn where others may look into the data directory: it holds keys, journals and, with SQLite, the database."""
    mode = stat.S_IMODE(settings.DATA_DIR.stat().st_mode)
    if not mode & 0o077:
        return []
    return [
        Warning(
            f"Other users of this machine may reach what is in {settings.DATA_DIR}.",
            hint="Give it the mode 0700.",
            id="orchestrator.W002",
        )
    ]


@register("orchestrator")
def check_playbook_vaults(app_configs: Any, **options: Any) -> list[CheckMessage]:
    """Refuse to start where the password file of a vault is missing, or in sight of others."""
    files = {file: problem(file) for _, _, file in settings.PLAYBOOK_VAULTS}
    return [
        Error(f"{SETTING}: {file} {why}", id="orchestrator.E001", hint="docs/playbooks.md says what it must be.")
        for file, why in files.items()
        if why
    ]
