"""The order in which attempts are claimed: fair between projects, within the limit of each provider."""

import asyncio
from collections import Counter
from functools import partial

import pytest
from fakes.server import Hang
from harness import StartGateway, another_worker
from processes import until
from upstreams import Upstreams

pytestmark = pytest.mark.anyio


async def test_a_thousand_jobs_of_one_project_do_not_delay_one_of_another(
    start_gateway: StartGateway, two: Upstreams
) -> None:
    fake = two.fakes["one"]
    fake.polls_until_done = 10_000
    async with start_gateway(providers=two.providers(concurrency=4)) as gateway:
        await asyncio.gather(*(gateway.create(model="one/sora-2", prompt="alice") for _ in range(50)))
        await gateway.worker.run_once()
        assert len(fake.submits) == 4
        await gateway.bob.post("/v1/videos", json={"prompt": "bob", "model": "one/sora-2"})
        await gateway.worker.run_once()
        assert len(fake.submits) == 4  # no room yet
        fake.finish("video_1")
        gateway.clock.advance(20)
        await gateway.worker.run_once()
    assert [call.fields["prompt"] for call in fake.submits] == ["alice"] * 4 + ["bob"]


async def test_projects_take_turns(start_gateway: StartGateway, two: Upstreams) -> None:
    fake = two.fakes["one"]
    fake.polls_until_done = 10_000
    async with start_gateway(providers=two.providers(concurrency=6)) as gateway:
        for _ in range(10):
            await gateway.create(model="one/sora-2", prompt="alice")
        for _ in range(10):
            await gateway.bob.post("/v1/videos", json={"prompt": "bob", "model": "one/sora-2"})
        await gateway.worker.run_once()
    assert Counter(call.fields["prompt"] for call in fake.submits) == {"alice": 3, "bob": 3}


async def test_the_limit_holds_over_all_workers(start_gateway: StartGateway, two: Upstreams) -> None:
    fake = two.fakes["one"]
    fake.polls_until_done = 10_000
    async with start_gateway(providers=two.providers(concurrency=3)) as gateway:
        for _ in range(30):
            await gateway.create(model="one/sora-2")
        async with another_worker(gateway) as second, another_worker(gateway) as third:
            workers = (gateway.worker, second, third)
            for _ in range(5):
                await asyncio.gather(*(worker.run_once() for worker in workers))
                gateway.clock.advance(20)
    assert len(fake.submits) == 3


async def test_one_project_leaves_slots_of_a_worker_to_others(start_gateway: StartGateway, two: Upstreams) -> None:
    """Its submits hang at two providers; another project's are sent to a third one, and to the same."""
    hangs = [Hang() for _ in range(20)]
    for fake in two.fakes.values():
        fake.script("submit", *hangs[:10])
        hangs = hangs[10:]
    options = {"worker_concurrency": 8, "worker_tick_s": 0.05, "shutdown_grace_s": 0}
    async with start_gateway(providers=two.providers(), **options) as gateway:
        for _ in range(10):
            await gateway.create(model="one/sora-2", prompt="alice")
            await gateway.create(model="two/sora-2", prompt="alice")
        working = asyncio.create_task(gateway.worker.run())

        async def sent(prompt: str, number: int) -> bool | None:
            calls = [call for fake in two.fakes.values() for call in fake.submits]
            return True if sum(call.fields["prompt"] == prompt for call in calls) == number else None

        await until(partial(sent, "alice", 6))
        for _ in range(2):
            await gateway.bob.post("/v1/videos", json={"prompt": "bob", "model": "one/sora-2"})
        await until(partial(sent, "bob", 2))
        assert await sent("alice", 6)
        gateway.worker.stop()
        await working


async def test_a_full_provider_does_not_hold_up_another(start_gateway: StartGateway, two: Upstreams) -> None:
    two.fakes["one"].polls_until_done = 10_000
    async with start_gateway(providers=two.providers(concurrency=1)) as gateway:
        for _ in range(5):
            await gateway.create(model="one/sora-2")
        video = await gateway.create(model="two/sora-2")
        assert (await gateway.finish(video["id"]))["status"] == "completed"
    assert len(two.fakes["one"].submits) == 1
