"""The first minutes: a link signs in, a video is made, watched while it runs, looked through, played and downloaded."""

import pytest
from browser.conftest import OpenConsole, Site, StartSite
from browsers import Browser, Tab, open_tab
from harness import ALICE

from app.accounts import sessions
from app.accounts.sessions import Holder
from app.video import SessionKind

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PLAY = """async () => {
  const video = document.querySelector("video");
  video.muted = true;
  await video.play();
  return video.videoWidth;
}"""


async def link_to(site: Site) -> str:
    gateway = site.gateway.gateway
    holder = Holder(SessionKind.key, gateway.authenticator.hash(ALICE))
    async with gateway.db.reading() as connection:
        code = await sessions.make_link(connection, holder, now=site.gateway.clock())
    return f"{site.url}/console/login?code={code}"


async def test_a_link_leads_to_the_playground_and_a_video_is_watched(site: Site, browser: Browser) -> None:
    async with open_tab(browser, await link_to(site)) as tab:
        page = tab.page
        await page.wait_for_url(f"{site.url}/console/playground")
        await page.fill("#prompt", "A lighthouse")
        await page.fill("#f-seconds", "1")
        await page.fill("#f-size", "128x128")
        await page.press("#prompt", "Control+Enter")
        await page.locator(".card .state.completed").wait_for()
        assert await page.locator(".card").count() == 1
        await scrub(tab)
        await page.click(".card .actions >> text=Details")
        await page.locator("article video").wait_for()
        assert await tab.run(PLAY) == 128
        async with page.expect_download() as download:
            await page.click("article >> text=Download")
        assert (await download.value).suggested_filename.endswith(".mp4")
        kept = "async () => [document.cookie, localStorage.length, sessionStorage.length]"
        assert await tab.run(kept) == ["", 0, 0]
        assert tab.errors == []
        assert {address for address in tab.loaded if not address.startswith(site.url)} <= {"data:,"}


async def scrub(tab: Tab) -> None:
    """Look through a card's video by the keyboard."""
    picture = tab.page.locator(".card .picture")
    await picture.focus()
    await tab.page.locator(".card .sheet").wait_for()
    await tab.page.keyboard.press("ArrowRight")
    assert await picture.get_attribute("data-frame") == "1"
    assert any(address.endswith("/spritesheet/0") for address in tab.loaded)
    assert not any("/content/" in address for address in tab.loaded)


async def test_nine_running_videos_move_while_five_more_tabs_are_open(
    start_site: StartSite, open_console: OpenConsole
) -> None:
    async with start_site(providers={"sandbox": {"slow_s": 20}}) as site:
        for number in range(9):
            await site.gateway.create(model="sandbox/slow", prompt=f"number {number}", seconds=1)
        async with open_console(site, "/videos") as tab:
            for _ in range(5):
                other = await tab.page.context.new_page()
                await other.goto(f"{site.url}/console/playground")
            await tab.page.bring_to_front()
            before = await tab.page.locator(".card progress").evaluate_all("all => all.map(one => one.value)")
            assert len(before) == 9
            for number in range(9):
                moved = tab.page.locator(f'.card >> nth={number} >> progress:not([value="{before[number]}"])')
                await moved.wait_for()
            form = await tab.page.context.new_page()
            await form.goto(f"{site.url}/console/playground")
            await form.fill("#prompt", "one more")
            await form.press("#prompt", "Control+Enter")
            await form.locator(".card >> text=one more").wait_for()
            assert len((await site.gateway.client.get("/v1/videos")).json()["data"]) == 10
