"""The admin as somebody with a browser meets it."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from orchestrator.access import Role
from orchestrator.admin import drafts
from orchestrator.admin.drafts import Draft
from orchestrator.models import Command, MassCommand, Organization, TaskStatus, User, WebhookDelivery
from orchestrator.states import CommandStatus, RunStatus
from orchestrator.targeting import TargetFilter
from tests import factories, run_rows
from tests.browser.axe import SIZES, barriers, problems

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def organization(db: Any) -> Organization:
    return factories.organization(name="Northern Schools")


@pytest.fixture
def operator(organization: Organization) -> User:
    return factories.user(organization=organization, role=Role.OPERATOR, is_staff=True, username="oona")


def _change(run: MassCommand) -> str:
    return reverse("admin:orchestrator_masscommand_change", args=[run.pk])


def test_signing_in_leads_to_the_dashboard(visit: Any, operator: User) -> None:
    visitor = visit(operator)
    visitor.page.context.clear_cookies()
    page = visitor.open("/admin/")
    page.get_by_label("Username").fill("oona")
    page.get_by_label("Password").fill("a-Password-1")
    page.get_by_label("Password").press("Enter")
    expect(page).to_have_url(re.compile("/admin/$"))
    expect(page.get_by_role("heading", name="In progress")).to_be_visible()


def test_the_wizard_from_targets_to_the_run(
    visit: Any, operator: User, organization: Organization, outbox: Any
) -> None:
    for number in range(3):
        factories.device(organization=organization, name=f"device-{number}")
    page = visit(operator).open("/admin/")
    page.get_by_role("link", name="Run a command", exact=True).last.click()
    expect(page.get_by_text("By organization, group, location or saved set")).to_be_visible()
    page.get_by_label("Organization", exact=True).select_option(label="Northern Schools")
    expect(page.locator("#count")).to_have_text("3 devices")
    page.get_by_role("radio", name="Picked devices").check()
    expect(page.get_by_label("Organization", exact=True)).to_be_hidden()
    page.get_by_label("Search by name or host").fill("device-")
    page.locator("[data-picker=devices] [data-found]").get_by_label("device-1").check()
    page.locator("[data-picker=devices] [data-found]").get_by_label("device-2").check()
    expect(page.locator("#count")).to_have_text("2 devices")
    page.get_by_role("button", name="Next: the command").click()

    page.get_by_label("Custom command").check()
    page.get_by_label("Command line").fill("uptime")
    page.get_by_role("button", name="Next: review").click()

    page.get_by_label("Leave out device-2").check()
    page.get_by_role("button", name="Leave the ticked ones out").click()
    expect(page.get_by_role("button", name="Run on 1 device")).to_be_visible()  # a click does not wait for its page
    page.reload()
    page.go_back()  # an address of its own: the step before is there again
    page.goto(page.url.replace("/command/", "/review/"))
    page.get_by_role("button", name="Run on 1 device").click()
    expect(page).to_have_url(re.compile("/change/"))
    run = MassCommand.objects.get()
    assert list(run.commands.values_list("device_name", flat=True)) == ["device-1"]
    page.go_back()
    expect(page).to_have_url(re.compile("/change/"))  # not launched twice
    assert MassCommand.objects.count() == 1


@pytest.mark.parametrize("scripts", [True, False])
def test_a_playbook_is_chosen_and_filled_in(
    visit: Any, operator: User, organization: Organization, outbox: Any, scripts: bool
) -> None:
    factories.device(organization=organization)
    port = {"type": "integer", "minimum": 1, "description": "Where it listens"}
    token = {"type": "string", "writeOnly": True}
    factories.playbook(name="net/site", properties={"port": port, "token": token}, required=("port",))
    address = reverse("admin:orchestrator_run_new") + f"?organization={organization.pk}"
    page = visit(operator, java_script_enabled=scripts).open(address)
    page.get_by_role("button", name="Next: the command").click()
    page.get_by_role("radio", name="Playbook").check()
    page.get_by_label("Playbook", exact=True).last.select_option("net/site")
    if not scripts:
        page.get_by_role("button", name="Next: review").click()
        expect(page.get_by_text("Fill in what net/site takes.")).to_be_visible()
    page.get_by_label("Port").fill("0")
    page.get_by_label("Token").fill("a-Secret")
    page.get_by_role("button", name="Next: review").click()
    expect(page.get_by_text("less than the minimum of 1")).to_be_visible()
    assert page.get_by_label("Token").input_value() == ""
    page.get_by_label("Port").fill("22")
    page.get_by_role("button", name="Next: review").click()
    page.get_by_role("button", name="Run on 1 device").click()
    expect(page).to_have_url(re.compile("/change/"))
    assert MassCommand.objects.get().input == {"port": 22}


def test_a_double_click_starts_one_run(visit: Any, operator: User, organization: Organization, outbox: Any) -> None:
    factories.device(organization=organization)
    page = visit(operator).open(reverse("admin:orchestrator_run_new") + f"?organization={organization.pk}")
    page.get_by_role("button", name="Next: the command").click()
    page.get_by_label("Reboot").check()
    page.get_by_role("button", name="Next: review").click()
    # as fast as a script can, past the button that disables itself
    statuses = page.evaluate(
        """async () => {
            const form = document.getElementById("step");
            const send = () => fetch(form.action, {method: "POST", body: new FormData(form)});
            return (await Promise.all([send(), send(), send()])).map((reply) => reply.url);
        }"""
    )
    assert MassCommand.objects.count() == 1
    assert any("/change/" in url for url in statuses)


def test_a_run_is_watched_live(visit: Any, operator: User, organization: Organization) -> None:
    run = run_rows.run({CommandStatus.RUNNING: 1, CommandStatus.QUEUED: 1}, organization=organization)
    page = visit(operator).open(_change(run))
    expect(page.locator("[data-live=finished]")).to_have_text("0")
    _finish(run, CommandStatus.RUNNING, CommandStatus.SUCCESS)
    expect(page.locator("[data-live=finished]")).to_have_text("1")
    expect(page.locator("#rows").get_by_text("success", exact=True)).to_be_visible()
    expect(page.get_by_role("link", name="1 success")).to_be_visible()
    expect(page.locator("rect[data-status=success]")).to_have_attribute("width", "50.000")
    _finish(run, CommandStatus.QUEUED, CommandStatus.FAILED)
    MassCommand.objects.finish_if_done(run.pk)
    expect(page.get_by_role("button", name="Run on the 1 that did not succeed")).to_be_visible()
    expect(page.get_by_text("100 %").first).to_be_visible()


def _finish(run: MassCommand, source: CommandStatus, target: CommandStatus) -> None:
    change = MassCommand.objects.next_change(run.pk)
    rows = Command.objects.filter(mass_command=run)
    moved = rows.end(source=source, target=target, code="", reason="", change=change)
    MassCommand.objects.count_moves(run.pk, {(source, target): moved})


def test_the_live_page_says_when_the_service_is_away_and_comes_back(
    visit: Any, operator: User, organization: Organization
) -> None:
    run = run_rows.run({CommandStatus.RUNNING: 1}, organization=organization)
    visitor = visit(operator)
    page = visitor.open(_change(run))
    page.route("**/progress/", lambda route: route.abort())
    expect(page.get_by_text("The service does not answer")).to_be_visible()
    page.unroute("**/progress/")
    expect(page.get_by_text("The service does not answer")).to_be_hidden()
    visitor.problems[:] = [problem for problem in visitor.problems if "ERR_FAILED" not in problem]


def test_output_opens_in_a_drawer_by_keyboard(visit: Any, operator: User, organization: Organization) -> None:
    run = run_rows.run({CommandStatus.SUCCESS: 3}, organization=organization)
    page = visit(operator).open(_change(run))
    link = page.get_by_role("link", name="success-00001")
    link.focus()
    page.keyboard.press("Enter")
    drawer = page.get_by_role("dialog")
    expect(drawer.get_by_text("up 3 days")).to_be_visible()
    box = drawer.bounding_box()
    assert box is not None
    assert (box["x"] > 0, box["y"], box["x"] + box["width"], box["height"]) == (True, 0, 1280, 900)  # at the right
    page.set_viewport_size({"width": 390, "height": 844})
    box = drawer.bounding_box()
    assert box is not None
    assert (box["x"], box["width"]) == (0, 390)
    page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()
    expect(link).to_be_focused()


def test_a_cell_leads_to_its_device_and_its_output_is_searched(
    visit: Any, operator: User, organization: Organization
) -> None:
    run = run_rows.run({CommandStatus.SUCCESS: 10_000}, organization=organization)
    Command.objects.filter(device_name="success-00001").update(stdout="one\n\x1b[31mtwo\x1b[0m\nTWO\n")
    page = visit(operator).open(_change(run))
    cells = page.locator("#cells canvas")
    expect(cells).to_be_visible()
    box = cells.bounding_box()
    assert box is not None
    assert box["width"] * box["height"] > 10_000 * 9  # square pixels: each can be pointed at
    page.mouse.move(box["x"] + 8, box["y"] + 2)
    expect(page.get_by_text("success-00001: success")).to_be_visible()
    page.mouse.click(box["x"] + 8, box["y"] + 2)
    drawer = page.get_by_role("dialog")
    expect(drawer.locator(".o-ansi-red")).to_have_text("two")
    drawer.get_by_label("Find in the output").fill("two")
    expect(drawer.get_by_text("1 of 2")).to_be_visible()
    page.keyboard.press("Enter")
    expect(drawer.get_by_text("2 of 2")).to_be_visible()
    with page.expect_download() as download:
        drawer.get_by_role("link", name="Download").click()
    assert download.value.path().read_text() == "one\n\x1b[31mtwo\x1b[0m\nTWO\n"


def test_a_run_is_cancelled(visit: Any, operator: User, organization: Organization) -> None:
    run = run_rows.run({CommandStatus.RUNNING: 1}, organization=organization)
    page = visit(operator).open(_change(run))
    page.get_by_role("link", name="Cancel…").click()
    page.get_by_role("button", name="Cancel the run").click()
    expect(page.get_by_text("what runs is being stopped")).to_be_visible()
    run.refresh_from_db()
    assert run.status == RunStatus.CANCELLING


def test_a_viewer_has_no_buttons(visit: Any, organization: Organization) -> None:
    viewer = factories.user(organization=organization, role=Role.VIEWER, is_staff=True)
    run = run_rows.run({CommandStatus.RUNNING: 1}, organization=organization)
    visitor = visit(viewer)
    page = visitor.open(_change(run))
    for name in ("Cancel…", "Pause"):
        expect(page.get_by_text(name)).to_have_count(0)
    reply = page.goto(visitor.server + reverse("admin:orchestrator_run_new"))
    assert reply is not None
    assert reply.status == 403
    visitor.problems.clear()  # the browser reports the refusal


def test_the_whole_way_without_scripts(visit: Any, operator: User, organization: Organization, outbox: Any) -> None:
    factories.device(organization=organization, name="device-0")
    page = visit(operator, java_script_enabled=False).open(reverse("admin:orchestrator_run_new"))
    page.get_by_role("radio", name="Picked devices").check()
    page.get_by_label("Search by name or host").fill("device")
    page.get_by_role("button", name="Search").click()
    page.locator("[data-picker=devices] [data-found]").get_by_label("device-0").check()
    page.get_by_role("button", name="Next: the command").click()
    page.get_by_label("Custom command").check()
    page.get_by_label("Command line").fill("uptime")
    page.get_by_role("button", name="Next: review").click()
    page.get_by_role("button", name="Run on 1 device").click()
    expect(page.get_by_role("link", name="device-0")).to_be_visible()
    page.get_by_role("link", name="Refresh").click()
    page.get_by_role("link", name="device-0").click()
    expect(page.get_by_role("heading", name="Output", exact=True)).to_be_visible()


def _draft_of_a_playbook(organization: Organization, user: User) -> Any:
    """With a field of each kind."""
    properties = {
        "text": {"type": "string"}, "number": {"type": "integer"}, "choice": {"enum": ["a", "b"]},
        "list": {"type": "array"}, "some": {"type": "array", "items": {"enum": [1, 2]}}, "object": {"type": "object"},
        "secret": {"type": "string", "writeOnly": True, "description": "What opens it"},
    }  # fmt: skip
    factories.playbook(name="net/all", properties=properties, required=("text",), description="Does it all.")
    draft = Draft(
        owner=user.pk, targets=TargetFilter(organization=organization.pk), type="playbook", playbook="net/all"
    )
    return drafts.add(draft)


def _pages(organization: Organization, user: User) -> dict[str, str]:
    draft = Draft(
        owner=user.pk, targets=TargetFilter(organization=organization.pk, name="*"), type="custom",
        input={"command": "uptime"},
    )  # fmt: skip
    drafts.add(draft)
    steps = {step: reverse(f"admin:orchestrator_run_{step}", args=[draft.id]) for step in ("command", "review")}
    steps["playbook"] = reverse("admin:orchestrator_run_command", args=[_draft_of_a_playbook(organization, user)])
    lists = {
        name: reverse(f"admin:orchestrator_{name}_changelist")
        for name in ("organization", "location", "devicegroup", "credential", "command", "token")
    }
    device = factories.device(organization=organization, name="gateway")
    ended = run_rows.run({CommandStatus.SUCCESS: 30, CommandStatus.FAILED: 2}, organization=organization)
    active = run_rows.run({CommandStatus.SUCCESS: 3, CommandStatus.RUNNING: 2}, organization=organization)
    played = run_rows.run(
        {CommandStatus.SUCCESS: 3}, organization=organization, type="playbook", playbook="net/all",
        playbook_digest="d" * 64,
    )  # fmt: skip
    run_rows.tasks(played, ["Copy", "Restart"], last=TaskStatus.FAILED, message="no such service", diff="-a\n+b\n")
    tasks = reverse("admin:orchestrator_masscommand_tasks", args=[played.pk])
    webhook = factories.webhook(organization=organization)
    for left in ({"status": "failed", "finished": ended.created, "next_attempt": None}, {"error": "No answer."}):
        WebhookDelivery.objects.create(webhook=webhook, event="webhook.test", body="{}", attempts=1, **left)
    row = ended.commands.filter(status=CommandStatus.SUCCESS)[0]
    Command.objects.filter(pk=row.pk).update(stdout="another\n up 3 days")
    return (
        steps
        | lists
        | {
            "dashboard": "/admin/",
            "import": reverse("admin:orchestrator_device_import"),
            "contact": reverse("admin:orchestrator_device_contact"),
            "runs": reverse("admin:orchestrator_masscommand_changelist"),
            "ended run": _change(ended),
            "active run": _change(active),
            "played run": _change(played),
            "tasks": tasks,
            "task": f"{tasks}?task=Copy&status=changed",
            "tasks of a device": reverse("admin:orchestrator_command_change", args=[played.commands.all()[0].pk]),
            "outputs": reverse("admin:orchestrator_masscommand_outputs", args=[ended.pk]),
            "cancel": reverse("admin:orchestrator_masscommand_cancel", args=[active.pk]),
            "result": reverse("admin:orchestrator_command_change", args=[row.pk]),
            "webhooks": reverse("admin:orchestrator_webhook_changelist"),
            "webhook": reverse("admin:orchestrator_webhook_change", args=[webhook.pk]),
            "devices": reverse("admin:orchestrator_device_changelist"),
            "device": reverse("admin:orchestrator_device_change", args=[device.pk]),
            "enrol": reverse("admin:orchestrator_device_enrol", args=[device.pk]),
            "targets": reverse("admin:orchestrator_run_new") + f"?devices={device.pk}",
        }
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pages_fit_their_window_hold_no_style_or_script_and_have_no_serious_barrier(
    visit: Callable[..., Any], organization: Organization, theme: str
) -> None:
    administrator = factories.user(organization=organization, role=Role.ADMINISTRATOR, is_staff=True)
    visitor = visit(administrator, color_scheme=theme, reduced_motion="reduce")
    found = []
    for name, path in _pages(organization, administrator).items():
        visitor.page.set_viewport_size(SIZES[0])
        page: Page = visitor.open(path)
        assert page.evaluate("document.documentElement.classList.contains('dark')") == (theme == "dark"), name
        found += problems(page, name)
    assert found == []


HOSTILE = (
    "<script>document.title = 'taken'</script><img src=x onerror=\"document.title='taken'\">\x1b]0;taken\x07\u202eexe"
)


def test_the_api_is_read_and_used_in_the_browser(visit: Any, organization: Organization) -> None:
    administrator = factories.user(organization=organization, role=Role.ADMINISTRATOR)
    factories.location(organization=organization, name="Town hall")
    page: Page = visit(administrator, color_scheme="dark").open(reverse("location-list"))
    page.get_by_role("link", name="Town hall").click()
    expect(page.get_by_role("region", name="Reply")).to_contain_text('"name": "Town hall"')
    page.get_by_label("Method").select_option("PUT")
    body = page.get_by_label("Body, in JSON")
    body.fill(body.input_value().replace("Town hall", "Mill"))
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("heading", name="PUT: 200")).to_be_visible()
    assert not barriers(page)
    page.set_viewport_size(SIZES[1])
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[1]["width"]
    page.reload()
    expect(page.get_by_role("region", name="Reply")).to_contain_text('"name": "Mill"')
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_label("Method").select_option("DELETE")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("heading", name="DELETE: 204")).to_be_visible()
    assert not organization.locations.exists()


def test_what_a_device_prints_does_nothing_in_the_browser(
    visit: Any, operator: User, organization: Organization
) -> None:
    run = run_rows.run({CommandStatus.FAILED: 1}, organization=organization, label=HOSTILE[:64])
    Command.objects.update(stdout=HOSTILE, stderr=HOSTILE * 1_000, device_name=HOSTILE[:128], reason=HOSTILE)
    page = visit(operator).open(_change(run))
    address = reverse("admin:orchestrator_command_change", args=[Command.objects.get().pk])
    for _ in range(2):
        expect(page.get_by_text("<script>").first).to_be_visible()
        assert page.title() != "taken"
        assert page.evaluate("document.querySelectorAll('img[src=x], script:not([src])').length") == 0
        page.goto(page.url.split("/admin/")[0] + address)
    assert "<U+202E>exe" in page.locator("body").inner_text()
