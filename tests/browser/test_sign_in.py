"""Sign-in in a browser: where it leads, what scripts can see of it, and what a revoked key ends."""

from http.cookies import SimpleCookie

import pytest
from browser.conftest import OpenConsole, Site
from browsers import Browser, open_tab
from harness import ALICE
from money import operator_of
from playwright.async_api import expect

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

KEPT = "async () => [document.cookie, localStorage.length, sessionStorage.length]"
TRIES = 10


async def test_a_stranger_signs_in_and_lands_where_the_link_led(site: Site, browser: Browser) -> None:
    async with open_tab(browser, f"{site.url}/console/models?q=test") as tab:
        page = tab.page
        assert page.url.startswith(f"{site.url}/console/login?next=")
        assert await page.locator('input:not([type="hidden"])').count() == 1
        assert await tab.run("async () => document.activeElement.id") == "key"
        await page.fill("#key", ALICE)
        await page.press("#key", "Enter")
        await page.wait_for_url(f"{site.url}/console/models?q=test")
        for target in ("//evil.example", "https://evil.example/console/"):
            await page.goto(f"{site.url}/console/login?next={target}")
            await page.fill("#key", ALICE)
            await page.press("#key", "Enter")
            await page.wait_for_url(f"{site.url}/console/playground")


async def test_wrong_keys_are_refused_then_slowed_down(site: Site, browser: Browser) -> None:
    async with open_tab(browser, f"{site.url}/console/login") as tab:
        page = tab.page
        for _ in range(TRIES):
            await page.fill("#key", "vgw_wrong")
            await page.press("#key", "Enter")
            await expect(page.locator("#problem")).to_be_visible()
            assert await tab.run("async () => document.activeElement.id") == "key"
        assert await page.context.cookies() == []
        async with page.expect_response(f"{site.url}/console/login") as answer:
            await page.fill("#key", ALICE)
            await page.press("#key", "Enter")
        assert (await answer.value).status == 429
        assert int((await answer.value).headers["retry-after"]) > 0
        await expect(page.locator("[role=alert]")).to_be_visible()


async def test_scripts_see_no_session_and_no_page_has_the_key(site: Site, open_console: OpenConsole) -> None:
    await site.gateway.create(model="sandbox/testcard", seconds=1)
    async with open_console(site) as tab:
        page, bodies = tab.page, []
        page.on("response", lambda response: bodies.append(response))
        for path in ("playground", "videos", "models", "connect", "usage", "webhooks"):
            await page.goto(f"{site.url}/console/{path}")
            assert ALICE not in await page.content()
        assert await tab.run(KEPT) == ["", 0, 0]
        (cookie,) = await page.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Lax", "/console")
        for path in ("/v1/videos", "/admin/v1/keys"):
            answer = await page.context.request.get(
                f"{site.url}{path}", headers={"cookie": f"{cookie['name']}={cookie['value']}"}
            )
            assert answer.status == 401


async def test_changes_from_elsewhere_are_refused(site: Site, open_console: OpenConsole) -> None:
    async with open_console(site, "/playground") as tab:
        page = tab.page
        token = await page.locator('[name="csrf"]').first.input_value()
        form = {"prompt": "a boat", "model": "sandbox/testcard", "retry": "1"}
        for headers, csrf in (
            ({"sec-fetch-site": "cross-site"}, token),
            ({"origin": "https://evil.example"}, token),
            ({}, token),
            ({"sec-fetch-site": "same-origin"}, ""),
        ):
            answer = await page.context.request.post(
                f"{site.url}/console/playground", headers=headers, form={**form, "csrf": csrf}
            )
            assert answer.status == 403, headers
        assert (await site.gateway.client.get("/v1/videos")).json()["data"] == []


async def test_after_signing_out_the_way_back_is_closed(site: Site, open_console: OpenConsole) -> None:
    async with open_console(site, "/videos") as tab:
        page = tab.page
        (cookie,) = await page.context.cookies()
        await page.click("text=Sign out")
        await page.wait_for_url(f"{site.url}/console/login")
        await page.go_back()
        await page.wait_for_url(f"{site.url}/console/login?next=/console/videos")
        jar = SimpleCookie({cookie["name"]: cookie["value"]})
        replayed = await site.gateway.client.get(
            "/console/videos", headers={"cookie": jar.output(attrs=[], header="").strip()}
        )
        assert replayed.status_code == 303


async def test_a_revoked_key_ends_the_open_page(site: Site, open_console: OpenConsole) -> None:
    async with operator_of(site.gateway) as operator:
        key = await operator.key()
        async with open_console(site, "/videos", key["key"]) as tab:
            page = tab.page
            async with page.expect_event("requestfinished", lambda request: "/feed" in request.url):
                (await operator.client.delete(f"/admin/v1/keys/{key['id']}")).raise_for_status()
            await page.reload()
            await page.wait_for_url(f"{site.url}/console/login?next=/console/videos&reason=revoked")
            await expect(page.locator("main")).to_contain_text("Your key was revoked")
