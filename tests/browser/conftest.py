"""A headless Chromium against the live server, for somebody who is signed in."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.sessions.backends.db import SessionStore
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

PATIENCE = 30_000  # milliseconds that a page may take where the machine is busy; only what fails waits as long
LATENCY = int(os.environ.get("BROWSER_LATENCY", "0"))  # milliseconds added to each reply: `make test-late-browser`
expect.set_options(timeout=PATIENCE)

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


def _executable() -> str | None:
    """The system's Chromium; "" for Playwright's own build (Ubuntu's package is an installer of a snap)."""
    for name in _NAMES:
        if (found := shutil.which(name)) and "snap" not in Path(found).resolve().parts:
            return found
    cache = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or Path.home() / ".cache" / "ms-playwright")
    return "" if any(cache.glob("chromium*-*")) else None


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The browser; skipped where there is none.

    It ends with its module: Playwright's event loop in this thread would be in the way of others' asynchronous tests.
    """
    executable = _executable()
    if executable is None:
        pytest.skip("no Chromium: scripts/install-packages test")
    # Playwright runs an event loop in this thread, which Django would take for asynchronous code.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable or None, args=_ARGUMENTS)
        yield browser
        browser.close()
    del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


class Visitor:
    """A page of somebody who is signed in; what goes wrong in the browser is collected."""

    def __init__(self, context: BrowserContext, server: str) -> None:
        self.page: Page = context.new_page()
        if LATENCY:
            network = {"offline": False, "latency": LATENCY, "downloadThroughput": -1, "uploadThroughput": -1}
            context.new_cdp_session(self.page).send("Network.emulateNetworkConditions", network)
        self.server = server
        self.problems: list[str] = []
        self.page.on("pageerror", lambda error: self.problems.append(f"script: {error}"))
        self.page.on("console", self._listen)
        self.page.on("request", self._look_at)

    def _listen(self, told: Any) -> None:
        if told.type == "error":
            self.problems.append(f"console: {told.text}")

    def _look_at(self, request: Any) -> None:
        if not request.url.startswith((self.server, "data:", "blob:")):
            self.problems.append(f"asked outside: {request.url}")

    def open(self, path: str) -> Page:
        """Go there."""
        self.page.goto(self.server + path)
        return self.page


@pytest.fixture
def visit(chromium: Browser, live_server: Any) -> Iterator[Callable[..., Visitor]]:
    """``visit(user, **options of the browser context)``; fails if a script broke or asked outside."""
    contexts: list[BrowserContext] = []
    visitors: list[Visitor] = []

    def sign_in(user: Any, **options: Any) -> Visitor:
        session = SessionStore()
        session["_auth_user_id"] = str(user.pk)
        session["_auth_user_backend"] = settings.AUTHENTICATION_BACKENDS[0]
        session["_auth_user_hash"] = user.get_session_auth_hash()
        session.create()
        context = chromium.new_context(viewport={"width": 1280, "height": 900}, **options)
        context.set_default_timeout(PATIENCE)
        cookie = {"name": settings.SESSION_COOKIE_NAME, "value": session.session_key, "url": live_server.url}
        context.add_cookies([cookie])  # type: ignore[list-item]
        contexts.append(context)
        visitors.append(Visitor(context, live_server.url))
        return visitors[-1]

    yield sign_in
    for context in contexts:
        context.close()
    assert [problem for visitor in visitors for problem in visitor.problems] == []
