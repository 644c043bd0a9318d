"""Sums of closed days: equal to the ledger in every report, whatever is written after the day was closed."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest
from accounts.billing import Open, asked, create
from fakes.openai import FakeOpenAI
from fakes.server import Answer, Reset
from money import Operator

from app import errors
from app.accounts.closed_days import CLOSED_AFTER, close_days
from app.accounts.reports import Bounds, report
from app.db.database import Database
from app.jobs.changes import LATE, REMEMBERED

pytestmark = pytest.mark.anyio

DIMENSIONS = ("project", "key", "model", "provider", "app", "day")
PAIRS = (("project", "day"), ("key", "app"), ("model", "provider"))
REPORTS = [(), *((name,) for name in DIMENSIONS), *PAIRS, DIMENSIONS]
CLIP = {"models": {"clip": {"routes": ["up/sora-2", "spare/sora-2"]}}}


def midnight(admin: Operator) -> datetime:
    """The end of the current day, UTC."""
    return (admin.gateway.clock.now + timedelta(days=1)).replace(hour=0, minute=0, second=0)


async def summed(admin: Operator) -> list[date]:
    """The closed days."""
    async with admin.gateway.gateway.db.reading() as connection:
        found = await connection.exec_driver_sql("select day from closed_days order by day")
        return list(found.scalars())


async def close(admin: Operator) -> list[date]:
    """Let the housekeeping of a worker close what is over; returns all closed days."""
    await admin.gateway.worker.purge()
    return await summed(admin)


async def reports(admin: Operator) -> list[list[dict[str, Any]]]:
    span = {"since": "2020-01-01", "until": f"{midnight(admin):%Y-%m-%d}"}
    return [await admin.usage(",".join(by), **span) for by in REPORTS]


async def check(admin: Operator) -> None:
    """Reports are those of the ledger: reports by user do not read the sums, and a video has one user."""
    span = {"since": "2020-01-01", "until": f"{midnight(admin):%Y-%m-%d}"}
    for by, found in zip(REPORTS, await reports(admin), strict=True):
        from_ledger = _without_user(by, await admin.usage(",".join((*by, "user")), **span))
        assert {_group(by, row): _rounded(_numbers(row)) for row in found} == from_ledger, by


def _group(by: Sequence[str], row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in by)


def _numbers(row: dict[str, Any]) -> dict[str, float]:
    """The numbers that can be added up."""
    numbers = {name: row[name] for name, value in row.items() if isinstance(value, int | float)}
    mean = numbers.pop("mean_duration_s", 0)
    return {**numbers, "duration": (mean or 0) * row["completed"]}


def _rounded(numbers: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 1 if name == "duration" else 6) for name, value in numbers.items()}


def _without_user(by: Sequence[str], rows: list[dict[str, Any]]) -> dict[tuple[Any, ...], dict[str, float]]:
    sums: dict[tuple[Any, ...], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for row in rows:
        for name, value in _numbers(row).items():
            sums[_group(by, row)][name] += value
    return {group: _rounded(numbers) for group, numbers in sums.items()}


async def use(admin: Operator, fake: FakeOpenAI) -> list[str]:
    """Jobs of two projects with several keys, models, apps and users, of all ends; returns the ids."""
    videos = []
    keys = [await admin.key("one"), await admin.key("two")]
    for number, key in enumerate((*keys, keys[0])):
        async with admin.user(key) as client:
            for model in ("up/sora-2", "clip"):
                body = {"prompt": "x", "model": model, "seconds": "4", "n": 2, "user": f"u{number}"}
                answer = await client.post("/v1/videos", json=body, headers={"x-app-id": f"app {number % 2}"})
                videos.append(answer.json()["id"])
    await admin.gateway.worker.run_once()
    fake.script("submit", fake.refusal(402, "no credit", "insufficient_quota"))  # an output goes to the other provider
    videos.append(await create(admin, model="clip", n=2))
    videos.append(await create(admin, model="sandbox/fail"))
    cancelled = await create(admin)
    await admin.gateway.client.delete(f"/v1/videos/{cancelled}")
    for _ in range(6):
        await admin.gateway.worker.run_once()
        admin.gateway.clock.advance(30)
    return [*videos, cancelled]


async def test_reports_of_closed_days_are_those_of_the_ledger(opened: Open, fake: FakeOpenAI) -> None:
    async with opened(**CLIP, prices={"up/sora-2": 0.1, "spare/sora-2": 0.2}) as admin:
        clock = admin.gateway.clock
        clock.now = midnight(admin) - timedelta(hours=1)
        days = [clock.now.date() + timedelta(days=number) for number in range(3)]
        made = []
        for _ in days:
            made += await use(admin, fake)
            await check(admin)
            clock.advance(86_400 - 180)
        before = await reports(admin)
        (whole,) = before[0]
        assert {name: whole[name] for name in ("completed", "failed", "cancelled")} == {
            "completed": 21,
            "failed": 3,
            "cancelled": 3,
        }
        providers = {row["provider"]: row["jobs"] for row in before[REPORTS.index(("provider",))]}
        assert sum(providers.values()) > whole["jobs"] == 21, "a job of two providers counts once"
        assert await close(admin) == days
        assert await reports(admin) == before
        await check(admin)

        other = admin.gateway.client  # rows that are deleted, and texts that are purged, take nothing away
        assert (await other.delete(f"/v1/videos/{made[6]}")).status_code == 200
        assert (await other.delete(f"/v1/requests/{made[6 + 9]}/payloads")).status_code in (200, 202)
        await close(admin)
        clock.advance((REMEMBERED + LATE).total_seconds())
        await close(admin)
        assert (await admin.client.get(f"/admin/v1/videos/{made[6]}")).status_code == 404
        assert await summed(admin) == days
        assert await reports(admin) == before
        await check(admin)


async def test_a_day_is_closed_an_hour_after_its_end(admin: Operator) -> None:
    clock = admin.gateway.clock
    end = midnight(admin)
    clock.now = end - timedelta(minutes=5)
    await admin.gateway.finish(await create(admin), step_s=1)
    assert clock.now < end
    clock.now = end + CLOSED_AFTER - timedelta(seconds=1)
    assert await close(admin) == []
    clock.advance(1)
    assert await close(admin) == [end.date() - timedelta(days=1)]
    clock.now = end - timedelta(minutes=1)  # the clock was set back: that day is not over
    assert await close(admin) == []
    await check(admin)


async def test_a_video_made_before_midnight_belongs_to_the_day_before(admin: Operator) -> None:
    clock = admin.gateway.clock
    end = midnight(admin)
    day = end.date() - timedelta(days=1)
    clock.now = end - timedelta(microseconds=1)
    early = await create(admin)
    clock.now = end
    late = await create(admin)
    for video_id in (early, late):
        await admin.gateway.finish(video_id)
    assert [(row["day"], row["jobs"]) for row in await admin.usage("day")] == [
        (f"{day}", 1),
        (f"{end.date()}", 1),
    ]
    clock.now = end + CLOSED_AFTER
    assert await close(admin) == [day]
    await check(admin)


@pytest.fixture
async def patient(opened: Open) -> AsyncIterator[Operator]:
    """A gateway whose jobs may run for hours."""
    async with opened(job_deadline_s=20_000) as admin:
        yield admin


async def test_a_day_waits_for_its_running_jobs_and_unknown_outcomes(patient: Operator, fake: FakeOpenAI) -> None:
    admin = patient
    clock = admin.gateway.clock
    clock.now = midnight(admin) - timedelta(minutes=5)
    day = clock.now.date()
    running = await create(admin)
    await admin.gateway.worker.run_once()
    fake.script("submit", Reset())
    lost = await create(admin)
    await admin.gateway.worker.run_once()
    clock.now = midnight(admin) + CLOSED_AFTER
    assert await close(admin) == []
    assert (await admin.gateway.finish(running))["status"] == "completed"
    assert (await admin.gateway.finish(lost))["error"]["code"] == "upstream_outcome_unknown"
    assert await close(admin) == []
    await check(admin)
    (repair,) = (await admin.ask("GET", "repairs"))["data"]
    await admin.ask("POST", f"repairs/{repair['id']}", action="fail")
    assert await close(admin) == [day]
    await check(admin)


async def no_file(admin: Operator, fake: FakeOpenAI) -> str:
    """A job whose file was gone, on a day that is closed; returns the id of its attempt."""
    fake.script("content", *[Answer(404)] * 3)
    video_id = await create(admin)
    assert (await admin.gateway.finish(video_id))["status"] == "failed"
    admin.gateway.clock.now = midnight(admin) + CLOSED_AFTER
    assert len(await close(admin)) == 1
    (repair,) = (await admin.ask("GET", "repairs"))["data"]
    return str(repair["id"])


async def test_a_job_that_is_revived_on_another_day_reopens_its_own(admin: Operator, fake: FakeOpenAI) -> None:
    attempt = await no_file(admin, fake)
    url = f"{admin.gateway.gateway.providers['up'].config.base_url}/videos/video_1/content"
    (before,) = await admin.usage("", since="2020-01-01")
    assert (before["failed"], before["completed"]) == (1, 0)
    await admin.ask("POST", f"repairs/{attempt}", action="fetch", url=url)
    assert await summed(admin) == []
    await check(admin)
    (running,) = await admin.usage("", since="2020-01-01")
    assert (running["failed"], running["completed"], running["jobs"]) == (0, 0, 1)
    assert await close(admin) == [], "not while it runs"
    for _ in range(4):
        await admin.gateway.worker.run_once()
        admin.gateway.clock.advance(20)
    (after,) = await admin.usage("", since="2020-01-01")
    assert (after["failed"], after["completed"], after["outputs"]) == (0, 1, 1)
    assert len(await close(admin)) == 1
    await check(admin)


# Writers and the worker that sums at the same time

SETTLE = """
insert into ledger (id, project_id, kind, amount_micros, key_id, video_id, attempt_id, cost_micros, seconds, model,
  provider, upstream_model, day, created_at)
select 'late_' || %(n)s, project_id, 'settle', -1, key_id, 'video_' || %(n)s, 'late_' || %(n)s, 1, 1, model, provider,
  upstream_model, day, day + interval '36 hours' from ledger where kind = 'reserve' limit 1
"""


async def test_an_entry_written_while_a_day_is_summed_is_in_the_report(admin: Operator, database_url: str) -> None:
    """Settlements race with workers that sum the day; after each round the report has all of them."""
    await admin.gateway.finish(await create(admin))
    clock = admin.gateway.clock
    clock.now = midnight(admin) + CLOSED_AFTER
    db, now = admin.gateway.gateway.db, clock.now
    closed = 0
    for round_ in range(12):

        async def settle(number: int) -> None:
            async with await psycopg.AsyncConnection.connect(database_url) as connection:
                await connection.execute(SETTLE, {"n": number})

        results = await asyncio.gather(
            *(settle(10 * round_ + number) for number in range(3)), *(close_days(db, now=now) for _ in range(3))
        )
        closed += sum(result or 0 for result in results)
        await check_totals(admin, 1 + 3 * (round_ + 1))
    closed += await close_days(db, now=now)
    assert closed > 0
    assert len(await summed(admin)) == 1
    await check_totals(admin, 37)


async def check_totals(admin: Operator, outputs: int) -> None:
    (whole,) = await admin.usage("", since="2020-01-01")
    assert whole["outputs"] == outputs


async def test_a_late_entry_waits_for_the_sum_and_reopens_the_day(admin: Operator, database_url: str) -> None:
    """Each order of a writer and a worker: the one that comes second sees what the first one did."""
    await admin.gateway.finish(await create(admin))
    clock = admin.gateway.clock
    day = clock.now.date()
    clock.now = midnight(admin) + CLOSED_AFTER
    db = admin.gateway.gateway.db
    async with await psycopg.AsyncConnection.connect(database_url) as writer:
        await writer.execute(SETTLE, {"n": 1})
        await writer.execute("set constraints all immediate")  # what its commit begins with
        assert await close_days(db, now=clock.now) == 0, "it is being written for"
    assert await close_days(db, now=clock.now) == 1
    await check_totals(admin, 2)

    lock = f"select pg_advisory_xact_lock(1970561381, date '{day}' - date '2000-01-01')"
    async with await psycopg.AsyncConnection.connect(database_url) as worker:
        await worker.execute(lock.encode())  # a worker that sums
        late = asyncio.create_task(_settle_late(database_url))
        await _waits_for_lock(db)
        assert not late.done()
    await late
    assert await summed(admin) == []
    await check_totals(admin, 3)
    assert await close_days(db, now=clock.now) == 1
    await check_totals(admin, 3)


async def _settle_late(database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        await connection.execute(SETTLE, {"n": 2})


async def _waits_for_lock(db: Database, kind: str = "advisory") -> None:
    async with asyncio.timeout(20), db.reading() as connection:
        waiting = f"select count(*) from pg_locks where locktype = '{kind}' and not granted"
        while not (await connection.exec_driver_sql(waiting)).scalar_one():
            pass


async def test_entries_of_the_day_itself_take_no_lock(admin: Operator, database_url: str) -> None:
    clock = admin.gateway.clock
    lock = f"select pg_advisory_lock(1970561381, date '{clock.now.date()}' - date '2000-01-01')"
    async with await psycopg.AsyncConnection.connect(database_url) as holder:
        await holder.execute(lock.encode())
        assert (await admin.gateway.finish(await create(admin), step_s=2))["status"] == "completed"


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/Los_Angeles", "Asia/Kolkata"])
async def test_days_are_those_of_utc_whatever_the_zone_of_the_database(
    opened: Open, fake: FakeOpenAI, database_url: str, zone: str
) -> None:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        name = connection.info.dbname
        await connection.execute(f"alter database {name} set timezone to '{zone}'".encode())
        try:
            async with opened(**CLIP) as admin:
                clock = admin.gateway.clock
                end = midnight(admin)
                clock.now = end - timedelta(minutes=4)
                await use(admin, fake)
                clock.now = end + timedelta(seconds=1)
                await use(admin, fake)
                before = await reports(admin)
                clock.now = end + CLOSED_AFTER
                assert await close(admin) == [end.date() - timedelta(days=1)]
                assert await reports(admin) == before
                await check(admin)
        finally:
            await connection.execute(f"alter database {name} reset timezone".encode())


async def test_an_old_installation_is_summed_from_its_oldest_day_on(admin: Operator, database_url: str) -> None:
    await admin.gateway.finish(await create(admin))
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        await connection.execute(
            """
            insert into ledger (id, project_id, kind, amount_micros, video_id, attempt_id, cost_micros, day, created_at)
            select 'old_' || n, 'p', 'settle', -5, 'video_' || n, 'att_' || n, 5, current_date - n,
              now() - n * interval '1 day'
            from generate_series(1, 45) as n
            """
        )
        await connection.execute(
            """
            with job as (
              insert into ledger (id, project_id, kind, video_id, day, created_at)
              select 'made_' || n, 'p', 'reserve', 'video_' || n, current_date - n, now() - n * interval '1 day'
              from generate_series(1, 45) as n
              returning video_id
            )
            insert into deleted_videos (id, provider, error_code, duration_s)
            select video_id, 'up', case when right(video_id, 1) = '7' then 'cancelled' end, 10 from job
            """
        )
    await check(admin)
    before = await reports(admin)
    (whole,) = before[0]
    assert (whole["completed"], whole["cancelled"]) == (42, 4)
    oldest = datetime.now(UTC).date() - timedelta(days=45)
    for rounds in (1, 2, 3):
        found = await close(admin)
        assert found[0] == oldest
        assert len(found) >= min(45, 20 * rounds) - 1
        assert await reports(admin) == before
    await check(admin)


MANY = """
insert into videos (id, project_id, dialect, status, progress, model, request, routes, outputs, provider, warnings,
  settlement, created_at, updated_at, completed_at, ended_at, deadline_at)
select 'video_' || n, 'p' || n % 2, 'openai', 'completed', 100, 'm', '{}', '[]', '[]', 'up', '[]', 'settled', day, day,
  day, day, day
from generate_series(1, 4000) as n cross join lateral (select now() - interval '1 day' * (1 + n % 40) as day) as made;
insert into ledger (id, project_id, kind, amount_micros, video_id, cost_micros, attempt_id, day, created_at)
select kind || id, project_id, kind, 0, id, case when kind = 'settle' then 0 end, id,
  (created_at at time zone 'UTC')::date, created_at
from videos cross join unnest(array['reserve', 'settle']) as kind;
analyze videos, ledger
"""

SCANS = "select sum(idx_scan)::int from pg_stat_xact_user_tables where relname in ('videos', 'ledger')"


async def test_many_open_days_are_read_in_one_pass(admin: Operator, database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute(MANY.encode())
    today = datetime.now(UTC).date()
    db = admin.gateway.gateway.db

    async def scans(by: list[str], **which: Any) -> int:
        """Look-ups of single videos by a report of 50 days."""
        async with db.transaction() as session:
            connection = await session.connection()
            before = (await connection.exec_driver_sql(SCANS)).scalar_one()
            found = await report(connection, by, since=today - timedelta(days=49), until=today, **which)
            assert sum(row["completed"] for row in found) == (2_000 if which else 4_000)
            return int((await connection.exec_driver_sql(SCANS)).scalar_one() - before)

    for by in (["day"], ["day", "user"]):
        assert await scans(by) < 20
        assert await scans(by, project_id="p1") < 20
    while await close_days(db, now=datetime.now(UTC)):
        pass
    assert await scans(["day"]) < 200, "of the open day alone"


async def test_a_report_has_a_time_limit_and_blocks_no_project(admin: Operator, database_url: str) -> None:
    key = await admin.key("shop")
    today = admin.gateway.clock.now.date()
    async with await psycopg.AsyncConnection.connect(database_url) as other:
        await other.execute("lock table usage_days in access exclusive mode")
        with pytest.raises(errors.InvalidRequest, match="fewer days") as refused:
            async with admin.gateway.gateway.db.transaction() as session:
                await report(
                    await session.connection(), [], since=today, until=today, bounds=Bounds(rows=10, seconds=0.2)
                )
        assert refused.value.code == "report_too_slow"
        waiting = asyncio.create_task(admin.usage(project=key["project"]))
        await _waits_for_lock(admin.gateway.gateway.db, "relation")
        await admin.ask("PATCH", f"projects/{key['project']}", name="meanwhile")
        assert not waiting.done()
    assert await waiting == []


async def test_a_job_of_a_key_counts_in_its_key_and_project(admin: Operator) -> None:
    key = await admin.key("shop", monthly_budget_usd=5)
    assert (await asked(admin, key)).status_code == 202
    assert (await asked(admin, key, model="sandbox/fail")).status_code in (202, 402)
    for _ in range(4):
        await admin.gateway.worker.run_once()
        admin.gateway.clock.advance(20)
    (row,) = await admin.usage("key,project", project=key["project"])
    assert (row["key"], row["completed"], row["mean_duration_s"]) == (key["id"], 1, 60.0)
