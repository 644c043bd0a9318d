"""Migrations with Alembic, and the check of the schema version at start."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psycopg
import sqlalchemy as sa
from alembic import command, op
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from app.db.address import read_address
from app.settings import ConfigurationError

FUNCTIONS = Path(__file__).resolve().parent / "functions"
MIGRATIONS = Path(__file__).resolve().parent.parent.parent / "migrations"


class SchemaBehind(ConfigurationError):
    """The database is not at the version this release needs."""


class SchemaAhead(SchemaBehind):
    """The database has the schema of a newer release."""


def create_functions(*names: str) -> None:
    """Create or replace the functions and triggers of these files of `app/db/functions/`, inside a migration."""
    for name in names:
        op.execute((FUNCTIONS / f"{name}.sql").read_text("utf-8"))


def alembic_config(url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["url"] = url
    return config


async def upgrade_schema(url: str, note: Callable[[str | None, str], sa.Executable] | None = None) -> str | None:
    """Upgrade the schema to this release; safe in several processes at once. Returns the new revision, None if the
    schema was current. `note` makes the statement that records the revisions, in the same transaction. Raises
    `ConfigurationError`."""
    current, head = await schema_revision(url), newest_revision()
    if current == head:
        return None
    _refuse_newer(current)
    try:
        config = alembic_config(url)
        config.attributes["note"] = note
        await asyncio.to_thread(command.upgrade, config, "head")
    except sa.exc.DBAPIError as error:
        raise ConfigurationError(f"the database {read_address(url)} cannot be migrated: {_reason(error)}") from error
    return head


async def upgrade_within(connection: AsyncConnection, note: Callable[[str | None, str], sa.Executable]) -> str | None:
    """Upgrade the schema in the transaction of `connection`. Returns the new revision, None if the schema was current.
    Raises `SchemaAhead`."""
    current = await connection.run_sync(_revision)
    _refuse_newer(current)
    if current == newest_revision():
        return None
    config = alembic_config("")
    config.attributes["note"] = note

    def upgrade(its: sa.Connection) -> None:
        config.attributes["connection"] = its
        command.upgrade(config, "head")

    await connection.run_sync(upgrade)
    return newest_revision()


async def require_current_schema(url: str) -> None:
    """Raise `SchemaBehind`, with the command to run, unless the schema is the one this release needs."""
    current, head = await schema_revision(url), newest_revision()
    if current == head:
        return
    _refuse_newer(current)
    found = "is empty" if current is None else f"has the schema {current}"
    raise SchemaBehind(
        f"the database {read_address(url)} {found}, this release needs {head}. Run\n  video-gateway migrate"
    )


def newest_revision() -> str | None:
    """The schema that this release needs."""
    return ScriptDirectory(str(MIGRATIONS)).get_current_head()


def is_known(revision: str) -> bool:
    """Return True for a revision of this release or an older one."""
    return revision in {script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()}


def _refuse_newer(revision: str | None) -> None:
    if revision is not None and not is_known(revision):
        raise SchemaAhead(
            f"the database has the schema {revision}, which is newer than this release; update video-gateway"
        )


async def schema_revision(url: str) -> str | None:
    """Read the schema revision; None for an empty database. Raises `ConfigurationError` when it cannot be reached."""
    address = read_address(url)
    engine = create_async_engine(
        "postgresql+psycopg://",
        poolclass=sa.NullPool,
        async_creator=lambda: psycopg.AsyncConnection.connect(address.conninfo, prepare_threshold=None),
    )
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(_revision)
    except sa.exc.DBAPIError as error:
        raise ConfigurationError(f"the database {address} cannot be reached: {_reason(error)}") from None
    finally:
        with suppress(Exception):
            await engine.dispose()


def _revision(connection: sa.Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _reason(error: sa.exc.DBAPIError) -> str:
    lines = str(error.orig).strip().splitlines() if error.orig else []
    return lines[0].strip() if lines else "no reason given"
