"""Many workers on one database: each attempt is done by one of them."""

import asyncio
from datetime import timedelta

import psycopg
import pytest
from fakes.openai import FakeOpenAI
from fakes.server import Hang
from harness import Running, StartGateway, another_worker
from jobs.upstream import provider
from processes import until

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("jobs", [30])
async def test_two_workers_share_the_work_and_never_a_job(gateway: Running, fake: FakeOpenAI, jobs: int) -> None:
    created = [await gateway.create(model="up/sora-2") for _ in range(jobs)]
    async with another_worker(gateway) as other:
        for _ in range(12):
            await asyncio.gather(gateway.worker.run_once(), other.run_once())
            gateway.clock.advance(20)
    for video in created:
        assert (await gateway.get(video["id"]))["status"] == "completed"
    assert len(fake.submits) == len(fake.contents) == jobs


async def test_a_project_alone_keeps_its_share_of_the_connections_busy(
    start_gateway: StartGateway, fake: FakeOpenAI, upstream: str
) -> None:
    """The next jobs are claimed when half of the connections are free, not at the next look for work."""
    async with start_gateway(providers={"up": provider(upstream, connections=4)}, worker_tick_s=60) as gateway:
        for _ in range(30):
            await gateway.create(model="up/sora-2")
        working = asyncio.create_task(gateway.worker.run())

        async def all_sent() -> bool | None:
            return True if len(fake.submits) == 30 else None

        await until(all_sent)
        gateway.worker.stop()
        await working


async def test_what_cannot_be_sent_at_once_stays_pending(
    start_gateway: StartGateway, fake: FakeOpenAI, upstream: str
) -> None:
    """Attempts claimed by a killed worker are lost, sent or not; so no more are claimed than can be sent."""
    hangs = [Hang(), Hang()]
    fake.script("submit", *hangs)
    async with start_gateway(providers={"up": provider(upstream, connections=2)}) as gateway:
        videos = [await gateway.create(model="up/sora-2") for _ in range(5)]
        working = asyncio.create_task(gateway.worker.run_once())
        for hang in hangs:
            await hang.reached.wait()
        states = [attempt.state for video in videos for attempt in await gateway.attempts(video["id"])]
        assert states == ["submitting"] * 2 + ["pending"] * 3
        for hang in hangs:
            hang.release.set()
        await working
    assert len(fake.submits) == 5


async def test_a_busy_worker_keeps_its_leases(
    start_gateway: StartGateway, fake: FakeOpenAI, upstream: str, database_url: str
) -> None:
    """The heartbeat does not wait for the connections that the work is waiting for."""
    hang = Hang()
    fake.script("submit", hang)
    providers = {"up": provider(upstream)}
    async with start_gateway(providers=providers, lease_s=5, database_pool_size=1) as gateway:
        await gateway.create(model="up/sora-2")
        working = asyncio.create_task(gateway.worker.run())
        await hang.reached.wait()
        async with gateway.gateway.db.reading(), await psycopg.AsyncConnection.connect(database_url) as other:
            gateway.clock.advance(4)

            async def look() -> tuple[int] | None:
                later = gateway.clock() + timedelta(seconds=4)
                return await (await other.execute("select 1 from attempts where due_at > %s", (later,))).fetchone()

            await until(look)
        hang.release.set()
        gateway.worker.stop()
        await working
