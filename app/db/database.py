"""Engine, session factory, and the check of the schema version.

Never: queries. They live with the noun they serve.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine

from app.db import embedded
from app.db.embedded import Embedded
from app.settings import ConfigurationError, Settings

MIGRATIONS = Path(__file__).resolve().parent.parent.parent / "migrations"
CONNECT_TIMEOUT_S = 5


class SchemaBehind(ConfigurationError):
    """The database is not at the version this release needs."""


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
            libpq(url),
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

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """For one statement that needs no BEGIN and COMMIT around it."""
        async with self._reading.connect() as connection:
            yield connection

    async def close(self) -> None:
        await self._bare.close()
        await self.engine.dispose()


def libpq(url: str) -> str:
    """The same address for PostgreSQL's own library, which is stricter about what a password is written like, and
    repeats what it cannot read in its errors."""
    parsed = sa.make_url(url)
    _, options = parsed.get_dialect()().create_connect_args(parsed)
    return make_conninfo(**options)


def unavailable(error: BaseException) -> bool:
    """Say whether `error` means that the database cannot be reached now, rather than that a statement is wrong."""
    if isinstance(error, sa.exc.TimeoutError | psycopg.OperationalError):
        return True
    return isinstance(error, sa.exc.DBAPIError) and (
        error.connection_invalidated
        # InternalError: what a server says while it is being replaced by its standby.
        or isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError | sa.exc.InternalError)
    )


@asynccontextmanager
async def url_of(settings: Settings) -> AsyncIterator[str]:
    """Yield the database's address, with the embedded PostgreSQL running while the block lasts."""
    if settings.database_url is not None:
        yield settings.database_url.get_secret_value()
        return
    starting = asyncio.create_task(asyncio.to_thread(start_embedded, settings.data_dir))
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


def start_embedded(data_dir: Path) -> Embedded:
    """Start or join the PostgreSQL under `data_dir`. Raises `ConfigurationError` with the next step."""
    return embedded.start(data_dir)


def alembic_config(url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["url"] = url
    return config


async def migrate(url: str) -> str | None:
    """Bring the schema to this release; any number of processes may try at once. Returns the revision, None if there
    was nothing to do. Raises `ConfigurationError`."""
    current, head = await schema_revision(url), _head()
    if current == head:
        return None
    _refuse_newer(current)
    try:
        await asyncio.to_thread(command.upgrade, alembic_config(url), "head")
    except sa.exc.DBAPIError as error:
        raise ConfigurationError(f"the database {_shown(url)} cannot be migrated: {_reason(error)}") from error
    return head


async def require_current_schema(url: str) -> None:
    """Raise `SchemaBehind`, with the command to run, unless the schema is the one this release needs."""
    current, head = await schema_revision(url), _head()
    if current == head:
        return
    _refuse_newer(current)
    found = "is empty" if current is None else f"has the schema {current}"
    raise SchemaBehind(f"the database {_shown(url)} {found}, this release needs {head}. Run\n  video-gateway migrate")


def _head() -> str | None:
    return ScriptDirectory(str(MIGRATIONS)).get_current_head()


def _refuse_newer(revision: str | None) -> None:
    known = {script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()}
    if revision is not None and revision not in known:
        raise SchemaBehind(
            f"the database has the schema {revision}, which is newer than this release; update video-gateway"
        )


async def schema_revision(url: str) -> str | None:
    """The schema's version, None for an empty database. Raises `ConfigurationError` when it cannot be reached."""
    arguments = {"connect_timeout": CONNECT_TIMEOUT_S, "prepare_threshold": None}
    try:
        engine = create_async_engine(url, poolclass=sa.NullPool, connect_args=arguments)
    except (sa.exc.ArgumentError, ValueError):
        raise ConfigurationError(
            "GATEWAY_DATABASE_URL cannot be read; expected postgresql://user:password@host:5432/database, with "
            "characters such as / @ : # in the password percent-encoded"
        ) from None
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(lambda c: MigrationContext.configure(c).get_current_revision())
    except sa.exc.DBAPIError as error:
        raise ConfigurationError(f"the database {_shown(url)} cannot be reached: {_reason(error)}") from None
    finally:
        with suppress(Exception):
            await engine.dispose()


def _shown(url: str) -> str:
    """The address without anything that may be secret."""
    shown = sa.make_url(url).set(drivername="postgresql", password=None, query={})
    return shown.render_as_string()


def _reason(error: sa.exc.DBAPIError) -> str:
    lines = str(error.orig).strip().splitlines() if error.orig else []
    return lines[0].strip() if lines else "no reason given"
