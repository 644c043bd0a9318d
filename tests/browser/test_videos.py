"""Library and a video's page in a browser: looking through, playing, filters, cancel, live updates, hostile text."""

import re

import pytest
from browser.conftest import OpenConsole, Site, StartSite, reload_until
from browsers import Tab
from fakes.openai import FakeOpenAI
from fakes.s3 import S3
from fakes.server import KEY, Answer, serve
from playwright.async_api import expect

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"
CARD = {"model": "sandbox/testcard", "seconds": 1, "size": "320x180"}
STATE = """async () => {
  const video = document.querySelector("dialog video");
  return [video.readyState, video.currentTime];
}"""
PLAY = """async () => {
  const video = document.querySelector("article video");
  video.muted = true;
  await video.play();
  return video.videoWidth;
}"""
WATCH = """async () => {
  const line = document.getElementById("spoken");
  window.lines = [];
  window.kept = [];
  new MutationObserver(() => line.textContent && lines.push(line.textContent)).observe(line, { childList: true });
  new MutationObserver(() => kept.push(document.activeElement.textContent)).observe(
    document.getElementById("cards"),
    { childList: true, subtree: true, attributes: true, characterData: true },
  );
}"""
IDS = "all => all.map((one) => one.dataset.video)"
FOCUSED = "async () => document.activeElement.textContent.trim()"


async def ready(tab: Tab, count: int = 1) -> None:
    await expect(tab.page.locator(".card .state.completed")).to_have_count(count, timeout=60_000)


async def test_a_failure_says_why_and_leads_to_its_attempt(site: Site, open_console: OpenConsole) -> None:
    video = await site.gateway.create(model="sandbox/fail", seconds=1)
    async with open_console(site, "/videos") as tab:
        page = tab.page
        await expect(page.locator(".card .state")).to_contain_text("Failed: sandbox_failure", timeout=60_000)
        await page.click(".card .actions >> text=Details")
        await page.wait_for_url(f"{site.url}/console/videos/{video['id']}")
        await expect(page.locator("#attempts")).to_contain_text("sandbox/fail")
        await expect(page.locator("#attempts")).to_contain_text("sandbox_failure")


async def test_a_card_is_looked_through_then_played(site: Site, open_console: OpenConsole) -> None:
    await site.gateway.create(**CARD)
    async with open_console(site, "/videos") as tab:
        page = tab.page
        await ready(tab)
        await page.hover(".card .picture")
        await page.locator(".card .sheet").wait_for()
        sheets = [one for one in tab.loaded if "/spritesheet/" in one]
        assert len(sheets) == 1
        assert not any("/content/" in one for one in tab.loaded)
        picture = page.locator(".card .picture")
        await picture.focus()
        first = await picture.get_attribute("data-frame")
        await page.keyboard.press("ArrowRight")
        await page.keyboard.press("ArrowRight")
        assert int(await picture.get_attribute("data-frame") or 0) == int(first or 0) + 2
        await page.keyboard.press("ArrowLeft")
        assert int(await picture.get_attribute("data-frame") or 0) == int(first or 0) + 1
        await page.click(".card .actions >> text=Play")
        await expect(page.locator("#player")).to_be_visible()
        for _ in range(200):
            state, at = await tab.run(STATE)
            if state >= 3 and at > 0:
                break
        assert (state >= 3, at > 0) == (True, True)
        await page.keyboard.press("Escape")
        await expect(page.locator("#player")).to_be_hidden()
        assert await tab.run(FOCUSED) == "Play"


async def test_the_strip_leads_to_its_times(site: Site, open_console: OpenConsole) -> None:
    video = await site.gateway.create(**{**CARD, "seconds": 5})
    async with open_console(site, "/videos") as tab:
        page = tab.page
        await ready(tab)
        ranges = []
        page.on("request", lambda request: ranges.append(request.headers.get("range")))
        await page.goto(f"{site.url}/console/videos/{video['id']}")
        frames = page.locator(".strip button")
        await expect(frames).to_have_count(25)
        await frames.nth(15).click()
        at = await tab.run("async () => document.querySelector('article video').currentTime")
        assert abs(at - 15 * 5 / 25) < 0.2
        assert any(found and found.startswith("bytes=") for found in ranges)


async def test_a_video_plays_from_the_bucket(
    start_site: StartSite, open_console: OpenConsole, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = S3()
    async with serve(bucket) as endpoint:
        for name, value in bucket.environment(endpoint).items():
            monkeypatch.setenv(name, value)
        async with start_site(storage_url=f"s3://{bucket.bucket}/gateway", storage_presign=True) as site:
            video = await site.gateway.create(**CARD)
            async with open_console(site, "/videos", allows=endpoint) as tab:
                await ready(tab)
                await tab.page.goto(f"{site.url}/console/videos/{video['id']}")
                assert await tab.run(PLAY) == 320
                assert any(address.startswith(endpoint) for address in tab.loaded)
                loads = f"async () => fetch('{endpoint}/').then(() => 'loaded', () => 'refused')"
                assert await tab.run(loads) == "refused"
                tab.errors.clear()  # of the refusal that was asked for
    bucket.close()


async def test_filters_are_those_of_the_api_and_stay_in_the_address(site: Site, open_console: OpenConsole) -> None:
    for number in range(26):
        model = "sandbox/testcard" if number % 2 else "sandbox/slow"
        await site.gateway.create(model=model, prompt=f"number {number}", seconds=1, size="128x128")
    async with open_console(site, "/videos") as tab:
        page = tab.page

        async def shown() -> list[str]:
            found: list[str] = await page.locator("#cards [data-video]").evaluate_all(IDS)
            return found

        async def asked(query: str) -> list[str]:
            listed = (await site.gateway.client.get(f"/v1/videos?limit=24&{query}")).json()
            return [video["id"] for video in listed["data"]]

        await page.select_option('[name="model"]', "sandbox/slow")
        await page.fill('[name="q"]', "number 1")
        await page.click("form.filters button.main")
        await page.wait_for_url(re.compile("model=sandbox"))
        assert await shown() == await asked("model=sandbox/slow&q=number 1")
        before = await shown()
        await page.reload()
        assert await shown() == before
        other = await page.context.new_page()
        await other.goto(page.url)
        assert await other.locator("#cards [data-video]").count() == len(before)
        await page.goto(f"{site.url}/console/videos")
        newest = await shown()
        await page.click("text=Older")
        await page.wait_for_url(re.compile("after="))
        assert await shown() == await asked(f"after={newest[-1]}")
        await page.go_back()
        assert await shown() == newest


async def test_a_running_video_is_cancelled_and_failed_ones_go_together(
    start_site: StartSite, open_console: OpenConsole
) -> None:
    async with start_site(prices={"sandbox/slow": 0.1}) as site:
        running = await site.gateway.create(model="sandbox/slow", seconds=2)
        for _ in range(3):
            await site.gateway.create(model="sandbox/fail", seconds=1)
        async with open_console(site, "/videos") as tab:
            page = tab.page
            await expect(page.locator(".card .state.failed")).to_have_count(3, timeout=60_000)
            await page.click(f"#card-{running['id']} .actions >> text=Cancel")
            await page.click("button.main")
            await page.wait_for_url(re.compile(f"/videos/{running['id']}"))
            await expect(page.locator(".state").first).to_contain_text("Cancelled")
            await reload_until(page, page.locator("#money"), "Given back")
            await page.goto(f"{site.url}/console/videos?status=failed")
            await page.click("text=Delete all 3 failed")
            await expect(page.locator("main")).to_contain_text("3")
            await page.click("button.main")
            await page.wait_for_url(re.compile("/console/videos"))
            listed = (await site.gateway.client.get("/v1/videos")).json()["data"]
            assert [video["id"] for video in listed] == [running["id"]]


async def test_live_updates_keep_the_focus_and_say_the_end_once(
    start_site: StartSite, open_console: OpenConsole
) -> None:
    async with start_site(providers={"sandbox": {"slow_s": 12}}) as site:
        await site.gateway.create(model="sandbox/slow", prompt="slowly", seconds=1, size="128x128")
        async with open_console(site, "/videos") as tab:
            page = tab.page
            await page.focus(".card .actions >> text=Cancel")
            await tab.run(WATCH)
            await page.locator('.card progress:not([value="0"])').wait_for()
            await ready(tab)
            moved = await tab.run("async () => kept")
            assert moved[0] == "Cancel"
            assert await tab.run("async () => lines") == ["slowly: ready"]


async def test_text_of_others_is_text_everywhere(start_site: StartSite, open_console: OpenConsole) -> None:
    fake = FakeOpenAI()
    fake.script("submit", Answer(400, {"error": {"message": HOSTILE, "code": HOSTILE}}))
    async with serve(fake) as url:
        up = {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY, "models": ["sora-2"]}
        async with start_site(providers={"up": up}) as site:
            video = await site.gateway.create(model="up/sora-2", prompt=HOSTILE, user=HOSTILE, metadata={"a": HOSTILE})
            async with open_console(site, "/videos") as tab:
                page = tab.page
                page.on("dialog", lambda dialog: tab.errors.append(f"a dialog: {dialog.message}"))
                await expect(page.locator(".card .state.failed")).to_be_visible(timeout=60_000)
                for path in ("videos", "videos?view=table", f"videos/{video['id']}", f"playground?from={video['id']}"):
                    await page.goto(f"{site.url}/console/{path}")
                    assert await page.locator("img[src='x']").count() == 0, path
                await page.goto(f"{site.url}/console/videos/{video['id']}")
                assert HOSTILE[:20] in await page.title()
                await expect(page.locator("h1")).to_contain_text(HOSTILE)
