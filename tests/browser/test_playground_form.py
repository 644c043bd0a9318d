"""The playground in a browser: fields of a model, the price before the button, one video for two clicks, code."""

import asyncio
import os
import shlex
from pathlib import Path

import pytest
from browser.conftest import OpenConsole, Site, StartSite
from browsers import Tab
from harness import ALICE
from money import operator_of
from playwright.async_api import expect
from programs import need

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

KEYS = {"ark": {"api_key": "not used"}, "sandbox": {}}
PRICES = {"sandbox/testcard": 0.1}


async def prompts(site: Site) -> list[str]:
    return [video["prompt"] for video in (await site.gateway.client.get("/v1/videos")).json()["data"]]


async def test_a_limited_key_sees_its_models_and_the_refusal_at_the_field(
    site: Site, open_console: OpenConsole
) -> None:
    async with operator_of(site.gateway) as operator:
        key = await operator.key(models=["sandbox/testcard"])
    async with open_console(site, "/playground", key["key"]) as tab:
        page = tab.page
        assert await page.locator("#model option").all_inner_texts() == ["sandbox/testcard"]
        await page.fill("#prompt", "a boat")
        await tab.run("async () => { document.querySelector('#model option').value = 'sandbox/fail' }")
        await page.click("text=Generate")
        await expect(page.locator("#status")).to_contain_text("model_not_allowed")
        await expect(page.locator("#model")).to_have_attribute("aria-invalid", "true")
        assert await page.input_value("#prompt") == "a boat"
        assert await prompts(site) == []


async def test_another_model_has_its_own_fields(start_site: StartSite, open_console: OpenConsole) -> None:
    async with start_site(providers=KEYS) as site, open_console(site, "/playground?model=sandbox/testcard") as tab:
        page = tab.page
        await page.fill("#prompt", "a boat")
        await page.fill("#f-seconds", "30")
        await page.fill("#f-aspect_ratio", "9:16")
        await page.select_option("#model", label="seedance-1.0-pro")
        await expect(page.locator("#fields .notice")).to_contain_text("seconds")
        await expect(page.locator("select#f-resolution")).to_be_visible()
        assert await page.input_value("#f-seconds") == ""
        assert await page.input_value("#f-aspect_ratio") == "9:16"
        assert await page.input_value("#prompt") == "a boat"


async def test_the_price_follows_the_form(start_site: StartSite, open_console: OpenConsole) -> None:
    async with start_site(prices=PRICES) as site:
        async with operator_of(site.gateway) as operator:
            key = await operator.key(monthly_budget_usd=0.5)
        async with open_console(site, "/playground?model=sandbox/testcard", key["key"]) as tab:
            page, price = tab.page, tab.page.locator("#price output")
            await expect(price).to_contain_text("$0.40 for 4 s")
            await page.fill("#f-seconds", "2")
            await expect(price).to_contain_text("$0.20 for 2 s")
            await page.fill("#f-seconds", "10")
            await expect(price).to_contain_text("$0.50 is left")
            await page.fill("#prompt", "too dear")
            await page.click("#form button.main")
            await expect(page.locator("#status .problem")).to_contain_text("budget_exceeded")
            await expect(page.locator("#form button.main")).to_be_enabled()
            await page.fill("#f-seconds", "90")
            await expect(page.locator("#price output.wrong")).to_contain_text("seconds")


async def test_two_clicks_make_one_video_and_the_card_comes_alive(site: Site, open_console: OpenConsole) -> None:
    async with open_console(site, "/playground?model=sandbox/testcard") as tab:
        page = tab.page
        await page.fill("#prompt", "a boat")
        await page.press("#prompt", "Enter")
        await page.keyboard.type("on a pond")
        assert await page.input_value("#prompt") == "a boat\non a pond"
        assert await prompts(site) == []
        await page.fill("#f-seconds", "1")
        await page.fill("#f-size", "128x128")
        seen = await watch_card(tab)
        await page.dblclick("#form button.main")
        await page.locator(".card .state.completed").wait_for()
        assert await prompts(site) == ["a boat\non a pond"]
        progress = [int(words.split()[1]) for words in await seen() if words.startswith("Running")]
        assert progress == sorted(progress)
        assert await page.input_value("#prompt") == "a boat\non a pond"


async def watch_card(tab: Tab):  # type: ignore[no-untyped-def]
    """Record the words of the first card; the result reads them."""
    await tab.run("""async () => {
      window.seen = [];
      new MutationObserver(() => {
        const words = document.querySelector(".card .state")?.textContent;
        if (words && seen.at(-1) !== words) seen.push(words);
      }).observe(document.body, { childList: true, subtree: true, characterData: true, attributes: true });
    }""")

    async def read() -> list[str]:
        found: list[str] = await tab.run("async () => seen")
        return found

    return read


async def test_much_money_is_asked_about_first(start_site: StartSite, open_console: OpenConsole) -> None:
    async with start_site(prices=PRICES) as site, open_console(site, "/playground?model=sandbox/testcard") as tab:
        page = tab.page
        await page.fill("#prompt", "a long one")
        await page.fill("#f-seconds", "30")
        await expect(page.locator("#price output")).to_contain_text("$3.00")
        await page.click("#form button.main")
        await expect(page.locator("#ask")).to_contain_text("$3.00 for 30 s")
        await page.keyboard.press("Escape")
        assert await prompts(site) == []
        await page.click("#form button.main")
        await page.click("#ask >> text=Generate")
        await page.locator(".card").wait_for()
        assert await prompts(site) == ["a long one"]


async def test_the_shown_code_makes_the_same_request(site: Site, open_console: OpenConsole) -> None:
    curl = need("curl")
    async with open_console(site, "/playground?model=sandbox/testcard") as tab:
        page = tab.page
        await page.fill("#prompt", 'it\'s a "boat" & <b>more</b>')
        await page.fill("#f-seconds", "1")
        await page.fill("#f-size", "128x128")
        await page.click("summary >> text=More fields")
        await page.fill("#f-seed", "7")
        await page.click("summary >> text=As code")
        await expect(page.locator("#code-curl")).to_contain_text('"seed": 7')
        shown = await page.inner_text("#code-curl")
        assert ALICE not in await page.content()
        await page.click("#form button.main")
        await page.locator(".card").wait_for()
    words = shlex.split(shown.replace("\\\n", " ").replace("$OPENAI_API_KEY", ALICE))
    process = await asyncio.create_subprocess_exec(curl, "-sS", "--fail-with-body", *words[1:], env={**os.environ})
    assert await process.wait() == 0
    newest, other = (await site.gateway.client.get("/v1/videos")).json()["data"]
    same = ("prompt", "model", "seconds", "size")
    assert [newest[name] for name in same] == [other[name] for name in same]
    rows = [(await site.gateway.client.get(f"/v1/videos/{one['id']}")).json() for one in (newest, other)]
    assert len({str(row.get("seed")) for row in rows}) == 1


async def test_a_chosen_picture_is_shown_and_sent(site: Site, open_console: OpenConsole, tmp_path: Path) -> None:
    picture = tmp_path / "frame.png"
    picture.write_bytes(PNG)
    async with open_console(site, "/playground?model=sandbox/testcard") as tab:
        page = tab.page
        await page.fill("#prompt", "from a picture")
        await page.click("summary >> text=More fields")
        await page.set_input_files('[name="first_frame_file"]', picture)
        await expect(page.locator("#f-first_frame-preview img")).to_be_visible()
        await expect(page.locator("#code-curl")).to_contain_text("-F input_reference=@first_frame")
        await page.fill("#f-seconds", "1")
        await page.click("#form button.main")
        await page.locator(".card .state.completed").wait_for()


PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
    "0000000c49444154789c63f8cfc0000003010100c9fe92ef0000000049454e44ae426082"
)


async def test_a_video_goes_on_from_another_one(site: Site, open_console: OpenConsole) -> None:
    source = await site.gateway.create(model="sandbox/testcard", seconds=1, size="128x128")
    async with open_console(site, "/videos") as tab:
        page = tab.page
        await page.locator(".card .state.completed").wait_for()
        await page.goto(f"{site.url}/console/playground?mode=extend&from={source['id']}")
        await page.fill("#prompt", "it turns around")
        await page.fill("#f-seconds", "2")
        await expect(page.locator("#price output")).to_contain_text("2 s")
        await page.click("#form button.main")
        await page.locator(".card >> text=it turns around").wait_for()
        assert await prompts(site) == ["it turns around", "a paper boat"]
