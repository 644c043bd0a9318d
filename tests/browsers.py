"""Chromium for tests: pages that are opened record what the browser complains of."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from processes import PATIENCE_S
from programs import missing, need

try:
    from playwright.async_api import Browser, Page, async_playwright
except ImportError:
    missing("playwright is not installed; `make test` installs it")

__all__ = ["Browser", "Tab", "chromium", "open_tab"]


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Run Chromium; skips the test where it is not installed."""
    program = need("chromium", "chromium-browser", "google-chrome")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program)
        try:
            yield browser
        finally:
            await browser.close()


@dataclass
class Tab:
    """A page with the errors of its console, violations of a content security policy among them, and the addresses
    that it has loaded."""

    page: Page
    errors: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)

    async def run(self, script: str, *arguments: Any) -> Any:
        """Call the async JavaScript function `script` in the page; returns its result."""
        return await self.page.evaluate(f"given => ({script})(...given)", list(arguments))


@asynccontextmanager
async def open_tab(browser: Browser, url: str, **options: Any) -> AsyncIterator[Tab]:
    """Open an address in a profile of its own, with no cookies and an empty cache."""
    context = await browser.new_context(**options)
    context.set_default_timeout(PATIENCE_S * 1_000)
    tab = Tab(await context.new_page())
    tab.page.on("console", lambda said: tab.errors.append(said.text) if said.type == "error" else None)
    tab.page.on("pageerror", lambda error: tab.errors.append(str(error)))
    tab.page.on("request", lambda request: tab.loaded.append(request.url))
    try:
        await tab.page.goto(url)
        yield tab
    finally:
        await context.close()
