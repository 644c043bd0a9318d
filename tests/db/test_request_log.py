"""The request log of a large project: pages and sums are read from an index, whatever was asked for."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from db.test_schema import filled, plain, walk
from harness import scratch_database, sqlalchemy_url
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from app.db.migrate import upgrade_schema
from app.db.pages import Place, Window
from app.jobs.filters import Filters
from app.jobs.request_log import STATES, Outcome, list_requests
from app.jobs.search import summarize

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
VIDEOS = 60_000
"""Three quarters are those of the project: one of ten thousand of a kind, the rest of another one, and a third of all
completed with a key that has no others."""
MIDDLE = NOW - timedelta(seconds=VIDEOS // 2)
ROWS = """
insert into projects (id, name, billing, created_at)
select id, id, 'postpaid', :now from unnest(array['mine', 'other']) as id;
insert into videos ({columns}) select {values} from generate_series(1, {videos}) as n;
vacuum analyze videos
"""


@pytest.fixture(scope="module")
async def large(postgres: str) -> AsyncIterator[str]:
    async with scratch_database(postgres) as url:
        await upgrade_schema(sqlalchemy_url(url))
        await asyncio.to_thread(fill, url)
        yield url


def fill(url: str) -> None:
    rare = "mod(n, 10000)"
    tidy = "mod(n, 3) = 0 and mod(n, 10000) > 5"
    columns, values = filled(
        "videos",
        id="'video_' || lpad(n::text, 26, '0')",
        project_id="case when mod(n, 4) = 3 then 'other' else 'mine' end",
        key_id=f"case when {rare} = 1 then 'rare' when {tidy} then 'tidy' else 'usual' end",
        model="case mod(n, 10000) when 1 then 'rare' when 7 then 'rare' else case mod(n, 3) when 0 then 'tidy' "
        "else 'usual' end end",
        status=f"case when {rare} = 2 or {tidy} then 'completed' when {rare} = 4 then 'queued' else 'failed' end",
        error_code=f"case when {rare} in (2, 4) or {tidy} then null "
        f"when {rare} = 5 then 'upstream' else 'cancelled' end",
        completed_at=f"case when {rare} = 2 or {tidy} then :now end",
        ended_at=f"case when {rare} <> 4 then :now end",
        created_at=f":now - ({VIDEOS} - n) * interval '1 s'",
        cost_micros="1",
        billed_s="1",
        request="jsonb_build_object('prompt', repeat(md5(n::text), 20))",
    )
    statements = ROWS.format(columns=columns, values=values, videos=VIDEOS)
    with psycopg.connect(plain(url), autocommit=True) as connection:
        for statement in statements.replace(":now", f"'{NOW.isoformat()}'::timestamptz").split(";"):
            connection.execute(statement.encode())


async def plans(url: str, ask: Any, *, options: str = "set jit = off") -> list[dict[str, Any]]:
    """Every node of the plans of the statements that `ask` runs."""
    engine = create_async_engine(sqlalchemy_url(url), poolclass=sa.NullPool)
    said: list[tuple[str, Any]] = []

    @sa.event.listens_for(engine.sync_engine, "before_cursor_execute")
    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        said.append((statement, parameters))

    nodes: list[dict[str, Any]] = []
    async with engine.connect() as connection:
        await connection.exec_driver_sql(options)
        said.clear()
        await ask(connection)
        for statement, parameters in tuple(said):
            explain = f"explain (analyze, buffers, format json) {statement}"
            found = (await connection.exec_driver_sql(explain, parameters)).scalar_one()
            document = json.loads(found) if isinstance(found, str) else found
            nodes += walk(document[0]["Plan"])
    await engine.dispose()
    assert nodes
    return nodes


FILTERS: dict[str, dict[str, Any]] = {
    "all": {},
    "rare key": {"key_id": "rare"},
    "usual key": {"key_id": "usual"},
    "unknown key": {"key_id": "none"},
    "old": {"created_before": MIDDLE},
    "new": {"created_after": MIDDLE},
    "neither": {"created_after": NOW + timedelta(days=1)},
    "large, none of the key": {"states": STATES[Outcome.cancelled], "key_id": "tidy"},
    "large key, none of them": {"states": STATES[Outcome.completed], "key_id": "usual"},
    "large and of the key": {"states": STATES[Outcome.cancelled], "key_id": "usual"},
    "few, none of the key": {"states": STATES[Outcome.upstream_failure], "key_id": "tidy"},
    "pending, none of the key": {"states": STATES[Outcome.pending], "key_id": "tidy"},
    "pending of the key": {"states": STATES[Outcome.pending], "key_id": "usual"},
    **{str(status): {"states": STATES[status]} for status in Outcome},
}
PLACES: dict[str, dict[str, Any]] = {
    "first": {},
    "after": {"after": Place(MIDDLE, "video")},
    "before": {"before": Place(MIDDLE, "video")},
}
"""Also places outside of the times that are asked for."""


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", FILTERS)
async def test_a_page_costs_what_it_shows(large: str, name: str, place: str) -> None:
    window = Window(20, **PLACES[place])

    async def ask(connection: AsyncConnection) -> None:
        await list_requests(connection, Filters("mine", **FILTERS[name]), window)

    nodes = await plans(large, ask)
    assert "Seq Scan" not in {node["Node Type"] for node in nodes}
    assert max(node["Actual Rows"] * node["Actual Loops"] for node in nodes) <= 21
    assert max(node.get("Rows Removed by Filter", 0) for node in nodes) <= 21
    assert sum(node.get("Shared Hit Blocks", 0) + node.get("Shared Read Blocks", 0) for node in nodes[:1]) < 100


@pytest.mark.parametrize("name", sorted(FILTERS.keys() - {"rejected"}))
async def test_a_sum_is_read_from_an_index_alone(large: str, name: str) -> None:
    totals = []

    async def ask(connection: AsyncConnection) -> None:
        totals.append(await summarize(connection, Filters("mine", **FILTERS[name])))

    nodes = await plans(large, ask)
    scans = [node for node in nodes if node.get("Relation Name") == "videos"]
    few = "pending" in name or name == "processing"
    assert {node["Node Type"] for node in scans} <= {"Index Only Scan", *(("Index Scan",) if few else ())}
    assert sum(node.get("Heap Fetches", 0) for node in scans) == 0
    assert totals[0].count == totals[0].cost_micros == totals[0].seconds, "each costs one millionth and has a second"
    assert max(node.get("Rows Removed by Filter", 0) for node in nodes) <= 21
