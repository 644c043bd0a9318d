"""`python -m benchmarks.lists`: the time of lists with filters among 2,000,000 videos, and of the migration that builds
their indexes."""

import asyncio
import statistics
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import psycopg
import typer
from alembic import command
from rich.console import Console
from rich.table import Table

from app import settings
from app.db.database import Database, running_database
from app.db.migrate import alembic_config
from app.db.models import Video
from app.jobs.filters import Filters, State
from app.jobs.search import Wanted, find_page

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
WITHOUT_INDEXES, BEFORE = "0007", "0011"
"""Revisions before the indexes of lists, and before those of lists with filters."""
LIMIT, RUNS, LONG_RUNS = 100, 100, 10

FILL = """
set session_replication_role = replica;
insert into projects (id, name, billing, created_at)
select id, id, 'postpaid', :now
from (select 'mine' union all select 'p' || n from generate_series(1, 20) as n) as t (id);
insert into videos (id, project_id, key_id, dialect, status, progress, model, request, routes, outputs, prices,
  warnings, provider, upstream_model, cost_micros, settlement, error_code, created_at, updated_at, completed_at,
  ended_at, deadline_at)
select 'video_' || lpad(n::text, 26, '0'), case when mod(n, 100) = 99 then 'p' || mod(n, 20) + 1 else 'mine' end,
  case when mod(n, 50021) = 1 then 'rare' when mod(n, 10) = 3 then 'other' else 'usual' end, 'openai', status, 100,
  case when mod(n, 50023) = 1 then 'rare' when mod(n, 7) = 3 then 'other' else 'usual' end,
  jsonb_build_object('prompt', 'a paper boat on a pond, number ' || n || repeat(' and more', 20), 'seconds', 4,
    'user', 'u' || mod(n, 1000), 'app', 'web', 'metadata', jsonb_build_object('order', n::text)),
  '["up/usual"]', '[]', '[]', '[]', 'up', 'usual', 400000, 'settled',
  case status when 'failed' then case when mod(n, 3) = 0 then 'cancelled' else 'upstream_error' end end,
  at, at, case status when 'completed' then at + interval '1 min' end,
  case when status in ('completed', 'failed') then at + interval '1 min' end, at + interval '1 h'
from (
  select n, :now - (:videos - n) * interval '1 s' as at,
    case when n > :videos - 300 then 'in_progress' when n > :videos - 500 then 'queued'
      when mod(n, 11) = 5 then 'failed' else 'completed' end as status
  from generate_series(1, :videos) as n
) as t;
insert into ledger (id, project_id, kind, amount_micros, key_id, video_id, attempt_id, cost_micros, seconds, model, day,
  created_at)
select 't' || id, project_id, 'settle', 0, key_id, id, id, cost_micros, 4, model, created_at::date, created_at
from videos where status = 'completed';
analyze videos; analyze ledger
"""
MIDDLE = NOW - timedelta(days=12)
FAILED = (State.failed, State.cancelled)
RANGE = {"created_after": NOW - timedelta(days=20), "created_before": MIDDLE}
QUICK: dict[str, dict[str, Any]] = {
    "none": {},
    "status": {"states": (State.completed,)},
    "status, running": {"states": (State.in_progress,)},
    "status, failed with cancelled": {"states": FAILED},
    "model": {"model": "usual"},
    "model, rare": {"model": "rare"},
    "model, unknown": {"model": "none"},
    "key, rare": {"key_id": "rare"},
    "key and model": {"key_id": "other", "model": "other"},
    "key and model, empty": {"key_id": "rare", "model": "rare"},
    "status, model, key and range": {"states": FAILED, "key_id": "other", "model": "other", **RANGE},
    "status, model, key and range, rare": {"states": FAILED, "key_id": "usual", "model": "rare", **RANGE},
    "status, model, key and range, empty": {"states": FAILED, "key_id": "rare", "model": "rare", **RANGE},
    "running, model, key, empty": {"states": (State.queued,), "key_id": "rare", "model": "rare"},
    "all projects: status and model": {"project_id": None, "states": FAILED, "model": "other"},
    "all projects: rare model": {"project_id": None, "model": "rare"},
}
SLOW: dict[str, dict[str, Any]] = {
    "q, found": {"prompt": "PAPER boat"},
    "q, not found": {"prompt": "a train"},
    "metadata, status and model": {"metadata": {"order": "none"}, "model": "usual", "states": FAILED},
    "user": {"user": "u7"},
    "all projects: q, not found": {"project_id": None, "prompt": "a train"},
}

cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@cli.command()
def main(videos: Annotated[int, typer.Option(min=10_000, help="Videos in the database.")] = 2_000_000) -> None:
    """Fill an embedded database of its own and read lists from it: first pages, and pages from the middle."""
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder:
        Path(folder).chmod(0o711)  # the embedded database may run as another user
        asyncio.run(measure(Path(folder), videos, Console(width=110)))


async def measure(folder: Path, videos: int, console: Console) -> None:
    async with running_database(settings.load(_env_file=None, data_dir=folder, api_keys=["x"])) as url:
        config = alembic_config(url)
        await asyncio.to_thread(command.upgrade, config, WITHOUT_INDEXES)
        await asyncio.to_thread(fill, url, videos)
        await asyncio.to_thread(command.upgrade, config, BEFORE)
        began = time.perf_counter()
        await asyncio.to_thread(command.upgrade, config, "head")
        console.print(f"migration from {BEFORE}: {time.perf_counter() - began:.1f} s")
        await asyncio.to_thread(run, url, "vacuum analyze videos")
        table = Table(title=f"Lists of {LIMIT} among {videos:,} videos, ms")
        for name in ("filters", "p50", "p99", "deep p50", "deep p99", "with summary"):
            table.add_column(name, justify="left" if name == "filters" else "right")
        database = Database(url)
        try:
            for runs, rows in ((RUNS, QUICK), (LONG_RUNS, SLOW)):
                for name, given in rows.items():
                    table.add_row(name, *await times(database, runs, videos, **{"project_id": "mine", **given}))
        finally:
            await database.close()
        console.print(table)


async def times(database: Database, runs: int, videos: int, **given: Any) -> list[str]:
    """Times of first pages, of pages from the middle of the list, and of one page with sums."""
    middle = f"video_{videos // 2:026}"
    found = []
    for wanted in (Wanted(LIMIT), Wanted(LIMIT, after=middle)):
        took = sorted([await timed(database, Filters(**given), wanted) for _ in range(runs)])
        found += [statistics.median(took), took[min(len(took) - 1, round(0.99 * len(took)))]]
    summary = replace(Wanted(LIMIT), summary=True)
    found.append(statistics.median([await timed(database, Filters(**given), summary) for _ in range(3)]))
    return [f"{value:.1f}" for value in found]


async def timed(database: Database, filters: Filters, wanted: Wanted) -> float:
    began = time.perf_counter()
    await find_page(database, filters, wanted, list(Video.__table__.columns))
    return 1_000 * (time.perf_counter() - began)


def fill(url: str, videos: int) -> None:
    run(url, FILL.replace(":now", f"'{NOW.isoformat()}'::timestamptz").replace(":videos", str(videos)))


def run(url: str, statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements.split(";"):
            connection.execute(statement.encode())


if __name__ == "__main__":
    cli()
