"""Cards of providers and repairs in a browser: they are read again by themselves, say when they are old, and keep what
is open; and no page of the operator has a serious fault when there is something to show."""

from typing import Any

import pytest
from browser.conftest import OpenConsole, Site, StartSite
from browser.test_every_page import check
from browsers import Tab
from fakes.openai import FakeOpenAI
from fakes.server import KEY, Answer, Reset, serve
from money import ADMIN

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

STEP_MS = 5_100
"""A little more than the time after which the cards are read again."""
HIDE = """async hidden => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
  document.dispatchEvent(new Event("visibilitychange"));
}"""
FLUSH = """async () => { await fetch("/console/static/none") }"""
"""A request behind those that the page has begun."""


def settings_of(upstream: str) -> dict[str, Any]:
    up = {"kind": "openai", "base_url": f"{upstream}/v1", "api_key": KEY, "models": ["sora-2"]}
    return {"providers": {"up": up}, "prices": {"up/sora-2": 0.1}}


def reads(tab: Tab, site: Site) -> int:
    return tab.loaded.count(f"{site.url}/console/providers")


async def test_cards_are_read_again_while_they_are_seen(
    start_site: StartSite, fake: FakeOpenAI, open_console: OpenConsole
) -> None:
    async with (
        serve(fake) as upstream,
        start_site(run_worker=False, **settings_of(upstream)) as site,
        open_console(site, "/overview", ADMIN) as tab,
    ):
        page = tab.page
        await page.clock.install()
        await page.goto(f"{site.url}/console/providers")
        card = page.locator("#provider-up")
        await card.get_by_text("Not used in the last 24 hours").wait_for()
        await card.locator("summary", has_text="Serves").click()
        await card.get_by_role("button", name="Check").click()
        await card.get_by_text("answers and accepts the key").wait_for()
        await site.gateway.create(model="up/sora-2")
        await page.clock.fast_forward(STEP_MS)
        await card.locator("dd", has_text="1, the oldest for").wait_for()
        assert await card.locator("details[open]").count() == 1, "what was open stays open"
        assert await card.get_by_text("answers and accepts the key").count() == 1, "and the answer stays"

        before = reads(tab, site)
        await tab.run(HIDE, True)
        await page.clock.fast_forward(3 * STEP_MS)
        await tab.run(FLUSH)
        assert reads(tab, site) == before, "a hidden page asks for nothing"
        await tab.run(HIDE, False)
        await tab.run(FLUSH)
        assert reads(tab, site) == before + 1

        old = page.get_by_text("These are the last numbers")
        assert not await old.is_visible()
        await page.route("**/console/providers", lambda route: route.abort())
        await page.clock.fast_forward(STEP_MS)
        await old.wait_for()
        assert not await card.get_by_role("button", name="Check").is_visible()
        tab.errors.clear()  # Chromium complains of the request that was broken off
        await page.unroute("**/console/providers")
        await page.clock.fast_forward(STEP_MS)
        await old.wait_for(state="hidden")
        assert await card.get_by_role("button", name="Check").is_visible()


async def test_the_vendor_is_asked_without_leaving_the_page(
    start_site: StartSite, fake: FakeOpenAI, open_console: OpenConsole
) -> None:
    async with (
        serve(fake) as upstream,
        start_site(run_worker=False, **settings_of(upstream)) as site,
        open_console(site, "/overview", ADMIN) as tab,
    ):
        gateway, page = site.gateway, tab.page
        fake.script("submit", Answer(400, {"error": {"message": "no"}}), Reset())
        for _ in range(2):
            await gateway.create(model="up/sora-2", seconds="4", prompt="a very long word: " + "w" * 200)
            await gateway.worker.run_once()
        for ref in fake.jobs:
            fake.jobs[ref].raw["created_at"] = int(gateway.clock().timestamp())
        found = {path: await check(tab, site, path) for path in ("overview", "providers", "providers/up/close")}
        await page.goto(f"{site.url}/console/repairs")
        await page.locator("summary", has_text="Found").click()
        await page.get_by_label("Vendor's id").fill("typed")
        await page.get_by_role("link", name="Ask the vendor").click()
        await page.get_by_role("button", name="This one").wait_for()
        assert await page.get_by_label("Vendor's id").input_value() == "typed"
        ask = await page.get_by_role("link", name="Ask the vendor again").get_attribute("href") or ""
        found["repairs"] = await check(tab, site, ask.removeprefix("/console/").partition("#")[0])
        assert {path: faults for path, faults in found.items() if faults} == {}
        await page.get_by_role("button", name="This one").click()
        await page.get_by_text("The task was found and goes on.").wait_for()
        await page.get_by_text("Nothing waits for you.").wait_for()
