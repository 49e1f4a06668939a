"""What keeps people from using a page: found by axe, and by looking at its width."""

from typing import Final

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, ViewportSize

SIZES: Final[tuple[ViewportSize, ...]] = ({"width": 1280, "height": 900}, {"width": 390, "height": 844})
_OURS: Final = ".o-page, .o-tools"


def problems(page: Page, name: str) -> list[str]:
    """All of it, also in a narrow window, and what the Content-Security-Policy would not let in."""
    found = [f"{name}: {problem}" for problem in barriers(page)]
    if page.locator(_OURS).locator("[style]:not(canvas), style, script, [onclick], [onchange]").count():
        found.append(f"{name}: a style or script of its own")
    for size in SIZES:
        page.set_viewport_size(size)
        if (width := page.evaluate("document.documentElement.scrollWidth")) > size["width"]:
            found.append(f"{name}: {width} wide in a window of {size['width']}")
    return found


def barriers(page: Page) -> list[str]:
    """What axe-core finds against WCAG 2.2 AA that is serious."""
    rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"], "resultTypes": ["violations"]}
    violations = Axe().run(page, options=rules).response["violations"]
    serious = [rule for rule in violations if rule["impact"] in {"serious", "critical"}]
    return [f"{rule['id']} at {[node['target'] for node in rule['nodes'][:3]]}" for rule in serious]
