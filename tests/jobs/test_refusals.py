"""Refused submits, which were certainly not accepted: wait, go to the next candidate, or fail."""

import pytest
from fakes.gptge import FakeGptGe
from fakes.lumenfall import FakeLumenfall
from fakes.openai import FakeOpenAI
from fakes.server import KEY, Answer, closed_port, serve
from harness import Running, StartGateway
from jobs.upstream import provider

pytestmark = pytest.mark.anyio


BUSY = Answer(503, {"detail": "queue is full"})


@pytest.mark.parametrize(
    ("answer", "waits_s"),
    [(Answer(429, {"error": {"message": "slow"}}, {"retry-after": "30"}), 30), (Answer(429), 1), (BUSY, 1)],
)
async def test_a_refusal_that_can_pass_waits_in_our_queue(
    gateway: Running, fake: FakeOpenAI, answer: Answer, waits_s: float
) -> None:
    fake.script("submit", answer)
    video = await gateway.create(model="up/sora-2")
    await gateway.worker.run_once()
    assert (await gateway.get(video["id"]))["status"] == "queued"
    gateway.clock.advance(waits_s * 0.85)
    await gateway.worker.run_once()
    assert len(fake.submits) == 1
    ended = await gateway.finish(video["id"])
    assert ended["status"] == "completed"
    assert len(fake.submits) == 2
    assert len(await gateway.attempts(video["id"])) == 1


async def test_connection_refused_goes_to_the_next_candidate(
    start_gateway: StartGateway, fake: FakeOpenAI, upstream: str
) -> None:
    providers = {"dead": provider(closed_port()), "up": provider(upstream)}
    models = {"clip": {"routes": ["dead/sora-2", "up/sora-2"]}}
    async with start_gateway(providers=providers, models=models) as gateway:
        video = await gateway.create(model="clip")
        ended = await gateway.finish(video["id"])
        attempts = [(a.provider, a.state, a.error_code) for a in await gateway.attempts(video["id"])]
    assert ended["status"] == "completed"
    assert attempts == [("dead", "failed", "upstream_unavailable"), ("up", "succeeded", None)]
    assert len(fake.submits) == 1


async def test_after_the_last_candidate_the_first_is_asked_again(
    start_gateway: StartGateway, fake: FakeOpenAI, upstream: str
) -> None:
    fake.script("submit", Answer(429))
    providers = {"up": provider(upstream), "dead": provider(closed_port())}
    models = {"clip": {"routes": ["up/sora-2", "dead/sora-2"]}}
    async with start_gateway(providers=providers, models=models) as gateway:
        video = await gateway.create(model="clip")
        ended = await gateway.finish(video["id"])
        attempts = [(a.provider, a.state) for a in await gateway.attempts(video["id"])]
    assert ended["status"] == "completed"
    assert attempts == [("up", "failed"), ("dead", "failed"), ("up", "succeeded")]


@pytest.mark.parametrize(("status", "code"), [(401, "upstream_account_refused"), (402, "upstream_insufficient_credit")])
async def test_our_account_being_refused_goes_to_the_next_candidate_only(
    start_gateway: StartGateway, upstream: str, status: int, code: str
) -> None:
    poor = FakeOpenAI()
    poor.script("submit", *[Answer(status)] * 2)
    async with serve(poor) as poor_url:
        providers = {"poor": provider(f"{poor_url}/v1"), "up": provider(upstream)}
        models = {"clip": {"routes": ["poor/sora-2", "up/sora-2"]}}
        async with start_gateway(providers=providers, models=models) as gateway:
            first = await gateway.create(model="clip")
            assert (await gateway.finish(first["id"]))["status"] == "completed"
            assert [a.error_code for a in await gateway.attempts(first["id"])] == [code, None]
            second = await gateway.create(model="poor/sora-2")
            assert (await gateway.finish(second["id"]))["error"]["code"] == code
    assert len(poor.submits) == 2


async def test_a_rejected_request_fails_at_once_with_the_upstreams_message(gateway: Running, fake: FakeOpenAI) -> None:
    fake.script("submit", fake.refusal(400, "seconds must be 4, 8 or 12", "invalid_value"))
    video = await gateway.create(model="up/sora-2", seconds="5")
    ended = await gateway.finish(video["id"])
    assert ended["error"] == {"code": "upstream_rejected", "message": "seconds must be 4, 8 or 12"}
    fake.script("submit", fake.refusal(400, "Your request was blocked by our moderation system.", "moderation_blocked"))
    video = await gateway.create(model="up/sora-2")
    assert (await gateway.finish(video["id"]))["error"]["code"] == "content_policy_violation"
    assert len(fake.submits) == 2


@pytest.mark.parametrize("kind", ["lumenfall", "gptge"])
async def test_an_upload_too_large_for_json_fails_the_job(start_gateway: StartGateway, kind: str) -> None:
    fake = FakeLumenfall() if kind == "lumenfall" else FakeGptGe()
    png = b"\x89PNG\r\n\x1a\n"
    async with serve(fake) as url:
        home = f"{url}/openai/v1" if kind == "lumenfall" else url
        async with start_gateway(providers={"up": {"kind": kind, "base_url": home, "api_key": KEY}}) as gateway:
            videos = []
            for size in (20 * 2**20, 20 * 2**20 + 1):
                fields = {"prompt": "p", "model": "up/luma" if kind == "gptge" else "up/veo-3.1"}
                files = {"input_reference": ("a.png", png.ljust(size, b"\0"))}
                videos.append((await gateway.client.post("/v1/videos", data=fields, files=files)).json())
            await gateway.worker.run_once()
            fits, too_large = [await gateway.get(video["id"]) for video in videos]
    assert fits["error"] is None
    assert too_large["error"]["code"] == "upstream_rejected"
    assert "up takes uploads of at most 20 MiB; send its https:// address" in too_large["error"]["message"]
    assert len(fake.submits) == 1


async def test_each_round_of_refusals_waits_longer(
    start_gateway: StartGateway, fake: FakeOpenAI, upstream: str
) -> None:
    fake.script("submit", *[Answer(429)] * 1_000)
    models = {"clip": {"routes": ["up/sora-2", "up/sora-2-pro"]}}
    async with start_gateway(providers={"up": provider(upstream)}, models=models) as gateway:
        video = await gateway.create(model="clip")
        for _ in range(60):
            await gateway.worker.run_once()
            gateway.clock.advance(5)
        assert len(await gateway.attempts(video["id"])) < 25
