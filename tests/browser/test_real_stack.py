"""The admin on the real stack: web server, queue, workers, Ansible, SSH and devices."""

import re
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.acceptance.conftest import World, lab, world  # noqa: F401 - fixtures
from tests.acceptance.service import ADMIN

pytestmark = [pytest.mark.browser, pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(240)]

RUN = 60_000  # milliseconds that a run may take where the machine is busy
NEW = "/admin/orchestrator/masscommand/run/"


@pytest.fixture
def page(chromium: Browser, world: World) -> Any:  # noqa: F811
    """Signed in; nothing broke in the browser while it was used."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, base_url=world.service.stack.url)
    context.set_default_timeout(RUN)
    opened, broken = context.new_page(), []
    opened.on("pageerror", lambda error: broken.append(str(error)))
    opened.goto("/admin/")
    opened.get_by_label("Username").fill(ADMIN["username"])
    opened.get_by_label("Password").fill(ADMIN["password"])
    opened.get_by_label("Password").press("Enter")
    expect(opened.get_by_role("heading", name="In progress")).to_be_visible(timeout=RUN)
    yield opened
    context.close()
    assert broken == []


def _command(page: Page, line: str, button: str) -> None:
    """The wizard from its second step to the run."""
    page.get_by_label("Custom command").check()
    page.get_by_label("Command line").fill(line)
    page.get_by_role("button", name="Next: review").click()
    page.get_by_role("button", name=button).click()
    expect(page).to_have_url(re.compile("/change/"), timeout=RUN)


def _ended(page: Page, status: str) -> None:
    """The page says so by itself: nothing is reloaded by hand."""
    expect(page.locator("[data-live=badge]")).to_have_text(status, timeout=RUN)


def test_a_run_is_chosen_watched_exported_and_tried_again(page: Page, world: World) -> None:  # noqa: F811
    world.lab.power("openwrt6", "off")
    world.lab.wait_until("openwrt6", "off")
    page.goto(NEW)
    page.get_by_label("Organization", exact=True).select_option(label="Lab")
    expect(page.locator("#count")).to_have_text("8 devices", timeout=RUN)
    page.get_by_text("Narrow down").click()
    page.get_by_label("Name", exact=True).fill("openwrt*")
    expect(page.locator("#count")).to_have_text("6 devices", timeout=RUN)
    page.get_by_role("button", name="Next: the command").click()
    _command(page, "sleep 2; cat /proc/sys/kernel/hostname", "Run on 6 devices")

    _ended(page, "partial")
    expect(page.get_by_role("link", name="5 success")).to_be_visible()
    expect(page.locator("#cells canvas")).to_be_visible()
    again = page.get_by_role("button", name="Run on the 1 that did not succeed…")
    expect(again).to_be_visible(timeout=RUN)  # the page has loaded itself once more
    expect(page.get_by_text("Ended: partial")).to_be_visible()
    page.get_by_role("link", name="openwrt1", exact=True).click()
    expect(page.get_by_role("dialog").locator("pre")).to_have_text("openwrt1\n", timeout=RUN)
    page.keyboard.press("Escape")
    with page.expect_download() as download:
        page.get_by_role("link", name="Export CSV").click()
    exported = download.value.path().read_text()
    assert exported.count(",success,") == 5
    assert (
        "openwrt6,custom,,unreachable,The device refused the connection" in exported
    )  # between the commas: no playbook

    world.lab.power("openwrt6", "on")
    world.lab.wait_until("openwrt6", "up")
    again.click()
    page.get_by_role("button", name="Run on 1 device").click()
    _ended(page, "success")
    expect(page.get_by_role("link", name="the run before")).to_be_visible(timeout=RUN)


def test_a_connection_is_tested_and_a_run_is_cancelled_while_it_runs(page: Page, world: World) -> None:  # noqa: F811
    page.goto(f"/admin/orchestrator/device/{world.devices['linux1']['id']}/change/")
    page.get_by_role("button", name="Test the connection").click()
    page.get_by_role("button", name="Run on 1 device").click()
    _ended(page, "success")
    expect(page.get_by_text("Ended: success")).to_be_visible()  # it has loaded itself: another way is open
    page.goto(f"{NEW}?devices={world.devices['openwrt2']['id']}")
    page.get_by_role("button", name="Next: the command").click()
    page.get_by_text("Pace and limits").click()
    page.get_by_label("Seconds for each device").fill("120")
    _command(page, "sleep 100", "Run on 1 device")
    expect(page.get_by_role("link", name="1 running")).to_be_visible(timeout=RUN)
    page.get_by_role("link", name="Cancel…").click()
    page.get_by_role("button", name="Cancel the run").click()
    _ended(page, "cancelled")
