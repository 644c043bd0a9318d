"""Dumps of the gateway's schema by `pg_dump`, and their way back within one transaction.

`pg_restore` writes the dump as SQL, which is run here on the caller's connection: what it restores, and what is done
with it before the commit, becomes visible together. `pg_restore` itself could only commit before that.
"""

import asyncio
import re
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import psycopg
from psycopg import IsolationLevel, sql
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.address import Address
from app.db.models import Base
from app.db.programs import Program, running, said
from app.settings import ConfigurationError

BLOCK_BYTES = 256 * 1024
MAX_STATEMENT_BYTES = 16 * 2**20
"""Most bytes of SQL between two tables; ours are some 100 KiB."""
MAX_LINE_BYTES = 64 * 2**20
"""Most bytes of one row; ours have some MiB at most."""
MAX_NAMED = 10
"""Most objects that a message names."""
LOCK_S = 3
"""Time in seconds that tables to be replaced may be in use by other connections."""
COUNTED = ("projects", "keys", "videos", "attempts", "ledger")
"""Tables whose rows a backup counts; a schema of an older release lacks some."""
VERSION_TABLE = "alembic_version"
OURS = frozenset({*Base.metadata.tables, VERSION_TABLE})
LEFT_OUT = (b"\\restrict ", b"\\unrestrict ", b"SET transaction_timeout ")
"""Beginnings of lines of the SQL that are not run: for `psql` alone, and for newer servers."""
_ROWS = re.compile(rb"COPY (?:\w+|\"[^\n]+\")\.(\S+) \([^\n]*\) FROM stdin;\n")
"""The statement before the rows of a table."""
_END_OF_DATA = b"\\.\n"


class DumpFailed(ConfigurationError):
    """A dump cannot be written or read; the message has the reason."""


@dataclass(frozen=True)
class Snapshot:
    """The gateway's schema at one moment; valid while its connection is open."""

    name: str
    at: datetime
    """The time of the moment by the database's clock."""
    schema: str
    server: str
    """Version of PostgreSQL."""
    major: int
    revision: str
    tables: list[str]
    counts: dict[str, int]
    """Rows of the tables in `COUNTED`."""
    fingerprint: str | None
    """That of the pepper; None: no process has written it."""


@asynccontextmanager
async def taken_snapshot(address: Address) -> AsyncIterator[Snapshot]:
    """Take a snapshot that `dump` writes. Raises `psycopg.Error`, and `ConfigurationError` if it is no gateway's."""
    async with await psycopg.AsyncConnection.connect(address.conninfo, prepare_threshold=None) as connection:
        await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
        await connection.set_read_only(True)
        await connection.execute(b"set idle_in_transaction_session_timeout = 0")  # while the dump is written
        cursor = await connection.execute(
            b"select pg_export_snapshot(), clock_timestamp(), coalesce(current_schema(), ''), "
            b"split_part(current_setting('server_version'), ' ', 1), current_setting('server_version_num')::int / 10000"
        )
        ((name, at, schema, server, major),) = await cursor.fetchall()
        tables = await _tables(connection)
        if VERSION_TABLE not in tables:
            raise ConfigurationError(f"the database {address} is not a gateway's: it was never migrated")
        cursor = await connection.execute(b"select version_num from alembic_version")
        ((revision,),) = await cursor.fetchall()
        counts = {table: await _count(connection, table) for table in COUNTED if table in tables}
        fingerprint = await _fingerprint(connection) if "deployment" in tables else None
        yield Snapshot(name, at, schema, server, major, revision, tables, counts, fingerprint)


async def dump(program: Program, address: Address, snapshot: Snapshot) -> AsyncIterator[bytes]:
    """Write the snapshot in `pg_dump`'s custom format. Raises `DumpFailed`."""
    schema = snapshot.schema.replace('"', '""')
    options = ("--format=custom", "--no-owner", "--no-privileges", "--no-password")
    what = (f'--schema="{schema}"', f"--snapshot={snapshot.name}")
    async with running(program.path, *options, *what, environment=address.environment) as (process, complaints):
        async for block in _blocks(process):
            yield block
        if await process.wait():
            raise DumpFailed(f"{program.path} {program.version} failed: {said(complaints)}")


# Restoring


@dataclass(frozen=True)
class Target:
    """The database that a dump is restored into."""

    schema: str
    tables: list[str]
    server: str
    major: int
    in_use: bool
    """True if it has projects, keys or videos."""


async def read_target(connection: AsyncConnection) -> Target:
    """Look at the database before a restore."""
    raw = await _raw(connection)
    cursor = await raw.execute(
        b"select coalesce(current_schema(), ''), split_part(current_setting('server_version'), ' ', 1), "
        b"current_setting('server_version_num')::int / 10000"
    )
    ((schema, server, major),) = await cursor.fetchall()
    tables = await _tables(raw)
    in_use = bool(tables) and VERSION_TABLE not in tables  # another program's
    for table in {"projects", "keys", "videos"} & set(tables):
        in_use = in_use or await _has_rows(raw, table)
    return Target(schema, tables, server, major, in_use)


async def other_sessions(connection: AsyncConnection) -> list[str]:
    """The addresses of other connections to this database by processes of the gateway, which have the same name."""
    cursor = await (await _raw(connection)).execute(
        b"select coalesce(host(client_addr), 'this machine') from pg_stat_activity where datname = current_database() "
        b"and pid <> pg_backend_pid() and application_name = current_setting('application_name')"
    )
    return [address for (address,) in await cursor.fetchall()]


async def replace(
    connection: AsyncConnection,
    program: Program,
    blocks: AsyncIterator[bytes],
    *,
    target: Target,
    dumped: Collection[str],
    note: Callable[[str], None],
) -> None:
    """Replace the gateway's tables and functions by those of a dump, in the transaction of `connection`. `note` is
    called with each table. Raises `DumpFailed`, and `ConfigurationError` for tables that are not ours."""
    others = sorted(set(target.tables) - OURS - set(dumped))
    if others:
        raise ConfigurationError(
            f"the schema {target.schema} has tables that neither the backup nor this release knows: "
            f"{', '.join(others[:MAX_NAMED])}. They may be a newer release's. Restore into a new, empty "
            "database; for the embedded one, move the directory `postgres` in the data directory away first."
        )
    raw = await _raw(connection)
    try:
        await _clear(raw, target.tables)
        options = ("--file=-", "--no-owner", "--no-privileges", f"--schema={target.schema}")  # not the schema itself
        async with running(program.path, *options, environment={}, stdin=PIPE) as (process, complaints):
            feeding = asyncio.create_task(_feed(process, blocks))
            try:
                await _Script(raw, note).run(_lines(process))
                await feeding
                if await process.wait():
                    raise DumpFailed(f"{program.path} {program.version} failed: {said(complaints)}")
            finally:
                if feeding.done():
                    await feeding  # raises what was wrong with the backup, of which other errors follow
                feeding.cancel()
                with suppress(asyncio.CancelledError):
                    await feeding
    except psycopg.errors.LockNotAvailable:
        raise DumpFailed(f"Another connection uses the tables for more than {LOCK_S} s; end it, and repeat.") from None
    except psycopg.errors.DependentObjectsStillExist as error:
        uses = (error.diag.message_detail or str(error)).splitlines()
        raise DumpFailed(
            f"Something else uses the gateway's tables: {', '.join(uses[:MAX_NAMED])}. Drop it, and make it again "
            "after the restore."
        ) from None
    except psycopg.errors.InsufficientPrivilege as error:
        raise DumpFailed(
            f"PostgreSQL {target.server} refuses it: {error.diag.message_primary}. Restore as the role that owns the "
            f"tables and may create in the schema {target.schema}; GATEWAY_DATABASE_URL names it."
        ) from None
    except psycopg.Error as error:
        raise DumpFailed(f"PostgreSQL {target.server} refuses it: {error.diag.message_primary or error}") from None
    await raw.execute(b"reset all")  # the script has emptied the search path


async def _clear(raw: psycopg.AsyncConnection[Any], tables: Collection[str]) -> None:
    """Drop the tables, and the functions of `app/db/functions`; nothing that others have made of them."""
    await raw.execute(f"set local lock_timeout = '{LOCK_S}s'".encode())
    cursor = await raw.execute(
        b"select oid::regprocedure::text from pg_proc where pronamespace = current_schema()::regnamespace "
        rb"and proname like 'gateway\_%'"
    )
    functions = [signature for (signature,) in await cursor.fetchall()]
    if tables:
        await raw.execute(sql.SQL("drop table {}").format(sql.SQL(", ").join(map(sql.Identifier, tables))))
    for signature in functions:
        await raw.execute(f"drop function {signature}".encode())


async def _feed(process: Process, blocks: AsyncIterator[bytes]) -> None:
    """Write the blocks to a process, and read all of them, since a mistake may be found at their end."""
    stdin = cast("asyncio.StreamWriter", process.stdin)
    try:
        async for block in blocks:
            with suppress(BrokenPipeError, ConnectionResetError):  # it has ended: it needs no more, or says why
                stdin.write(block)
                await stdin.drain()
    finally:
        stdin.close()


async def _blocks(process: Process) -> AsyncIterator[bytes]:
    stdout = cast("asyncio.StreamReader", process.stdout)
    while block := await stdout.read(BLOCK_BYTES):
        yield block


async def _lines(process: Process) -> AsyncIterator[bytes]:
    """The output of a process in blocks of whole lines. Raises `DumpFailed` for a line that is too long."""
    rest: list[bytes] = []
    length = 0
    async for block in _blocks(process):
        whole, newline, begun = block.rpartition(b"\n")
        if newline:
            yield b"".join([*rest, whole, newline])
            rest, length = [], 0
        rest.append(begun)
        length += len(begun)
        if length > MAX_LINE_BYTES:
            raise DumpFailed("It has a row that is longer than any of a gateway.")


class _Script:
    """The SQL of `pg_restore`: statements, and between them the rows of each table after a COPY, up to a line `\\.`."""

    def __init__(self, raw: psycopg.AsyncConnection[Any], note: Callable[[str], None]) -> None:
        self._raw = raw
        self._note = note
        self._statements: list[bytes] = []
        self._bytes = 0

    async def run(self, blocks: AsyncIterator[bytes]) -> None:
        async for block in blocks:
            position = 0
            while position < len(block):
                end = block.index(b"\n", position) + 1
                line, position = block[position:end], end
                if table := _ROWS.fullmatch(line):
                    await self._execute()
                    self._note(table[1].decode(errors="replace"))
                    block, position = await self._copy(line, block[position:], blocks), 0
                elif not line.startswith(LEFT_OUT):
                    self._statements.append(line)
                    self._bytes += len(line)
                    if self._bytes > MAX_STATEMENT_BYTES:
                        raise DumpFailed("its SQL is longer than that of a gateway's schema")
        await self._execute()

    async def _copy(self, statement: bytes, block: bytes, blocks: AsyncIterator[bytes]) -> bytes:
        """Copy the rows that begin with `block`. Returns what follows them."""
        async with self._raw.cursor() as cursor, cursor.copy(statement) as copy:
            while True:
                end = 0 if block.startswith(_END_OF_DATA) else block.find(b"\n" + _END_OF_DATA) + 1
                if end or block.startswith(_END_OF_DATA):
                    await copy.write(block[:end])
                    return block[end + len(_END_OF_DATA) :]
                if block:
                    await copy.write(block)
                block = await anext(blocks, b"")
                if not block:
                    raise DumpFailed("it ends in the middle of a table")

    async def _execute(self) -> None:
        text = b"".join(self._statements)
        self._statements, self._bytes = [], 0
        if text:
            await self._raw.execute(text)


# Queries


async def _raw(connection: AsyncConnection) -> psycopg.AsyncConnection[Any]:
    """psycopg's connection behind SQLAlchemy's."""
    return cast("psycopg.AsyncConnection[Any]", (await connection.get_raw_connection()).driver_connection)


async def _tables(raw: psycopg.AsyncConnection[Any]) -> list[str]:
    cursor = await raw.execute(
        b"select relname from pg_class where relnamespace = current_schema()::regnamespace and relkind in ('r', 'p') "
        b"and not exists (select from pg_depend where classid = 'pg_class'::regclass and objid = pg_class.oid "
        b"and deptype = 'e') order by relname"  # not those of extensions
    )
    return [name for (name,) in await cursor.fetchall()]


async def _count(raw: psycopg.AsyncConnection[Any], table: str) -> int:
    cursor = await raw.execute(sql.SQL("select count(*) from {}").format(sql.Identifier(table)))
    ((found,),) = await cursor.fetchall()
    return int(found)


async def _fingerprint(raw: psycopg.AsyncConnection[Any]) -> str | None:
    found = await (await raw.execute(b"select value from deployment where name = 'pepper'")).fetchone()
    return None if found is None else str(found[0])


async def _has_rows(raw: psycopg.AsyncConnection[Any], table: str) -> bool:
    cursor = await raw.execute(sql.SQL("select exists(select from {})").format(sql.Identifier(table)))
    ((found,),) = await cursor.fetchall()
    return bool(found)
