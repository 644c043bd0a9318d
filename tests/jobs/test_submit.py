"""Submits with an unknown outcome: nothing is paid for twice unless the operator chose so."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import psycopg
import pytest
from fakes.openai import FakeOpenAI
from fakes.server import Answer, Hang, Reset, SlowYes, serve
from fakes.wire import Wire, wire
from harness import Running, StartGateway, another_worker
from jobs.upstream import provider
from processes import until

pytestmark = pytest.mark.anyio


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
async def test_an_unknown_outcome_is_submitted_again_where_the_upstream_knows_the_key(
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
    models = {"clip": {"routes": ["up/sora-2"], "on_unknown": "resubmit"}}
    async with start_gateway(providers={"up": provider(upstream)}, models=models) as gateway:
        video = await gateway.create(model="clip")
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
    hang.release.set()  # a 504: the outcome is still unknown
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


async def test_a_second_answer_says_nothing_about_the_first_submit(
    start_gateway: StartGateway, fake: FakeOpenAI, upstream: str
) -> None:
    """The first submit may have been taken, so a refusal of the second is no reason to ask another provider."""
    other = FakeOpenAI()
    fake.script("submit", Answer(502, "<html>", accepted=True), Answer(429), fake.refusal(402, "top up"))
    async with serve(other) as url:
        providers = {"up": provider(upstream, idempotency="header"), "other": provider(f"{url}/v1")}
        models = {"clip": {"routes": ["up/sora-2", "other/sora-2"]}}
        async with start_gateway(providers=providers, models=models) as gateway:
            video = await gateway.create(model="clip")
            assert (await gateway.finish(video["id"]))["status"] == "completed"
    assert (len(fake.jobs), len(fake.submits), other.submits) == (1, 4, [])


HOLD = """
create function hold() returns trigger language plpgsql as $$ begin
  perform pg_advisory_xact_lock(4711);
  return new;
end $$;
create trigger hold before update on attempts for each row when (new.state = 'submitting') execute function hold()
"""


@asynccontextmanager
async def record_delayed(database_url: str) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """The write before the first byte has to wait until the block ends; yields a function that waits until it does."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute(HOLD.encode())
        await connection.execute(b"select pg_advisory_lock(4711)")

        async def look() -> bool | None:
            waiting = b"select 1 from pg_locks where locktype = 'advisory' and objid = 4711 and not granted"
            return True if await (await connection.execute(waiting)).fetchone() else None

        try:
            yield partial(until, look)
        finally:
            await connection.execute(b"select pg_advisory_unlock(4711)")
            await connection.execute(b"drop function hold cascade")


EARLY = {
    "accepted": (200, "OK", '{"id": "video_1", "status": "queued"}', "running"),
    "busy": (429, "Too Many Requests", '{"error": {"message": "busy"}}', "pending"),
    "refused": (400, "Bad Request", '{"error": {"message": "no"}}', "failed"),
    "failed": (500, "Internal Server Error", "boom", "pending"),
}


@pytest.mark.parametrize(("status", "reason", "body", "state"), EARLY.values(), ids=EARLY)
async def test_an_answer_that_comes_before_the_record_is_written(
    start_gateway: StartGateway, database_url: str, status: int, reason: str, body: str, state: str
) -> None:
    """Some servers answer before they have read the body; this was no submit, unless they accepted it."""

    async def hasty(found: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status} {reason}\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
        await reader.read()

    async with wire(hasty) as found, start_gateway(providers={"up": provider(f"{found.url}/v1")}) as gateway:
        video = await gateway.create(model="up/sora-2", prompt="long " * 2_000)
        async with record_delayed(database_url) as delayed:
            working = asyncio.create_task(gateway.worker.run_once())
            await delayed()
            await asyncio.wait({working}, timeout=0.3)  # for the answer
        await working
        (attempt,) = await gateway.attempts(video["id"])
        assert (attempt.state, attempt.lease) == (state, None)
        assert found.connections == 1


async def test_a_connection_that_is_closed_while_the_record_is_written_was_not_used(
    start_gateway: StartGateway, database_url: str
) -> None:
    closing = asyncio.Event()

    async def answering_once(found: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await found.request(reader)
        body = b'{"id": "video_1", "status": "queued"}'
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        await closing.wait()

    async with wire(answering_once) as found, start_gateway(providers={"up": provider(f"{found.url}/v1")}) as gateway:
        await gateway.create(model="up/sora-2")
        await gateway.worker.run_once()
        second = await gateway.create(model="up/sora-2")
        async with record_delayed(database_url) as delayed:
            working = asyncio.create_task(gateway.worker.run_once())
            await delayed()
            closing.set()
            await found.closed()
        await working
        (attempt,) = await gateway.attempts(second["id"])
        assert (attempt.state, attempt.lease, len(found.requests)) == ("pending", None, 1)


async def test_jobs_that_were_refused_once_go_to_the_new_address_of_a_provider(
    start_gateway: StartGateway, fake: FakeOpenAI, upstream: str
) -> None:
    fake.script("submit", Answer(429))
    async with start_gateway(providers={"up": provider(upstream)}) as gateway:
        video = await gateway.create(model="up/sora-2")
        await gateway.worker.run_once()
        assert [attempt.base_url for attempt in await gateway.attempts(video["id"])] == [upstream]
    async with serve(fake) as url, start_gateway(providers={"up": provider(f"{url}/v1")}) as gateway:
        assert (await gateway.finish(video["id"]))["status"] == "completed"
