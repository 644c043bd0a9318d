"""Upstreams that never come to an end: every call, head, body, step and upload has one, and so has every job."""

import asyncio
from typing import Any

import pytest
from fakes.openai import FakeOpenAI
from fakes.server import Drip, DripHead, Fault, Hang
from fakes.wire import Wire, deaf, wire
from harness import Running, StartGateway
from jobs.upstream import provider
from processes import until

from app.db.models import Attempt
from app.jobs.claim import Slots, claim_attempts
from app.jobs.context import StepContext
from app.jobs.executor import Executor
from app.providers.base import Task
from app.providers.sandbox import Sandbox
from app.video import Progress, Submission

pytestmark = pytest.mark.anyio

ENDLESS: dict[str, Fault] = {"head": DripHead(), "interim answers": DripHead(interim=True), "body": Drip()}
QUICK = {"timeout_s": 0.3, "file_timeout_s": 0.3, "connections": 2}
PICTURE = ("boat.png", b"\x89PNG\r\n\x1a\n" + bytes(16 * 2**20), "image/png")


@pytest.mark.parametrize("fault", ENDLESS.values(), ids=ENDLESS)
async def test_a_submit_without_an_end_is_given_up(
    start_gateway: StartGateway, fake: FakeOpenAI, upstream: str, fault: Fault
) -> None:
    fake.script("submit", fault)
    async with start_gateway(providers={"up": provider(upstream, **QUICK)}) as gateway:
        video = await gateway.create(model="up/sora-2")
        ended = await gateway.finish(video["id"])
    assert ended["error"]["code"] == "upstream_outcome_unknown"
    assert len(fake.submits) == 1


@pytest.mark.parametrize("fault", ENDLESS.values(), ids=ENDLESS)
async def test_polls_and_files_without_an_end_stop_no_other_job(
    start_gateway: StartGateway, fake: FakeOpenAI, upstream: str, fault: Fault
) -> None:
    """More of them than there are connections, again and again."""
    fake.script("poll", *[fault] * 8)
    fake.script("content", *[fault] * 8)
    async with start_gateway(providers={"up": provider(upstream, **QUICK)}) as gateway:
        videos = [await gateway.create(model="up/sora-2") for _ in range(4)]
        ended = [await gateway.finish(video["id"]) for video in videos]
    assert [video["status"] for video in ended] == ["completed"] * 4
    assert not any(fake._script.values()), "all have been played"


async def test_submits_go_out_while_slow_polls_hold_all_other_connections(
    start_gateway: StartGateway, fake: FakeOpenAI, upstream: str
) -> None:
    hangs = [Hang() for _ in range(4)]
    async with start_gateway(providers={"up": provider(upstream, connections=2)}) as gateway:
        for _ in range(4):
            await gateway.create(model="up/sora-2")
        await gateway.worker.run_once()
        fake.script("poll", *hangs)
        gateway.clock.advance(20)
        polling = asyncio.create_task(gateway.worker.run_once())
        await asyncio.gather(*(hang.reached.wait() for hang in hangs[:2]))
        late = await gateway.create(model="up/sora-2")

        async def all_sent() -> bool | None:
            await gateway.worker._claim_and_start()
            return True if len(fake.submits) == 5 else None

        await until(all_sent)
        assert [attempt.state for attempt in await gateway.attempts(late["id"])] in (["submitting"], ["running"])
        for hang in hangs:
            hang.release.set()
        await polling


async def test_an_upload_that_the_upstream_does_not_read_is_postponed_and_not_lost(
    start_gateway: StartGateway,
) -> None:
    async with wire(deaf) as found, start_gateway(providers={"up": provider(f"{found.url}/v1", **QUICK)}) as gateway:
        fields = {"prompt": "a paper boat", "model": "up/sora-2"}
        response = await gateway.client.post("/v1/videos", data=fields, files={"input_reference": PICTURE})
        await gateway.worker.run_once()
        (attempt,) = await gateway.attempts(response.json()["id"])
        assert (attempt.state, attempt.lease, attempt.submits) == ("pending", None, 1)
        assert attempt.error_message is not None
        assert "did not take the whole request" in attempt.error_message


@pytest.mark.parametrize("stopped_by", ["client", "worker"])
async def test_a_submit_that_is_stopped_during_its_upload_is_not_sent(
    start_gateway: StartGateway, stopped_by: str
) -> None:
    reached, release = asyncio.Event(), asyncio.Event()

    async def late(found: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.set()
        await release.wait()
        await found.request(reader)

    async with wire(late) as found, start_gateway(providers={"up": provider(f"{found.url}/v1")}) as gateway:
        fields = {"prompt": "a paper boat", "model": "up/sora-2"}
        created = await gateway.client.post("/v1/videos", data=fields, files={"input_reference": PICTURE})
        video_id = created.json()["id"]
        working = asyncio.create_task(gateway.worker.run())
        await reached.wait()
        (attempt,) = await gateway.attempts(video_id)
        assert (attempt.state, attempt.lease is None) == ("pending", False)
        if stopped_by == "client":
            await gateway.client.delete(f"/v1/videos/{video_id}")
            release.set()
            await found.closed()
        gateway.worker.stop()
        await working
        release.set()
        (attempt,) = await gateway.attempts(video_id)
        expected = ("cancelled", 0) if stopped_by == "client" else ("pending", 0)
        assert (attempt.state, attempt.submits, attempt.lease) == (*expected, None)
        assert found.requests == []


async def test_an_overdue_job_fails_though_its_provider_has_no_free_slot(
    start_gateway: StartGateway, fake: FakeOpenAI, upstream: str
) -> None:
    fake.polls_until_done = 10_000
    async with start_gateway(providers={"up": provider(upstream, concurrency=1)}, job_deadline_s=60) as gateway:
        await gateway.create(model="up/sora-2")
        await gateway.worker.run_once()
        gateway.clock.advance(30)
        waiting = await gateway.create(model="up/sora-2")
        hang = Hang()
        fake.script("poll", hang)
        polling = asyncio.create_task(gateway.worker.run_once())
        await hang.reached.wait()  # the only slot stays taken
        gateway.clock.advance(61)
        await gateway.worker._claim_and_start()

        async def failed() -> dict[str, Any] | None:
            video = await gateway.get(waiting["id"])
            return video if video["status"] == "failed" else None

        video = await until(failed)
        assert video["error"]["code"] == "deadline_exceeded"
        assert len(fake.submits) == 1
        hang.release.set()
        await polling


class Stuck(Sandbox):
    """An adapter that never comes back, and does not even end when it is cancelled."""

    def __init__(self, stuck_in: str) -> None:
        super().__init__("sandbox", Sandbox.Config(timeout_s=0.01))
        self.stuck_in = stuck_in
        self.released = asyncio.Event()

    async def submit(self, task: Task) -> Submission:
        if self.stuck_in == "submit, sent":
            await task.begin()
        if self.stuck_in.startswith("submit"):
            await self._hold()
        return await super().submit(task)

    async def poll(self, task: Task) -> Progress:
        await self._hold()
        return await super().poll(task)

    async def _hold(self) -> None:
        while not self.released.is_set():
            try:
                await self.released.wait()
            except asyncio.CancelledError:
                continue


async def stepped(gateway: Running, stuck: Stuck) -> None:
    """Claim what is due, and run one step of it with this adapter."""
    parts = gateway.gateway
    context = StepContext(
        db=parts.db,
        settings=parts.settings,
        providers={"sandbox": stuck},
        store=parts.store,
        links=parts.links,
        clock=gateway.clock,
        wake=lambda: None,
        margin_s=0.01,
    )
    async with parts.db.reading() as connection:
        slots = Slots(submits=1, polls=1, stores=1)
        options: dict[str, Any] = {"limits": {}, "free_connections": {}, "shares": {}, "held": []}
        options |= {"lease_s": 60, "now": gateway.clock()}
        claims = await claim_attempts(connection, slots, **options)
    await Executor(context).run(claims)


@pytest.mark.parametrize(
    ("stuck_in", "state", "code"),
    [
        ("submit", "pending", "deadline_exceeded"),
        ("submit, sent", "lost", "upstream_outcome_unknown"),
        ("poll", "running", "deadline_exceeded"),
    ],
)
async def test_the_deadline_fires_whatever_an_adapter_does(
    start_gateway: StartGateway, stuck_in: str, state: str, code: str
) -> None:
    stuck = Stuck(stuck_in)
    async with start_gateway(job_deadline_s=1) as gateway:
        video = await gateway.create(model="sandbox/testcard")
        if stuck_in == "poll":
            await gateway.worker.run_once()
            gateway.clock.advance(0.5)
        await stepped(gateway, stuck)
        attempts: list[Attempt] = await gateway.attempts(video["id"])
        assert [attempt.state for attempt in attempts] == [state]
        gateway.clock.advance(2)
        await gateway.worker.run_once()
        ended = await gateway.get(video["id"])
        stuck.released.set()
    assert (ended["status"], ended["error"]["code"]) == ("failed", code)
