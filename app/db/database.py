"""Engine, session factory, and the check of the schema version.

Never: queries. They live with the noun they serve.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
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
    """One pool for transactions, which single statements share in autocommit; and one of bare connections for the few
    statements that run all the time, where SQLAlchemy would take longer than the database, and for the one that keeps a
    worker's leases, which must not wait for the work."""

    def __init__(self, url: str, *, pool_size: int = 10, prepare: bool = True) -> None:
        arguments: dict[str, Any] = {
            "connect_timeout": CONNECT_TIMEOUT_S,
            "application_name": "video-gateway",
            # A database that vanished without a word is noticed within seconds, not when TCP gives up.
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
        """Start what runs in the background; before `one` is used."""
        await self._bare.open()

    async def one(self, statement: bytes, parameters: dict[str, Any]) -> dict[str, Any] | None:
        """The only row of one statement in autocommit, None for none. Raises `psycopg.Error`."""
        async with self._bare.connection() as connection:
            cursor = await connection.execute(statement, parameters)
            return await cursor.fetchone()

    async def notify(self, channel: str, payload: str) -> None:
        """Send a notice to all who listen. Raises `psycopg.Error`."""
        await self.one(b"select pg_notify(%(channel)s, %(payload)s)", {"channel": channel, "payload": payload})

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """One transaction: committed when the block ends well, rolled back when it raises."""
        async with AsyncSession(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    async def persist(self, write: Callable[[AsyncSession], Awaitable[T]], *, patience_s: float) -> T:
        """Run `write` in one transaction, again and again while the database is unavailable, for `patience_s` seconds.

        For the answer of a call that cannot be made again. Raises what `write` raises.
        """
        for waits in count():
            try:
                async with self.transaction() as session:
                    return await write(session)
            except Exception as error:
                if not is_unavailable(error) or waits * PERSIST_GAP_S >= patience_s:
                    raise
                log.warning("database unavailable, result kept", error=type(error).__name__)
                await asyncio.sleep(PERSIST_GAP_S)
        raise AssertionError("unreachable")

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """For one statement that needs no BEGIN and COMMIT around it."""
        async with self._reading.connect() as connection:
            yield connection

    async def close(self) -> None:
        await self._bare.close()
        await self.engine.dispose()


def libpq_conninfo(url: str) -> str:
    """The same address for PostgreSQL's own library, which is stricter about what a password is written like, and
    repeats what it cannot read in its errors."""
    parsed = sa.make_url(url)
    _, options = parsed.get_dialect()().create_connect_args(parsed)
    return make_conninfo(**options)


def is_unavailable(error: BaseException) -> bool:
    """Say whether `error` means that the database cannot be reached now, rather than that a statement is wrong."""
    if isinstance(error, sa.exc.TimeoutError | psycopg.OperationalError):
        return True
    return isinstance(error, sa.exc.DBAPIError) and (
        error.connection_invalidated
        # InternalError: what a server says while it is being replaced by its standby.
        or isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError | sa.exc.InternalError)
    )


@asynccontextmanager
async def running_database(settings: Settings) -> AsyncIterator[str]:
    """Yield the database's address, with the embedded PostgreSQL running while the block lasts."""
    if settings.database_url is not None:
        yield settings.database_url.get_secret_value()
        return
    starting = asyncio.create_task(asyncio.to_thread(embedded.start, settings.data_dir))
    try:
        server = await asyncio.shield(starting)
    except asyncio.CancelledError:  # Ctrl-C while it starts: it must not stay behind
        with suppress(ConfigurationError):
            await asyncio.to_thread((await starting).cleanup)
        raise
    try:
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
    finally:
        await asyncio.to_thread(server.cleanup)
