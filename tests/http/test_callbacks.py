"""Callbacks of upstreams: a trigger to poll now and nothing else."""

import re

import pytest
from harness import ORIGIN, StartGateway
from upstreams import Upstreams

pytestmark = pytest.mark.anyio


async def test_a_callback_only_means_poll_now(start_gateway: StartGateway, two: Upstreams) -> None:
    fake = two.fakes["one"]
    async with start_gateway(providers=two.providers(), public_url=ORIGIN) as gateway:
        video = await gateway.create(model="one/sora-2")
        await gateway.worker.run_once()
        (attempt,) = await gateway.attempts(video["id"])
        callback = gateway.gateway.links.callback(attempt.id)
        assert callback is not None
        before = len(fake.polls)
        answer = await gateway.client.post(callback, json={"status": "completed", "video": "https://evil.example/x"})
        assert answer.json() == {"received": True}
        await gateway.worker.run_once()
        assert len(fake.polls) == before + 1
        assert (await gateway.get(video["id"]))["status"] == "queued"
        forged = re.sub(r"/[^/]+$", "/" + "A" * 32, callback)
        assert (await gateway.client.post(forged)).status_code == 404
        await gateway.finish(video["id"])
        assert (await gateway.client.post(callback)).json() == {"received": True}
