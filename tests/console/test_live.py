"""The stream of the pages: where it begins, how many there are, and that it ends with the session."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from console.conftest import Visitor, visitor_at
from fakes.server import serve
from harness import ALICE, BOB, Running, StartGateway
from money import ADMIN
from streams import Stream, following

from app.http.stream import KEEP_ALIVE_S, event_id

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def fed(gateway: Running, browser: Visitor, query: str = "") -> AsyncIterator[Stream]:
    cookie = "; ".join(f"{name}={value}" for name, value in browser.client.cookies.items())
    async with (
        serve(gateway.app) as url,
        following(url, f"/console/feed{query}", key=None, cookie=cookie) as stream,
    ):
        yield stream


async def test_a_stream_goes_on_from_the_rendering_of_its_page(gateway: Running, alice: Visitor) -> None:
    page = (await alice.get("/console/videos")).text
    since = re.search(r'data-since="(\d+)"', page)
    assert since
    assert int(since[1]) == event_id(gateway.clock())
    video = await gateway.create(model="sandbox/testcard", seconds=1)
    gateway.clock.advance(30)
    async with fed(gateway, alice, f"?last_event_id={since[1]}") as stream:
        assert (await stream.has("video.status", video["id"])).data == {"id": video["id"]}


@pytest.mark.parametrize("key", [ALICE, ADMIN])
async def test_a_stream_ends_with_its_session(gateway: Running, visitor: Visitor, key: str) -> None:
    await visitor.sign_in(key)
    async with fed(gateway, visitor) as stream:
        first = await gateway.create(model="sandbox/testcard", seconds=1)
        await stream.has("video.status", first["id"])
        await visitor.post("/console/logout", {"csrf": await visitor.token()})
        gateway.clock.advance(KEEP_ALIVE_S)
        await gateway.create(model="sandbox/testcard", seconds=1)
        await stream.end()
        assert len(stream.named()) == 1


async def test_an_open_stream_does_not_keep_its_session(start_gateway: StartGateway) -> None:
    async with start_gateway(console_session_s=300) as gateway, visitor_at(gateway).client as client:
        browser = Visitor(client)
        await browser.sign_in(ALICE)
        async with fed(gateway, browser) as stream:
            for number in range(1, 4):
                gateway.clock.advance(100)
                video = await gateway.create(model="sandbox/testcard", seconds=1)
                if number < 3:
                    await stream.has("video.status", video["id"])
            await stream.end()


async def test_the_streams_of_a_key_are_limited(start_gateway: StartGateway) -> None:
    async with start_gateway(max_waiting=1) as gateway, visitor_at(gateway).client as client:
        browser = Visitor(client)
        await browser.sign_in(ALICE)
        async with fed(gateway, browser):
            again = await browser.get("/console/feed")
            assert again.status_code == 429
            assert "too_many_waiting" in again.text
            await browser.sign_in(BOB)
            async with fed(gateway, browser):
                pass


async def test_pages_of_another_session_have_another_stream(gateway: Running, alice: Visitor) -> None:
    names = []
    for path in ("/console/videos", "/console/playground"):
        page = (await alice.get(path)).text
        names += re.findall(r'data-session="(\w{12})"', page)
    await alice.sign_in(BOB)
    names += re.findall(r'data-session="(\w{12})"', (await alice.get("/console/videos")).text)
    assert len(names) == 3
    assert names[0] == names[1] != names[2]


async def test_the_form_of_the_theme_leads_back_to_the_whole_address(alice: Visitor) -> None:
    page = (await alice.get("/console/videos?status=failed&q=%C3%A4&said=deleted")).text
    assert 'name="next" value="/console/videos?status=failed&amp;q=%C3%A4"' in page
    answer = await alice.post("/console/webhooks/nowhere", {"csrf": await alice.token()})
    assert 'name="next" value="/console/webhooks"' in answer.text
    answer = await alice.post("/console/nowhere/at/all", {"csrf": await alice.token()})
    assert 'name="next" value="/console"' in answer.text


async def test_every_page_signs_out_everywhere(alice: Visitor) -> None:
    page = (await alice.get("/console/models")).text
    assert 'name="everywhere" value="1"' in page
    assert "Sign out everywhere" in page
