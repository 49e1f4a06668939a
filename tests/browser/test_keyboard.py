"""The admin by keyboard alone."""

from typing import Any

import pytest
from django.urls import reverse
from playwright.sync_api import Locator, Page, expect

from orchestrator.access import Role
from orchestrator.models import MassCommand
from tests import factories

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def _tab_to(page: Page, wanted: Locator) -> None:
    """Press Tab until it has the focus, and can be seen to have it."""
    for _ in range(120):
        page.keyboard.press("Tab")
        if wanted.evaluate("element => element === document.activeElement"):
            shown = "element => [getComputedStyle(element).outlineStyle, getComputedStyle(element).boxShadow]"
            assert wanted.evaluate(shown) != ["none", "none"], wanted
            return
    raise AssertionError(f"{wanted} is not reached by the keyboard.")


def test_the_wizard_is_gone_through_by_keyboard_alone(visit: Any, outbox: Any) -> None:
    organization = factories.organization(name="Northern Schools")
    factories.device(organization=organization)
    port = {"type": "integer", "minimum": 1}
    factories.playbook(name="net/site", properties={"port": port}, required=("port",))
    user = factories.user(organization=organization, role=Role.OPERATOR, is_staff=True)
    page = visit(user).open(reverse("admin:orchestrator_run_new"))
    _tab_to(page, page.get_by_label("Organization", exact=True))
    page.keyboard.type("North")
    _tab_to(page, page.get_by_role("button", name="Next: the command"))
    page.keyboard.press("Enter")
    page.wait_for_url("**/command/")
    _tab_to(page, page.locator("input[name=type]").first)  # one of the group is reached, the others by arrows
    page.keyboard.press("ArrowUp")
    _tab_to(page, page.locator("select[name=playbook]"))
    page.keyboard.type("net")
    expect(page.get_by_label("Port")).to_be_visible()
    _tab_to(page, page.get_by_label("Port"))
    page.keyboard.type("22")
    page.keyboard.press("Enter")
    page.wait_for_url("**/review/")
    _tab_to(page, page.get_by_role("button", name="Run on 1 device"))
    page.keyboard.press("Enter")
    page.wait_for_url("**/change/")
    assert MassCommand.objects.get().input == {"port": 22}
