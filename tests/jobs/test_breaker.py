"""The circuit breaker: opened by repeated failures of an upstream, closed by one probe."""

import pytest
from fakes.server import Answer
from harness import StartGateway
from upstreams import Upstreams

pytestmark = pytest.mark.anyio


async def test_the_breaker_opens_after_repeated_failures_and_half_opens_by_one_probe(
    start_gateway: StartGateway, two: Upstreams
) -> None:
    one, second = two.fakes["one"], two.fakes["two"]
    one.script("submit", *[Answer(503, {"error": {"message": "down"}})] * 6)
    models = {"clip": {"routes": ["one/sora-2", "two/sora-2"]}}
    async with start_gateway(providers=two.providers(), models=models, worker_concurrency=1) as gateway:
        for _ in range(8):
            await gateway.create(model="clip")
        await gateway.worker.run_once()
        assert len(one.submits) == 5  # then it is left alone
        assert len(second.submits) == 8
        gateway.clock.advance(16)
        for _ in range(3):
            await gateway.create(model="clip")
        await gateway.worker.run_once()
        assert len(one.submits) == 6  # one probe, which fails; the others do not wait for it
        assert len(second.submits) == 11
        gateway.clock.advance(40)
        video = await gateway.create(model="clip")
        await gateway.worker.run_once()
        assert len(one.submits) == 7  # the probe is answered: closed
        await gateway.create(model="clip")
        await gateway.worker.run_once()
        assert len(one.submits) == 8
        assert (await gateway.finish(video["id"]))["status"] == "completed"


async def test_a_job_with_one_route_waits_for_the_breaker(start_gateway: StartGateway, two: Upstreams) -> None:
    one = two.fakes["one"]
    one.script("submit", *[Answer(503, {"error": {"message": "down"}})] * 5)
    async with start_gateway(providers=two.providers(), worker_concurrency=1) as gateway:
        videos = [await gateway.create(model="one/sora-2") for _ in range(5)]
        await gateway.worker.run_once()
        assert len(one.submits) == 5
        for video in videos:
            assert (await gateway.finish(video["id"]))["status"] == "completed"


async def test_an_answer_about_a_request_does_not_open_the_breaker(start_gateway: StartGateway, two: Upstreams) -> None:
    one = two.fakes["one"]
    one.script("submit", *[one.refusal(400, "bad prompt")] * 10)
    async with start_gateway(providers=two.providers()) as gateway:
        for _ in range(10):
            await gateway.create(model="one/sora-2")
        await gateway.worker.run_once()
        video = await gateway.create(model="one/sora-2")
        assert (await gateway.finish(video["id"]))["status"] == "completed"
