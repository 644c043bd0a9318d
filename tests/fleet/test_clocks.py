"""Workers whose clocks are hours apart share one database: no job is lost, sent twice or fails early."""

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack

import pytest
from fakes.openai import FakeOpenAI
from fakes.server import KEY, serve
from harness import Running, StartGateway
from processes import until

from app.db.clock import DatabaseClock

pytestmark = pytest.mark.anyio

HOURS_AHEAD = (-1, 0, 1)
JOBS = 60


def clock_ahead(hours: float) -> DatabaseClock:
    """The clock of a process whose machine shows a wrong time."""
    return DatabaseClock(wall=lambda: time.time() + 3_600 * hours)


async def test_workers_hours_apart_lose_no_job(start_gateway: StartGateway) -> None:
    fake = FakeOpenAI(polls_until_working=1, polls_until_done=2)
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serve(fake))
        settings = {
            "providers": {"up": {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY, "concurrency": 30}},
            "poll_interval_s": 0.2,
            "worker_tick_s": 0.1,
            "lease_s": 5,
            "job_deadline_s": 600,
            "run_worker": True,
        }
        gateways: list[Running] = [
            await stack.enter_async_context(start_gateway(its_clock=clock_ahead(hours), **settings))
            for hours in HOURS_AHEAD
        ]
        created = [await gateways[job % len(gateways)].create(model="up/sora-2") for job in range(JOBS)]

        async def all_ended() -> bool | None:
            response = await gateways[0].client.get("/v1/videos", params={"limit": 100})
            ended = [video for video in response.json()["data"] if video["status"] in ("completed", "failed")]
            return True if len(ended) == JOBS else None

        await until(all_ended)
        videos = await asyncio.gather(*(gateways[0].get(video["id"]) for video in created))
        assert Counter(video["status"] for video in videos) == {"completed": JOBS}
        assert len(fake.submits) == JOBS
        for gateway, video in zip(gateways, videos, strict=False):  # one of each server
            [attempt] = await gateway.attempts(video["id"])
            assert attempt.submits == 1
