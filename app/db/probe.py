"""Probes of a database for `video-gateway doctor`: its server, notices, and a pooler in between. They write nothing."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import psycopg
from psycopg import sql

from app.db.address import Address
from app.db.faults import read_fault

LEAST_VERSION = 14
ROUNDS = 5
"""Tries to make a pooler give one client another server connection."""
NOTICE_S = 2
"""Seconds that a notice may take."""


class Pooling(StrEnum):
    """The way in which connections reach the server."""

    direct = "direct"
    """Each on one server connection of its own."""
    tracked = "tracked"
    """A pooler in transaction mode that keeps track of prepared statements."""
    mixed_up = "mixed up"
    """One that does not."""


@dataclass(frozen=True)
class Server:
    """The PostgreSQL behind an address."""

    version: str
    major: int
    read_only: bool


async def read_server(address: Address) -> Server:
    """Read version and state of the server. Raises `psycopg.Error`."""
    async with _connected(address) as connection:
        cursor = await connection.execute(
            b"select current_setting('server_version'), current_setting('server_version_num')::int / 10000, "
            b"pg_is_in_recovery() or current_setting('transaction_read_only')::boolean"
        )
        version, major, read_only = await cursor.fetchone() or ("", 0, False)
        return Server(version=str(version).split(" ")[0], major=major, read_only=read_only)


async def notice_arrives(listening: Address, sending: Address) -> bool:
    """Listen on one connection and send a notice on another. Returns True if it arrives. Raises `psycopg.Error`."""
    channel = f"gateway_probe_{secrets.token_hex(8)}"
    async with _connected(listening) as listener, _connected(sending) as sender:
        await listener.execute(f"listen {channel}".encode())
        await sender.execute(b"select pg_notify(%s, 'here')", [channel])
        try:
            async with asyncio.timeout(NOTICE_S):
                async for notice in listener.notifies():
                    if notice.channel == channel:
                        return True
        except TimeoutError:
            pass
    return False


async def find_pooling(address: Address) -> Pooling:
    """Find a pooler in transaction mode: while another client holds a server connection, it gives the first client
    another one than before. Raises `psycopg.Error`."""
    statement = f"select pg_backend_pid() as probe_{secrets.token_hex(8)}".encode()
    async with _connected(address) as client, _connected(address) as other:
        try:
            first = await _backend(client, statement)
            for _ in range(ROUNDS):
                async with other.transaction():
                    await other.execute(b"select 1")
                    try:
                        if await _backend(client, statement) != first:
                            return Pooling.tracked
                    finally:
                        await _forget(other, statement)
        except psycopg.Error as error:
            fault = read_fault(error)
            if fault is None or fault.kind != "prepared_statements":
                raise
            return Pooling.mixed_up
    return Pooling.direct


async def _backend(connection: psycopg.AsyncConnection[Any], statement: bytes) -> int:
    """The process id of the server connection, by a prepared statement."""
    cursor = await connection.execute(statement, prepare=True)
    (pid,) = await cursor.fetchone() or (0,)
    return int(pid)


async def _forget(connection: psycopg.AsyncConnection[Any], statement: bytes) -> None:
    """Remove what another client prepared on the server connection that this one has now, so that no later client of
    the pooler meets it."""
    cursor = await connection.execute(
        b"select name from pg_prepared_statements where statement = %s", [statement.decode()]
    )
    for (name,) in await cursor.fetchall():
        await connection.execute(sql.SQL("deallocate {}").format(sql.Identifier(name)))


@asynccontextmanager
async def _connected(address: Address) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    async with await psycopg.AsyncConnection.connect(address.conninfo, autocommit=True) as connection:
        yield connection
