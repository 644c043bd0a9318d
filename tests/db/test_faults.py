"""A database that cannot do its work for a while: clients get a 503, /readyz the reason, and afterwards all goes on."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import sqlalchemy as sa
from fakes.openai import FakeOpenAI
from fakes.server import KEY, serve
from harness import Running, StartGateway, plain, sqlalchemy_url
from money import ADMIN, operator_of
from processes import until
from psycopg.conninfo import conninfo_to_dict

from app import settings
from app.cli.manage import with_database
from app.db.address import read_address
from app.db.database import Database
from app.db.faults import TEXTS, read_fault
from app.main import open_parts
from app.settings import ConfigurationError

pytestmark = pytest.mark.anyio

BOAT = {"prompt": "a paper boat", "model": "up/sora-2"}


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("08000", "unreachable"),
        ("08006", "unreachable"),
        ("08P01", "unreachable"),
        ("25001", None),
        ("25006", "read_only"),
        ("25P02", None),
        ("25P03", "cancelled"),
        ("26000", "prepared_statements"),
        ("42P05", "prepared_statements"),
        ("40001", "conflict"),
        ("40P01", "conflict"),
        ("53000", "limit_exceeded"),
        ("53100", "disk_full"),
        ("53200", "out_of_memory"),
        ("53300", "too_many_connections"),
        ("53400", "limit_exceeded"),
        ("57014", "cancelled"),
        ("57P01", "shutting_down"),
        ("57P02", "shutting_down"),
        ("57P03", "starting_up"),
        ("58000", "io_error"),
        ("58030", "io_error"),
        ("58P01", "io_error"),
        ("XX000", "internal"),
        ("XX001", "io_error"),
        ("23505", None),
        ("42P01", None),
        ("54000", None),
    ],
)
async def test_every_state_of_a_server_is_a_fault_or_a_mistake(state: str, kind: str | None, migrated: str) -> None:
    statement = f"do $$ begin raise exception 'as it happens' using errcode = '{state}'; end $$"
    async with await psycopg.AsyncConnection.connect(migrated) as connection:
        with pytest.raises(psycopg.Error) as caught:
            await connection.execute(statement.encode())
        assert (found := read_fault(caught.value)) is None or found.detail == "as it happens"
        assert (found and found.kind) == kind
    engine = sa.create_engine(sqlalchemy_url(migrated), poolclass=sa.NullPool)
    with engine.connect() as wrapped, pytest.raises(sa.exc.DBAPIError) as seen:
        wrapped.exec_driver_sql(statement)
    assert ((found := read_fault(seen.value)) and found.kind) == kind
    assert kind is None or TEXTS[kind]


@dataclass
class Stage:
    """A gateway whose database a test breaks, and a superuser's connection that stays."""

    gateway: Running
    fake: FakeOpenAI
    limited: httpx.AsyncClient
    """A client whose key may make so many requests a minute."""
    superuser: psycopg.AsyncConnection[Any]
    url: str
    role: str
    """The gateway's own, for which no connection is kept in reserve, unlike for a superuser."""
    capture: pytest.CaptureFixture[str]

    async def run(self, *statements: str) -> None:
        for statement in statements:
            await self.superuser.execute(statement.encode())

    async def disconnect(self) -> None:
        await self.run(f"select pg_terminate_backend(pid) from pg_stat_activity where usename = '{self.role}'")

    async def refuses_work(self, kind: str) -> None:
        """Creates, and all requests of a key with a rate, get the same 503; /readyz tells the reason; the log one."""
        creates = [self.gateway.client.post("/v1/videos", json=BOAT) for _ in range(8)]
        for answer in await asyncio.gather(*creates, self.limited.get("/v1/videos")):
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "2"), answer.text
            assert answer.json()["error"]["message"] == "the gateway cannot take requests just now; try again"
        ready = await self.gateway.client.get("/readyz")
        assert (ready.status_code, ready.headers["retry-after"]) == (503, "2")
        assert ready.json() == {"status": "database unavailable", "reason": TEXTS[kind]}

    async def works_again(self) -> None:
        async def is_ready() -> bool | None:
            return (await self.gateway.client.get("/readyz")).status_code == 200 or None

        await until(is_ready)
        for client in (self.gateway.client, self.limited):
            assert (await client.get("/v1/videos")).status_code == 200
        video = await self.gateway.finish((await self.gateway.create(**BOAT))["id"])
        assert video["status"] == "completed"

    async def logged(self, kind: str, level: str) -> None:
        """One line for all of them, without a traceback, and a count."""
        said = plain("".join(self.capture.readouterr()))
        assert "Traceback" not in said
        (line, *more) = re.findall(rf".*database unavailable  .*kind={kind}.*", said)
        assert len(more) <= 1, "unless it took more than ten seconds"
        assert re.search(rf"\[{level} *\].*reason=.{re.escape(TEXTS[kind][:30])}.*suppressed=0", line)
        text = (await self.gateway.client.get("/metrics")).text
        found = re.search(rf'^gateway_database_errors_total{{kind="{kind}"}} (\S+)', text, re.MULTILINE)
        assert found is not None
        assert float(found[1]) >= 3, "lookups of one key at once are one"


@pytest.fixture
async def stage(
    start_gateway: StartGateway, database_url: str, fake: FakeOpenAI, capsys: pytest.CaptureFixture[str]
) -> AsyncIterator[Stage]:
    options = conninfo_to_dict(database_url)
    role = f"role_of_{options['dbname']}"
    url = read_address(database_url)
    url = replace(url, options={**url.options, "user": role, "password": "sekret"})
    async with (
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as superuser,
        serve(fake) as upstream,
    ):
        await superuser.execute(f"create role {role} login password 'sekret'".encode())
        await superuser.execute(f"grant all on all tables in schema public to {role}".encode())
        up = {"kind": "openai", "base_url": f"{upstream}/v1", "api_key": KEY, "models": ["sora-2"]}
        more = {"database_url": url.url, "admin_key": ADMIN, "providers": {"up": up}}
        try:
            async with (
                start_gateway(**more) as gateway,
                operator_of(gateway) as operator,
                operator.user(await operator.key("fast", requests_per_minute=6000)) as limited,
            ):
                yield Stage(gateway, fake, limited, superuser, url.url, role, capsys)
        finally:
            await superuser.execute(f"drop owned by {role}".encode())
            await superuser.execute(f"drop role {role}".encode())


async def test_a_read_only_database_is_waited_out(stage: Stage) -> None:
    """Sessions of a former primary stay read-only, so all of them are replaced."""
    waiting = await stage.gateway.create(**BOAT)
    await stage.run(f"alter role {stage.role} set default_transaction_read_only = on")
    await stage.disconnect()
    await stage.gateway.client.get("/readyz")  # meets the end of its old session
    await stage.refuses_work("read_only")
    assert stage.fake.submits == []
    await stage.run(f"alter role {stage.role} reset default_transaction_read_only")
    await stage.works_again()
    assert (await stage.gateway.finish(waiting["id"]))["status"] == "completed"
    assert len(stage.fake.submits) == 2
    await stage.logged("read_only", "error")


async def test_a_start_and_a_command_explain_a_fault(stage: Stage, tmp_path: Path) -> None:
    await stage.run(f"alter role {stage.role} set default_transaction_read_only = on")
    config = settings.load(
        database_url=stage.url,
        data_dir=tmp_path / "other",
        pepper="a pepper of the tests",
        api_keys=["sk-that-has-no-project-yet"],
    )

    async def write(database: Database, now: datetime) -> None:
        async with database.transaction() as session:
            await session.execute(sa.text("delete from videos"))

    with pytest.raises(ConfigurationError, match="the database is read-only: it is a standby, or was switched"):
        async with open_parts(config):
            raise AssertionError("it started")
    with pytest.raises(ConfigurationError, match=r"read-only \(cannot execute DELETE in a read-only transaction\)"):
        await asyncio.to_thread(with_database, config, write)


async def test_a_database_without_free_connections_is_waited_out(stage: Stage) -> None:
    await stage.run(f"alter role {stage.role} connection limit 0")
    await stage.disconnect()
    await stage.gateway.client.get("/readyz")
    await stage.refuses_work("too_many_connections")
    await stage.run(f"alter role {stage.role} connection limit -1")
    await stage.works_again()
    await stage.logged("too_many_connections", "warning")


FULL = """
create function full_disk() returns trigger language plpgsql as $$ begin
  raise sqlstate '53100' using message = 'could not extend file "base/1/2": No space left on device';
end $$
"""
ON = "create trigger full_disk before insert or update on {} for each row {} execute function full_disk()"


async def test_a_full_disk_is_said_and_a_picture_of_a_refused_request_is_not_kept(stage: Stage, tmp_path: Path) -> None:
    await stage.run(FULL, ON.format("videos", ""), ON.format("request_rates", ""))
    await stage.refuses_work("disk_full")
    await stage.gateway.worker.run_once()  # its statements need no room
    assert (await stage.gateway.client.get("/readyz")).status_code == 503
    picture = {"input_reference": ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(64))}
    answer = await stage.gateway.client.post("/v1/videos", data=BOAT, files=picture)
    assert answer.status_code == 503
    assert [file for file in (tmp_path / "data" / "media").rglob("*") if file.is_file()] == []
    assert (await stage.gateway.client.get("/v1/videos")).status_code == 200, "reads go on"
    await stage.run("drop function full_disk cascade")
    assert (await stage.gateway.client.get("/readyz")).status_code == 503, "until a write succeeds, for a while"
    await stage.gateway.create(**BOAT)
    await stage.works_again()
    await stage.logged("disk_full", "error")


async def test_the_result_of_a_submit_is_kept_while_the_disk_is_full(stage: Stage) -> None:
    await stage.run(FULL, ON.format("attempts", "when (new.state = 'running')"))
    video = await stage.gateway.create(**BOAT)
    working = asyncio.create_task(stage.gateway.worker.run_once())

    async def is_kept() -> bool | None:
        return "result kept" in stage.capture.readouterr().out or None

    await until(is_kept)
    assert (await stage.gateway.client.get("/readyz")).json()["reason"] == TEXTS["disk_full"]
    await stage.run("drop function full_disk cascade")
    await working
    assert (await stage.gateway.finish(video["id"]))["status"] == "completed"
    assert len(stage.fake.submits) == 1
