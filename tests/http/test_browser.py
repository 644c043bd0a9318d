"""Pages in a real browser: scripts of another site, players, event streams, the page at `/` and the documentation."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from browsers import Browser, Tab, chromium, open_tab
from fakes.openai import FakeOpenAI
from fakes.s3 import S3
from fakes.server import KEY, sample_mp4, serve
from harness import ALICE, Running, StartGateway
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from app.http.server import HttpProtocol

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

EMPTY_PAGE = HTMLResponse("<!doctype html><title>a page of another site</title><link rel=icon href=data:,>")

ASK = """async (url, options) => {
  try {
    const answer = await fetch(url, options)
    const body = await answer.arrayBuffer()
    const text = answer.headers.get('content-type')?.includes('json') ? new TextDecoder().decode(body) : null
    const headers = Object.fromEntries(answer.headers)
    return {status: answer.status, size: body.byteLength, json: JSON.parse(text), headers}
  } catch (error) {
    return {failure: error.name}
  }
}"""
FOLLOW = """async (url, options) => {
  const answer = await fetch(url, options)
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader()
  let text = ''
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    text += part.value
    document.title = text.match(/^event: .*$/gm).length + ' events'
  }
  return text.match(/^event: .*$/gm)
}"""
PLAY = """async (url, second) => {
  const video = document.createElement('video')
  Object.assign(video, {crossOrigin: 'anonymous', muted: true, src: url})
  await new Promise((ok, fail) => {
    video.onloadeddata = ok
    video.onerror = () => fail(new Error(video.error.message))
  })
  await new Promise(ok => {
    video.onseeked = ok
    video.currentTime = second
  })
  const canvas = document.createElement('canvas')
  Object.assign(canvas, {width: video.videoWidth, height: video.videoHeight})
  const context = canvas.getContext('2d')
  context.drawImage(video, 0, 0)
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data
  const brightest = pixels.reduce((most, value, at) => at % 4 == 3 ? most : Math.max(most, value), 0)
  return {size: [canvas.width, canvas.height], time: video.currentTime, seekable: video.seekable.end(0), brightest}
}"""
LISTEN = """async url => {
  const source = new EventSource(url), seen = []
  for (const name of ['status', 'progress', 'end'])
    source.addEventListener(name, event => seen.push([name, event.lastEventId]))
  await new Promise(ok => { source.onerror = () => source.readyState == EventSource.CLOSED && ok() })
  return seen
}"""


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


@dataclass
class Site:
    """A page of another origin beside a gateway."""

    gateway: Running
    url: str
    tab: Tab

    async def ask(self, path: str, method: str = "GET", key: str | None = ALICE, **options: Any) -> dict[str, Any]:
        """The page fetches an address of the gateway as the OpenAI SDK would."""
        headers = {"x-stainless-lang": "js"} | ({"authorization": f"Bearer {key}"} if key else {})
        if "body" in options:
            headers |= {"content-type": "application/json", "idempotency-key": "order 17"}
        headers |= options.pop("headers", {})
        found: dict[str, Any] = await self.tab.run(
            ASK, f"{self.url}{path}", {"method": method, "headers": headers, **options}
        )
        return found


@pytest.fixture(params=[True, False], ids=["allowed", "not allowed"])
def allowed(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
async def site(browser: Browser, start_gateway: StartGateway, fake: FakeOpenAI, allowed: bool) -> AsyncIterator[Site]:
    """A page whose origin the gateway allows or not."""
    fake.file = sample_mp4(2)
    async with AsyncExitStack() as stack:
        origin = await stack.enter_async_context(serve(EMPTY_PAGE))
        upstream = await stack.enter_async_context(serve(fake))
        providers = {"up": {"kind": "openai", "base_url": f"{upstream}/v1", "api_key": KEY, "models": ["sora-2"]}}
        starting = start_gateway(providers=providers, cors_origins=[origin] if allowed else [])
        gateway = await stack.enter_async_context(starting)
        url = await stack.enter_async_context(serve(gateway.app, http=HttpProtocol))
        tab = await stack.enter_async_context(open_tab(browser, origin))
        yield Site(gateway, url, tab)


@pytest.mark.parametrize("allowed", [True], indirect=True)
async def test_a_page_of_another_site_uses_the_api(site: Site) -> None:
    made = await site.ask("/v1/videos", "POST", body='{"prompt": "a paper boat", "model": "up/sora-2"}')
    assert (made["status"], made["json"]["status"]) == (202, "queued")
    assert made["headers"]["x-gateway-provider"] == "up"
    assert int(made["headers"]["openai-poll-after-ms"]) > 0
    path = f"/v1/videos/{made['json']['id']}"
    options = {"headers": {"authorization": f"Bearer {ALICE}"}}
    following = asyncio.create_task(site.tab.run(FOLLOW, f"{site.url}{path}/events", options))
    await site.tab.page.wait_for_function("document.title == '1 events'")
    await site.gateway.finish(made["json"]["id"])
    assert (await following)[-2:] == ["event: status", "event: end"]
    assert (await site.ask(f"{path}?wait=5"))["json"]["status"] == "completed"
    assert [video["id"] for video in (await site.ask("/v1/videos"))["json"]["data"]] == [made["json"]["id"]]
    part = await site.ask(f"{path}/content", headers={"range": "bytes=0-99"})
    assert (part["status"], part["size"]) == (206, 100)
    assert site.tab.errors == []
    for wrong, status in ((await site.ask("/v1/videos/x"), 404), (await site.ask("/v1/videos", key="sk-wrong"), 401)):
        assert wrong["status"] == status
        assert wrong["json"]["error"]["message"]
        assert wrong["headers"]["x-request-id"].startswith("req_")
    assert (await site.ask("/admin/v1/videos"))["failure"] == "TypeError"


async def test_a_page_of_any_site_plays_a_video_and_reads_its_picture(site: Site, allowed: bool) -> None:
    video = await site.gateway.finish((await site.gateway.create(model="up/sora-2"))["id"])
    assert ("failure" in await site.ask(f"/v1/videos/{video['id']}")) == (not allowed)
    link = str(video["output"]["url"]).replace("http://gateway.test", "")
    part = await site.ask(link, key=None, headers={"range": "bytes=0-99"})
    size = len(sample_mp4(2))
    assert (part["status"], part["size"], part["headers"]["content-range"]) == (206, 100, f"bytes 0-99/{size}")
    known = await site.ask(link, headers={"if-none-match": part["headers"]["etag"]})
    assert known["status"] == 304, "after a preflight"
    expired = await site.ask(f"{link[:-1]}!", key=None)
    assert (expired["status"], "link" in expired["json"]["error"]["message"]) == (404, True)
    shown = await site.tab.run(PLAY, f"{site.url}{link}", 1.5)
    assert (shown["size"], shown["time"], shown["seekable"] > 1.5) == ([64, 48], 1.5, True)
    assert shown["brightest"] > 200, "the picture is not black"


async def test_a_page_follows_a_media_link_to_the_bucket(
    browser: Browser, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bucket has the rule that docs/deploy.md shows."""
    text = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text("utf-8")
    (rule,) = json.loads(re.findall(r"^```json\n(.*?CORSRules.*?)^```", text, re.MULTILINE | re.DOTALL)[0])["CORSRules"]
    bucket = S3()
    ruled = CORSMiddleware(
        bucket,
        allow_origins=rule["AllowedOrigins"],
        allow_methods=rule["AllowedMethods"],
        allow_headers=rule["AllowedHeaders"],
        expose_headers=rule["ExposeHeaders"],
        max_age=rule["MaxAgeSeconds"],
    )
    async with serve(ruled) as endpoint:
        for name, value in bucket.environment(endpoint).items():
            monkeypatch.setenv(name, value)
        async with (
            start_gateway(storage_url=f"s3://{bucket.bucket}/gateway", storage_presign=True) as gateway,
            serve(gateway.app) as url,
            serve(EMPTY_PAGE) as page_url,
            open_tab(browser, page_url) as tab,
        ):
            video = await gateway.finish((await gateway.create(model="sandbox/testcard", seconds="1"))["id"])
            link = str(video["output"]["url"]).replace("http://gateway.test", url)
            part = await tab.run(ASK, link, {"headers": {"range": "bytes=0-99"}})
            assert (part["status"], part["size"]) == (206, 100)
            assert part["headers"]["content-range"].startswith("bytes 0-99/")
            assert (await tab.run(PLAY, link, 0.5))["brightest"] > 100
            assert tab.errors == []
        assert {call.headers.get("origin") for call in bucket.asked("get")[-2:]} == {"null"}
    bucket.close()


async def test_an_event_source_that_nothing_closes_connects_twice(browser: Browser, gateway: Running) -> None:
    """It sends no key, so the server of the page adds one, as applications do."""
    video = await gateway.create()
    connects: list[tuple[str, int]] = []
    connected = asyncio.Event()

    async with serve(gateway.app) as url, httpx.AsyncClient(headers=gateway.client.headers) as client:

        async def with_key(request: Request) -> Response:
            seen = request.headers.get("last-event-id", "")
            asked = client.build_request("GET", f"{url}{request.url.path}", headers={"last-event-id": seen})
            answer = await client.send(asked, stream=True)
            connects.append((seen, answer.status_code))
            connected.set()
            if answer.status_code == 204:
                await answer.aclose()
                return Response(status_code=204)

            async def soon_again() -> AsyncIterator[bytes]:
                yield b"retry: 10\n\n"
                async for chunk in answer.aiter_raw():
                    yield chunk

            stream = soon_again()
            return StreamingResponse(stream, media_type="text/event-stream", background=BackgroundTask(answer.aclose))

        own = Starlette()
        own.add_route("/v1/videos/{video_id}/events", with_key)
        own.mount("/", EMPTY_PAGE)
        async with serve(own) as page_url, open_tab(browser, page_url) as tab:
            listening = asyncio.create_task(tab.run(LISTEN, f"/v1/videos/{video['id']}/events"))
            await connected.wait()
            await gateway.client.delete(f"/v1/videos/{video['id']}")
            seen = await listening
    assert seen[-2:] == [["status", "failed.0"], ["end", "failed.0.end"]]
    assert connects == [("", 200), ("failed.0.end", 204)]


def below(path: str, app: ASGIApp) -> ASGIApp:
    """The application under a sub-path, as `uvicorn --root-path` runs it."""

    async def mounted(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "root_path": path}, receive, send)

    return mounted


@pytest.mark.parametrize("path", ["", "/video"])
async def test_the_page_at_the_root_in_a_browser(browser: Browser, start_gateway: StartGateway, path: str) -> None:
    colours = set()
    async with start_gateway(console=False) as gateway, serve(below(path, gateway.app)) as url:
        for scheme in ("light", "dark"):
            narrow = {"width": 400, "height": 600}
            async with open_tab(browser, f"{url}{path}/", color_scheme=scheme, viewport=narrow) as tab:
                assert await tab.page.title() == "video-gateway"
                colours.add(await tab.run("async () => getComputedStyle(document.body).backgroundColor"))
                assert await tab.run("async () => document.documentElement.scrollWidth") == 400
                assert (tab.errors, tab.loaded) == ([], [f"{url}{path}/"])
                await tab.page.get_by_role("link", name="Health").click()
                await tab.page.wait_for_url(f"{url}{path}/healthz")
    assert len(colours) == 2


async def test_the_documentation_sends_a_request(browser: Browser, gateway: Running) -> None:
    path = "/video"
    async with (
        serve(below(path, gateway.app)) as url,
        open_tab(browser, f"{url}{path}/docs", viewport={"width": 1200, "height": 900}) as tab,
    ):
        page = tab.page
        operation = page.locator("#operations-models-list_models")
        await operation.wait_for()
        assert await page.locator(".opblock").count() > 20
        await page.get_by_role("button", name="Authorize").first.click()
        form = page.locator(".auth-container", has=page.get_by_text("bearer", exact=True))
        await form.get_by_label("auth-bearer-value").fill(ALICE)
        await form.get_by_role("button", name="Apply credentials").click()
        await form.get_by_role("button", name="Close").click()
        await operation.locator(".opblock-summary-control").click()
        await operation.get_by_role("button", name="Try it out").click()
        await operation.get_by_role("button", name="Execute").click()
        await operation.locator(".live-responses-table .response-col_status", has_text="200").wait_for()
        assert "sandbox/testcard" in await operation.locator(".live-responses-table").inner_text()
        assert tab.errors == []
        assert f"{url}{path}/v1/models" in [address.partition("?")[0] for address in tab.loaded]
        assert [address for address in tab.loaded if not address.startswith((f"{url}{path}/", "data:", "blob:"))] == []
