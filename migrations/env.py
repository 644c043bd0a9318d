"""How alembic reaches the database: the connection or the address it was handed, or the one the settings name."""

import asyncio

import psycopg
import sqlalchemy as sa
from alembic import context

from app import settings
from app.db.address import read_address
from app.db.database import running_database
from app.db.models import Base

LOCK = 0x76696465  # "vide": one migration at a time, however many processes start


def run(url: str) -> None:
    # No prepared statements and no lock that outlives the transaction: PgBouncer may stand in between.
    conninfo = read_address(url).conninfo
    engine = sa.create_engine(
        "postgresql+psycopg://",
        poolclass=sa.NullPool,
        creator=lambda: psycopg.connect(conninfo, prepare_threshold=None),
    )
    with engine.begin() as connection:
        upgrade(connection)
    engine.dispose()


def upgrade(connection: sa.Connection) -> None:
    connection.execute(sa.text("select pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    context.configure(connection=connection, target_metadata=Base.metadata, compare_server_default=True)
    before = context.get_context().get_current_revision()
    with context.begin_transaction():
        context.run_migrations()
    after, note = context.get_context().get_current_revision(), context.config.attributes.get("note")
    if note is not None and after != before:
        connection.execute(note(before, after))


async def run_with_settings() -> None:
    async with running_database(settings.load()) as url:
        await asyncio.to_thread(run, url)


if "connection" in context.config.attributes:
    upgrade(context.config.attributes["connection"])
elif "url" in context.config.attributes:
    run(context.config.attributes["url"])
else:
    asyncio.run(run_with_settings())
