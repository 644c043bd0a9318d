"""Last use, spending of the month and running jobs of keys, the latter two of projects as well.

Uses are collected in memory and written by a task of each process once a minute, never by a request.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.accounts.ledger import day_of
from app.db.database import Database
from app.db.faults import is_unavailable
from app.telemetry.logs import log

WRITE_S = 60
"""Seconds between two writes of the uses."""

_WRITE = sa.text("""
insert into key_uses (key_id, last_used_at)
select key_id, used_at from unnest(cast(:keys as text[]), cast(:times as timestamptz[])) as used (key_id, used_at)
order by key_id  -- in one order, against deadlocks with other processes
on conflict (key_id) do update set last_used_at = greatest(key_uses.last_used_at, excluded.last_used_at)
""")

_SPENT_AND_RUNNING = """
with days as materialized (
  select cast(:first as date) + number as day
  from generate_series(0, cast(:today as date) - cast(:first as date)) as number
  where not exists (select from closed_days where closed_days.day = cast(:first as date) + number)
), entries as (
  select {owner}, cost_micros as micros from usage_days
  where day between :first and :today and {owner} = any(cast(:owners as text[]))
  union all
  select entry.{owner}, -entry.amount_micros
  from days cross join lateral (
    select {owner}, amount_micros from ledger
    where ledger.day = days.day and {owner} = any(cast(:owners as text[])) and kind <> 'credit' offset 0
  ) as entry
), spent as (
  select {owner}, sum(micros)::bigint as micros from entries group by {owner}
), running as (
  select {owner}, count(*) as videos from videos
  where ended_at is null and {owner} = any(cast(:owners as text[])) group by {owner}
)
select {owner}, {last_use} as last_used_at, coalesce(spent.micros, 0) as micros, coalesce(running.videos, 0) as videos
from unnest(cast(:owners as text[])) as asked ({owner})
left join spent using ({owner}) left join running using ({owner})
"""
_OF_KEYS = sa.text(
    _SPENT_AND_RUNNING.format(owner="key_id", last_use="key_uses.last_used_at") + "left join key_uses using (key_id)"
)
_OF_PROJECTS = sa.text(_SPENT_AND_RUNNING.format(owner="project_id", last_use="null::timestamptz"))


@dataclass(frozen=True)
class Use:
    """The use of a key, or of all keys of a project."""

    last_used_at: datetime | None
    """Of a key alone."""
    spent_micros: int
    """Costs and holds of the jobs of this month, as budgets count them."""
    running: int
    """Unfinished videos."""


UNUSED = Use(None, 0, 0)


class KeyUses:
    """Collects the last use of each key in this process, and writes it."""

    def __init__(self, db: Database, clock: Callable[[], datetime]) -> None:
        self._db = db
        self._clock = clock
        self._noted: dict[str, datetime] = {}

    def note(self, key_id: str) -> None:
        """Note the use of a valid key."""
        self._noted[key_id] = self._clock()

    async def run(self) -> None:
        """Write what was noted, once a minute until cancelled, and a last time then."""
        try:
            while True:
                await asyncio.sleep(WRITE_S)
                await self.write()
        finally:
            with suppress(Exception):
                await self.write()

    async def write(self) -> None:
        """Write all noted uses in one statement; those that could not be written are written with the next ones."""
        noted, self._noted = self._noted, {}
        if not noted:
            return
        try:
            async with self._db.reading() as connection:
                await connection.execute(_WRITE, {"keys": list(noted), "times": list(noted.values())})
        except BaseException as error:  # also when it is cancelled
            self._noted = noted | self._noted
            if not isinstance(error, Exception):
                raise
            if not is_unavailable(error):
                log.exception("use of keys not written, repeated later")


async def read_uses(connection: AsyncConnection, key_ids: Sequence[str], *, now: datetime) -> dict[str, Use]:
    """Read the use of each key. `connection` is in a transaction."""
    return await _read(connection, _OF_KEYS, key_ids, now)


async def read_uses_of_projects(
    connection: AsyncConnection, project_ids: Sequence[str], *, now: datetime
) -> dict[str, Use]:
    """Read the use of each project. `connection` is in a transaction."""
    return await _read(connection, _OF_PROJECTS, project_ids, now)


async def _read(
    connection: AsyncConnection, statement: sa.TextClause, owners: Sequence[str], now: datetime
) -> dict[str, Use]:
    today = day_of(now)
    parameters: dict[str, Any] = {"owners": list(owners), "first": today.replace(day=1), "today": today}
    await connection.execute(sa.text("set local jit = off"))  # compiling the statement takes longer than running it
    found = await connection.execute(statement, parameters)
    return {owner: Use(used_at, micros, videos) for owner, used_at, micros, videos in found}
