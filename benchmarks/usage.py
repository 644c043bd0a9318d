"""`python -m benchmarks.usage`: a year of usage with millions of ledger rows, and the time of its reports."""

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import psycopg
import typer

from app.accounts.closed_days import close_days
from app.accounts.key_uses import read_uses
from app.accounts.reports import report
from app.db import embedded
from app.db.database import Database
from app.db.migrate import upgrade_schema

AIM_MS = 300
REPORTS = (["day"], ["model"], ["key"], ["day", "model"], ["project", "provider"])
ROUNDS = 5

# One video a row: 20 projects of 3 keys, 12 models, 3 providers, 4 apps. A twentieth failed, a fiftieth was cancelled.
_JOB = """
  'video_' || n as id, 'proj_' || n % 20 as project_id, 'key_' || n % 20 || '_' || n % 3 as key_id,
  'model ' || n % 12 as model, 'provider ' || n % 3 as provider, 'app ' || n % 4 as app,
  'user ' || n % 5000 as end_user,
  case when n % 20 = 7 then 'generation_failed' when n % 50 = 1 then 'cancelled' end as error_code,
  now() - interval '364 days' * (1 - n::float8 / VIDEOS) as created_at
from generate_series(1, VIDEOS) as n
"""
_FILL = (
    f"create temporary table job as select n, {_JOB}",
    """
    insert into videos (id, project_id, key_id, dialect, status, progress, model, request, routes, outputs,
      provider, warnings, settlement, error_code, created_at, updated_at, completed_at, ended_at, deadline_at)
    select id, project_id, key_id, 'openai', case when error_code is null then 'completed' else 'failed' end, 100,
      model, '{"prompt": "a paper boat", "model": "m"}', '["p/m"]', '[]', provider, '[]',
      case when error_code is null then 'settled' else 'refunded' end, error_code, created_at, created_at,
      case when error_code is null then created_at + interval '80 s' end, created_at + interval '80 s', created_at
    from job
    """,
    """
    insert into ledger (id, project_id, kind, amount_micros, key_id, video_id, attempt_id, cost_micros, seconds, model,
      provider, app, end_user, day, created_at)
    select 'txn_' || n || kind, project_id, kind, case kind when 'reserve' then -400000 else 400000 end, key_id, id,
      'att_' || n, case when kind = 'settle' then 300000 end, 4, model, provider, app, end_user,
      (created_at at time zone 'UTC')::date, created_at
    from job, lateral (select unnest(
      array['reserve', case when error_code is null then 'settle' else 'refund' end]) as kind) as kinds
    """,
    "analyze videos, ledger",
)

cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@cli.command()
def main(rows: Annotated[int, typer.Option(help="Rows of the ledger, two a video.")] = 4_000_000) -> None:
    """Fill a year of the ledger, time its reports, sum its days, and time the reports again."""
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder:
        Path(folder).chmod(0o711)
        server = embedded.start(Path(folder))
        try:
            asyncio.run(_measure(server.get_uri(), rows))
        finally:
            server.cleanup()


async def _measure(url: str, rows: int) -> None:
    await upgrade_schema(url)
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await connection.execute("set local session_replication_role = replica")  # rows, not triggers, are measured
        started = time.perf_counter()
        for statement in _FILL:
            await connection.execute(statement.replace("VIDEOS", str(rows // 2)).encode())
    print(f"{rows:,} rows of the ledger written in {time.perf_counter() - started:.0f} s")
    db = Database(url)
    now = datetime.now(UTC)

    async def timed(name: str, run: Callable[[Any], Awaitable[Any]], rounds: int) -> None:
        times = []
        for _ in range(rounds):
            started = time.perf_counter()
            async with db.transaction() as session:
                found = await run(await session.connection())
            times.append((time.perf_counter() - started) * 1_000)
        print(f"  {name:20} {sorted(times)[len(times) // 2]:8.0f} ms, {len(found):6} rows")

    async def reports(rounds: int) -> None:
        year = partial(report, since=now.date() - timedelta(days=364), until=now.date())
        for by in REPORTS:
            await timed(",".join(by), partial(year, by=by), rounds)
        await timed("day, of a project", partial(year, by=["day"], project_id="proj_7"), rounds)
        keys = [f"key_{n % 20}_{n % 3}" for n in range(60)]
        await timed("all keys", partial(read_uses, key_ids=keys, now=now), rounds)

    try:
        print("before the days are summed:")
        await reports(1)
        started, days, longest = time.perf_counter(), 0, 0.0
        while True:
            round_started = time.perf_counter()
            closed = await close_days(db, now=now)
            longest = max(longest, time.perf_counter() - round_started)
            days += closed
            if not closed:
                break
        print(f"{days} days summed in {time.perf_counter() - started:.1f} s, at most {longest:.2f} s a round")
        async with db.reading() as reading:
            await reading.exec_driver_sql("analyze usage_days")
        print(f"after it (aim: {AIM_MS} ms):")
        await reports(ROUNDS)
    finally:
        await db.close()


if __name__ == "__main__":
    cli()
