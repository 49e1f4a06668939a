"""The pictures of docs/admin.md: run by ``make screenshots``, not among the tests."""

import random
from datetime import timedelta
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from orchestrator.admin import drafts
from orchestrator.admin.drafts import Draft
from orchestrator.models import (
    Command,
    Device,
    MassCommand,
    Organization,
    Playbook,
    PlaybookStatus,
    Schedule,
    TaskResult,
    TaskStatus,
)
from orchestrator.settings import BASE_DIR
from orchestrator.states import CommandStatus
from orchestrator.targeting import TargetFilter
from tests import factories, run_rows

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True), pytest.mark.timeout(600)]

TO = BASE_DIR / "docs" / "screenshots"
C = CommandStatus
WIDE, NARROW = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
SAID = "BusyBox v1.36.1\nOpenWrt 23.05.5\nkernel 5.15.167\n"


def _fleet(organization: Organization) -> list[Device]:
    key = factories.credential(organization=organization, name="root")
    locations = [factories.location(organization=organization, name=name) for name in ("Vienna", "Graz", "Linz")]
    groups = [factories.group(organization=organization, name=name) for name in ("schools", "libraries")]
    return [
        factories.device(
            organization=organization, name=f"ap-{number:03}", credentials=[key], group=groups[number % 2],
            location=locations[number % 3], is_active=number % 15 > 0, tags=["roof"] if number % 4 == 0 else [],
            host=f"192.0.2.{number + 1}", host_key="ssh-ed25519 AAAA" if number % 20 else "",
        )
        for number in range(60)
    ]  # fmt: skip


def _large(organization: Organization) -> MassCommand:
    """Ten thousand devices, almost done."""
    chance = random.Random(7)
    counts = {C.SUCCESS: 8_900, C.FAILED: 160, C.UNREACHABLE: 340, C.RUNNING: 200, C.QUEUED: 400}
    run = run_rows.run(counts, organization=organization, label="Kernel version, all access points")
    began = timezone.now() - timedelta(seconds=95)
    MassCommand.objects.filter(pk=run.pk).update(started=began, created=began - timedelta(seconds=1))
    names = [f"ap-{number:05}" for number in range(10_000)]
    chance.shuffle(names)
    rows = list(run.commands.all())
    for row, name in zip(rows, names, strict=True):
        row.device_name = name
        if row.finished:
            row.finished = began + timedelta(seconds=chance.triangular(2, 95, 60))
    Command.objects.bulk_update(rows, ["device_name", "finished"], batch_size=500)
    return run


def _history(organization: Organization) -> None:
    chance = random.Random(3)
    for days in range(28):
        counts = {C.SUCCESS: chance.randint(70, 90), C.FAILED: chance.randint(0, 9)}
        ended = timezone.now() - timedelta(days=days, hours=2)
        run = run_rows.run(counts, organization=organization, label="Nightly uptime")
        times = {"created": ended, "started": ended - timedelta(seconds=chance.randint(20, 80)), "finished": ended}
        MassCommand.objects.filter(pk=run.pk).update(**times)


def _playbooks() -> list[Playbook]:
    site = {
        "vlans": {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 4094},
                  "description": "Which VLANs the uplink carries", "minItems": 1},
        "mode": {"enum": ["add", "replace"], "default": "add", "description": "What becomes of those that are there"},
        "syslog": {"type": "string", "format": "hostname", "description": "Where logs are sent"},
        "portal_token": {"type": "string", "writeOnly": True, "description": "What the portal lets in with"},
    }  # fmt: skip
    about = "Sets the VLANs of the uplink and where logs go.\nRestarts the network where something changed."
    from_git: dict[str, Any] = {
        "url": "https://fleet.example.org/net.git",
        "commit": "8c1f0a2b9d3e4f5061728394a5b6c7d8e9f00112",
    }
    broken = (
        "couldn't resolve module/action 'openwrt_firewall'. This often indicates a misspelling.\n\nnet/firewall.yml:7"
    )
    return [
        factories.playbook(name="net/uplink", properties=site, required=("vlans",), description=about, **from_git),
        factories.playbook(name="net/firewall", status=PlaybookStatus.BROKEN, message=broken, **from_git),
        factories.playbook(name="net/banner", description="Sets the banner that is shown at a login.", **from_git),
        factories.playbook(name="backup", description="Fetches the configuration of each device.", check_mode=False),
    ]


def _played(organization: Organization, devices: list[Device]) -> MassCommand:
    """A run of a playbook that failed on some devices, at one of its tasks."""
    run = run_rows.run(
        {C.SUCCESS: 55, C.FAILED: 5}, organization=organization, label="VLAN 30 for the libraries", type="playbook",
        playbook="net/uplink", playbook_digest="d" * 64, playbook_commit="8c1f0a2b9d3e4f5061728394a5b6c7d8e9f00112",
        input={"vlans": [10, 30], "mode": "add", "portal_token": "********"}, controls={"diff": True},
    )  # fmt: skip
    for row, device in zip(run.commands.all(), devices, strict=True):
        Command.objects.filter(pk=row.pk).update(device=device, device_name=device.name)
    names = ("Read what is there", "Write the VLANs", "Restart the network", "Wait until it answers")
    run_rows.tasks(run, names, last=TaskStatus.OK)
    tasks = TaskResult.objects.filter(command__mass_command=run)
    tasks.filter(task=names[0]).update(status=TaskStatus.OK)
    tasks.filter(task=names[1]).update(
        diff="--- before: /etc/config/network\n+++ after: /etc/config/network\n@@ -12,3 +12,4 @@\n config bridge-vlan\n"
        "   option vlan '10'\n+  list ports 'eth0:t'\n+  option vlan '30'\n"
    )
    failed = {"status": TaskStatus.FAILED, "message": "It did not answer within 60 s.", "duration": 60.0}
    tasks.filter(task=names[3], command__status=C.FAILED).update(**failed)
    Command.objects.filter(mass_command=run, status=C.FAILED).update(
        reason='A task failed: "Wait until it answers": It did not answer within 60 s.', stderr="", rc=None
    )
    return run


def test_screenshots(visit: Any, outbox: Any, db: Any) -> None:
    organization = factories.organization(name="Northern Schools")
    boss = factories.superuser(username="ada")
    devices = _fleet(organization)
    _history(organization)
    compared = run_rows.run({C.SUCCESS: 57, C.FAILED: 3}, organization=organization, label="Versions")
    Command.objects.filter(mass_command=compared, status=C.SUCCESS).update(stdout=SAID)
    odd = Command.objects.filter(mass_command=compared, device_name__in=["success-00004", "success-00031"])
    odd.update(stdout=SAID.replace("5.15.167", "5.10.176"))
    for row, device in zip(compared.commands.all(), devices, strict=True):
        Command.objects.filter(pk=row.pk).update(device=device, device_name=device.name)
    Schedule.objects.create(
        name="Nightly uptime", organization=organization, type="custom", cron="0 2 * * *",
        next_run=timezone.now() + timedelta(hours=9),
    )  # fmt: skip
    large = _large(organization)
    draft = Draft(
        owner=boss.pk, type="reboot",
        targets=TargetFilter(organization=organization.pk, name="ap-*", exclude_devices=(devices[3].pk,)),
    )  # fmt: skip
    drafts.add(draft)
    uplink = _playbooks()[0]
    chosen = Draft(
        owner=boss.pk, type="playbook", playbook=uplink.name, hidden=("portal_token",),
        input={"vlans": [10, 30], "portal_token": "a-Secret"}, targets=TargetFilter(organization=organization.pk),
    )  # fmt: skip
    drafts.add(chosen)
    run = "admin:orchestrator_masscommand_"
    pages = {
        "dashboard": "/admin/",
        "run": reverse(f"{run}change", args=[large.pk]),
        "outputs": reverse(f"{run}outputs", args=[compared.pk]),
        "wizard": reverse("admin:orchestrator_run_targets", args=[draft.id]),
        "review": reverse("admin:orchestrator_run_review", args=[draft.id]),
        "playbook": reverse("admin:orchestrator_run_command", args=[chosen.id]),
        "catalogue": reverse("admin:orchestrator_playbook_change", args=[uplink.pk]),
        "tasks": reverse(f"{run}change", args=[_played(organization, devices).pk]) + "#per-task",
    }
    for name, theme, size in [
        *((name, "light", WIDE) for name in pages),
        *((name, "dark", WIDE) for name in ("dashboard", "run", "tasks")),
        ("run", "dark", NARROW),
        ("playbook", "light", NARROW),
    ]:
        visitor = visit(boss, color_scheme=theme)
        visitor.page.set_default_timeout(60_000)  # milliseconds
        visitor.page.set_viewport_size(size)
        page = visitor.open(pages[name])
        page.wait_for_load_state("networkidle")
        if name == "playbook":
            page.get_by_role("radio", name="Playbook").scroll_into_view_if_needed()
            page.mouse.wheel(0, 600)
        if name == "tasks":  # they came after the page
            page.locator("#per-task").evaluate("heading => heading.scrollIntoView()")
        page.wait_for_timeout(500)  # milliseconds: the cells are drawn
        more = ("-dark" if theme == "dark" else "") + ("-390" if size is NARROW else "")
        page.screenshot(path=str(TO / f"admin-{name}{more}.png"))
