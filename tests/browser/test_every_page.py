"""Every page of the console: at any width, by keyboard, for screen readers, in light and dark, and without scripts."""

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
from browser.conftest import OpenConsole, Site
from browsers import Browser, Tab, open_tab
from harness import ALICE
from money import ADMIN, operator_of
from playwright.async_api import expect

from app.console.pages import MENU

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

HERE = Path(__file__).parent
AXE = HERE / "axe-4.14.1.min.js"
SERIOUS = """async () => {
  const found = await axe.run(document, { resultTypes: ["violations"] });
  const bad = found.violations.filter(({ impact }) => impact === "serious" || impact === "critical");
  return bad.map(({ id, nodes }) => [id, ...nodes.slice(0, 3).map((node) => node.html + node.failureSummary)]);
}"""
WIDER = "async () => document.documentElement.scrollWidth - document.documentElement.clientWidth"
REACHED = """async () => {
  const controls = [...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex='0']")];
  const isShown = (one) => one.checkVisibility({ visibilityProperty: true }) && !one.disabled && one.type !== "hidden";
  return controls.filter(isShown).length;
}"""
NOTE_FOCUS = """async () => {
  window.order = [];
  document.addEventListener("focusin", ({ target }) => order.push(target));
}"""
UNREACHED = """async () => {
  const reached = new Set(order);
  const backwards = order.filter((one, n) => {
    return n && !(order[n - 1].compareDocumentPosition(one) & Node.DOCUMENT_POSITION_FOLLOWING);
  });
  return [reached.size, backwards.slice(0, -1).map((one) => one.outerHTML.slice(0, 120))];
}"""
HOSTILE = "<img src=x onerror=alert(1)> '\"{{ 7*7 }}"
FIRST_PAGE_BYTES = 70 * 2**10


async def some_videos(site: Site) -> list[str]:
    """Ids of a finished, a failed and a running video."""
    made = [
        await site.gateway.create(
            model="sandbox/testcard", prompt="a lighthouse in the rain", seconds=1, size="320x180"
        ),
        await site.gateway.create(model="sandbox/fail", prompt="<img src=x onerror=alert(1)>", seconds=1),
        await site.gateway.create(model="sandbox/slow", prompt="a slow one", seconds=1),
    ]
    return [video["id"] for video in made]


async def check(tab: Tab, site: Site, path: str) -> dict[str, Any]:
    """The faults of a page in both themes and at three widths."""
    page = tab.page
    await page.set_viewport_size({"width": 1280, "height": 900})
    await page.emulate_media(color_scheme="light")
    await page.goto(f"{site.url}/console/{path}")
    await page.locator("h1").wait_for()
    assert await page.locator("h1").count() == 1
    await page.evaluate(AXE.read_text())
    faults: dict[str, Any] = {}
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme=scheme)
        if found := await tab.run(SERIOUS):
            faults[scheme] = found
    for width in (390, 320):
        await page.set_viewport_size({"width": width, "height": 800})
        if wider := await tab.run(WIDER):
            faults[f"{width} px"] = f"{wider} px wider"
    return faults


async def test_no_page_of_a_holder_has_a_serious_fault(site: Site, open_console: OpenConsole) -> None:
    ids = await some_videos(site)
    async with open_console(site, "/videos") as tab:
        await tab.page.locator(".card .state.completed").wait_for()
        paths = [path for path, _ in MENU[False]]
        paths += [f"videos/{ids[0]}", f"videos/{ids[1]}", f"videos/{ids[0]}/end", "videos?view=table", "webhooks/log"]
        paths += ["models/sandbox/testcard", "playground?mode=extend", "nowhere", "videos?status=cancelled"]
        found = {path: await check(tab, site, path) for path in paths}
        assert {path: faults for path, faults in found.items() if faults} == {}


async def test_no_page_of_the_operator_has_a_serious_fault(site: Site, open_console: OpenConsole) -> None:
    ids = await some_videos(site)
    async with operator_of(site.gateway) as operator:
        await operator.key(name="web shop", monthly_budget_usd=5)
    async with open_console(site, "/videos", ADMIN) as tab:
        paths = [path for path, _ in MENU[True]]
        found = {path: await check(tab, site, path) for path in [*paths, f"videos/{ids[1]}", "settings?all=true"]}
        assert {path: faults for path, faults in found.items() if faults} == {}


async def test_the_sign_in_has_no_serious_fault(site: Site, browser: Browser) -> None:
    async with open_tab(browser, f"{site.url}/console/login") as tab:
        assert await check(tab, site, "login") == {}
        assert await tab.run("async () => document.activeElement.id") == "key"


async def test_tab_reaches_every_control_in_the_order_of_reading(site: Site, open_console: OpenConsole) -> None:
    await some_videos(site)
    async with open_console(site, "/playground") as tab:
        page = tab.page
        for path in ("playground", "videos", "models", "connect"):
            await page.goto(f"{site.url}/console/{path}")
            assert await page.locator("[tabindex]:not([tabindex='0']):not([tabindex='-1'])").count() == 0
            await tab.run(NOTE_FOCUS)
            controls = await tab.run(REACHED)
            for _ in range(2 * controls):  # fields of dates have several stops
                await page.keyboard.press("Tab")
            reached, backwards = await tab.run(UNREACHED)
            assert (reached >= controls, backwards) == (True, []), (path, reached, controls)


async def test_without_scripts_a_video_is_made_found_and_had(site: Site, open_console: OpenConsole) -> None:
    async with open_console(site, "/playground?model=sandbox/testcard", java_script_enabled=False) as tab:
        page = tab.page
        await page.fill("#prompt", "made without scripts")
        await page.fill("#f-seconds", "1")
        await page.click("button.main")
        await page.wait_for_url(re.compile("/console/videos/video_"))
        video_id = page.url.rpartition("/")[2]
        await expect(page.locator("h1")).to_contain_text("made without scripts")
        for _ in range(100):
            await page.goto(f"{site.url}/console/videos/{video_id}")
            if await page.locator("article video").count():
                break
        file = await page.context.request.get(f"{site.url}/console/videos/{video_id}/content/0")
        assert (file.status, file.headers["content-type"]) == (200, "video/mp4")
        await page.goto(f"{site.url}/console/videos?q=without")
        assert await page.locator(".card").count() == 1


async def test_the_first_page_is_small(site: Site, browser: Browser) -> None:
    """As it is sent, with the sign-in page in front of it."""
    async with open_tab(browser, "about:blank") as tab:
        page, finished = tab.page, []
        page.on("requestfinished", lambda request: finished.append(request))
        await page.goto(f"{site.url}/console/login")
        await page.fill("#key", ALICE)
        await page.press("#key", "Enter")
        await page.wait_for_url(f"{site.url}/console/playground")
        await page.wait_for_load_state("load")
        sizes = {request.url: (await request.sizes())["responseBodySize"] for request in finished}
        assert len(sizes) > 6
        assert sum(sizes.values()) < FIRST_PAGE_BYTES, sizes


async def test_the_vendored_checker_is_the_published_one() -> None:
    named = (HERE / "README.md").read_text()
    assert hashlib.sha256(AXE.read_bytes()).hexdigest() in named
