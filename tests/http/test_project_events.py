"""The event stream of a project, and of all projects: what is sent, how often, and after an interruption."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from fakes.openai import FakeOpenAI
from fakes.server import KEY, serve
from harness import ALICE, BOB, Running, StartGateway
from money import ADMIN, operator_of
from processes import until
from refusals import refused
from streams import COPIES, Stream, following

from app.db.changes import MAX_PENDING, Changes
from app.http.stream import MAX_MISSED, MAX_SHOWN_RUNNING

pytestmark = pytest.mark.anyio

LISTENER = "datname = current_database() and application_name = 'video-gateway listener'"

Open = Callable[..., Any]


@pytest.fixture
async def fake() -> FakeOpenAI:
    return FakeOpenAI(polls_until_working=0, polls_until_done=10_000)


@pytest.fixture
async def gateway(start_gateway: StartGateway, fake: FakeOpenAI) -> AsyncIterator[Running]:
    async with serve(fake) as url:
        up = {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY, "poll_interval_s": 0.5}
        async with start_gateway(providers={"up": up}, admin_key=ADMIN) as running:
            await current(running)
            yield running


async def current(gateway: Running) -> None:
    """Wait until the gateway receives its heartbeat."""

    async def look() -> bool | None:
        return gateway.gateway.listener.is_current or None

    await until(look)


@asynccontextmanager
async def opened(gateway: Running, path: str = "/v1/events", **options: Any) -> AsyncIterator[Stream]:
    async with serve(gateway.app) as url, following(url, path, **options) as stream:
        yield stream


async def step(gateway: Running, seconds: float = 20) -> None:
    gateway.clock.advance(seconds)
    await gateway.worker.run_once()


async def move(gateway: Running, fake: FakeOpenAI, progress: int, seconds: float = 20) -> None:
    """Let the upstream report this progress of all tasks."""
    for job in fake.jobs.values():
        job.raw["progress"] = progress
    await step(gateway, seconds)


async def execute(gateway: Running, statement: Any, **values: Any) -> None:
    async with gateway.gateway.db.transaction() as session:
        await session.execute(statement if isinstance(statement, sa.TextClause) else sa.text(statement), values)


async def running(gateway: Running, **fields: Any) -> str:
    """A video that is in progress."""
    video = await gateway.create(model="up/sora-2", **fields)
    await gateway.worker.run_once()
    await step(gateway)
    assert (await gateway.get(video["id"]))["status"] == "in_progress"
    return str(video["id"])


def micros(gateway: Running) -> str:
    return str(int(gateway.clock().timestamp() * 1_000_000))


async def test_one_stream_tells_all_of_a_video_and_another_project_nothing(gateway: Running, fake: FakeOpenAI) -> None:
    async with opened(gateway) as stream, opened(gateway, key=BOB) as other:
        video = await gateway.create(model="up/sora-2")
        first = await stream.has("video.status", video["id"], status="queued")
        assert (first.mark, first.data) == (micros(gateway), video)
        await gateway.worker.run_once()
        await step(gateway)
        await stream.has("video.status", video["id"], status="in_progress")
        await move(gateway, fake, 66)
        moved = await stream.has("video.progress", video["id"], progress=66)
        assert (moved.mark, moved.data) == (micros(gateway), await gateway.get(video["id"]))
        fake.finish("video_1")
        await step(gateway)
        done = await stream.has("video.status", video["id"], status="completed")
        assert done.data.keys() == (await gateway.get(video["id"])).keys()
        gateway.clock.advance(1)
        await gateway.client.delete(f"/v1/videos/{video['id']}")
        gone = await stream.has("video.deleted", video["id"])
        assert (gone.mark, gone.data) == (micros(gateway), {"id": video["id"]})
        his = (await gateway.bob.post("/v1/videos", json={"prompt": "x", "model": "up/sora-2"})).json()
        await other.has("video.status", his["id"])
        assert {event.data["id"] for event in other.events} == {his["id"]}
        assert {event.data["id"] for event in stream.events} == {video["id"]}


async def test_nine_running_videos_move_on_one_stream(gateway: Running, fake: FakeOpenAI) -> None:
    async with opened(gateway) as stream:
        nine = [await running(gateway) for _ in range(9)]
        await move(gateway, fake, 41)
        for video_id in nine:
            await stream.has("video.progress", video_id, progress=41)
        for ref in fake.jobs:
            fake.finish(ref)
        await step(gateway)
        for video_id in nine:
            await stream.has("video.status", video_id, status="completed")


async def test_progress_of_a_video_comes_every_five_seconds_at_most(gateway: Running, fake: FakeOpenAI) -> None:
    video_id = await running(gateway)
    async with opened(gateway) as stream:
        await move(gateway, fake, 60)
        await stream.has("video.progress", video_id, progress=60)
        await move(gateway, fake, 70, seconds=4.5)
        assert (await gateway.get(video_id))["progress"] == 70
        other = await gateway.create(model="up/sora-2")
        await stream.has("video.status", other["id"])
        assert stream.named(video_id) == ["video.progress"]
        gateway.clock.advance(0.6)
        await gateway.create(model="up/sora-2")
        await stream.has("video.progress", video_id, progress=70)
        assert stream.named(video_id) == ["video.progress"] * 2


async def test_above_two_hundred_running_videos_are_counted(gateway: Running, fake: FakeOpenAI) -> None:
    video_id = await running(gateway)
    copies = MAX_SHOWN_RUNNING
    await execute(gateway, COPIES, id=video_id, copies=copies)
    async with opened(gateway) as stream, opened(gateway, key=BOB) as other:
        await move(gateway, fake, 60)
        counts = await stream.has("video.counts")
        assert counts.data == {"queued": 0, "in_progress": copies + 1}
        await move(gateway, fake, 70, seconds=4.5)
        new = await gateway.create(model="up/sora-2")
        await stream.has("video.status", new["id"])
        assert stream.named().count("video.counts") == 1
        gateway.clock.advance(0.6)
        await gateway.create(model="up/sora-2")
        await stream.until(lambda stream: stream.named().count("video.counts") == 2)
        assert "video.progress" not in stream.named()
        await execute(gateway, "update videos set deleted_at = now() where id like 'video_0000%'")
        await move(gateway, fake, 90)
        await stream.has("video.progress", video_id, progress=90)
        assert other.events == []


async def test_a_client_that_was_away_gets_what_it_missed(gateway: Running, fake: FakeOpenAI) -> None:
    deleted, moved, done = [await running(gateway) for _ in range(3)]
    fake.finish("video_1")
    await step(gateway)
    async with opened(gateway) as stream:
        mark = stream.mark
    gateway.clock.advance(60)
    await gateway.client.delete(f"/v1/videos/{deleted}")
    await gateway.worker.purge()
    fake.finish("video_3")
    fake.jobs["video_2"].raw["progress"] = 77
    await step(gateway)
    new = await gateway.create(model="up/sora-2")
    for path, headers in (("/v1/events", {"last-event-id": mark}), (f"/v1/events?last_event_id={mark}", {})):
        async with opened(gateway, path, **headers) as stream:
            await stream.has("video.deleted", deleted)
            await stream.has("video.status", moved, progress=77)
            await stream.has("video.status", done, status="completed")
            await stream.has("video.status", new["id"], status="queued")
            assert "reset" not in stream.named()
            marks = [int(event.mark) for event in stream.events]
            assert marks == sorted(marks), "a client that is cut off in between goes on without a gap"
    gateway.clock.advance(30)
    async with opened(gateway, **{"last-event-id": micros(gateway)}) as stream:
        last = await gateway.create(model="up/sora-2")
        await stream.has("video.status", last["id"])
        assert stream.named() == ["video.status"]
    async with opened(gateway, key=BOB, **{"last-event-id": mark}) as other:
        await gateway.bob.post("/v1/videos", json={"prompt": "x", "model": "up/sora-2"})
        await other.has("video.status")
        assert len(other.events) == 1


async def test_changes_that_were_committed_late_are_not_left_out(gateway: Running) -> None:
    """The commit of a change comes after that of a later one, whose event the client has."""
    video_id = await running(gateway)
    gateway.clock.advance(9)
    async with opened(gateway, **{"last-event-id": micros(gateway)}) as stream:
        await stream.has("video.status", video_id)


async def test_a_client_that_was_away_too_long_has_to_read_its_list(gateway: Running) -> None:
    video_id = await running(gateway)
    mark = micros(gateway)
    gateway.clock.advance(3_601)
    async with opened(gateway, **{"last-event-id": mark}) as stream:
        reset = await stream.has("reset")
        assert (reset.mark, reset.data) == (micros(gateway), {})
        await gateway.client.delete(f"/v1/videos/{video_id}")
        await stream.has("video.status", video_id)
        assert stream.named() == ["reset", "video.status"]


async def test_more_changes_than_are_sent_make_the_client_read_its_list(gateway: Running) -> None:
    video_id = await running(gateway)
    await execute(gateway, COPIES, id=video_id, copies=MAX_MISSED - 1)
    async with opened(gateway, **{"last-event-id": micros(gateway)}) as stream:
        await stream.until(lambda stream: len(stream.events) == MAX_MISSED)
        assert set(stream.named()) == {"video.status"}
    await execute(gateway, sa.text(COPIES.text.replace("lpad(", "'x' || lpad(")), id=video_id, copies=1)
    async with opened(gateway, **{"last-event-id": micros(gateway)}) as stream:
        await stream.has("reset")
        assert stream.named() == ["reset"]


async def test_too_many_changes_at_once_make_the_client_read_its_list(gateway: Running) -> None:
    video_id = await running(gateway)
    await execute(gateway, COPIES, id=video_id, copies=MAX_PENDING + 1)
    async with opened(gateway) as stream:
        await execute(gateway, "update videos set deleted_at = now() where id like 'video_0000%'")
        await stream.has("reset")
        gateway.clock.advance(1)
        await gateway.client.delete(f"/v1/videos/{video_id}")
        await stream.has("video.status", video_id, status="failed")


def test_a_slow_reader_costs_a_bounded_number_of_ids() -> None:
    changes = Changes()
    for number in range(3 * MAX_PENDING):
        changes.add(f"video_{number}", only_progress=True)
    assert not changes.too_many
    changes.add("video_new", only_progress=False)
    changes.add("video_new", only_progress=True)
    assert changes.take() == (["video_new"], [])
    of_status = Changes()
    for number in range(3 * MAX_PENDING):
        of_status.add(f"video_{number}", only_progress=False)
    assert of_status.too_many
    assert len(of_status.take()[0]) <= MAX_PENDING


@pytest.mark.parametrize("given", ["soon", "-1", "1.5", "1" * 18, "queued.0", "１２"])
@pytest.mark.parametrize("path", ["/v1/events", "/openai/v1/events", "/admin/v1/events"])
async def test_an_id_that_is_no_number_is_refused(gateway: Running, path: str, given: str) -> None:
    async with operator_of(gateway) as operator:
        client = operator.client if path.startswith("/admin") else gateway.client
        answers = [await client.get(path, params={"last_event_id": given})]
        if given.isascii():
            answers.append(await client.get(path, headers={"last-event-id": given}))
    for answer in answers:
        refused(answer, "last_event_id", 400)


async def test_an_id_of_the_future_makes_the_client_read_its_list(gateway: Running) -> None:
    """The clock was set back: what has changed since is not known."""
    async with opened(gateway, **{"last-event-id": "9" * 17}) as stream:
        assert (await stream.has("reset")).mark == micros(gateway)
    nearly = micros(gateway)
    gateway.clock.advance(-1)  # the clocks of two processes differ a little
    async with opened(gateway, **{"last-event-id": nearly}) as stream:
        assert stream.mark == micros(gateway)
        new = await gateway.create(model="up/sora-2")
        await stream.has("video.status", new["id"])
        assert "reset" not in stream.named()


async def test_counts_go_on_after_the_clock_was_set_back(gateway: Running, fake: FakeOpenAI) -> None:
    video_id = await running(gateway)
    await execute(gateway, COPIES, id=video_id, copies=MAX_SHOWN_RUNNING)
    async with opened(gateway) as stream:
        await move(gateway, fake, 60)
        await stream.has("video.counts")
        gateway.clock.advance(-3_600)
        await execute(gateway, "update videos set progress = 70 where id = :id", id=video_id)
        await stream.until(lambda stream: stream.named().count("video.counts") == 2)


SLOWLY = 400
"""Changes that a slow client does not take at once: each has 100 KB."""


@asynccontextmanager
async def taken_slowly(gateway: Running, key: str = ALICE) -> AsyncIterator[AsyncIterator[str]]:
    """The events of a client that was away, which reads the first only, and then one after the other."""
    at = gateway.clock()
    await execute(
        gateway,
        "update videos set request = jsonb_set(request, '{prompt}', to_jsonb(repeat('x', 100000))), "
        "updated_at = cast(:at as timestamptz) - interval '1 s' + right(id, 6)::int * interval '1 ms' "
        "where id like 'video_0000%'",
        at=at,
    )
    headers = {"authorization": f"Bearer {key}", "last-event-id": str(int((at.timestamp() - 2) * 1_000_000))}
    async with (
        serve(gateway.app) as url,
        httpx.AsyncClient(headers=headers, timeout=30, trust_env=False) as client,
        client.stream("GET", f"{url}/v1/events") as response,
    ):
        yield events_of(response)


async def events_of(response: httpx.Response) -> AsyncIterator[str]:
    text = ""
    async for piece in response.aiter_text():
        *events, text = (text + piece).split("\n\n")
        for event in events:
            if "\ndata: " in event:
                yield event


async def test_no_id_is_later_than_a_change_that_is_sent_after_it(gateway: Running) -> None:
    """A client that is cut off in between goes on from there."""
    video_id = await running(gateway)
    await execute(gateway, COPIES, id=video_id, copies=SLOWLY)
    async with taken_slowly(gateway) as events:
        got = [await anext(events)]
        change = "update videos set progress = 77, updated_at = :now where id like 'video_0000%0'"
        await execute(gateway, change, now=gateway.clock())
        while len(got) < SLOWLY:
            got.append(await anext(events))
    assert any('"progress": 77' in event for event in got), "some were read after their change"
    marks = [int(re.findall(r"^id: (\d+)$", event, re.MULTILINE)[0]) for event in got]
    assert marks == sorted(marks)


async def test_a_slow_client_gets_nothing_that_is_read_after_its_key_was_revoked(gateway: Running) -> None:
    async with operator_of(gateway) as operator:
        key = await operator.key()
        made = await operator.user(key).post("/v1/videos", json={"prompt": "x", "model": "up/sora-2"})
        await execute(gateway, COPIES, id=made.json()["id"], copies=SLOWLY)
        async with taken_slowly(gateway, key["key"]) as events:
            got = [await anext(events)]
            await operator.ask("DELETE", f"keys/{key['id']}")
            got += [event async for event in events]
        await execute(gateway, "update videos set settlement = 'refunded' where id like 'video_0000%'")
        await execute(gateway, "delete from videos where id like 'video_0000%'")  # the ledger does not know them
    assert len(got) < SLOWLY


async def test_late_heartbeats_cost_one_query_a_second_however_many_notices_come(gateway: Running) -> None:
    statements: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    db, loop = gateway.gateway.db, asyncio.get_running_loop()
    size = gateway.gateway.settings.database_pool_size
    async with opened(gateway, "/admin/v1/events", key=None, authorization=f"Bearer {ADMIN}") as stream:
        async with db.transaction() as session:
            await session.execute(sa.text("select pg_advisory_xact_lock(4711)"))
            wait = b"select pg_advisory_xact_lock_shared(4711)"
            held = [asyncio.create_task(db.one(wait, {})) for _ in range(size)]  # all that a heartbeat could be sent by

            async def late() -> bool | None:
                return not gateway.gateway.listener.is_current or None

            await until(late)
            sa.event.listen(db.engine.sync_engine, "before_cursor_execute", note)
            started = loop.time()
            for number in range(20):
                notice = f"select pg_notify('gateway_projects', 'project/video_{number}')"
                await execute(gateway, notice)
                await stream.has("video.deleted", f"video_{number}")
            sa.event.remove(db.engine.sync_engine, "before_cursor_execute", note)
            assert sum("UNION ALL" in statement for statement in statements) <= loop.time() - started + 1
        await asyncio.gather(*held)


async def test_the_stream_ends_with_its_key(gateway: Running) -> None:
    soon = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    async with operator_of(gateway) as operator:
        revoked, expiring = await operator.key(), await operator.key(expires_at=soon.isoformat())
        async with opened(gateway, key=revoked["key"]) as stream, opened(gateway, key=expiring["key"]) as other:
            await operator.ask("DELETE", f"keys/{revoked['id']}")
            await stream.end()
            assert not other.ended
            gateway.clock.advance(3_601)
            await operator.key()  # every change of a key wakes all streams
            await other.end()
    assert (await gateway.client.get("/v1/videos")).status_code == 200
    assert gateway.gateway.listener.waiters == 0


async def test_a_stream_ends_when_the_server_stops(gateway: Running) -> None:
    async with opened(gateway) as stream:
        gateway.gateway.listener.close()
        await stream.end()


async def test_a_stream_takes_the_place_of_a_waiting_request(start_gateway: StartGateway) -> None:
    async with start_gateway(max_waiting=1, admin_key=ADMIN) as gateway, operator_of(gateway) as operator:
        admin = {"key": None, "authorization": f"Bearer {ADMIN}"}
        async with opened(gateway), opened(gateway, "/admin/v1/events", **admin):
            for answer in (await gateway.client.get("/v1/events"), await operator.client.get("/admin/v1/events")):
                refused(answer, None, 429)
                assert answer.json()["error"]["code"] == "too_many_waiting"

        async def free() -> bool | None:
            return gateway.gateway.listener.waiters == 0 or None

        await until(free)
        async with opened(gateway):
            pass


async def test_a_lost_connection_of_the_listener_loses_no_event(gateway: Running) -> None:
    async with opened(gateway) as stream:
        await execute(gateway, f"select pg_terminate_backend(pid) from pg_stat_activity where {LISTENER}")
        for _ in range(3):
            video = await gateway.create(model="up/sora-2")
            await stream.has("video.status", video["id"], status="queued")


async def test_without_notices_changes_are_read_every_second(
    start_gateway: StartGateway, fake: FakeOpenAI, postgres: str
) -> None:
    """Notices belong to a database; those of another one never come, as behind a pooler."""
    async with serve(fake) as url:
        up = {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY, "poll_interval_s": 0.5}
        async with (
            start_gateway(providers={"up": up}, database_listen_url=postgres) as gateway,
            opened(gateway) as stream,
            opened(gateway, key=BOB) as other,
        ):
            video_id = await running(gateway)
            await stream.has("video.status", video_id, status="in_progress")
            await move(gateway, fake, 55)
            await stream.has("video.progress", video_id, progress=55)
            fake.finish("video_1")
            await step(gateway)
            await stream.has("video.status", video_id, status="completed")
            await gateway.client.delete(f"/v1/videos/{video_id}")
            await stream.has("video.deleted", video_id)
            assert stream.named(video_id).count("video.deleted") == 1
            assert other.events == []


async def test_an_admin_follows_all_projects_without_their_texts(gateway: Running) -> None:
    async with opened(gateway, "/admin/v1/events", key=None, authorization=f"Bearer {ADMIN}") as stream:
        hers = await gateway.create(model="up/sora-2", prompt="a secret of Alice", metadata={"a": "secret"})
        his = (await gateway.bob.post("/v1/videos", json={"prompt": "a secret of Bob", "model": "up/sora-2"})).json()
        events = [await stream.has("video.status", video["id"], status="queued") for video in (hers, his)]
        assert len({event.data["project"] for event in events}) == 2
        assert "secret" not in str([event.data for event in stream.events])
        async with operator_of(gateway) as operator:
            details = await operator.ask("GET", f"videos/{hers['id']}")
        assert events[0].data.items() - {("object", "video")} <= {
            (name, value) for name, value in details.items() if not isinstance(value, dict | list)
        }
    for headers, status in (({}, 401), ({"authorization": f"Bearer {ALICE}"}, 401)):
        assert (await gateway.client.get("/admin/v1/events", headers=headers)).status_code == status


async def test_a_hundred_streams_cost_no_query_while_nothing_changes(gateway: Running) -> None:
    statements: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    async with serve(gateway.app) as url, asyncio.TaskGroup() as group:
        done = asyncio.Event()

        async def follow() -> None:
            async with following(url):
                await done.wait()

        for _ in range(100):
            group.create_task(follow())

        async def all_open() -> bool | None:
            return gateway.gateway.listener.waiters == 100 or None

        await until(all_open)
        await current(gateway)
        sa.event.listen(gateway.gateway.db.engine.sync_engine, "before_cursor_execute", note)

        async def quiet() -> bool | None:
            statements.clear()
            for _ in range(20):  # heartbeats go on meanwhile; one that is late on a busy machine costs a read by time
                await gateway.gateway.db.notify("gateway_heartbeat_of_the_test", "x")
            return statements == [] or None

        await until(quiet)
        video = await gateway.create(model="up/sora-2")
        sa.event.remove(gateway.gateway.db.engine.sync_engine, "before_cursor_execute", note)
        done.set()
    assert video["status"] == "queued"


async def test_a_change_is_read_once_for_all_streams(gateway: Running) -> None:
    statements: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    async with serve(gateway.app) as url, AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(following(url)) for _ in range(40)]
        await current(gateway)
        sa.event.listen(gateway.gateway.db.engine.sync_engine, "before_cursor_execute", note)
        video = await gateway.create(model="up/sora-2")
        for stream in streams:
            assert (await stream.has("video.status", video["id"])).data == video
        sa.event.remove(gateway.gateway.db.engine.sync_engine, "before_cursor_execute", note)
    assert len([statement for statement in statements if "FROM videos" in statement]) <= 5


async def test_a_video_made_at_one_gateway_is_seen_at_another_which_takes_over(start_gateway: StartGateway) -> None:
    async with start_gateway() as second:
        await current(second)
        async with start_gateway() as first, opened(first) as cut_off, opened(second) as stream:
            video = await first.create()
            await stream.has("video.status", video["id"], status="queued")
            await cut_off.has("video.status", video["id"], status="queued")
        missed = await second.create()
        async with opened(second, **{"last-event-id": cut_off.mark}) as stream:
            await stream.has("video.status", missed["id"], status="queued")
