"""Pages of a list, newest first: keyset pagination in both directions, by the time and the id of the rows."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection


class Place(NamedTuple):
    """The place of a row in a list."""

    created_at: datetime
    id: str


@dataclass(frozen=True)
class Window:
    """The page that a client asks for: the newest rows, or those after or before a place, which is not part of it."""

    limit: int
    after: Place | None = None
    before: Place | None = None


@dataclass(frozen=True)
class Page:
    """The rows of a page, newest first; without rows it has no neighbours."""

    rows: list[sa.RowMapping]
    has_newer: bool
    has_older: bool


async def read_page(
    connection: AsyncConnection,
    query: sa.Select[Any],
    created_at: sa.ColumnElement[datetime],
    row_id: sa.ColumnElement[str],
    window: Window,
) -> Page:
    """Read a page of `query`, which selects a `created_at` and an `id`. The same rows come with the same index,
    whatever the size of the list, if one begins with the conditions and ends with these two columns."""
    place = sa.tuple_(created_at, row_id)
    upwards = query.order_by(created_at.asc(), row_id.asc())
    downwards = query.order_by(created_at.desc(), row_id.desc())

    async def read(wanted: sa.Select[Any], limit: int) -> list[sa.RowMapping]:
        return list((await connection.execute(wanted.limit(limit))).mappings())

    def at(found: Place) -> Any:
        return sa.tuple_(sa.literal(found.created_at, created_at.type), sa.literal(found.id, row_id.type))

    if window.before is not None:
        found = await read(upwards.where(place > at(window.before)), window.limit + 1)
        shown = found[: window.limit][::-1]
        older = shown and await read(downwards.where(place < at(_place(shown[-1]))), 1)
        return Page(shown, has_newer=len(found) > window.limit, has_older=bool(older))
    if window.after is not None:
        downwards = downwards.where(place < at(window.after))
    found = await read(downwards, window.limit + 1)
    shown = found[: window.limit]
    newer = window.after is not None and shown and await read(upwards.where(place > at(_place(shown[0]))), 1)
    return Page(shown, has_newer=bool(newer), has_older=len(found) > window.limit)


def _place(row: sa.RowMapping) -> Place:
    return Place(row["created_at"], row["id"])
