"""The test harness apart from fixtures: the clock, the gateway under test with two clients, scratch databases."""

import re
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import httpx
import psycopg
import sqlalchemy as sa
from fastapi import FastAPI

from app.db.models import Attempt
from app.http.context import Gateway
from app.jobs.worker import Worker

ORIGIN = "http://gateway.test"

ALICE, BOB = "sk-alice-0123456789", "sk-bob with a blank"


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
    """The address as SQLAlchemy writes it, for tests that look into the database by it."""
    return url.replace("postgresql://", "postgresql+psycopg://", 1)


def plain(said: str) -> str:
    """Logged text without its colours."""
    return re.sub(r"\x1b\[\d*m", "", said)


@dataclass
class Clock:
    """Time as the gateway sees it; it stands still until moved."""

    now: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class RealClock(Clock):
    """Time as it is, for clients that wait in it."""

    def __call__(self) -> datetime:
        return datetime.now(UTC)


@dataclass
class Running:
    """A gateway under test: its HTTP API as two projects call it, and its parts."""

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


@contextmanager
def statements(gateway: Running) -> Iterator[list[str]]:
    """The statements sent to the database meanwhile, except the two that bypass SQLAlchemy."""
    seen: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        seen.append(statement)

    engine = gateway.gateway.db.engine.sync_engine
    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)
