"""Requests that take long are limited for each key or project, counted exactly however many arrive at once."""

import asyncio
from collections import Counter
from collections.abc import Iterable

import httpx
import pytest
from fakes.openai import FakeOpenAI
from fakes.receiver import Receiver
from fakes.server import KEY, Hang, sample_mp4, serve
from harness import Running, StartGateway
from processes import until

from app.dialects.openai.videos import MAX_CHARACTERS_WAITING
from app.main import WEBHOOK_TESTS
from app.providers.rest import CHARACTERS_AT_ONCE
from app.webhooks.endpoints import MAX_ENDPOINTS

pytestmark = pytest.mark.anyio

Call = asyncio.Task[httpx.Response]


async def test_streams_are_counted_until_they_end(start_gateway: StartGateway) -> None:
    async with start_gateway(max_waiting=5) as gateway:
        video = (await gateway.create())["id"]
        calls = [asyncio.create_task(gateway.client.get(f"/v1/videos/{video}/events")) for _ in range(12)]
        await until_done(calls, 7)
        assert {call.result().json()["error"]["code"] for call in calls if call.done()} == {"too_many_waiting"}
        waiting = await gateway.client.get(f"/v1/videos/{video}?wait=60")
        assert waiting.status_code == 429  # of the same number
        assert int(waiting.headers["retry-after"]) >= 1
        await gateway.client.delete(f"/v1/videos/{video}")
        assert await statuses(calls) == {200: 5, 429: 7}
        again = await gateway.client.get(f"/v1/videos/{(await gateway.create())['id']}?wait=0.01")
        assert again.status_code == 200


async def test_endpoints_made_at_once_are_counted_one_after_the_other(gateway: Running) -> None:
    body = {"name": "mine", "url": "https://example.com/", "event_types": ["video.failed"]}
    calls = [
        asyncio.create_task(gateway.client.post("/v1/webhook_endpoints", json=body)) for _ in range(MAX_ENDPOINTS + 9)
    ]
    assert await statuses(calls) == {200: MAX_ENDPOINTS, 400: 9}


async def test_few_test_events_of_a_project_are_sent_at_once(gateway: Running) -> None:
    receiver, hangs = Receiver(), [Hang() for _ in range(WEBHOOK_TESTS)]
    receiver.script(*hangs)
    async with serve(receiver) as url:
        paths = {client: await path_of_test(client, url) for client in (gateway.client, gateway.bob)}

        def test(client: httpx.AsyncClient) -> Call:
            return asyncio.create_task(client.post(paths[client], json={"event_type": "video.failed"}))

        calls = [test(gateway.client) for _ in range(WEBHOOK_TESTS)]
        for hang in hangs:
            await hang.reached.wait()
        refused = await test(gateway.client)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_tests")
        assert (await test(gateway.bob)).status_code == 200
        for hang in hangs:
            hang.release.set()
        assert await statuses(calls) == {200: WEBHOOK_TESTS}
        assert (await test(gateway.client)).status_code == 200


async def test_characters_of_one_project_hold_up_no_other_work(start_gateway: StartGateway, fake: FakeOpenAI) -> None:
    """They wait in turns between projects, apart from submits and polls, and so many may wait."""
    hangs = [Hang() for _ in range(CHARACTERS_AT_ONCE)]
    fake.script("character", *hangs)
    async with serve(fake) as url:
        upstream = {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY, "connections": 1}
        async with start_gateway(providers={"up": upstream}) as gateway:
            most = CHARACTERS_AT_ONCE + MAX_CHARACTERS_WAITING
            calls = [character(gateway.client) for _ in range(most)]
            for hang in hangs:
                await hang.reached.wait()
            await until_waiting(gateway, MAX_CHARACTERS_WAITING)
            refused = await character(gateway.client)
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
            assert int(refused.headers["retry-after"]) >= 1
            bobs = character(gateway.bob)
            await until_waiting(gateway, MAX_CHARACTERS_WAITING + 1)

            video = (await gateway.create(model="up/sora-2"))["id"]
            assert (await gateway.finish(video))["status"] == "completed"

            hangs[0].release.set()
            assert (await bobs).status_code == 200  # before the eight that came first
            for hang in hangs:
                hang.release.set()
            assert await statuses(calls) == {200: MAX_CHARACTERS_WAITING, 503: CHARACTERS_AT_ONCE}


def character(client: httpx.AsyncClient) -> Call:
    files = {"video": ("ada.mp4", sample_mp4(), "video/mp4")}
    data = {"name": "Ada", "model": "up/sora-2"}
    return asyncio.create_task(client.post("/v1/videos/characters", data=data, files=files))


async def path_of_test(client: httpx.AsyncClient, url: str) -> str:
    body = {"name": "mine", "url": url, "event_types": ["video.failed"]}
    response = await client.post("/v1/webhook_endpoints", json=body)
    assert response.status_code == 200, response.text
    return f"/v1/webhook_endpoints/{response.json()['id']}/test"


async def statuses(calls: Iterable[Call]) -> Counter[int]:
    return Counter(answer.status_code for answer in await asyncio.gather(*calls))


async def until_done(calls: list[Call], number: int) -> None:
    async def look() -> bool | None:
        return True if sum(call.done() for call in calls) == number else None

    await until(look)


async def until_waiting(gateway: Running, number: int) -> None:
    async def look() -> bool | None:
        return True if gateway.gateway.character_turns["up"].waiting == number else None

    await until(look)
