"""What all tests share: a real Postgres, a clock that moves when told, and a gateway driven through its front door."""

import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import httpx
import psycopg
import pytest
import sqlalchemy as sa
from asgi_lifespan import LifespanManager
from fastapi import FastAPI

from app import settings
from app.db import embedded
from app.db.migrate import upgrade_schema
from app.db.models import Attempt, Base
from app.http.context import Gateway
from app.jobs.worker import Worker
from app.main import create_app
from app.settings import Settings

ORIGIN = "http://gateway.test"
ALICE, BOB = "sk-alice-0123456789", "sk-bob with a blank"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long comes first, so that no core is idle at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Tests see neither the environment's settings nor a .env or gateway.toml that happens to lie around."""
    for name in list(os.environ):
        if name.startswith("GATEWAY_"):
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


@asynccontextmanager
async def scratch_database(server: str) -> AsyncIterator[str]:
    """A new, empty database on `server`, dropped afterwards; yields its address."""
    name = f"test_{secrets.token_hex(8)}"
    async with await psycopg.AsyncConnection.connect(server, autocommit=True) as connection:
        await connection.execute(f"create database {name}".encode())
    try:
        yield (
            sa.make_url(sqlalchemy_url(server))
            .set(database=name)
            .render_as_string(hide_password=False)
            .replace("+psycopg", "")
        )
    finally:
        async with await psycopg.AsyncConnection.connect(server, autocommit=True) as connection:
            await connection.execute(f"drop database {name} with (force)".encode())


def sqlalchemy_url(url: str) -> str:
    loaded = Settings(database_url=cast("Any", url), _env_file=None)
    assert loaded.database_url is not None
    return loaded.database_url.get_secret_value()


@pytest.fixture
async def database_url(migrated: str) -> AsyncIterator[str]:
    """The migrated database, emptied after the test."""
    yield migrated
    tables = ", ".join(table.name for table in Base.metadata.sorted_tables)
    async with await psycopg.AsyncConnection.connect(migrated, autocommit=True) as connection:
        await connection.execute(f"truncate {tables}".encode())


@dataclass
class Clock:
    """Time as the gateway sees it; it stands still until moved."""

    now: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@dataclass
class Running:
    """A gateway under test: its front door as two callers see it, and the levers a test may pull."""

    app: FastAPI
    clock: Clock
    client: httpx.AsyncClient
    """Alice, with her key."""
    bob: httpx.AsyncClient
    """Another project."""

    @property
    def gateway(self) -> Gateway:
        return cast("Gateway", self.app.state.gateway)

    @property
    def worker(self) -> Worker:
        return cast("Worker", self.app.state.worker)

    async def create(self, **fields: Any) -> dict[str, Any]:
        """Create a video as Alice; it has to be accepted."""
        response = await self.client.post("/v1/videos", json={"prompt": "a paper boat", **fields})
        assert response.status_code == 202, response.text
        return cast("dict[str, Any]", response.json())

    async def get(self, video_id: str) -> dict[str, Any]:
        response = await self.client.get(f"/v1/videos/{video_id}")
        assert response.status_code == 200, response.text
        return cast("dict[str, Any]", response.json())

    async def finish(self, video_id: str, *, step_s: float = 20, steps: int = 400) -> dict[str, Any]:
        """Let the worker do what is due and the clock move on, until the video has ended."""
        for _ in range(steps):
            await self.worker.run_once()
            video = await self.get(video_id)
            if video["status"] in ("completed", "failed"):
                return video
            self.clock.advance(step_s)
        raise AssertionError(f"still {video['status']} after {steps} steps")

    async def attempts(self, video_id: str) -> list[Attempt]:
        """The attempts of a video, oldest first; what an operator sees, clients do not."""
        async with self.gateway.db.transaction() as session:
            query = sa.select(Attempt).where(Attempt.video_id == video_id).order_by(Attempt.id)
            return list(await session.scalars(query))


StartGateway = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
def start_gateway(database_url: str, tmp_path: Path, clock: Clock) -> StartGateway:
    """Start a gateway with these settings on top of the tests' own; no worker runs unless the test makes it."""

    @asynccontextmanager
    async def start(**overrides: Any) -> AsyncIterator[Running]:
        values = {
            "database_url": database_url,
            "data_dir": tmp_path / "data",
            "api_keys": [ALICE, BOB],
            "pepper": "test pepper",
            "run_worker": False,
            "allow_networks": ["127.0.0.0/8"],
            **overrides,
        }
        app = create_app(settings.load(_env_file=None, **values), clock=clock)
        async with LifespanManager(app, startup_timeout=30, shutdown_timeout=30) as manager:
            transport = httpx.ASGITransport(manager.app)

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


@asynccontextmanager
async def another_worker(gateway: Running) -> AsyncIterator[Worker]:
    """A second worker on the same database, as another process would be."""
    parts = gateway.gateway
    yield Worker(
        db=parts.db,
        settings=parts.settings,
        providers=parts.providers,
        store=parts.store,
        links=parts.links,
        sender=parts.sender,
        clock=gateway.clock,
    )
