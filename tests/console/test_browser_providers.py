"""Cards of providers in a browser: they are read again by themselves, say when they are old, and keep what is open."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from browsers import Browser, Tab, chromium, open_tab
from fakes.openai import FakeOpenAI
from fakes.server import KEY, serve
from harness import RealClock, Running, StartGateway
from money import ADMIN

from app.accounts import sessions
from app.accounts.sessions import Holder
from app.video import SessionKind

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

STEP_MS = 5_100
"""A little more than the time after which the cards are read again."""
HIDE = """async hidden => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
  document.dispatchEvent(new Event("visibilitychange"));
}"""

FLUSH = """async () => { await fetch("/console/static/none") }"""
"""A request behind those that the page has begun."""


@pytest.fixture
def clock() -> RealClock:
    return RealClock(datetime.now(UTC))


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as found:
        yield found


async def link_to(gateway: Running, url: str) -> str:
    holder = Holder(SessionKind.admin, gateway.gateway.authenticator.hash(ADMIN))
    async with gateway.gateway.db.reading() as connection:
        code = await sessions.make_link(connection, holder, now=gateway.clock())
    return f"{url}/console/login?code={code}"


def settings_of(upstream: str) -> dict[str, Any]:
    return {"kind": "openai", "base_url": f"{upstream}/v1", "api_key": KEY, "models": ["sora-2"]}


def reads(tab: Tab, url: str) -> int:
    return tab.loaded.count(f"{url}/console/providers")


async def test_cards_are_read_again_while_they_are_seen(
    start_gateway: StartGateway, fake: FakeOpenAI, browser: Browser
) -> None:
    async with (
        serve(fake) as upstream,
        start_gateway(admin_key=ADMIN, providers={"up": settings_of(upstream)}) as gateway,
        serve(gateway.app) as url,
        open_tab(browser, await link_to(gateway, url)) as tab,
    ):
        page = tab.page
        await page.wait_for_url(f"{url}/console/overview")
        await page.clock.install()
        await page.goto(f"{url}/console/providers")
        card = page.locator("#provider-up")
        await card.get_by_text("Not used in the last 24 hours").wait_for()
        await card.locator("summary", has_text="Serves").click()
        await card.get_by_role("button", name="Check").click()
        await card.get_by_text("answers and accepts the key").wait_for()
        await gateway.create(model="up/sora-2")
        await page.clock.fast_forward(STEP_MS)
        await card.locator("dd", has_text="1, the oldest for").wait_for()
        assert await card.locator("details[open]").count() == 1, "what was open stays open"
        assert await card.get_by_text("answers and accepts the key").count() == 1, "and the answer stays"

        before = reads(tab, url)
        await tab.run(HIDE, True)
        await page.clock.fast_forward(3 * STEP_MS)
        await tab.run(FLUSH)
        assert reads(tab, url) == before, "a hidden page asks for nothing"
        await tab.run(HIDE, False)
        await tab.run(FLUSH)
        assert reads(tab, url) == before + 1
        assert tab.errors == []

        old = page.get_by_text("These are the last numbers")
        assert not await old.is_visible()
        await page.route("**/console/providers", lambda route: route.abort())
        await page.clock.fast_forward(STEP_MS)
        await old.wait_for()
        assert not await card.get_by_role("button", name="Check").is_visible()
        await page.unroute("**/console/providers")
        await page.clock.fast_forward(STEP_MS)
        await old.wait_for(state="hidden")
        assert await card.get_by_role("button", name="Check").is_visible()
