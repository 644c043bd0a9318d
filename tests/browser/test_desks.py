"""The operator's repairs and providers, webhooks and usage in a browser, from the fault to its end."""

import asyncio
import csv
import re
from io import StringIO

import pytest
from browser.conftest import OpenConsole, Site, StartSite, reload_until
from fakes.openai import FakeOpenAI
from fakes.receiver import Receiver
from fakes.server import KEY, Answer, Reset, serve
from money import ADMIN, operator_of
from playwright.async_api import expect
from processes import PATIENCE_S

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def test_a_resting_provider_is_released(
    start_site: StartSite, fake: FakeOpenAI, open_console: OpenConsole
) -> None:
    fake.script("submit", *[Answer(503, {"error": {"message": "Service overloaded, try later"}})] * 5)
    async with serve(fake) as url:
        up = {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY, "models": ["sora-2"]}
        async with start_site(providers={"up": up}, worker_concurrency=1) as site:
            videos = [await site.gateway.create(model="up/sora-2") for _ in range(5)]
            async with open_console(site, "/providers", ADMIN) as tab:
                page, card = tab.page, tab.page.locator("#provider-up")
                await expect(card).to_contain_text("Rests until", timeout=60_000)
                await expect(card).to_contain_text("Service overloaded, try later")
                await card.get_by_text("Close the circuit now").click()
                await page.click("button.main")
                await page.wait_for_url(re.compile("/console/providers"))
                await expect(card).to_contain_text("Answers", timeout=60_000)
            for video in videos:
                ended = await site.gateway.client.get(f"/v1/videos/{video['id']}?wait=60")
                assert ended.json()["status"] in ("in_progress", "completed")


async def ended(site: Site, fake: FakeOpenAI, video_id: str) -> str:
    """The status of a video whose task the vendor finishes."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            for ref in fake.jobs:
                fake.finish(ref)
            video = (await site.gateway.client.get(f"/v1/videos/{video_id}?wait=1")).json()
            if video["status"] in ("completed", "failed"):
                return str(video["status"])


async def test_lost_submits_are_decided(start_site: StartSite, fake: FakeOpenAI, open_console: OpenConsole) -> None:
    async with serve(fake) as url:
        up = {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY, "models": ["sora-2"]}
        async with (
            start_site(providers={"up": up}, prices={"up/sora-2": 0.1}) as site,
            operator_of(site.gateway) as admin,
        ):
            lost = []
            for prompt in ("found", "made again", "given up"):
                fake.script("submit", Reset())
                lost.append(await site.gateway.create(model="up/sora-2", seconds="4", prompt=prompt))
            async with asyncio.timeout(PATIENCE_S):
                while len((await admin.ask("GET", "repairs"))["data"]) < 3:
                    await site.gateway.client.get(f"/v1/videos/{lost[2]['id']}?wait=1")
            async with open_console(site, "/repairs", ADMIN) as tab:
                page = tab.page
                await expect(page.locator("header .badge")).to_contain_text("3")
                panel = page.locator("li.panel", has_text="found")
                await expect(panel.first).to_contain_text("$0.40")
                await panel.first.locator("summary", has_text="Found").click()
                await panel.first.get_by_label("Vendor's id").fill("no-such-task")
                await panel.first.get_by_role("button", name="This is the task").click()
                await expect(page.locator("[role=alert]")).to_contain_text("Nothing has changed")
                refs = {job.asked["prompt"]: ref for ref, job in fake.jobs.items()}
                panel = page.locator("li.panel", has=page.get_by_role("heading", name="found", exact=True))
                await panel.get_by_label("Vendor's id").fill(refs["found"])
                await panel.get_by_role("button", name="This is the task").click()
                await expect(page.locator("li.panel")).to_have_count(2)
                panel = page.locator("li.panel", has=page.get_by_role("heading", name="made again", exact=True))
                await panel.locator("summary", has_text="Make again").click()
                await expect(panel).to_contain_text("$0.40")
                await panel.get_by_role("button", name=re.compile("again", re.I)).last.click()
                await expect(page.locator("li.panel")).to_have_count(1)
                panel = page.locator("li.panel")
                await panel.locator("summary", has_text="Give up").click()
                await panel.get_by_role("button").last.click()
                await expect(page.locator("main")).to_contain_text("Nothing waits for you.")
            for video, status in zip(lost, ("completed", "completed", "failed"), strict=True):
                assert await ended(site, fake, video["id"]) == status
            assert await admin.ledger(lost[2]["id"]) == [("reserve", -400_000), ("refund", 400_000)]


async def test_a_mended_receiver_gets_its_events(start_site: StartSite, open_console: OpenConsole) -> None:
    receiver = Receiver(always=Answer(500, {"error": "the receiver is broken"}))
    async with serve(receiver) as url, start_site() as site:
        made = await site.gateway.client.post(
            "/v1/webhook_endpoints", json={"name": "shop", "url": f"{url}/hook", "event_types": ["video.completed"]}
        )
        assert made.status_code == 200
        await site.gateway.create(model="sandbox/testcard", seconds=1, size="128x128")
        await receiver.wait_for(1)
        async with open_console(site, "/webhooks/log") as tab:
            page = tab.page
            row = page.locator("tbody", has_text="video.completed")
            await reload_until(page, row, "500")
            await row.locator("summary").click()
            await expect(row).to_contain_text("the receiver is broken")
            receiver.always = None
            await row.get_by_role("button", name=re.compile("Send")).click()
            await receiver.wait_for(2)
            await reload_until(page, row, "Delivered")
            first, second = receiver.received
            assert (first.id, first.json["type"]) == (second.id, second.json["type"])


async def test_usage_is_that_of_the_api(start_site: StartSite, open_console: OpenConsole) -> None:
    async with start_site(prices={"sandbox/testcard": 0.1}) as site:
        for seconds in (1, 2):
            await site.gateway.create(model="sandbox/testcard", seconds=seconds, size="128x128", user="<b>u</b>")
        async with open_console(site, "/videos") as tab:
            page = tab.page
            await expect(page.locator(".card .state.completed")).to_have_count(2, timeout=60_000)
            await page.goto(f"{site.url}/console/usage?by=user&measure=cost")
            (row,) = (await site.gateway.client.get("/v1/usage?by=user")).json()["data"]
            assert (row["user"], row["cost_usd"]) == ("<b>u</b>", 0.3)
            await expect(page.locator("main")).to_contain_text("<b>u</b>")
            await expect(page.locator(".figures")).to_contain_text("$0.30")
            assert await page.locator(".chart rect[fill^='url']").count() >= 1
            async with page.expect_download() as download:
                await page.get_by_text("CSV", exact=False).first.click()
            shown = list(csv.DictReader(StringIO((await (await download.value).path()).read_text())))
            same = (await site.gateway.client.get("/v1/usage?by=day,user&format=csv")).text
            assert shown == list(csv.DictReader(StringIO(same)))
