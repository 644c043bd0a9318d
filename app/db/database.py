"""Engine, connection pools, transactions and retries. Queries belong to the modules that use them."""

import asyncio
import math
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from itertools import count
from typing import Any, TypeVar

import psycopg
import sqlalchemy as sa
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from app.db import embedded
from app.db.address import CONNECT_TIMEOUT_S, Address, read_address
from app.db.faults import OLD_CONNECTION_KINDS, WRITE_KINDS, Fault, FaultLog, read_fault
from app.settings import ConfigurationError, Settings
from app.telemetry.logs import log
from app.telemetry.metrics import DATABASE_IN_USE, DATABASE_LIMIT

PERSIST_GAP_S = 0.5
PREPARE_AFTER = 5
"""Executions of a statement on one connection before it is prepared."""
RECONNECT_S = 1.0
"""Longest pause of the psycopg pool between two tries to connect; by default it grows to minutes."""
REPLACE_GAP_S = 1.0
"""Shortest interval between two replacements of all connections."""
WRITE_FAULT_S = 30.0
"""Seconds for which a fault of a write makes the process unready, unless a write succeeds meanwhile."""

_IS_READ_ONLY = sa.text(
    "select pg_is_in_recovery() or current_setting('transaction_read_only')::boolean from (select) as always "
    "left join (select 1 from videos limit 1) as readable on true"
)
_NOTIFY = b"select pg_notify(%(channel)s, payload) from unnest(%(payloads)s::text[]) as payload"
_WRITES = re.compile(r"\b(insert\s+into|(?<!for )update|delete\s+from)\s", re.IGNORECASE)
_INSERTS = re.compile(r"\binsert\s+into\s", re.IGNORECASE)
"""Statements that need room on the disk; others may be written to pages that exist."""

T = TypeVar("T")


class Database:
    """Two connection pools: a SQLAlchemy pool for transactions and single statements in autocommit, and a psycopg pool.

    The psycopg pool serves frequent statements, for which SQLAlchemy takes longer than the database, and the renewal of
    leases, which must not wait for a busy pool. Faults of the database are counted and logged here and nowhere else."""

    def __init__(self, url: str, *, pool_size: int = 10, prepare: bool = True) -> None:
        self._address = read_address(url)
        self._prepare = prepare
        self._faults = FaultLog()
        self._write_fault: tuple[float, Fault] | None = None
        self._generation = 0
        """Increased to replace all connections."""
        self._replaced_at = -math.inf
        self._refused: psycopg.Error | None = None
        """Error of the psycopg pool's last try to connect, which the pool itself does not tell."""
        self.engine: AsyncEngine = create_async_engine(
            "postgresql+psycopg://",
            async_creator=self._connect,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=CONNECT_TIMEOUT_S,
            pool_recycle=1800,
            hide_parameters=True,
        )
        for pool in ("sqlalchemy", "psycopg"):
            DATABASE_LIMIT.labels(pool).set(pool_size)
        self._in_use, self._bare_in_use = (DATABASE_IN_USE.labels(pool) for pool in ("sqlalchemy", "psycopg"))
        sa.event.listen(self.engine.sync_engine, "connect", self._connected)
        sa.event.listen(self.engine.sync_engine, "checkout", self._checked_out)
        sa.event.listen(self.engine.sync_engine, "after_cursor_execute", self._executed)
        self._reading = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._bare: AsyncConnectionPool[psycopg.AsyncConnection[dict[str, Any]]] = AsyncConnectionPool(
            connection_class=self._connections(),
            kwargs={"autocommit": True, "row_factory": dict_row},
            min_size=0,
            max_size=pool_size,
            timeout=CONNECT_TIMEOUT_S,
            reconnect_timeout=RECONNECT_S,
            open=False,
        )

    async def open(self) -> None:
        """Open the psycopg pool; required before `one`."""
        await self._bare.open()

    async def one(self, statement: bytes, parameters: dict[str, Any]) -> dict[str, Any] | None:
        """Run one statement in autocommit; returns its first row, None for no row. Raises `psycopg.Error`."""
        prepared = self._prepare
        try:
            return await self._one(statement, parameters)
        except psycopg.Error as error:
            fault = await self._note(error)
            if fault is None or fault.kind != "prepared_statements" or not prepared:
                raise
        return await self._one(statement, parameters)  # it was refused before it ran, and is not prepared this time

    async def _one(self, statement: bytes, parameters: dict[str, Any]) -> dict[str, Any] | None:
        try:
            with self._bare_in_use.track_inprogress():
                async with self._bare.connection() as connection:
                    cursor = await connection.execute(statement, parameters)
                    self._wrote(statement.decode(), cursor.rowcount)
                    return await cursor.fetchone()
        except PoolTimeout as error:
            raise error from self._refused

    async def now(self) -> datetime:
        """Read the database's clock. Raises the database's errors."""
        async with self.reading() as connection:
            found: datetime = (await connection.execute(sa.text("select clock_timestamp()"))).scalar_one()
            return found

    async def notify(self, channel: str, *payloads: str) -> None:
        """Send notices to all listeners of `channel` in one statement. Raises `psycopg.Error`."""
        await self.one(_NOTIFY, {"channel": channel, "payloads": list(payloads)})

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """One transaction: committed at the end of the block, rolled back when it raises."""
        try:
            with self._in_use.track_inprogress():
                async with AsyncSession(self.engine, expire_on_commit=False) as session, session.begin():
                    yield session
        except Exception as error:
            await self._note(error)
            raise

    async def persist(self, write: Callable[[AsyncSession], Awaitable[T]], *, patience_s: float) -> T:
        """Run `write` in one transaction, repeated for up to `patience_s` seconds while the database is unavailable.

        For results of calls that cannot be repeated. Raises the error of `write`.
        """
        for waits in count():
            try:
                async with self.transaction() as session:
                    return await write(session)
            except Exception as error:
                fault = read_fault(error)
                if fault is None or waits * PERSIST_GAP_S >= patience_s:
                    raise
                self._faults.write("database unavailable, result kept", fault)
                await asyncio.sleep(PERSIST_GAP_S)
        raise AssertionError("unreachable")

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A connection in autocommit, for one statement without BEGIN and COMMIT."""
        try:
            with self._in_use.track_inprogress():
                async with self._reading.connect() as connection:
                    yield connection
        except Exception as error:
            await self._note(error)
            raise

    async def check(self) -> Fault | None:
        """Look for a fault that prevents work: the database does not respond, is read-only, or refused a write a moment
        ago. None when all is well."""
        try:
            async with self.reading() as connection:
                read_only = await connection.scalar(_IS_READ_ONLY)
        except Exception as error:
            fault = read_fault(error)
            if fault is None:
                raise
            return fault
        if read_only:
            return await self._note(psycopg.errors.ReadOnlySqlTransaction("found by a check"))
        failed_at, fault = self._write_fault or (-math.inf, None)
        if fault is not None and fault.kind == "read_only":  # it no longer is
            self._write_fault = fault = None
        return fault if time.monotonic() - failed_at < WRITE_FAULT_S else None

    async def close(self) -> None:
        await self._bare.close()
        await self.engine.dispose()

    # Connections

    async def _connect(self, **options: Any) -> psycopg.AsyncConnection[Any]:
        connection = await psycopg.AsyncConnection.connect(self._address.conninfo, **options)
        connection.prepare_threshold = PREPARE_AFTER if self._prepare else None  # as it is now, after the wait
        return connection

    def _connections(self) -> type[psycopg.AsyncConnection[dict[str, Any]]]:
        """The connection class of the psycopg pool, which connects as the SQLAlchemy pool does."""
        database = self

        class Connection(psycopg.AsyncConnection[dict[str, Any]]):
            @classmethod
            async def connect(cls, conninfo: str = "", **options: Any) -> Any:
                try:
                    connection = await database._connect(**options)  # the same part
                except psycopg.Error as error:
                    database._refused = error
                    raise
                database._refused = None
                return connection

        return Connection

    def _connected(self, connection: Any, record: ConnectionPoolEntry) -> None:
        record.info["generation"] = self._generation

    def _checked_out(self, connection: Any, record: ConnectionPoolEntry, proxy: Any) -> None:
        if record.info["generation"] != self._generation:
            raise sa.exc.DisconnectionError

    async def _replace_connections(self) -> None:
        """Close all connections once they are idle: those to a former primary, for one, stay read-only for ever."""
        if time.monotonic() - self._replaced_at < REPLACE_GAP_S:
            return
        self._replaced_at = time.monotonic()
        self._generation += 1
        if not self._bare.closed:  # commands do not open it
            await self._bare.drain()

    # Faults

    async def _note(self, error: Exception) -> Fault | None:
        """Count and log the fault that an error means, and do what helps against it."""
        fault = read_fault(error)
        if fault is None:
            return None
        self._faults.count(fault)
        if fault.kind in WRITE_KINDS:
            self._write_fault = time.monotonic(), fault
        if fault.kind == "prepared_statements" and self._prepare:
            self._prepare = False
            self._replaced_at = -math.inf
            log.warning(
                "prepared statements switched off",
                hint="a pooler in transaction mode stands in between; GATEWAY_DATABASE_PREPARE=false says so from the "
                "start",
            )
            await self._replace_connections()
        elif fault.kind in OLD_CONNECTION_KINDS:
            await self._replace_connections()
        return fault

    def _executed(
        self, connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
    ) -> None:
        self._wrote(statement, cursor.rowcount)

    def _wrote(self, statement: str, rows: int) -> None:
        """Forget the last fault of a write when a statement has changed rows."""
        if self._write_fault is None or rows <= 0:
            return
        proof = _INSERTS if self._write_fault[1].kind == "disk_full" else _WRITES
        if proof.search(statement):
            self._write_fault = None


def read_and_warn(url: SecretStr, variable: str) -> Address:
    """Read an address of the settings, with a warning for each option that is dropped. Raises `ConfigurationError`."""
    address = read_address(url.get_secret_value(), variable)
    for option in address.dropped:
        log.warning("database option dropped", option=option, variable=variable, hint="PostgreSQL's library has none")
    return address


@asynccontextmanager
async def running_database(settings: Settings) -> AsyncIterator[str]:
    """Yield the database URL; without a configured one, the embedded PostgreSQL runs while the block lasts."""
    if settings.database_url is not None:
        yield read_and_warn(settings.database_url, "GATEWAY_DATABASE_URL").url
        return
    starting = asyncio.create_task(asyncio.to_thread(embedded.start, settings.data_dir))
    try:
        server = await asyncio.shield(starting)
    except asyncio.CancelledError:  # Ctrl-C during the start: the server must be stopped
        with suppress(ConfigurationError):
            await asyncio.to_thread((await starting).cleanup)
        raise
    try:
        yield server.get_uri()
    finally:
        await asyncio.to_thread(server.cleanup)
