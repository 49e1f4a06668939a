"""The pages that test_admin.py has no story of: lists, forms, what is asked before something is deleted, errors."""

from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from orchestrator import audit
from orchestrator.access import Role
from orchestrator.models import AuditAction, AuditEntry, Organization, PlaybookStatus, Schedule, Token, User
from orchestrator.states import CommandStatus
from tests import factories, run_rows
from tests.browser.axe import SIZES, problems

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True), pytest.mark.timeout(300)]


def _pages_of_superusers(organization: Organization, user: User) -> dict[str, str]:
    """Pages that only superusers have, lists and forms of all kinds, and what is asked before something is deleted."""
    schedule = Schedule.objects.create(
        name="Nightly", organization=organization, type="custom", input={"command": "uptime"}, cron="0 2 * * *",
        targets={"organization": str(organization.pk)}, next_run=timezone.now(), created_by=user,
    )  # fmt: skip
    saved = factories.saved_targets(organization=organization, targets={"platform": "linux"})
    device = factories.device(organization=organization, name="gateway")
    ended = run_rows.run({CommandStatus.SUCCESS: 2}, organization=organization)
    broken = factories.playbook(name="net/broken", status=PlaybookStatus.BROKEN, message="no_such_module\nline 4")
    site = factories.playbook(
        name="net/site", properties={"port": {"type": "integer", "default": 22}}, description="Does it.", hosts=["all"]
    )
    token, _ = Token.objects.issue(user=user, name="script")
    audit.record(AuditAction.RUN_LAUNCH, actor=user, about=ended, details={"type": "custom"})
    rows: dict[str, Any] = {
        "schedule": schedule, "savedtargets": saved, "user": user, "auditentry": AuditEntry.objects.first(),
        "playbook": site, "organization": organization,
    }  # fmt: skip
    found = {f"{name} list": reverse(f"admin:orchestrator_{name}_changelist") for name in rows}
    found |= {name: reverse(f"admin:orchestrator_{name}_change", args=[row.pk]) for name, row in rows.items()}
    adding = ("schedule", "savedtargets", "user", "device")
    found |= {f"new {name}": reverse(f"admin:orchestrator_{name}_add") for name in adding}
    deleted: dict[str, Any] = {
        "schedule": schedule, "savedtargets": saved, "device": device, "masscommand": ended,
        "organization": organization,
    }  # fmt: skip
    found |= {f"delete {name}": reverse(f"admin:orchestrator_{name}_delete", args=[row.pk])
              for name, row in deleted.items()}  # fmt: skip
    return found | {
        "broken playbook": reverse("admin:orchestrator_playbook_change", args=[broken.pk]),
        "revoke": reverse("admin:orchestrator_token_revoke", args=[token.pk]),
        "history": reverse("admin:orchestrator_device_history", args=[device.pk]),
        "known hosts": reverse("admin:orchestrator_device_known_hosts"),
        "queue without a queue": "/admin/django-rq/",
        "nothing": "/admin/orchestrator/device/nothing/change/",
    }


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_other_pages_fit_their_window_and_have_no_serious_barrier(visit: Any, theme: str) -> None:
    organization, boss = factories.organization(name="Northern Schools"), factories.superuser()
    visitor = visit(boss, color_scheme=theme, reduced_motion="reduce")
    found = []
    for name, path in _pages_of_superusers(organization, boss).items():
        visitor.page.set_viewport_size(SIZES[0])
        found += problems(visitor.open(path), name)
    visitor.page.context.clear_cookies()
    found += problems(visitor.open("/admin/login/"), "sign in")
    viewer = visit(factories.user(organization=organization, role=Role.VIEWER, is_staff=True), color_scheme=theme)
    found += problems(viewer.open(reverse("admin:orchestrator_run_new")), "not allowed")
    for each in (visitor, viewer):  # the browser reports the pages that are errors on purpose
        each.problems[:] = [problem for problem in each.problems if "the server responded with" not in problem]
    assert found == []
