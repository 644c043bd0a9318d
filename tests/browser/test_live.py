"""Live pages in a browser: what happens before their stream begins, bursts, several windows, and lost answers."""

import asyncio

import pytest
from browser.conftest import OpenConsole, Site, StartSite
from playwright.async_api import Page, Route, expect
from processes import PATIENCE_S

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

CARD = {"model": "sandbox/testcard", "seconds": 1, "size": "128x128"}
HIDE = """Object.defineProperty(Document.prototype, "hidden", { configurable: true, get: () => window.isAway });
window.isAway = true;"""
SHOW = """async () => {
  window.isAway = false;
  document.dispatchEvent(new Event("visibilitychange"));
}"""
TYPED = "a boat that is being typed"


async def show_all(page: Page, count: int) -> None:
    await expect(page.locator("#made .card")).to_have_count(count, timeout=60_000)
    ids = await page.locator("#made .card").evaluate_all("all => all.map((one) => one.id)")
    assert len(set(ids)) == count


async def test_a_page_that_opens_in_the_background_catches_up(site: Site, open_console: OpenConsole) -> None:
    async with open_console(site, "/models") as tab:
        page = tab.page
        await page.add_init_script(HIDE)
        await page.goto(f"{site.url}/console/playground")
        video = await site.gateway.create(**CARD)
        async with asyncio.timeout(PATIENCE_S):
            while video["status"] != "completed":
                video = (await site.gateway.client.get(f"/v1/videos/{video['id']}?wait=5")).json()
        await show_all(page, 0)
        await tab.run(SHOW)
        await show_all(page, 1)
        await expect(page.locator("#made .state.completed")).to_have_count(1)


async def test_a_burst_of_videos_is_shown_whole_beside_what_is_typed(site: Site, open_console: OpenConsole) -> None:
    async with open_console(site, "/playground") as tab:
        page = tab.page
        other = await page.context.new_page()  # of two windows, one has the stream
        await other.goto(f"{site.url}/console/playground")
        for one in (page, other):
            await one.fill("#prompt", TYPED)
        for _ in range(5):
            await site.gateway.create(**CARD)
        for one in (page, other):
            await show_all(one, 5)
            assert await one.input_value("#prompt") == TYPED


async def test_a_reset_keeps_what_is_typed(start_site: StartSite, open_console: OpenConsole) -> None:
    async with start_site() as site, open_console(site, "/models") as tab:
        page = tab.page
        await page.add_init_script(HIDE)
        await page.goto(f"{site.url}/console/playground")
        await page.fill("#prompt", TYPED)
        await tab.run("async () => { lastEvent = '1'; }")
        await tab.run(SHOW)
        await expect(page.locator("#not-live")).to_contain_text("There may be videos that this list does not show.")
        assert await page.input_value("#prompt") == TYPED


@pytest.mark.parametrize("answer", ["none", "json"])
async def test_a_lost_answer_is_shown_and_nothing_is_lost(site: Site, open_console: OpenConsole, answer: str) -> None:
    async def lose(route: Route) -> None:
        if route.request.method != "POST":
            await route.continue_()
        elif answer == "none":
            await route.abort()
        else:
            await route.fulfill(status=502, content_type="application/json", body="{}")

    async with open_console(site, "/playground") as tab:
        page = tab.page
        await page.fill("#prompt", TYPED)
        await page.route("**/console/playground", lose)
        await page.click("#form button.main")
        await expect(page.locator("#status [role=alert]")).to_contain_text("What you typed is kept")
        assert await page.input_value("#prompt") == TYPED
        tab.errors.clear()  # of the request that was refused


async def test_a_double_click_sends_once(site: Site, open_console: OpenConsole) -> None:
    async with open_console(site, "/models") as tab:
        page, sent = tab.page, []

        async def hold(route: Route) -> None:
            sent.append(route.request.url)
            await route.fulfill(status=204)  # the page stays

        await page.route("**/console/logout", hold)
        await page.dblclick("text=Sign out everywhere")
        await page.dblclick("header >> text=Sign out")
        await tab.run("async () => fetch('/console/logout', { method: 'POST' })")
        assert len(sent) == 3
