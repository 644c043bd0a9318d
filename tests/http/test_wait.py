"""Waiting without polling: long polls and server-sent events."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from fakes.openai import FakeOpenAI
from fakes.server import KEY, serve
from harness import ALICE, Running, StartGateway
from refusals import refused

pytestmark = pytest.mark.anyio


@pytest.fixture
async def fake() -> FakeOpenAI:
    return FakeOpenAI(polls_until_done=10_000)


@pytest.fixture
async def gateway(start_gateway: StartGateway, fake: FakeOpenAI) -> AsyncIterator[Running]:
    async with serve(fake) as url:
        providers = {"up": {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY}}
        async with start_gateway(providers=providers) as running:
            yield running


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop run until the condition holds."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  # many things ring; none of them is ours to watch
            await asyncio.sleep(0)


async def waiting(gateway: Running, clients: int) -> None:
    await until(lambda: gateway.gateway.listener.waiters == clients)


async def advance(gateway: Running) -> None:
    gateway.clock.advance(20)
    await gateway.worker.run_once()


async def test_a_get_is_held_until_the_status_changes(gateway: Running, fake: FakeOpenAI) -> None:
    video = await gateway.create(model="up/sora-2")
    held = asyncio.create_task(gateway.client.get(f"/v1/videos/{video['id']}", params={"wait": "25"}))
    await waiting(gateway, 1)
    await gateway.worker.run_once()
    await advance(gateway)
    await advance(gateway)
    answer = await held
    assert answer.json()["status"] == "in_progress"
    held = asyncio.create_task(gateway.client.get(f"/v1/videos/{video['id']}", params={"wait": "25"}))
    await waiting(gateway, 1)
    fake.finish("video_1")
    await advance(gateway)
    assert (await held).json()["status"] == "completed"
    ended = await gateway.client.get(f"/v1/videos/{video['id']}", params={"wait": "25"})
    assert ended.json()["status"] == "completed"
    assert gateway.gateway.listener.waiters == 0


async def test_a_wait_answers_when_its_time_is_up(gateway: Running) -> None:
    video = await gateway.create(model="up/sora-2")
    answer = await gateway.client.get(f"/v1/videos/{video['id']}", params={"wait": "0.01"})
    assert answer.json()["status"] == "queued"
    for wrong in ("-1", "61", "soon", "nan"):
        refused = await gateway.client.get(f"/v1/videos/{video['id']}", params={"wait": wrong})
        assert refused.status_code == 400, wrong
        assert refused.json()["error"]["param"] == "wait"
    assert (await gateway.bob.get(f"/v1/videos/{video['id']}", params={"wait": "25"})).status_code == 404


async def test_a_thousand_waiting_clients_cost_no_query(gateway: Running) -> None:
    video = await gateway.create(model="up/sora-2")
    held = [
        asyncio.create_task(gateway.client.get(f"/v1/videos/{video['id']}", params={"wait": "60"}))
        for _ in range(1_000)
    ]
    await waiting(gateway, 1_000)
    pool = gateway.gateway.db.engine.pool
    assert pool.checkedout() == 0  # type: ignore[attr-defined]  # a queue pool
    await gateway.client.delete(f"/v1/videos/{video['id']}")
    answers = await asyncio.gather(*held)
    assert {answer.json()["status"] for answer in answers} == {"failed"}
    assert gateway.gateway.listener.waiters == 0


async def test_a_client_that_leaves_frees_its_place(gateway: Running) -> None:
    video = await gateway.create(model="up/sora-2")
    async with serve(gateway.app) as url, httpx.AsyncClient(headers={"authorization": f"Bearer {ALICE}"}) as client:
        held = asyncio.create_task(client.get(f"{url}/v1/videos/{video['id']}", params={"wait": "60"}))
        stream = asyncio.create_task(client.get(f"{url}/v1/videos/{video['id']}/events"))
        await waiting(gateway, 2)
        held.cancel()
        stream.cancel()
        await asyncio.gather(held, stream, return_exceptions=True)
        await waiting(gateway, 0)


async def test_a_lost_database_connection_wakes_all_waits_and_comes_back(gateway: Running) -> None:
    video = await gateway.create(model="up/sora-2")
    held = asyncio.create_task(gateway.client.get(f"/v1/videos/{video['id']}", params={"wait": "30"}))
    await waiting(gateway, 1)
    ours = "datname = current_database() and application_name = 'video-gateway listener'"
    async with gateway.gateway.db.reading() as connection:
        await connection.execute(sa.text(f"select pg_terminate_backend(pid) from pg_stat_activity where {ours}"))
    await gateway.client.delete(f"/v1/videos/{video['id']}")
    assert (await held).json()["status"] == "failed"


async def read_events(gateway: Running, video_id: str, seen: list[tuple[str, str, Any]], **headers: str) -> None:
    async with (
        serve(gateway.app) as url,
        httpx.AsyncClient(headers={"authorization": f"Bearer {ALICE}"}) as client,
        client.stream("GET", f"{url}/v1/videos/{video_id}/events", headers=headers) as answer,
    ):
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        event: dict[str, str] = {}
        async for line in answer.aiter_lines():
            name, _, value = line.partition(": ")
            if line:
                event[name] = value
            elif event:
                seen.append((event["event"], event["id"], json.loads(event["data"])))
                event = {}


async def test_events_tell_status_progress_and_end(gateway: Running, fake: FakeOpenAI) -> None:
    video = await gateway.create(model="up/sora-2")
    seen: list[tuple[str, str, Any]] = []
    reader = asyncio.create_task(read_events(gateway, video["id"], seen))
    await until(lambda: bool(seen))
    await gateway.worker.run_once()
    for _ in range(3):
        await advance(gateway)
    await until(lambda: len(seen) >= 2)
    fake.jobs["video_1"].raw["progress"] = 66
    await advance(gateway)
    await until(lambda: len(seen) >= 3)
    fake.finish("video_1")
    await advance(gateway)
    await reader
    names = [(name, mark) for name, mark, _ in seen]
    assert names[0] == ("status", "queued.0")
    assert names[1][0] == "status"
    assert names[1][1].startswith("in_progress.")
    assert ("progress", "in_progress.66") in names
    assert names[-2:] == [("status", "completed.100"), ("end", "completed.100.end")]
    assert seen[-1][2]["output"]["url"]


async def test_a_stream_goes_on_where_it_was_left(gateway: Running) -> None:
    video = await gateway.create(model="up/sora-2")
    await gateway.client.delete(f"/v1/videos/{video['id']}")
    seen: list[tuple[str, str, Any]] = []
    await read_events(gateway, video["id"], seen, **{"last-event-id": "queued.0"})
    assert [name for name, _, _ in seen] == ["status", "end"]
    for mark, left in (("failed.0", 1), ("completed.100.end", 2), ("failed.0.end.end", 2), ("failed.0.e", 2)):
        seen.clear()
        await read_events(gateway, video["id"], seen, **{"last-event-id": mark})
        assert len(seen) == left
        assert seen[-1][:2] == ("end", "failed.0.end")


@pytest.mark.parametrize("mount", ["/v1", "/openai/v1"])
async def test_a_client_that_has_the_end_gets_a_204(gateway: Running, mount: str) -> None:
    """The HTML standard: an EventSource connects again after every 200, and stops at a 204."""
    video = await gateway.create(model="up/sora-2")
    path = f"{mount}/videos/{video['id']}/events"

    async def ask(mark: str) -> httpx.Response:
        return await gateway.client.get(path, headers={"last-event-id": mark})

    await gateway.client.delete(f"/v1/videos/{video['id']}")
    first = await ask("")
    assert first.status_code == 200
    assert re.findall("^id: (.*)$", first.text, re.MULTILINE) == ["failed.0", "failed.0.end"]
    stop = await ask("failed.0.end")
    assert (stop.status_code, stop.content) == (204, b"")
    assert "content-type" not in stop.headers
    assert re.findall("^event: (.*)$", (await ask("failed.0")).text, re.MULTILINE) == ["end"]
    refused(await gateway.bob.get(path, headers={"last-event-id": "failed.0.end"}), "video_id", 404)


async def test_an_unknown_video_has_no_stream(gateway: Running) -> None:
    video = await gateway.create(model="up/sora-2")
    assert (await gateway.bob.get(f"/v1/videos/{video['id']}/events")).status_code == 404


async def test_poll_after_follows_what_the_model_usually_takes(gateway: Running, fake: FakeOpenAI) -> None:
    async def poll_after() -> str:
        video = await gateway.create(model="up/sora-2")
        return (await gateway.client.get(f"/v1/videos/{video['id']}")).headers["openai-poll-after-ms"]

    assert await poll_after() == "1000"
    fake.polls_until_done = 1
    for _ in range(3):
        video = await gateway.create(model="up/sora-2")
        await gateway.finish(video["id"], step_s=60)
    await gateway.gateway.durations.refresh()
    assert 2_000 < int(await poll_after()) <= 10_000
