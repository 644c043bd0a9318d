"""Polling: errors are no verdict, unknown states are still running, intervals grow."""

import pytest
from fakes.openai import FakeOpenAI
from fakes.server import Answer, Reset
from harness import Running, StartGateway
from jobs.upstream import provider

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503])
async def test_a_poll_that_errs_is_not_a_failed_job(gateway: Running, fake: FakeOpenAI, status: int) -> None:
    video = await gateway.create(model="up/sora-2")
    await gateway.worker.run_once()
    fake.script("poll", *[Answer(status, "<html>")] * 5)
    assert (await gateway.finish(video["id"], step_s=60))["status"] == "completed"


@pytest.mark.parametrize(
    "fault", [Answer(200, "<html>"), Answer(200, b""), Answer(302, b"", {"location": "/x"}), Reset()]
)
async def test_a_poll_that_says_nothing_is_not_a_failed_job(
    gateway: Running, fake: FakeOpenAI, fault: Answer | Reset
) -> None:
    video = await gateway.create(model="up/sora-2")
    await gateway.worker.run_once()
    fake.script("poll", fault)
    assert (await gateway.finish(video["id"]))["status"] == "completed"


async def test_a_word_never_seen_before_is_still_running(gateway: Running, fake: FakeOpenAI) -> None:
    video = await gateway.create(model="up/sora-2")
    await gateway.worker.run_once()
    fake.show("video_1", "contemplating")
    gateway.clock.advance(20)
    await gateway.worker.run_once()
    assert (await gateway.get(video["id"]))["status"] == "in_progress"
    assert (await gateway.attempts(video["id"]))[0].upstream_status == "contemplating"
    fake.finish("video_1")
    assert (await gateway.finish(video["id"]))["status"] == "completed"


async def test_a_task_unknown_three_times_has_failed(gateway: Running, fake: FakeOpenAI) -> None:
    video = await gateway.create(model="up/sora-2")
    await gateway.worker.run_once()
    fake.script("poll", fake.refusal(404, "not found"), fake.refusal(404, "not found"))
    assert (await gateway.finish(video["id"]))["status"] == "completed"
    video = await gateway.create(model="up/sora-2")
    await gateway.worker.run_once()
    fake.jobs.clear()
    assert (await gateway.finish(video["id"]))["error"]["code"] == "upstream_task_gone"
    assert len(fake.submits) == 2


async def test_a_failure_carries_the_upstreams_reason(gateway: Running, fake: FakeOpenAI) -> None:
    video = await gateway.create(model="up/sora-2")
    await gateway.worker.run_once()
    fake.fail("video_1", "video_generation_failed", "the paper got wet")
    ended = await gateway.finish(video["id"])
    assert ended["error"] == {"code": "video_generation_failed", "message": "the paper got wet"}


async def test_polls_back_off_gently(gateway: Running, fake: FakeOpenAI) -> None:
    fake.polls_until_done = 1_000
    video = await gateway.create(model="up/sora-2")
    await gateway.worker.run_once()
    gaps: list[float] = []
    for polls in range(25):
        (attempt,) = await gateway.attempts(video["id"])
        gaps.append((attempt.due_at - gateway.clock.now).total_seconds())
        gateway.clock.advance(gaps[-1] - 0.001)
        await gateway.worker.run_once()
        assert len(fake.polls) == polls
        gateway.clock.advance(0.001)
        await gateway.worker.run_once()
        assert len(fake.polls) == polls + 1
    assert 1.5 <= gaps[0] <= 4
    assert gaps[0] < gaps[-1] <= 17.5
    assert (await gateway.attempts(video["id"]))[0].submits == 1


@pytest.mark.parametrize("retry", [False, True])
async def test_a_verified_failure_goes_to_the_next_route_only_where_configured(
    start_gateway: StartGateway, fake: FakeOpenAI, upstream: str, retry: bool
) -> None:
    models = {"clip": {"routes": ["up/sora-2", "up/sora-2-pro"], "retry_failed": retry}}
    async with start_gateway(providers={"up": provider(upstream)}, models=models) as gateway:
        video = await gateway.create(model="clip")
        await gateway.worker.run_once()
        fake.fail("video_1", "server_error", "boom")
        ended = await gateway.finish(video["id"])
    assert ended["status"] == ("completed" if retry else "failed")
    assert [call.fields["model"] for call in fake.submits] == ["sora-2", "sora-2-pro"][: 1 + retry]
