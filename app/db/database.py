"""Engine, connection pools, transactions and retries. Queries belong to the modules that use them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from itertools import count
from typing import Any, TypeVar

import psycopg
import sqlalchemy as sa
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine

from app.db import embedded
from app.settings import ConfigurationError, Settings
from app.telemetry import log

CONNECT_TIMEOUT_S = 5
PERSIST_GAP_S = 0.5

T = TypeVar("T")


class Database:
    """Two connection pools: a SQLAlchemy pool for transactions and single statements in autocommit, and a psycopg pool.

    The psycopg pool serves frequent statements, for which SQLAlchemy takes longer than the database, and the renewal of
    leases, which must not wait for a busy pool."""

    def __init__(self, url: str, *, pool_size: int = 10, prepare: bool = True) -> None:
        arguments: dict[str, Any] = {
            "connect_timeout": CONNECT_TIMEOUT_S,
            "application_name": "video-gateway",
            # A silently broken connection is detected within seconds instead of after the TCP time-out.
            "keepalives_idle": 15,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 15_000,
        }
        if not prepare:
            arguments["prepare_threshold"] = None
        self.engine: AsyncEngine = create_async_engine(
            url,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=CONNECT_TIMEOUT_S,
            pool_recycle=1800,
            connect_args=arguments,
            hide_parameters=True,
        )
        self._reading = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._bare: AsyncConnectionPool[psycopg.AsyncConnection[dict[str, Any]]] = AsyncConnectionPool(
            libpq_conninfo(url),
            kwargs={**arguments, "autocommit": True, "row_factory": dict_row},
            min_size=0,
            max_size=pool_size,
            timeout=CONNECT_TIMEOUT_S,
            open=False,
        )

    async def open(self) -> None:
        """Open the psycopg pool; required before `one`."""
        await self._bare.open()

    async def one(self, statement: bytes, parameters: dict[str, Any]) -> dict[str, Any] | None:
        """Run one statement in autocommit; returns its first row, None for no row. Raises `psycopg.Error`."""
        async with self._bare.connection() as connection:
            cursor = await connection.execute(statement, parameters)
            return await cursor.fetchone()

    async def now(self) -> datetime:
        """Read the database's clock. Raises the database's errors."""
        async with self.reading() as connection:
            found: datetime = (await connection.execute(sa.text("select clock_timestamp()"))).scalar_one()
            return found

    async def notify(self, channel: str, payload: str) -> None:
        """Send a notice to all listeners of `channel`. Raises `psycopg.Error`."""
        await self.one(b"select pg_notify(%(channel)s, %(payload)s)", {"channel": channel, "payload": payload})

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """One transaction: committed at the end of the block, rolled back when it raises."""
        async with AsyncSession(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    async def persist(self, write: Callable[[AsyncSession], Awaitable[T]], *, patience_s: float) -> T:
        """Run `write` in one transaction, repeated for up to `patience_s` seconds while the database is unavailable.

        For results of calls that cannot be repeated. Raises the error of `write`.
        """
        for waits in count():
            try:
                async with self.transaction() as session:
                    return await write(session)
            except Exception as error:
                if not is_unavailable(error) or waits * PERSIST_GAP_S >= patience_s:
                    raise
                if not waits:
                    log.warning("database unavailable, result kept", error=type(error).__name__)
                await asyncio.sleep(PERSIST_GAP_S)
        raise AssertionError("unreachable")

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A connection in autocommit, for one statement without BEGIN and COMMIT."""
        async with self._reading.connect() as connection:
            yield connection

    async def close(self) -> None:
        await self._bare.close()
        await self.engine.dispose()


def libpq_conninfo(url: str) -> str:
    """Convert a SQLAlchemy URL to a libpq connection string. libpq is stricter about characters in a password, and its
    errors repeat a URL that it cannot parse, password included."""
    parsed = sa.make_url(url)
    _, options = parsed.get_dialect()().create_connect_args(parsed)
    return make_conninfo(**options)


def is_unavailable(error: BaseException) -> bool:
    """Return True if `error` means that the database cannot be reached now, False for a wrong statement."""
    if isinstance(error, sa.exc.TimeoutError | psycopg.OperationalError):
        return True
    return isinstance(error, sa.exc.DBAPIError) and (
        error.connection_invalidated
        # InternalError: sent by a server during a failover to its standby.
        or isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError | sa.exc.InternalError)
    )


@asynccontextmanager
async def running_database(settings: Settings) -> AsyncIterator[str]:
    """Yield the database URL; without a configured one, the embedded PostgreSQL runs while the block lasts."""
    if settings.database_url is not None:
        yield settings.database_url.get_secret_value()
        return
    starting = asyncio.create_task(asyncio.to_thread(embedded.start, settings.data_dir))
    try:
        server = await asyncio.shield(starting)
    except asyncio.CancelledError:  # Ctrl-C during the start: the server must be stopped
        with suppress(ConfigurationError):
            await asyncio.to_thread((await starting).cleanup)
        raise
    try:
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
    finally:
        await asyncio.to_thread(server.cleanup)
