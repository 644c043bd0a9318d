"""The console in a browser: sign-in by a link, a video made and watched, with nothing that its policy forbids."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from browsers import Browser, Tab, chromium, open_tab
from fakes.server import serve
from harness import ALICE, RealClock, Running, StartGateway

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


@pytest.fixture
def clock() -> RealClock:
    return RealClock(datetime.now(UTC))


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as found:
        yield found


async def link_to(gateway: Running, url: str) -> str:
    holder = Holder(SessionKind.key, gateway.gateway.authenticator.hash(ALICE))
    async with gateway.gateway.db.reading() as connection:
        code = await sessions.make_link(connection, holder, now=gateway.clock())
    return f"{url}/console/login?code={code}"


async def test_a_link_leads_to_the_playground_and_a_video_is_watched(
    start_gateway: StartGateway, browser: Browser
) -> None:
    async with (
        start_gateway(run_worker=True) as gateway,
        serve(gateway.app) as url,
        open_tab(browser, await link_to(gateway, url)) as tab,
    ):
        page = tab.page
        await page.wait_for_url(f"{url}/console/playground")
        await page.fill("#prompt", "A lighthouse")
        await page.fill("#f-seconds", "1")
        await page.fill("#f-size", "128x128")
        await page.press("#prompt", "Control+Enter")
        await page.locator(".card .state.completed").wait_for()
        assert await page.locator(".card").count() == 1
        await scrub(tab)
        await page.click(".card .actions a >> nth=0")
        await page.locator("video").wait_for()
        assert await tab.run(PLAY) == 128
        kept = "async () => [document.cookie, localStorage.length, sessionStorage.length]"
        assert await tab.run(kept) == ["", 0, 0]
        assert tab.errors == []
        assert {address for address in tab.loaded if not address.startswith(url)} <= {"data:,"}


async def scrub(tab: Tab) -> None:
    """Look through a card's video by the keyboard."""
    picture = tab.page.locator(".card .picture")
    await picture.focus()
    await tab.page.locator(".card .sheet").wait_for()
    await tab.page.keyboard.press("ArrowRight")
    assert await picture.get_attribute("data-frame") == "1"
    assert any(address.endswith("/spritesheet/0") for address in tab.loaded)
