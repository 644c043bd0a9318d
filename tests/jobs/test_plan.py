"""The plan of a job, which is fixed when the job is created."""

import pytest
from fakes.openai import FakeOpenAI
from fakes.server import serve
from harness import StartGateway
from jobs.upstream import provider

pytestmark = pytest.mark.anyio


async def test_polling_goes_on_when_the_alias_is_gone(
    start_gateway: StartGateway, fake: FakeOpenAI, upstream: str
) -> None:
    providers = {"up": provider(upstream)}
    async with start_gateway(providers=providers, models={"clip": {"routes": ["up/sora-2"]}}) as gateway:
        video = await gateway.create(model="clip")
        await gateway.worker.run_once()
    async with start_gateway(providers=providers) as gateway:
        assert (await gateway.finish(video["id"]))["status"] == "completed"


async def test_a_task_is_never_polled_at_another_address_than_it_was_sent_to(
    start_gateway: StartGateway, fake: FakeOpenAI, upstream: str
) -> None:
    async with start_gateway(providers={"up": provider(upstream)}) as gateway:
        video = await gateway.create(model="up/sora-2")
        await gateway.worker.run_once()
    stranger = FakeOpenAI()
    async with serve(stranger) as url, start_gateway(providers={"up": provider(f"{url}/v1")}) as gateway:
        gateway.clock.advance(60)
        await gateway.worker.run_once()
        assert stranger.polls == []
        assert (await gateway.get(video["id"]))["status"] == "queued"
    async with start_gateway(providers={"up": provider(upstream)}) as gateway:
        assert (await gateway.finish(video["id"]))["status"] == "completed"


async def test_defaults_of_the_first_route_are_not_sent_to_the_second(
    start_gateway: StartGateway, fake: FakeOpenAI, upstream: str
) -> None:
    models = {"clip": {"routes": ["sandbox/reject", "up/sora-2"], "retry_failed": True}}
    async with start_gateway(providers={"up": provider(upstream)}, models=models) as gateway:
        video = await gateway.create(model="clip")
        await gateway.finish(video["id"])
        asked = (await gateway.get(video["id"]))["seconds"]
        alone = await gateway.create(model="sandbox/testcard")
    assert (asked, alone["seconds"], alone["size"]) == ("4", "4", "1280x720")
    assert all("seconds" not in call.fields for call in fake.submits)
