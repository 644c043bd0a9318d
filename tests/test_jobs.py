"""The job machine, through the front door: each job ends exactly once, and nothing is paid for twice."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from fakes.gptge import FakeGptGe
from fakes.lumenfall import FakeLumenfall
from fakes.openai import FakeOpenAI
from fakes.server import KEY, Answer, BrokenOff, Elsewhere, Hang, Reset, SlowYes, closed_port, serve
from harness import Running, StartGateway, another_worker
from processes import until

from app import ids
from app.jobs import videos

pytestmark = pytest.mark.anyio


@pytest.fixture
async def fake() -> FakeOpenAI:
    return FakeOpenAI()


@pytest.fixture
async def upstream(fake: FakeOpenAI) -> AsyncIterator[str]:
    async with serve(fake) as url:
        yield f"{url}/v1"


def provider(base_url: str, **config: Any) -> dict[str, Any]:
    return {"kind": "openai", "base_url": base_url, "api_key": KEY, **config}


@pytest.fixture
async def gateway(start_gateway: StartGateway, upstream: str) -> AsyncIterator[Running]:
    """One OpenAI-shaped upstream called `up`."""
    async with start_gateway(providers={"up": provider(upstream)}) as running:
        yield running


# The way it should go


async def test_a_job_goes_queued_in_progress_completed(gateway: Running, fake: FakeOpenAI) -> None:
    video = await gateway.create(model="up/sora-2", seconds="4", size="1280x720")
    assert (video["status"], video["progress"]) == ("queued", 0)
    seen = []
    for _ in range(10):
        await gateway.worker.run_once()
        seen.append((await gateway.get(video["id"]))["status"])
        gateway.clock.advance(20)
    assert sorted(set(seen), key=seen.index) == ["queued", "in_progress", "completed"]
    content = await gateway.client.get(f"/v1/videos/{video['id']}/content")
    assert content.content == fake.file
    assert len(fake.submits) == 1


async def test_completed_is_shown_only_once_the_file_is_stored(gateway: Running, fake: FakeOpenAI) -> None:
    video = await gateway.create(model="up/sora-2")
    await gateway.worker.run_once()
    fake.script("content", Answer(503))
    fake.finish("video_1")
    gateway.clock.advance(20)
    await gateway.worker.run_once()
    shown = await gateway.get(video["id"])
    assert (shown["status"], shown["progress"]) == ("in_progress", 0)
    assert [a.state for a in await gateway.attempts(video["id"])] == ["storing"]
    assert (await gateway.finish(video["id"]))["status"] == "completed"


async def test_reading_a_video_never_calls_an_upstream(gateway: Running, fake: FakeOpenAI) -> None:
    video = await gateway.create(model="up/sora-2")
    for _ in range(5):
        await gateway.get(video["id"])
    assert fake.polls == fake.submits == []


async def test_four_outputs_are_four_attempts_and_one_video(gateway: Running, fake: FakeOpenAI) -> None:
    video = await gateway.create(model="up/sora-2", n=4)
    done = await gateway.finish(video["id"])
    assert done["status"] == "completed"
    assert len(done["output"]["files"]) == 4
    assert len(fake.submits) == 4
    for index in range(4):
        part = await gateway.client.get(f"/v1/videos/{video['id']}/content", params={"index": index})
        assert part.content == fake.file


async def test_some_outputs_failing_is_completed_with_a_warning(gateway: Running, fake: FakeOpenAI) -> None:
    video = await gateway.create(model="up/sora-2", n=2)
    await gateway.worker.run_once()
    fake.fail("video_1", "boom", "the paper caught fire")
    done = await gateway.finish(video["id"])
    assert done["status"] == "completed"
    assert any("the paper caught fire" in warning for warning in done["warnings"])


# Never paying twice

UNKNOWN_OUTCOMES = {
    "500": Answer(500, {"error": {"message": "boom"}}),
    "502 of a proxy": Answer(502, "<html>bad gateway</html>"),
    "503 of a proxy": Answer(503, "upstream connect error or disconnect/reset before headers"),
    "504 of a proxy": Answer(504, "<html>time-out</html>"),
    "reset after the request": Reset(),
    "2xx without a body": Answer(200, b""),
    "2xx in HTML": Answer(200, "<html>welcome</html>"),
    "2xx cut off": Answer(200, '{"id": "video_'),
    "2xx without an id": Answer(200, {"object": "video", "status": "queued"}),
    "redirect": Answer(302, b"", {"location": "https://elsewhere.example/videos"}),
}


@pytest.mark.parametrize("fault", UNKNOWN_OUTCOMES.values(), ids=UNKNOWN_OUTCOMES)
async def test_a_submit_whose_outcome_is_unknown_is_not_replayed(
    gateway: Running, fake: FakeOpenAI, fault: Answer | Reset
) -> None:
    fake.script("submit", fault)
    video = await gateway.create(model="up/sora-2")
    ended = await gateway.finish(video["id"])
    assert ended["status"] == "failed"
    assert ended["error"]["code"] == "upstream_outcome_unknown"
    assert [a.state for a in await gateway.attempts(video["id"])] == ["lost"]
    assert len(fake.submits) == 1


async def test_a_submit_that_times_out_is_not_replayed(
    start_gateway: StartGateway, fake: FakeOpenAI, upstream: str
) -> None:
    hang = Hang()
    fake.script("submit", hang)
    async with start_gateway(providers={"up": provider(upstream, timeout_s=0.2)}) as gateway:
        video = await gateway.create(model="up/sora-2")
        ended = await gateway.finish(video["id"])
    assert ended["error"]["code"] == "upstream_outcome_unknown"
    assert len(fake.submits) == 1


@pytest.mark.parametrize("idempotency", ["header", "body"])
async def test_an_unknown_outcome_is_asked_again_where_the_upstream_knows_the_key(
    start_gateway: StartGateway, fake: FakeOpenAI, upstream: str, idempotency: str
) -> None:
    fake.script("submit", Reset(), Answer(502, "<html>bad gateway</html>", accepted=True))
    async with start_gateway(providers={"up": provider(upstream, idempotency=idempotency)}) as gateway:
        video = await gateway.create(model="up/sora-2")
        ended = await gateway.finish(video["id"])
    assert ended["status"] == "completed"
    assert len(fake.submits) == 3
    assert len(fake.jobs) == 1


async def test_the_operator_may_choose_to_pay_twice(
    start_gateway: StartGateway, fake: FakeOpenAI, upstream: str
) -> None:
    fake.script("submit", Reset())
    models = {"film": {"routes": ["up/sora-2"], "on_unknown": "resubmit"}}
    async with start_gateway(providers={"up": provider(upstream)}, models=models) as gateway:
        video = await gateway.create(model="film")
        ended = await gateway.finish(video["id"])
        assert [a.state for a in await gateway.attempts(video["id"])] == ["lost", "succeeded"]
    assert ended["status"] == "completed"
    assert len(fake.jobs) == 2


async def test_a_worker_that_died_in_the_middle_of_a_submit_does_not_submit_again(
    gateway: Running, fake: FakeOpenAI
) -> None:
    hang = Hang()
    fake.script("submit", hang)
    video = await gateway.create(model="up/sora-2")
    dying = asyncio.create_task(gateway.worker.run_once())
    await hang.reached.wait()
    gateway.clock.advance(gateway.gateway.settings.lease_s + 1)  # the lease runs out with the call still under way
    async with another_worker(gateway) as other:
        await other.run_once()
    ended = await gateway.get(video["id"])
    assert ended["error"]["code"] == "upstream_outcome_unknown"
    assert len(fake.submits) == 1
    hang.release.set()  # a 504: still nobody knows
    await dying
    assert [a.state for a in await gateway.attempts(video["id"])] == ["lost"]


async def test_an_answer_that_comes_after_the_lease_still_finds_its_attempt(
    start_gateway: StartGateway, fake: FakeOpenAI, upstream: str
) -> None:
    """The job had failed as unknown; the task that turns up after all is cancelled at the upstream."""
    slow = SlowYes(fake)
    async with serve(slow) as url, start_gateway(providers={"up": provider(f"{url}/v1")}) as gateway:
        video = await gateway.create(model="up/sora-2")
        slow_submit = asyncio.create_task(gateway.worker.run_once())
        await slow.reached.wait()
        gateway.clock.advance(gateway.gateway.settings.lease_s + 1)
        async with another_worker(gateway) as other:
            await other.run_once()
        assert (await gateway.get(video["id"]))["error"]["code"] == "upstream_outcome_unknown"
        slow.release.set()
        await slow_submit
        gateway.clock.advance(60)
        await gateway.worker.run_once()
        assert [a.state for a in await gateway.attempts(video["id"])] == ["cancelled"]
    assert len(fake.submits) == len(fake.deletes) == 1


# Refusals: certainly not accepted

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
    models = {"film": {"routes": ["dead/sora-2", "up/sora-2"]}}
    async with start_gateway(providers=providers, models=models) as gateway:
        video = await gateway.create(model="film")
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
    models = {"film": {"routes": ["up/sora-2", "dead/sora-2"]}}
    async with start_gateway(providers=providers, models=models) as gateway:
        video = await gateway.create(model="film")
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
        models = {"film": {"routes": ["poor/sora-2", "up/sora-2"]}}
        async with start_gateway(providers=providers, models=models) as gateway:
            first = await gateway.create(model="film")
            assert (await gateway.finish(first["id"]))["status"] == "completed"
            assert [a.error_code for a in await gateway.attempts(first["id"])] == [code, None]
            second = await gateway.create(model="poor/sora-2")
            assert (await gateway.finish(second["id"]))["error"]["code"] == code
    assert len(poor.submits) == 2


async def test_what_is_the_clients_doing_fails_at_once_with_the_upstreams_words(
    gateway: Running, fake: FakeOpenAI
) -> None:
    fake.script("submit", fake.refusal(400, "seconds must be 4, 8 or 12", "invalid_value"))
    video = await gateway.create(model="up/sora-2", seconds="5")
    ended = await gateway.finish(video["id"])
    assert ended["error"] == {"code": "upstream_rejected", "message": "seconds must be 4, 8 or 12"}
    fake.script("submit", fake.refusal(400, "Your request was blocked by our moderation system.", "moderation_blocked"))
    video = await gateway.create(model="up/sora-2")
    assert (await gateway.finish(video["id"]))["error"]["code"] == "content_policy_violation"
    assert len(fake.submits) == 2


# Polling


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
    models = {"film": {"routes": ["up/sora-2", "up/sora-2-pro"], "retry_failed": retry}}
    async with start_gateway(providers={"up": provider(upstream)}, models=models) as gateway:
        video = await gateway.create(model="film")
        await gateway.worker.run_once()
        fake.fail("video_1", "server_error", "boom")
        ended = await gateway.finish(video["id"])
    assert ended["status"] == ("completed" if retry else "failed")
    assert [call.fields["model"] for call in fake.submits] == ["sora-2", "sora-2-pro"][: 1 + retry]


# The end of patience


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


# Cancelling


async def test_cancelling_before_the_submit_sends_nothing(gateway: Running, fake: FakeOpenAI) -> None:
    video = await gateway.create(model="up/sora-2")
    await gateway.client.delete(f"/v1/videos/{video['id']}")
    assert (await gateway.get(video["id"]))["error"]["code"] == "cancelled"
    await gateway.worker.run_once()
    assert fake.submits == []


async def test_cancelling_a_running_job_stops_it_upstream(gateway: Running, fake: FakeOpenAI) -> None:
    video = await gateway.create(model="up/sora-2")
    await gateway.worker.run_once()
    await gateway.client.delete(f"/v1/videos/{video['id']}")
    assert (await gateway.get(video["id"]))["status"] == "failed"
    await gateway.worker.run_once()
    assert fake.jobs == {}
    assert [a.state for a in await gateway.attempts(video["id"])] == ["cancelled"]


async def test_cancelling_during_the_submit_stops_it_once_accepted(
    start_gateway: StartGateway, fake: FakeOpenAI
) -> None:
    slow = SlowYes(fake)
    async with serve(slow) as url, start_gateway(providers={"up": provider(f"{url}/v1")}) as gateway:
        video = await gateway.create(model="up/sora-2")
        submit = asyncio.create_task(gateway.worker.run_once())
        await slow.reached.wait()
        await gateway.client.delete(f"/v1/videos/{video['id']}")
        slow.release.set()
        await submit
        gateway.clock.advance(20)
        await gateway.worker.run_once()
        assert [a.state for a in await gateway.attempts(video["id"])] == ["cancelled"]
    assert fake.jobs == {}


async def test_a_deleted_video_takes_its_files_and_rows_along(gateway: Running, fake: FakeOpenAI) -> None:
    video = await gateway.create(model="up/sora-2")
    await gateway.finish(video["id"])
    (key,) = await stored_keys(gateway, video["id"])
    assert await gateway.gateway.store.stat(key) == len(fake.file)
    await gateway.client.delete(f"/v1/videos/{video['id']}")
    assert (await gateway.client.get(f"/v1/videos/{video['id']}")).status_code == 404
    await gateway.worker.run_once()
    assert await gateway.gateway.store.stat(key) is None
    assert await gateway.attempts(video["id"]) == []


# Fetching the finished file


async def test_a_file_that_breaks_off_is_fetched_again(gateway: Running, fake: FakeOpenAI) -> None:
    half = fake.file[: len(fake.file) // 2]
    fake.script("content", BrokenOff(half, len(fake.file)), BrokenOff(b"", len(fake.file)), Answer(500), Reset())
    video = await gateway.create(model="up/sora-2")
    assert (await gateway.finish(video["id"]))["status"] == "completed"
    content = await gateway.client.get(f"/v1/videos/{video['id']}/content")
    assert content.content == fake.file


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Answer(404, {"error": {"message": "expired"}}), "output_gone"),
        (Answer(200, b""), "output_unavailable"),
        (Answer(200, "<html>not a film</html>"), "output_unavailable"),
    ],
)
async def test_a_file_that_never_comes_fails_the_job(
    gateway: Running, fake: FakeOpenAI, fault: Answer, code: str
) -> None:
    fake.script("content", *[fault] * 100)
    video = await gateway.create(model="up/sora-2")
    ended = await gateway.finish(video["id"], step_s=70)
    assert ended["error"]["code"] == code
    assert ended["output"] is None
    assert len(fake.submits) == 1


async def test_a_file_that_is_too_large_fails_the_job(
    start_gateway: StartGateway, fake: FakeOpenAI, upstream: str
) -> None:
    fake.file = bytes(2**20 + 1)
    async with start_gateway(providers={"up": provider(upstream)}, max_file_mb=1) as gateway:
        video = await gateway.create(model="up/sora-2")
        ended = await gateway.finish(video["id"])
    assert ended["error"]["code"] == "output_too_large"


async def test_a_redirected_file_comes_without_our_key(gateway: Running, fake: FakeOpenAI) -> None:
    elsewhere = Elsewhere()
    async with serve(elsewhere, host="127.0.0.2") as url:
        video = await gateway.create(model="up/sora-2")
        await gateway.worker.run_once()
        fake.elsewhere("video_1", f"{url}/film.mp4")
        assert (await gateway.finish(video["id"]))["status"] == "completed"
    assert ["authorization" in call.headers for call in elsewhere.calls] == [False]


async def test_a_file_redirected_to_a_private_address_is_not_fetched(
    start_gateway: StartGateway, fake: FakeOpenAI, upstream: str
) -> None:
    elsewhere = Elsewhere()
    async with (
        serve(elsewhere, host="127.0.0.2") as url,
        start_gateway(providers={"up": provider(upstream)}, allow_networks=[]) as gateway,
    ):
        video = await gateway.create(model="up/sora-2")
        await gateway.worker.run_once()
        fake.finish("video_1")
        fake.script("content", *[Answer(302, b"", {"location": f"{url}/film.mp4"})] * 100)
        ended = await gateway.finish(video["id"], step_s=70)
    assert ended["error"]["code"] == "output_unavailable"
    assert elsewhere.calls == []
    assert "127.0.0" not in ended["error"]["message"]


# What is pinned


async def test_polling_goes_on_when_the_alias_is_gone(
    start_gateway: StartGateway, fake: FakeOpenAI, upstream: str
) -> None:
    providers = {"up": provider(upstream)}
    async with start_gateway(providers=providers, models={"film": {"routes": ["up/sora-2"]}}) as gateway:
        video = await gateway.create(model="film")
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


# Many workers


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


async def test_expired_files_go_and_the_video_stays(gateway: Running, fake: FakeOpenAI) -> None:
    video = await gateway.create(model="up/sora-2", media_retention=3600)
    done = await gateway.finish(video["id"])
    assert done["expires_at"] == int(gateway.clock.now.timestamp()) + 3600
    (key,) = await stored_keys(gateway, video["id"])
    gateway.clock.advance(3601)
    assert (await gateway.client.get(f"/v1/videos/{video['id']}/content")).status_code == 404
    await gateway.worker.run_once()
    assert await gateway.gateway.store.stat(key) is None
    shown = await gateway.get(video["id"])
    assert (shown["status"], shown["output"], shown["expires_at"]) == ("completed", None, done["expires_at"])


# What a review found


async def test_a_second_answer_says_nothing_about_the_first_submit(
    start_gateway: StartGateway, fake: FakeOpenAI, upstream: str
) -> None:
    """The first submit may have been taken, so a refusal of the second is no reason to ask another provider."""
    other = FakeOpenAI()
    fake.script("submit", Answer(502, "<html>", accepted=True), Answer(429), fake.refusal(402, "top up"))
    async with serve(other) as url:
        providers = {"up": provider(upstream, idempotency="header"), "other": provider(f"{url}/v1")}
        models = {"film": {"routes": ["up/sora-2", "other/sora-2"]}}
        async with start_gateway(providers=providers, models=models) as gateway:
            video = await gateway.create(model="film")
            assert (await gateway.finish(video["id"]))["status"] == "completed"
    assert (len(fake.jobs), len(fake.submits), other.submits) == (1, 4, [])


async def test_a_rescue_ends_at_the_deadline(start_gateway: StartGateway, fake: FakeOpenAI, upstream: str) -> None:
    fake.script("submit", *[Answer(502, "<html>")] * 1_000)
    async with start_gateway(providers={"up": provider(upstream, idempotency="header")}) as gateway:
        video = await gateway.create(model="up/sora-2")
        ended = await gateway.finish(video["id"], step_s=60)
    assert ended["error"]["code"] == "upstream_outcome_unknown"
    assert len(fake.submits) < 100


async def test_a_submit_that_is_refused_after_the_cancel_is_cancelled(
    start_gateway: StartGateway, fake: FakeOpenAI
) -> None:
    slow = SlowYes(fake)
    fake.script("submit", Answer(429))
    async with serve(slow) as url, start_gateway(providers={"up": provider(f"{url}/v1")}) as gateway:
        video = await gateway.create(model="up/sora-2")
        submit = asyncio.create_task(gateway.worker.run_once())
        await slow.reached.wait()
        await gateway.client.delete(f"/v1/videos/{video['id']}")
        slow.release.set()
        await submit
        gateway.clock.advance(20)
        await gateway.worker.run_once()  # comes to an end
        assert [a.state for a in await gateway.attempts(video["id"])] == ["cancelled"]
    assert len(fake.submits) == 1


async def test_at_the_deadline_what_is_stored_counts(gateway: Running, fake: FakeOpenAI) -> None:
    fake.polls_until_done = 10_000
    video = await gateway.create(model="up/sora-2", n=2, media_retention=60)
    await gateway.worker.run_once()
    fake.finish("video_1")
    ended = await gateway.finish(video["id"], step_s=60)
    assert ended["status"] == "completed"
    assert ended["warnings"] == ["the other outputs were not finished in time"]
    content = await gateway.client.get(f"/v1/videos/{video['id']}/content")
    assert content.status_code == 404  # kept for a minute from when it was stored, and that was long ago


async def test_files_of_an_unfinished_video_are_not_purged(gateway: Running, fake: FakeOpenAI) -> None:
    fake.polls_until_done = 10_000
    video = await gateway.create(model="up/sora-2", n=2, media_retention=60)
    await gateway.worker.run_once()
    fake.finish("video_1")
    for _ in range(5):
        gateway.clock.advance(60)
        await gateway.worker.run_once()
    (key,) = await stored_keys(gateway, video["id"])
    assert await gateway.gateway.store.stat(key) == len(fake.file)


async def test_what_the_first_route_does_by_itself_is_not_asked_of_the_second(
    start_gateway: StartGateway, fake: FakeOpenAI, upstream: str
) -> None:
    models = {"film": {"routes": ["sandbox/reject", "up/sora-2"], "retry_failed": True}}
    async with start_gateway(providers={"up": provider(upstream)}, models=models) as gateway:
        video = await gateway.create(model="film")
        await gateway.finish(video["id"])
        asked = (await gateway.get(video["id"]))["seconds"]
        alone = await gateway.create(model="sandbox/testcard")
    assert (asked, alone["seconds"], alone["size"]) == ("4", "4", "1280x720")
    assert all("seconds" not in call.fields for call in fake.submits)


async def test_uploads_go_when_the_video_has_ended(gateway: Running) -> None:
    png = b"\x89PNG\r\n\x1a\n" + bytes(64)
    fields = {"prompt": "p", "model": "up/sora-2"}
    created = await gateway.client.post("/v1/videos", data=fields, files={"input_reference": ("a.png", png)})
    key = f"uploads/{created.json()['id']}/0"
    assert await gateway.gateway.store.stat(key) == len(png)
    assert (await gateway.finish(created.json()["id"]))["status"] == "completed"
    assert await gateway.gateway.store.stat(key) is None


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_file_that_a_killed_worker_stored_and_never_told_of_goes(
    gateway: Running, fake: FakeOpenAI, cancelled: bool
) -> None:
    video = await gateway.create(model="up/sora-2")
    fake.script("content", Answer(503))
    fake.polls_until_working = fake.polls_until_done = 0
    await gateway.worker.run_once()
    gateway.clock.advance(20)
    await gateway.worker.run_once()
    (attempt,) = await gateway.attempts(video["id"])
    assert attempt.state == "storing"
    left = f"videos/{video['id']}/{attempt.id}/0123456789.mp4"
    await gateway.gateway.store.put(left, pieces(fake.file), max_bytes=2**20)
    if cancelled:
        await gateway.client.delete(f"/v1/videos/{video['id']}")
    gateway.clock.advance(20)
    await gateway.worker.run_once()
    assert (await gateway.get(video["id"]))["status"] == ("failed" if cancelled else "completed")
    keys = await gateway.gateway.store.written_before("videos/", gateway.clock())
    assert keys == await stored_keys(gateway, video["id"])
    assert len(keys) == (0 if cancelled else 1)


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
    assert "up takes uploads of at most 20 MiB; send the picture's https:// address" in too_large["error"]["message"]
    assert len(fake.submits) == 1


async def test_uploads_that_nobody_needs_are_purged(gateway: Running, fake: FakeOpenAI) -> None:
    """Of a job that was cancelled, and of one that a killed server never wrote down; not those that wait to be sent."""
    fake.script("submit", *[Answer(429)] * 100)
    png = b"\x89PNG\r\n\x1a\n" + bytes(64)
    kept, cancelled = [
        (await gateway.client.post("/v1/videos", data=fields, files={"input_reference": ("a.png", png)})).json()["id"]
        for fields in [{"prompt": "p", "model": "up/sora-2"}] * 2
    ]
    lost, store = ids.new("video"), gateway.gateway.store
    await store.put(f"uploads/{lost}/0", pieces(png), max_bytes=100)
    await gateway.client.delete(f"/v1/videos/{cancelled}")
    for minutes, expected in ((59, {kept, cancelled, lost}), (2, {kept})):
        gateway.clock.advance(minutes * 60)
        await gateway.worker.purge()
        assert {video for video in (kept, cancelled, lost) if await store.stat(f"uploads/{video}/0")} == expected


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def test_each_round_of_refusals_waits_longer(
    start_gateway: StartGateway, fake: FakeOpenAI, upstream: str
) -> None:
    fake.script("submit", *[Answer(429)] * 1_000)
    models = {"film": {"routes": ["up/sora-2", "up/sora-2-pro"]}}
    async with start_gateway(providers={"up": provider(upstream)}, models=models) as gateway:
        video = await gateway.create(model="film")
        for _ in range(60):
            await gateway.worker.run_once()
            gateway.clock.advance(5)
        assert len(await gateway.attempts(video["id"])) < 25


async def test_what_cannot_be_sent_at_once_stays_pending(
    start_gateway: StartGateway, fake: FakeOpenAI, upstream: str
) -> None:
    """What a killed worker had taken to be sent is lost, sent or not."""
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


async def stored_keys(gateway: Running, video_id: str) -> list[str]:
    video = await videos.get_video(gateway.gateway.db, video_id, project_id=None)
    return [output["key"] for output in video.outputs]
