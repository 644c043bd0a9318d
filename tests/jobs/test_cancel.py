"""Cancelling a job before, during and after its submit."""

import asyncio

import pytest
from fakes.openai import FakeOpenAI
from fakes.server import Answer, SlowYes, serve
from harness import Running, StartGateway
from jobs.upstream import provider, stored_keys

pytestmark = pytest.mark.anyio


async def test_cancelling_before_the_submit_sends_nothing(gateway: Running, fake: FakeOpenAI) -> None:
    video = await gateway.create(model="up/sora-2")
    await gateway.client.delete(f"/v1/videos/{video['id']}")
    assert (await gateway.get(video["id"]))["error"]["code"] == "cancelled"
    await gateway.worker.run_once()
    assert fake.submits == []


async def test_cancelling_a_running_job_stops_it_upstream(gateway: Running, fake: FakeOpenAI) -> None:
    video = await gateway.create(model="up/sora-2")
    await gateway.worker.run_once()
    await gateway.client.delete(f"/v1/videos/{video['id']}")
    assert (await gateway.get(video["id"]))["status"] == "failed"
    await gateway.worker.run_once()
    assert fake.jobs == {}
    assert [a.state for a in await gateway.attempts(video["id"])] == ["cancelled"]


async def test_cancelling_during_the_submit_stops_it_once_accepted(
    start_gateway: StartGateway, fake: FakeOpenAI
) -> None:
    slow = SlowYes(fake)
    async with serve(slow) as url, start_gateway(providers={"up": provider(f"{url}/v1")}) as gateway:
        video = await gateway.create(model="up/sora-2")
        submit = asyncio.create_task(gateway.worker.run_once())
        await slow.reached.wait()
        await gateway.client.delete(f"/v1/videos/{video['id']}")
        slow.release.set()
        await submit
        gateway.clock.advance(20)
        await gateway.worker.run_once()
        assert [a.state for a in await gateway.attempts(video["id"])] == ["cancelled"]
    assert fake.jobs == {}


async def test_a_deleted_video_takes_its_files_and_rows_along(gateway: Running, fake: FakeOpenAI) -> None:
    video = await gateway.create(model="up/sora-2")
    await gateway.finish(video["id"])
    (key,) = await stored_keys(gateway, video["id"])
    assert await gateway.gateway.store.stat(key) == len(fake.file)
    await gateway.client.delete(f"/v1/videos/{video['id']}")
    assert (await gateway.client.get(f"/v1/videos/{video['id']}")).status_code == 404
    await gateway.worker.purge()
    assert await gateway.gateway.store.stat(key) is None
    gateway.clock.advance(3_700)  # so long its row is kept for streams that were interrupted
    await gateway.worker.run_once()
    assert await gateway.attempts(video["id"]) == []


async def test_a_submit_that_is_refused_after_the_cancel_is_cancelled(
    start_gateway: StartGateway, fake: FakeOpenAI
) -> None:
    slow = SlowYes(fake)
    fake.script("submit", Answer(429))
    async with serve(slow) as url, start_gateway(providers={"up": provider(f"{url}/v1")}) as gateway:
        video = await gateway.create(model="up/sora-2")
        submit = asyncio.create_task(gateway.worker.run_once())
        await slow.reached.wait()
        await gateway.client.delete(f"/v1/videos/{video['id']}")
        slow.release.set()
        await submit
        gateway.clock.advance(20)
        await gateway.worker.run_once()  # comes to an end
        assert [a.state for a in await gateway.attempts(video["id"])] == ["cancelled"]
    assert len(fake.submits) == 1
