"""The deadline of a job: it ends exactly once, and late results change nothing that was shown."""

import pytest
from fakes.openai import FakeOpenAI
from fakes.server import Answer, closed_port
from harness import Running, StartGateway
from jobs.upstream import provider

pytestmark = pytest.mark.anyio


async def test_past_the_deadline_the_job_fails_and_the_upstream_is_asked_to_stop(
    gateway: Running, fake: FakeOpenAI
) -> None:
    fake.polls_until_done = 10_000
    video = await gateway.create(model="up/sora-2")
    ended = await gateway.finish(video["id"], step_s=60)
    assert ended["error"]["code"] == "deadline_exceeded"
    await gateway.worker.run_once()
    assert len(fake.deletes) == 1
    assert [a.state for a in await gateway.attempts(video["id"])] == ["cancelled"]
    assert len(fake.submits) == 1


async def test_a_late_success_is_noticed_and_the_job_stays_failed(gateway: Running, fake: FakeOpenAI) -> None:
    fake.polls_until_done = 10_000
    video = await gateway.create(model="up/sora-2")
    fake.script("cancel", *[Answer(409, {"error": {"message": "cannot stop"}})] * 5)
    ended = await gateway.finish(video["id"], step_s=60)
    await gateway.worker.run_once()
    fake.finish("video_1")
    gateway.clock.advance(120)
    await gateway.worker.run_once()
    assert [a.state for a in await gateway.attempts(video["id"])] == ["succeeded"]
    assert await gateway.get(video["id"]) == ended


async def test_an_upstream_that_never_takes_it_fails_at_the_deadline(start_gateway: StartGateway) -> None:
    async with start_gateway(providers={"dead": provider(closed_port())}) as gateway:
        video = await gateway.create(model="dead/sora-2")
        ended = await gateway.finish(video["id"], step_s=60)
        assert [a.state for a in await gateway.attempts(video["id"])] == ["cancelled"]
    assert ended["error"]["code"] == "deadline_exceeded"
    assert "dead cannot be reached" in ended["error"]["message"]


async def test_resubmits_of_an_unknown_outcome_end_at_the_deadline(
    start_gateway: StartGateway, fake: FakeOpenAI, upstream: str
) -> None:
    fake.script("submit", *[Answer(502, "<html>")] * 1_000)
    async with start_gateway(providers={"up": provider(upstream, idempotency="header")}) as gateway:
        video = await gateway.create(model="up/sora-2")
        ended = await gateway.finish(video["id"], step_s=60)
    assert ended["error"]["code"] == "upstream_outcome_unknown"
    assert len(fake.submits) < 100


async def test_at_the_deadline_stored_outputs_complete_the_video(gateway: Running, fake: FakeOpenAI) -> None:
    fake.polls_until_done = 10_000
    video = await gateway.create(model="up/sora-2", n=2, media_retention=60)
    await gateway.worker.run_once()
    fake.finish("video_1")
    ended = await gateway.finish(video["id"], step_s=60)
    assert ended["status"] == "completed"
    assert ended["warnings"] == ["the other outputs were not finished in time"]
    content = await gateway.client.get(f"/v1/videos/{video['id']}/content")
    assert content.status_code == 404  # kept for a minute from when it was stored, and that was long ago
