"""Accounts in a browser: a new key cannot be seen again once its dialog is closed, and works."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from browsers import Browser, chromium, open_tab
from fakes.server import serve
from harness import RealClock, StartGateway
from money import ADMIN, operator_of, status

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.fixture
def clock() -> RealClock:
    return RealClock(datetime.now(UTC))


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as found:
        yield found


async def test_a_new_key_is_seen_once_and_revoked_by_its_name(start_gateway: StartGateway, browser: Browser) -> None:
    async with (
        start_gateway(admin_key=ADMIN) as gateway,
        serve(gateway.app) as url,
        open_tab(browser, f"{url}/console/login?next=/console/accounts/keys/new") as tab,
        operator_of(gateway) as admin,
    ):
        page = tab.page
        await page.fill("#key", ADMIN)
        await page.press("#key", "Enter")
        await page.fill("#f-name", "web")
        await page.fill("#f-expires_at", "2099-01-01T12:30:00")
        await page.click("text=Make the key")
        await page.locator("dialog#secret").wait_for()
        secret = (await page.locator("#secret-value").inner_text()).strip()
        await page.keyboard.press("Escape")
        assert await page.locator("dialog#secret").is_visible(), "it stays until its button is pressed"
        await page.click("text=I have copied it")
        await page.wait_for_url(re.compile(r"/console/accounts/keys/key_\w+$"))
        assert secret not in await page.content()
        assert await status(gateway, secret) == 200
        await page.go_back()
        assert secret not in await page.content(), "the button that leads back shows the page before the form was sent"
        await page.go_forward()
        (key,) = (await admin.ask("GET", "keys"))["data"]
        assert key["expires_at"] == "2099-01-01T12:30:00+00:00"
        await page.click("a.danger")
        await page.fill("#f-typed", "wed")
        await page.click("button.main.danger")
        await page.locator("#h-typed").wait_for()
        assert await page.evaluate("document.activeElement.id") == "f-typed"
        await page.fill("#f-typed", "web")
        await page.click("button.main.danger")
        await page.locator("text=The key was revoked.").wait_for()
        assert (await admin.ask("GET", f"keys/{key['id']}"))["revoked_at"]
        assert [error for error in tab.errors if "400" not in error] == []
