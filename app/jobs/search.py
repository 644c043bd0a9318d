"""Lists of videos with filters, as pages and as sums. Reading only.

What an index has (`jobs/filters.py`) costs as much as the page shows, whatever the size of the list. For other filters
the first `LOOKED_AT` videos of the indexed part are looked at, and the answer says so.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeAlias

import psycopg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app import errors, ids
from app.db.database import Database
from app.db.models import Project, Video
from app.db.pages import Place
from app.jobs.filters import Condition, Filters, State, find_place

Columns: TypeAlias = Sequence[sa.ColumnElement[Any]]

LOOKED_AT = 20_000
"""Most videos that a filter without an index looks at."""
TIMEOUT_S = 5
"""Longest statement with such a filter: each of these videos may have a long prompt and much metadata."""
SUM_TIMEOUT_S = 30
"""Longest sum over all videos that an index has; millions take seconds."""
MAX_COUNTED = 1_000
"""Videos of a state up to which they are counted for a list: more is "1,000 or more"."""
SEARCHES_AT_ONCE = 3
"""Searches of one project at once in a process: each takes a connection of the pool for as long."""
_ANY_TIME = datetime.max.replace(tzinfo=UTC)
"""The time of a place in an order by id."""


@dataclass(frozen=True)
class Looked:
    """The videos that filters without an index look at."""

    rows: int
    complete: bool
    """False: there are more behind them."""


@dataclass(frozen=True)
class Totals:
    """Sums over all matching videos; over the newest ones that were looked at, with filters without an index."""

    count: int
    seconds: float
    cost_micros: int
    looked: Looked | None = None


@dataclass(frozen=True)
class Wanted:
    """The part of a list that a client asks for."""

    limit: int
    after: str | None = None
    """The id of a video; the part begins behind it."""
    ascending: bool = False
    """Oldest first."""
    summary: bool = False


@dataclass(frozen=True)
class Found:
    """A page. `last_id` is the `after` of the next one: the last row, or the last one that was looked at."""

    rows: list[sa.RowMapping]
    has_more: bool
    last_id: str | None
    looked: Looked | None
    totals: Totals | None


def time_limit_s(filters: Filters, wanted: Wanted) -> int | None:
    """Longest statement of a search: a list with filters without an index, or with sums. None: any other list."""
    if filters.others():
        return TIMEOUT_S
    return SUM_TIMEOUT_S if wanted.summary else None


async def find_page(db: Database, filters: Filters, wanted: Wanted, columns: Columns) -> Found:
    """Read a page with these columns of `videos`, and the sums of the whole list if they are wanted.

    In a list without filters `after` need not exist any more. Raises `InvalidRequest` for an unknown `after` of a list
    with filters, and for a search that takes too long.
    """
    async with _connection(db, time_limit_s(filters, wanted)) as connection:
        return await read_list(connection, filters, wanted, columns)


async def read_list(connection: AsyncConnection, filters: Filters, wanted: Wanted, columns: Columns) -> Found:
    """`find_page` on a connection, without its time limit."""
    line, others = _line_of(filters, ascending=wanted.ascending)
    start = await line.place_of(connection, wanted.after)
    looked, end = await line.look(connection, start) if others else (None, None)
    query = line.page(wanted.limit + 1, columns, start, end, others)
    nothing = looked is not None and looked.rows == 0
    rows = [] if nothing else list((await connection.execute(query)).mappings())
    totals = await summarize(connection, filters) if wanted.summary else None
    shown, has_more = rows[: wanted.limit], len(rows) > wanted.limit
    last_id = shown[-1]["id"] if shown else None
    if not has_more and looked is not None and not looked.complete and end is not None:
        has_more, last_id = True, end.id
    return Found(shown, has_more, last_id, looked, totals)


async def summarize(connection: AsyncConnection, filters: Filters) -> Totals:
    """Count the matching videos and sum their billed seconds and known costs."""
    line, others = _line_of(filters, ascending=False)
    looked, end = await line.look(connection, None) if others else (None, None)
    if looked is not None and looked.rows == 0:
        return Totals(0, 0, 0, looked)
    count, seconds, cost = (await connection.execute(line.sums(end, others))).one()
    return Totals(int(count or 0), float(seconds or 0), int(cost or 0), looked)


async def count_states(connection: AsyncConnection, filters: Filters) -> dict[State, int]:
    """Count the matching videos of each state with one statement, up to `MAX_COUNTED`, whatever `filters.states` says.

    Nothing is counted with filters without an index; of all projects together only the running ones, which are few.
    """
    if filters.others():
        return {}
    running = (State.queued, State.in_progress)
    counted = []
    for state in State if filters.project_id is not None else running:
        [conditions] = replace(filters, states=(state,)).ranges()
        some = sa.select(sa.literal(1).label("one")).select_from(Video).where(*conditions).limit(MAX_COUNTED).subquery()
        counted.append(sa.select(sa.func.count()).select_from(some).scalar_subquery().label(state))
    row = (await connection.execute(sa.select(*counted))).mappings().one()
    return {State(name): int(number) for name, number in row.items()}


@asynccontextmanager
async def _connection(db: Database, limit_s: int | None) -> AsyncIterator[AsyncConnection]:
    """A connection for statements of which none takes longer than `limit_s`. Raises `InvalidRequest`."""
    if limit_s is None:
        async with db.reading() as connection:
            yield connection
        return
    async with db.transaction() as session:
        limit = sa.func.set_config("statement_timeout", f"{limit_s}s", True)
        await session.execute(sa.select(limit))
        try:
            yield await session.connection()
        except sa.exc.DBAPIError as error:  # within the transaction, for which this is then no fault of the database
            if not isinstance(error.orig, psycopg.errors.QueryCanceled):
                raise
            message = f"the search took longer than {limit_s} s; narrow it with status, model, key or created_after"
            raise errors.InvalidRequest(message, code="search_too_slow") from None


def _line_of(filters: Filters, *, ascending: bool) -> "tuple[_Line, list[Condition]]":
    """The videos to look at in their order, and the conditions that no index of this order has.

    All projects together have no index by time: to find the first videos of all of them, only the ids serve.
    """
    others = filters.others()
    if filters.project_id is None and others:
        within = sa.or_(*(sa.and_(*conditions) for conditions in filters.ranges()))
        return _Line(Filters(None), ascending, by_id=True), [within, *others]
    is_narrowed = filters != Filters(filters.project_id)
    return _Line(filters, ascending, by_id=not is_narrowed), others


@dataclass(frozen=True)
class _Line:
    """The videos within the indexed conditions, in the order of a list: by time and id, or by id alone."""

    filters: Filters
    ascending: bool
    by_id: bool

    async def place_of(self, connection: AsyncConnection, video_id: str | None) -> Place | None:
        """The place of a video. Raises `InvalidRequest` for an unknown one where its time is needed."""
        if video_id is None:
            return None
        if self.by_id:
            return Place(_ANY_TIME, video_id) if ids.is_id(video_id, "video") else None
        place = await find_place(connection, video_id, project_id=self.filters.project_id)
        if place is None:
            message = f"after: {video_id!r:.80} is not in this list, or not any more; start again without after"
            raise errors.InvalidRequest(message, param="after", code="invalid_value")
        return place

    async def look(self, connection: AsyncConnection, start: Place | None) -> tuple[Looked, Place | None]:
        """Count the videos behind a place, up to `LOOKED_AT`; the second value is the place of the last of these."""
        keys = self._keys(LOOKED_AT + 1, start).subquery()
        number = sa.func.row_number().over(order_by=self._order(keys.c)).label("number")
        numbered = sa.select(keys.c.created_at, keys.c.id, number).subquery()
        query = sa.select(numbered).order_by(numbered.c.number.desc()).limit(2)
        last = list(await connection.execute(query))
        if not last:
            return Looked(0, complete=True), None
        complete = last[0].number <= LOOKED_AT
        end = last[0] if complete else last[1]
        return Looked(end.number, complete), Place(end.created_at, end.id)

    def page(
        self,
        limit: int,
        columns: Columns,
        start: Place | None,
        end: Place | None,
        others: Sequence[Condition],
    ) -> sa.Select[Any]:
        """The first videos behind `start` up to `end`."""
        keys = self._keys(limit, start, end, others).subquery()
        return sa.select(*columns).join(keys, keys.c.id == Video.id).order_by(*self._order(keys.c))

    def sums(self, end: Place | None, others: Sequence[Condition]) -> sa.Select[Any]:
        """Number, billed seconds and cost of the videos up to `end`."""
        filters, cut = self._cut(None, end)
        number, seconds, cost = sa.func.count(), sa.func.sum(Video.billed_s), sa.func.sum(Video.cost_micros)
        summed = sa.select(number.label("number"), seconds.label("seconds"), cost.label("cost"))
        each = self._each(filters, summed, [*cut, *others])
        return sa.select(sa.func.sum(each.c.number), sa.func.sum(each.c.seconds), sa.func.sum(each.c.cost))

    def _keys(
        self, limit: int, start: Place | None, end: Place | None = None, others: Sequence[Condition] = ()
    ) -> sa.Select[Any]:
        """Times and ids of the first videos behind `start` up to `end`."""
        filters, cut = self._cut(start, end)
        keys = sa.select(Video.created_at, Video.id).order_by(*self._order(Video.__table__.c)).limit(limit)
        each = self._each(filters, keys, [*cut, *others])
        return sa.select(each.c.created_at, each.c.id).order_by(*self._order(each.c)).limit(limit)

    def _each(self, filters: Filters, query: Any, more: Sequence[Condition]) -> Any:
        """The rows of `query` for each range of an index: of each state, and of each project if all are meant."""
        if self.by_id or filters.project_id is not None:
            parts = [query.where(*conditions, *more) for conditions in filters.ranges()]
        else:
            laterals = [
                query.where(*conditions, *more).correlate(Project).lateral()
                for conditions in filters.ranges(Project.id)
            ]
            parts = [sa.select(*one.c).select_from(sa.join(Project, one, sa.true())) for one in laterals]
        if len(parts) == 1:
            return parts[0].subquery()
        return sa.union_all(*(sa.select(part.subquery()) for part in parts)).subquery()

    def _cut(self, start: Place | None, end: Place | None) -> tuple[Filters, list[Condition]]:
        """Conditions behind `start` up to `end`, and the filters without times that these imply: with two limits on one
        side, the index might be read from the wider one."""
        filters, found = self.filters, list[Condition]()
        newest, oldest = (end, start) if self.ascending else (start, end)
        key = Video.id if self.by_id else sa.tuple_(Video.created_at, Video.id)
        before, after = filters.created_before, filters.created_after
        if newest is not None and (before is None or newest.created_at <= before):
            found.append(key <= self._at(newest) if self.ascending else key < self._at(newest))
            filters = replace(filters, created_before=None)
        if oldest is not None and (after is None or oldest.created_at >= after):
            found.append(key > self._at(oldest) if self.ascending else key >= self._at(oldest))
            filters = replace(filters, created_after=None)
        return filters, found

    def _at(self, place: Place) -> Any:
        if self.by_id:
            return place.id
        return sa.tuple_(sa.literal(place.created_at, Video.created_at.type), sa.literal(place.id, Video.id.type))

    def _order(self, columns: Any) -> list[sa.ColumnElement[Any]]:
        key = (columns.id,) if self.by_id else (columns.created_at, columns.id)
        return [column.asc() if self.ascending else column.desc() for column in key]
