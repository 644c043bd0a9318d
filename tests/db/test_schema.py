"""The schema: migrations up, down and together, what the address may look like, and the plan of the claim."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from fakes.openai import FakeOpenAI
from fakes.server import KEY, serve
from harness import StartGateway, scratch_database, sqlalchemy_url
from processes import ran, until
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import create_async_engine

from app import ids, settings
from app.db.migrate import SchemaBehind, alembic_config, require_current_schema, schema_revision, upgrade_schema
from app.db.models import Base
from app.jobs import videos
from app.jobs.claim import Slots, claim_attempts
from app.settings import ConfigurationError

pytestmark = pytest.mark.anyio


@pytest.fixture
async def empty(postgres: str) -> AsyncIterator[str]:
    async with scratch_database(postgres) as url:
        yield sqlalchemy_url(url)


def tables(url: str) -> set[str]:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        return set(sa.inspect(connection).get_table_names())


def differences(url: str) -> list[Any]:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return list(compare_metadata(context, Base.metadata))


async def test_migrations_make_what_the_tables_say_and_can_be_taken_back(empty: str) -> None:
    head = await upgrade_schema(empty)
    assert await schema_revision(empty) == head
    assert differences(empty) == []
    assert await upgrade_schema(empty) is None
    await asyncio.to_thread(command.downgrade, alembic_config(empty), "base")
    assert tables(empty) == {"alembic_version"}
    assert await upgrade_schema(empty) == head
    assert differences(empty) == []
    await require_current_schema(empty)


async def test_circuits_are_migrated_while_a_worker_writes_to_them(empty: str) -> None:
    await asyncio.to_thread(command.upgrade, alembic_config(empty), "0005")
    url = empty.replace("+psycopg", "")
    async with await psycopg.AsyncConnection.connect(url) as worker:
        await worker.execute(b"insert into provider_health (name, failures) values ('up', 1)")
        migrating = asyncio.create_task(upgrade_schema(empty))
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as other:

            async def is_waiting() -> bool | None:
                query = b"select true from pg_locks where not granted and relation = 'provider_health'::regclass"
                return (await (await other.execute(query)).fetchone()) is not None or None

            await until(is_waiting)
        await worker.commit()
        await migrating
        await require_current_schema(empty)


VIDEO = """
insert into videos (id, owner, dialect, status, progress, model, request, routes, outputs, warnings, error_code,
  created_at, updated_at, completed_at, ended_at, deadline_at)
values (%(id)s, %(project)s, 'openai', %(status)s::text, 0, 'sandbox/testcard',
  '{"prompt": "x", "model": "sandbox/testcard", "seconds": 1, "size": "320x180"}', '["sandbox/testcard"]', '[]', '[]',
  case when %(status)s::text = 'failed' then 'x' end, now(), now(),
  case when %(status)s::text = 'completed' then now() end,
  case when %(status)s::text in ('failed', 'completed') then now() end, now() + interval '1 hour')
"""
ATTEMPT = """
insert into attempts (id, video_id, owner, output_index, route_index, state, provider, upstream_model, progress, due_at,
  submits, polls, strikes, cancel_tried, created_at, ended_at)
values ('att_' || right(%(id)s::text, 26), %(id)s::text, %(project)s, 0, 0, %(state)s::text, 'sandbox', 'testcard', 0,
  now(), 0, 0, 0, false, now(), case when %(state)s::text <> 'pending' then now() end)
"""


async def test_keys_and_jobs_of_the_release_without_money_are_migrated(empty: str, start_gateway: StartGateway) -> None:
    await asyncio.to_thread(command.upgrade, alembic_config(empty), "0002")
    own, shared = ids.new("key"), ids.new("key")
    jobs = {
        (ids.new("video"), "completed", "succeeded"): "settled",
        (ids.new("video"), "failed", "lost"): "refunded",
        (ids.new("video"), "queued", "pending"): "held",
    }
    async with await psycopg.AsyncConnection.connect(plain(empty), autocommit=True) as connection:
        for key_id, project in ((own, own), (shared, "team")):
            key = "insert into keys (id, name, owner, hash, hint, created_at) values (%s, 'x', %s, %s, 'x', now())"
            await connection.execute(key, (key_id, project, key_id))
        for video_id, status, state in jobs:
            values = {"id": video_id, "project": own, "status": status, "state": state}
            await connection.execute(VIDEO, values)
            await connection.execute(ATTEMPT, values)
        await upgrade_schema(empty)
        found = await (await connection.execute("select id, name, billing from projects order by id")).fetchall()
        assert found == [(own, own, "postpaid"), ("team", "team", "postpaid")]
        settled = await (await connection.execute("select id, settlement, key_id from videos")).fetchall()
        assert sorted(settled) == sorted((key[0], settlement, own) for key, settlement in jobs.items())
        async with start_gateway(database_url=empty) as gateway:
            for _ in range(8):
                gateway.clock.advance(5)
                await gateway.worker.run_once()
        left = "select status, settlement from videos where id = %s"
        (running,) = (video_id for video_id, status, _ in jobs if status == "queued")
        assert await (await connection.execute(left, (running,))).fetchone() == ("completed", "settled")
        entries = await connection.execute("select kind, amount_micros, cost_micros, video_id from ledger")
        assert await entries.fetchall() == [("settle", None, None, running)], "no price was written down with it"


def plain(url: str) -> str:
    return url.replace("+psycopg", "")


async def test_several_processes_may_migrate_at_once(empty: str, tmp_path: Path) -> None:
    await asyncio.gather(*(ran("migrate", cwd=tmp_path, database_url=empty) for _ in range(3)))
    assert differences(empty) == []


async def test_a_schema_that_is_not_ours_is_refused_with_the_next_step(empty: str) -> None:
    with pytest.raises(SchemaBehind, match=r"is empty, this release needs \w+\. Run\n  video-gateway migrate"):
        await require_current_schema(empty)
    await upgrade_schema(empty)
    engine = sa.create_engine(empty, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text("update alembic_version set version_num = 'tomorrow'"))
    for look in (require_current_schema, upgrade_schema):
        with pytest.raises(SchemaBehind, match="tomorrow, which is newer than this release; update video-gateway"):
            await look(empty)


async def test_a_user_who_may_not_create_tables_gets_a_clear_message(empty: str, postgres: str) -> None:
    role = sa.make_url(empty).database
    async with await psycopg.AsyncConnection.connect(empty.replace("+psycopg", ""), autocommit=True) as connection:
        await connection.execute(f"create role {role} login password 'sekret'".encode())
        try:
            url = sa.make_url(empty).set(username=role, password="sekret").render_as_string(hide_password=False)
            with pytest.raises(ConfigurationError, match="cannot be migrated: permission denied") as caught:
                await upgrade_schema(url)
            assert "sekret" not in str(caught.value)
        finally:
            await connection.execute(f"drop role {role}".encode())


async def test_a_database_url_is_accepted_as_people_paste_it(empty: str) -> None:
    parts = sa.make_url(empty)
    query = {**parts.query, "sslmode": "disable"}
    for scheme in ("postgres", "postgresql", "postgresql+psycopg", "postgresql+asyncpg", "postgresql+psycopg2"):
        pasted = parts.set(drivername="postgresql", query=query).render_as_string(hide_password=False)
        loaded = settings.load(database_url=" " + pasted.replace("postgresql", scheme, 1) + "\n")
        assert loaded.database_url is not None
        assert await schema_revision(loaded.database_url.get_secret_value()) is None


OLD_JOB = """
insert into keys (id, name, owner, hash, hint, created_at) values ('key_1', 'web', 'acme', 'x', 'abcd', now());
insert into videos (id, owner, dialect, status, progress, model, request, routes, outputs, warnings, created_at,
  updated_at, deadline_at)
values (:video, :project, 'openai', 'in_progress', 10, 'up/sora-2', '{"prompt": "a boat", "model": "up/sora-2"}',
  '["up/sora-2"]', '[]', '[]', now(), now(), now() + interval '1 hour');
insert into attempts (id, video_id, owner, output_index, route_index, state, provider, upstream_model, base_url,
  upstream_ref, progress, due_at, submits, polls, strikes, cancel_tried, created_at)
values ('att_1', :video, :project, 0, 0, 'running', 'up', 'sora-2', :base_url, 'video_1', 10, now(), 1, 3, 0, false,
  now());
"""


async def test_a_running_job_survives_an_upgrade(empty: str, start_gateway: StartGateway) -> None:
    """From the schema before projects and money: the job goes on, its key has a project, and nothing is owed."""
    fake = FakeOpenAI()
    fake.finish(fake.job("video_1", {"prompt": "a boat"}).ref)
    await asyncio.to_thread(command.upgrade, alembic_config(empty), "0002")
    async with serve(fake) as upstream:
        up = {"kind": "openai", "base_url": f"{upstream}/v1", "api_key": KEY}
        async with start_gateway() as gateway:  # for the id that Alice's key has as a project
            project = (
                await videos.get_video(gateway.gateway.db, (await gateway.create())["id"], project_id=None)
            ).project_id
        video_id = ids.new("video")
        engine = sa.create_engine(empty, poolclass=sa.NullPool)
        values = {"video": video_id, "project": project, "base_url": up["base_url"]}
        with engine.begin() as connection:
            for statement in OLD_JOB.split(";\n"):
                if statement.strip():
                    connection.execute(sa.text(statement), {k: v for k, v in values.items() if f":{k}" in statement})
        await upgrade_schema(empty)
        async with start_gateway(database_url=empty, providers={"up": up}, prices={"up/sora-2": 1}) as gateway:
            video = await gateway.finish(video_id)
            assert (video["status"], video["cost"]) == ("completed", None), "it began without a price"
            assert len(fake.submits) == 0
    with engine.connect() as connection:
        assert connection.execute(sa.text("select settlement from videos")).scalars().all() == ["settled"]
        assert "acme" in connection.execute(sa.text("select id from projects")).scalars().all()


SETTLED = """
insert into videos (id, project_id, key_id, dialect, status, progress, model, request, routes, outputs, warnings,
  settlement, created_at, updated_at, completed_at, ended_at, deadline_at)
select id, 'acme', 'k', 'openai', 'completed', 100, 'm', '{}', '[]', '[]', '[]', 'settled', now(), now(), now(), now(),
  now()
from unnest(array['one', 'two', 'none']) as id;
insert into ledger (id, project_id, kind, amount_micros, video_id, attempt_id, seconds, day, created_at)
select 't' || n, 'acme', kind, 0, video_id, 'a' || n, seconds, current_date, now()
from (values (1, 'settle', 'one', 4.5), (2, 'settle', 'two', 2), (3, 'settle', 'two', 3), (4, 'settle', 'none', null),
  (5, 'reserve', 'none', null)) as t (n, kind, video_id, seconds);
"""


async def test_the_billed_lengths_of_the_release_before_are_those_of_its_ledger(empty: str) -> None:
    await asyncio.to_thread(command.upgrade, alembic_config(empty), "0011")
    async with await psycopg.AsyncConnection.connect(plain(empty), autocommit=True) as connection:
        await connection.execute(SETTLED)
        await upgrade_schema(empty)
        found = await connection.execute("select id, billed_s from videos order by id")
        assert await found.fetchall() == [("none", None), ("one", 4.5), ("two", 5)]


ROWS = """
insert into videos ({columns}) select {values} from generate_series(1, 200000) as n;
insert into attempts ({attempt_columns}) select {attempt_values} from generate_series(1, 200000) as n;
analyze videos; analyze attempts;
"""
DIALECT: Any = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def filled(table: str, **values: str) -> tuple[str, str]:
    """Column names and SQL values for a row: what is not given is whatever the column takes."""
    zero = {"VARCHAR": "'x'", "INTEGER": "0", "BOOLEAN": "false", "JSONB": "'[]'::jsonb", "BIGINT": "0"}
    for column in Base.metadata.tables[table].columns:
        if not column.nullable and column.name not in values and column.server_default is None:
            kind = str(column.type.compile(dialect=DIALECT)).partition("(")[0]
            values[column.name] = zero.get(kind, ":now")
    return ", ".join(values), ", ".join(values.values())


async def test_a_claim_costs_what_is_due_not_what_exists(empty: str) -> None:
    """Of 200,000 attempts 100,000 run and are not due yet, 60 are due, and the rest has ended."""
    await upgrade_schema(empty)
    await asyncio.to_thread(fill, empty)
    plan = await plan_of_a_claim(empty)
    nodes = walk(plan["Plan"])
    on_attempts = [node for node in nodes if node.get("Relation Name") == "attempts"]
    assert on_attempts
    assert "Seq Scan" not in {node["Node Type"] for node in nodes}
    assert "ix_attempts_due_at" in {node.get("Index Name") for node in nodes}
    assert plan["Plan"]["Actual Rows"] == 60
    assert max(node["Actual Rows"] * node["Actual Loops"] for node in nodes) <= 200
    assert plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"] < 3_000
    assert plan["Execution Time"] < 500


async def test_a_claim_from_a_backlog_costs_what_it_takes(empty: str) -> None:
    """100,000 attempts wait, none is overdue, and the deadlines of 100,000 ended videos have passed."""
    await upgrade_schema(empty)
    await asyncio.to_thread(fill_backlog, empty)
    plan = await plan_of_a_claim(empty, claims=100)
    nodes = walk(plan["Plan"])
    assert "ix_videos_deadline_at" in {node.get("Index Name") for node in nodes}
    assert max(node["Actual Rows"] * node["Actual Loops"] for node in nodes) <= 5_000
    assert plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"] < 10_000
    assert max(node.get("Rows Removed by Filter", 0) for node in nodes) <= 5_000


def fill_backlog(url: str) -> None:
    ended = "mod(n, 2) = 0"
    columns, values = filled(
        "videos",
        id="'v' || n",
        status=f"case when {ended} then 'completed' else 'queued' end",
        completed_at=f"case when {ended} then :now end",
        ended_at=f"case when {ended} then :now end",
        deadline_at=f"case when {ended} then :now - interval '1 h' else :now + interval '1 h' end",
    )
    attempt_columns, attempt_values = filled(
        "attempts",
        id="'a' || n",
        video_id="'v' || n",
        project_id="'project' || mod(n, 30)",
        state=f"case when {ended} then 'succeeded' else 'pending' end",
        due_at=":now - interval '1 s'",
        ended_at=f"case when {ended} then :now end",
    )
    statements = ROWS.format(
        columns=columns, values=values, attempt_columns=attempt_columns, attempt_values=attempt_values
    ).replace(":now", f"'{NOW.isoformat()}'::timestamptz")
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(statements.encode())


def fill(url: str) -> None:
    columns, values = filled("videos", id="'v' || n", status="'queued'")
    attempt_columns, attempt_values = filled(
        "attempts",
        id="'a' || n",
        video_id="'v' || n",
        project_id="'project' || mod(n, 30)",
        state="case when mod(n, 10000) = 1 then 'pending' when mod(n, 2) = 0 then 'running' else 'failed' end",
        upstream_ref="'r'",
        due_at="case when mod(n, 5000) in (0, 1) then :now - interval '1 s' else :now + interval '1 h' end",
        ended_at="case when mod(n, 2) = 0 or mod(n, 10000) = 1 then null else :now end",
    )
    statements = ROWS.format(
        columns=columns, values=values, attempt_columns=attempt_columns, attempt_values=attempt_values
    ).replace(":now", f"'{NOW.isoformat()}'::timestamptz")
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(statements.encode())


async def plan_of_a_claim(url: str, *, claims: int = 60) -> dict[str, Any]:
    """Claim, and undo it; then let the database explain that very statement."""
    engine = create_async_engine(url, poolclass=sa.NullPool)
    said: list[tuple[str, Any]] = []

    @sa.event.listens_for(engine.sync_engine, "before_cursor_execute")
    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "update attempts" in statement:
            said.append((statement, parameters))

    async with engine.connect() as connection:
        slots = Slots(submits=100, polls=100, stores=8)
        claimed = await claim_attempts(
            connection, slots, limits={}, free_connections={}, shares={}, held=[], lease_s=60, now=NOW
        )
        assert len(claimed) == claims
        await connection.rollback()
        ((statement, parameters),) = said
        explain = f"explain (analyze, buffers, format json) {statement}"
        await connection.exec_driver_sql("set jit = off")
        plan = (await connection.exec_driver_sql(explain, parameters)).scalar_one()
        await connection.rollback()
    await engine.dispose()
    document: list[dict[str, Any]] = json.loads(plan) if isinstance(plan, str) else plan
    return document[0]


def walk(node: dict[str, Any]) -> list[dict[str, Any]]:
    return [node, *(inner for child in node.get("Plans", []) for inner in walk(child))]
