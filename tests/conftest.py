"""Fixtures of all tests: a PostgreSQL server, a clock that tests move, and a gateway reached through its HTTP API."""

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import programs
import psycopg
import pytest
import sqlalchemy as sa
import structlog
from asgi_lifespan import LifespanManager
from described import DescribedTransport
from fakes.openai import FakeOpenAI
from fakes.otlp import Collector
from fakes.server import KEY, serve
from harness import ALICE, BOB, ORIGIN, Clock, Running, StartGateway, scratch_database, sqlalchemy_url
from money import ADMIN, Operator, operator_of
from samples import Samples
from sqlalchemy.dialects.postgresql.psycopg import PGDialectAsync_psycopg
from sqlalchemy.util import LRUCache
from upstreams import Upstreams

from app import settings
from app.db import embedded
from app.db.clock import DatabaseClock
from app.db.migrate import upgrade_schema
from app.db.models import Base
from app.main import create_app
from app.providers import KINDS

_PLAIN = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
structlog.configure(processors=[*structlog.get_config()["processors"][:-1], _PLAIN])  # rich ones take a second each


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort slow tests first, so that no core is idle at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The npm packages of the tests."""
    base = tmp_path_factory.getbasetemp()
    return programs.install((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "npm")


_COMPILED: LRUCache[Any, Any] = LRUCache(2_000)


@sa.event.listens_for(sa.Engine, "engine_connect")
def share_compiled_statements(connection: sa.Connection) -> None:
    """Compile each statement once in a run instead of once in each gateway, which took a third of the time of tests."""
    connection.engine._compiled_cache = _COMPILED


def _has_class_of(dialect: object, other: object) -> bool:
    return type(dialect) is type(other)


# Statements are cached by dialect. All engines of a run speak to one server, so one dialect is as good as another.
setattr(PGDialectAsync_psycopg, "__eq__", _has_class_of)  # noqa: B010
setattr(PGDialectAsync_psycopg, "__hash__", lambda _: 0)  # noqa: B010

_TABLES = [table.name for table in Base.metadata.sorted_tables]
_EMPTY = f"""
do $$ begin
  set local session_replication_role = replica;  -- no triggers, no order of tables
  if (select sum(pg_relation_size(name::regclass)) from unnest(array{_TABLES}) as name) > 2000000 then
    truncate {", ".join(_TABLES)};
  else  -- truncate makes new files, which takes a hundred times as long as deleting a few rows
    {" ".join(f"delete from {name};" for name in _TABLES)}
  end if;
end $$
""".encode()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Tests see neither the environment's settings and vendors' keys nor a .env or gateway.toml that happens to lie
    around."""
    keys = {variable for kind in KINDS for variable in kind.key_variables}
    for name in list(os.environ):
        if name.startswith(("GATEWAY_", "OTEL_")) or name in keys:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server to make databases on: TEST_DATABASE_URL, else an embedded one."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        yield given
        return
    # Not under pytest's own directory, which every other run of this user locks again, even while we are running.
    with tempfile.TemporaryDirectory(prefix="gateway-tests-") as directory:
        Path(directory).chmod(0o711)  # the embedded server may run as another user
        server = embedded.start(Path(directory))
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            for setting in ("fsync", "full_page_writes"):  # it is thrown away anyhow
                connection.execute(f"alter system set {setting} = off".encode())
            connection.execute("select pg_reload_conf()")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture(scope="session")
async def migrated(postgres: str) -> AsyncIterator[str]:
    """A database of this run's own, with the current schema."""
    async with scratch_database(postgres) as url:
        await upgrade_schema(sqlalchemy_url(url))
        yield url


@pytest.fixture
async def database_url(migrated: str) -> AsyncIterator[str]:
    """The migrated database, emptied after the test."""
    yield migrated
    await _empty(migrated)


@pytest.fixture(scope="module")
async def module_database_url(migrated: str) -> AsyncIterator[str]:
    """The migrated database for one gateway of all tests of a module, emptied after the last one."""
    yield migrated
    await _empty(migrated)


async def _empty(url: str) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(_EMPTY)


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """Odd video files, each made once in a run."""
    return Samples(tmp_path_factory.mktemp("samples"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def start_gateway(database_url: str, tmp_path: Path, clock: Clock) -> StartGateway:
    """Start a gateway with these settings on top of the tests' own; no worker runs unless the test makes it. Its time
    is that of `clock`, unless another one is given as `its_clock`."""

    @asynccontextmanager
    async def start(*, its_clock: DatabaseClock | None = None, **overrides: Any) -> AsyncIterator[Running]:
        values = {
            "database_url": database_url,
            "data_dir": tmp_path / "data",
            "api_keys": [ALICE, BOB],
            "pepper": "a pepper of the tests",
            "run_worker": False,
            "allow_networks": ["127.0.0.0/8"],
            **overrides,
        }
        app = create_app(settings.load(_env_file=None, **values), clock=its_clock or clock)
        async with LifespanManager(app, startup_timeout=30, shutdown_timeout=30) as manager:
            transport = DescribedTransport(manager.app)

            def client(key: str) -> httpx.AsyncClient:
                headers = {"authorization": f"Bearer {key}"}
                return httpx.AsyncClient(transport=transport, base_url=ORIGIN, headers=headers)

            async with client(ALICE) as alice, client(BOB) as bob:
                yield Running(app, clock, alice, bob)

    return start


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> AsyncIterator[Running]:
    """A gateway with nothing configured but the sandbox."""
    async with start_gateway() as running:
        yield running


@pytest.fixture
async def fake() -> FakeOpenAI:
    return FakeOpenAI(polls_until_working=0, polls_until_done=0)


@pytest.fixture
async def up(fake: FakeOpenAI, start_gateway: StartGateway) -> AsyncIterator[Running]:
    """A gateway in front of an upstream that the test scripts."""
    async with serve(fake) as url:
        upstream = {"kind": "openai", "base_url": f"{url}/v1", "api_key": KEY, "models": ["sora-2"]}
        async with start_gateway(providers={"up": upstream}) as running:
            yield running


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    """A receiver of traces, to which every gateway that is started then sends."""
    collector = Collector()
    async with serve(collector) as url:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        yield collector


@pytest.fixture
async def two() -> AsyncIterator[Upstreams]:
    upstreams = Upstreams(one=FakeOpenAI(), two=FakeOpenAI())
    async with AsyncExitStack() as stack:
        for name, fake in upstreams.fakes.items():
            upstreams.urls[name] = await stack.enter_async_context(serve(fake))
        yield upstreams


@pytest.fixture
async def operator(start_gateway: StartGateway) -> AsyncIterator[Operator]:
    async with start_gateway(admin_key=ADMIN) as gateway, operator_of(gateway) as operator:
        yield operator
