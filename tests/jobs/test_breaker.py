"""The circuit breaker: opened by repeated failures of an upstream, closed by one probe."""

import pytest
from fakes.server import Answer, Call, Reset
from harness import Running, StartGateway
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
        gateway.clock.advance(17)
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


async def test_one_projects_bad_prompts_pause_that_project_alone(start_gateway: StartGateway, two: Upstreams) -> None:
    """An upstream that fails at the prompts of one tenant is up for all others."""
    one = two.fakes["one"]
    one.fails_at = "poison"
    async with start_gateway(providers=two.providers(), worker_concurrency=1) as gateway:
        for _ in range(8):
            await gateway.create(model="one/sora-2", prompt="poison")
        await gateway.worker.run_once()
        assert len(one.submits) == 5  # then Alice is paused
        for _ in range(3):
            await create_as_bob(gateway)
        await gateway.worker.run_once()
        assert len(one.submits) == 8  # Bob is not
        gateway.clock.advance(17)
        await gateway.worker.run_once()
        assert len(one.submits) == 9  # Alice's probe fails, and she waits longer
        await create_as_bob(gateway)
        await gateway.worker.run_once()
        assert len(one.submits) == 10


async def test_several_projects_in_trouble_pause_all_and_probe_in_turns(
    start_gateway: StartGateway, two: Upstreams
) -> None:
    """The circuit of all projects opens after failures of several; the next probe is another project's, whose good job
    closes it."""
    one = two.fakes["one"]
    down = Answer(503, {"error": {"message": "down"}})
    one.script("submit", *[down] * 5)
    one.fails_at = "poison"
    async with start_gateway(providers=two.providers(), worker_concurrency=1) as gateway:
        for _ in range(8):
            await gateway.create(model="one/sora-2", prompt="poison")
        good = [await create_as_bob(gateway) for _ in range(4)]
        await gateway.worker.run_once()
        assert len(one.submits) == 5
        assert len({prompt_of(submit) for submit in one.submits}) == 2  # in turns
        probes = []
        for _ in range(20):
            gateway.clock.advance(10)
            before = len(one.submits)
            await gateway.worker.run_once()
            probes += [prompt_of(submit) for submit in one.submits[before:]]
        assert "a paper boat" in probes[:2]  # not Alice's a second time
        for video in good:
            response = await gateway.bob.get(f"/v1/videos/{video}")
            assert response.json()["status"] == "completed"


async def test_an_upstream_that_cannot_be_reached_is_paused_for_all(
    start_gateway: StartGateway, two: Upstreams
) -> None:
    providers = {"down": {**two.providers()["one"], "base_url": "http://127.0.0.1:1/v1"}}
    async with start_gateway(providers=providers, worker_concurrency=1) as gateway:
        for _ in range(6):
            await gateway.create(model="down/sora-2")
        await gateway.worker.run_once()
        bobs = await create_as_bob(gateway, model="down/sora-2")
        await gateway.worker.run_once()
        [attempt] = await gateway.attempts(bobs)
        assert "submits to it are paused" in (attempt.error_message or "")


async def test_polls_without_an_answer_pause_no_submits(start_gateway: StartGateway, two: Upstreams) -> None:
    one = two.fakes["one"]
    one.script("poll", *[Reset()] * 12)
    async with start_gateway(providers=two.providers()) as gateway:
        for _ in range(6):
            await gateway.create(model="one/sora-2")
        await gateway.worker.run_once()
        gateway.clock.advance(20)
        await gateway.worker.run_once()
        await gateway.create(model="one/sora-2")
        await gateway.worker.run_once()
        assert len(one.submits) == 7


def prompt_of(submit: Call) -> str:
    return str(submit.fields["prompt"])


async def create_as_bob(gateway: Running, *, model: str = "one/sora-2") -> str:
    response = await gateway.bob.post("/v1/videos", json={"prompt": "a paper boat", "model": model})
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


async def test_a_project_that_always_fails_does_not_add_up_for_others(
    start_gateway: StartGateway, two: Upstreams
) -> None:
    """One failure of another project, after many of the first, is one failure."""
    one = two.fakes["one"]
    one.fails_at = "poison"
    async with start_gateway(providers=two.providers()) as gateway:
        for _ in range(10):
            await gateway.create(model="one/sora-2", prompt="poison")
            await gateway.worker.run_once()
            gateway.clock.advance(310)
        before = len(one.submits)
        one.script("submit", Answer(503, {"error": {"message": "down"}}))
        await create_as_bob(gateway)
        await gateway.worker.run_once()
        await create_as_bob(gateway)
        await gateway.worker.run_once()
        assert len(one.submits) == before + 2


async def test_a_probe_does_not_wait_for_a_project_that_cannot_take_its_turn(
    start_gateway: StartGateway, two: Upstreams
) -> None:
    """Bob's job is not due for an hour, and Alice has made the last probe; hers go on without him."""
    one = two.fakes["one"]
    down = Answer(503, {"error": {"message": "down"}})
    async with start_gateway(providers=two.providers(), job_deadline_s=36_000) as gateway:
        one.script("submit", Answer(429, {"error": {"message": "later"}}, {"retry-after": "3000"}))
        await create_as_bob(gateway)
        await gateway.worker.run_once()
        one.script("submit", *[down] * 6)
        for number in range(5):  # in turns
            await (create_as_bob(gateway) if number % 2 else gateway.create(model="one/sora-2"))
            await gateway.worker.run_once()
        gateway.clock.advance(17)
        video = await gateway.create(model="one/sora-2")
        submits = len(one.submits)
        await gateway.worker.run_once()
        assert len(one.submits) == submits + 1  # the probe, which fails
        assert (await gateway.finish(video["id"], step_s=20, steps=30))["status"] == "completed"


async def test_a_clock_that_is_set_back_does_not_keep_a_circuit_open(
    start_gateway: StartGateway, two: Upstreams
) -> None:
    one = two.fakes["one"]
    one.script("submit", *[Answer(503, {"error": {"message": "down"}})] * 5)
    async with start_gateway(providers=two.providers(), worker_concurrency=1) as gateway:
        for _ in range(5):
            await gateway.create(model="one/sora-2")
        await gateway.worker.run_once()
        gateway.clock.advance(-5 * 3_600)
        await gateway.create(model="one/sora-2")
        await gateway.worker.run_once()
        assert len(one.submits) == 6
