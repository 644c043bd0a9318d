"""Which upstream gets which job, in what order, and how many at once."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import sqlalchemy as sa
from fakes.openai import FakeOpenAI
from fakes.server import KEY, Answer, serve
from harness import ORIGIN, Running, StartGateway, another_worker

from app.db.models import Attempt

pytestmark = pytest.mark.anyio


class Upstreams:
    """Several OpenAI-shaped upstreams, each a provider of its own."""

    def __init__(self, **fakes: FakeOpenAI) -> None:
        self.fakes = fakes
        self.urls: dict[str, str] = {}

    def providers(self, **config: Any) -> dict[str, Any]:
        return {
            name: {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY, **config}
            for name, url in self.urls.items()
        }


@pytest.fixture
async def two() -> AsyncIterator[Upstreams]:
    upstreams = Upstreams(one=FakeOpenAI(), two=FakeOpenAI())
    async with AsyncExitStack() as stack:
        for name, fake in upstreams.fakes.items():
            upstreams.urls[name] = await stack.enter_async_context(serve(fake))
        yield upstreams


# Names


async def test_a_bare_name_goes_to_every_provider_that_lists_it_in_order(
    start_gateway: StartGateway, two: Upstreams
) -> None:
    two.fakes["one"].script("submit", Answer(429))
    async with start_gateway(providers=two.providers(models=["sora-2"])) as gateway:
        video = await gateway.create(model="sora-2")
        assert (await gateway.finish(video["id"]))["status"] == "completed"
        assert [a.provider for a in await gateway.attempts(video["id"])] == ["one", "two"]


async def test_a_name_with_its_provider_never_fails_over(start_gateway: StartGateway, two: Upstreams) -> None:
    two.fakes["one"].script("submit", Answer(401))
    async with start_gateway(providers=two.providers(models=["sora-2"])) as gateway:
        video = await gateway.create(model="one/sora-2")
        assert (await gateway.finish(video["id"]))["error"]["code"] == "upstream_account_refused"
    assert two.fakes["two"].submits == []


async def test_weights_draw_the_order(start_gateway: StartGateway, two: Upstreams) -> None:
    routes = [{"to": "one/sora-2", "weight": 1}, {"to": "two/sora-2", "weight": 3}]
    async with start_gateway(providers=two.providers(), models={"film": {"routes": routes}}) as gateway:
        for _ in range(200):
            await gateway.create(model="film")
        await gateway.worker.run_once()
    share = len(two.fakes["two"].submits) / 200
    assert 0.6 < share < 0.9
    assert len(two.fakes["one"].submits) + len(two.fakes["two"].submits) == 200


async def test_candidates_that_cannot_express_the_request_are_left_out(
    start_gateway: StartGateway, two: Upstreams
) -> None:
    models = {"film": {"routes": ["sandbox/testcard", "one/sora-2"]}}
    async with start_gateway(providers=two.providers(), models=models) as gateway:
        video = await gateway.create(model="film", seconds="90")  # longer than the sandbox renders
        assert (await gateway.finish(video["id"]))["status"] == "completed"
        assert [a.provider for a in await gateway.attempts(video["id"])] == ["one"]


async def test_what_no_candidate_can_express_is_a_400_or_dropped(start_gateway: StartGateway) -> None:
    models = {
        "strict": {"routes": ["sandbox/testcard"]},
        "loose": {"routes": ["sandbox/testcard"], "unsupported": "drop"},
    }
    async with start_gateway(models=models) as gateway:
        answer = await gateway.client.post("/v1/videos", json={"prompt": "p", "model": "strict", "seconds": "90"})
        assert answer.status_code == 400
        assert answer.json()["error"] == {
            "message": "sandbox/testcard cannot express seconds: it makes whole seconds from 1 to 60",
            "type": "invalid_request_error",
            "param": "seconds",
            "code": "unsupported_parameter",
        }
        video = await gateway.create(model="loose", seconds="90")
        assert video["warnings"] == ["seconds was left out: sandbox/testcard: it makes whole seconds from 1 to 60"]


# Who is next


async def test_one_owners_thousand_jobs_do_not_hold_up_anothers_one(
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


async def test_owners_take_turns(start_gateway: StartGateway, two: Upstreams) -> None:
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


async def test_a_full_provider_does_not_hold_up_another(start_gateway: StartGateway, two: Upstreams) -> None:
    two.fakes["one"].polls_until_done = 10_000
    async with start_gateway(providers=two.providers(concurrency=1)) as gateway:
        for _ in range(5):
            await gateway.create(model="one/sora-2")
        video = await gateway.create(model="two/sora-2")
        assert (await gateway.finish(video["id"]))["status"] == "completed"
    assert len(two.fakes["one"].submits) == 1


# The circuit breaker


async def test_the_breaker_opens_after_repeated_failures_and_half_opens_by_one_probe(
    start_gateway: StartGateway, two: Upstreams
) -> None:
    one, second = two.fakes["one"], two.fakes["two"]
    one.script("submit", *[Answer(503, {"error": {"message": "down"}})] * 6)
    models = {"film": {"routes": ["one/sora-2", "two/sora-2"]}}
    async with start_gateway(providers=two.providers(), models=models, worker_concurrency=1) as gateway:
        for _ in range(8):
            await gateway.create(model="film")
        await gateway.worker.run_once()
        assert len(one.submits) == 5  # then it is left alone
        assert len(second.submits) == 8
        gateway.clock.advance(16)
        for _ in range(3):
            await gateway.create(model="film")
        await gateway.worker.run_once()
        assert len(one.submits) == 6  # one probe, which fails; the others do not wait for it
        assert len(second.submits) == 11
        gateway.clock.advance(40)
        video = await gateway.create(model="film")
        await gateway.worker.run_once()
        assert len(one.submits) == 7  # the probe is answered: closed
        await gateway.create(model="film")
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


async def test_what_an_upstream_says_about_a_request_does_not_open_the_breaker(
    start_gateway: StartGateway, two: Upstreams
) -> None:
    one = two.fakes["one"]
    one.script("submit", *[one.refusal(400, "bad prompt")] * 10)
    async with start_gateway(providers=two.providers()) as gateway:
        for _ in range(10):
            await gateway.create(model="one/sora-2")
        await gateway.worker.run_once()
        video = await gateway.create(model="one/sora-2")
        assert (await gateway.finish(video["id"]))["status"] == "completed"


# What is visible


async def test_an_operator_sees_every_attempt(start_gateway: StartGateway, two: Upstreams) -> None:
    two.fakes["one"].script("submit", Answer(402, {"error": {"message": "top up"}}))
    models = {"film": {"routes": ["one/sora-2", "two/sora-2"]}}
    async with start_gateway(providers=two.providers(), models=models, admin_key="root") as gateway:
        video = await gateway.create(model="film")
        await gateway.finish(video["id"])
        path = f"/admin/v1/videos/{video['id']}"
        assert (await gateway.client.get(path)).status_code == 401
        shown = (await gateway.client.get(path, headers={"authorization": "Bearer root"})).json()
    assert shown["provider"] == "two"
    assert [(a["provider"], a["state"], a["error_code"]) for a in shown["attempts"]] == [
        ("one", "failed", "upstream_insufficient_credit"),
        ("two", "succeeded", None),
    ]
    assert KEY not in str(shown)


async def test_an_operator_sees_addresses_without_what_permits(start_gateway: StartGateway, two: Upstreams) -> None:
    fields = {
        "prompt": "a boat",
        "input_reference": "https://me:sekret@x.example/a.png?sig=sekret#sekret",
        "style": {"like": ["https://x.example/b.png?token=sekret"]},
    }
    async with start_gateway(providers=two.providers(), admin_key="root") as gateway:
        video = await gateway.create(model="one/sora-2", **fields)
        async with gateway.gateway.db.transaction() as session:
            output = {"url": "https://y.example/film.mp4?X-Amz-Signature=sekret"}
            await session.execute(sa.update(Attempt).values(output=output))
        path = f"/admin/v1/videos/{video['id']}"
        answer = await gateway.client.get(path, headers={"authorization": "Bearer root"})
    assert "sekret" not in answer.text
    shown = answer.json()
    assert shown["request"]["first_frame"]["url"] == "https://x.example/a.png"
    assert shown["request"]["extra"] == {"style": {"like": ["https://x.example/b.png"]}}
    assert [attempt["output"] for attempt in shown["attempts"]] == [{"url": "https://y.example/film.mp4"}]


async def test_without_an_admin_key_there_is_no_administration(gateway: Running) -> None:
    video = await gateway.create()
    assert (await gateway.client.get(f"/admin/v1/videos/{video['id']}")).status_code == 404


# Callbacks of upstreams


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
