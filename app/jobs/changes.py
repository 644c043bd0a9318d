"""Changed videos of a project, or of all projects, for event streams: read by id, or by time after an interruption."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db import rows
from app.db.database import Database
from app.db.listener import Listener
from app.db.models import Video
from app.video import Status

LATE = timedelta(seconds=10)
"""Time by which a change may become visible after its `updated_at`: commits come in another order, and progress waits
to be sent. Whatever is read by time is read from this much earlier, so that changes may repeat and none is left out."""
REMEMBERED = timedelta(hours=1)
"""Time for which deleted videos stay, so that a stream that was interrupted learns of them; it goes back no further."""


async def changed_since(
    connection: AsyncConnection, since: datetime, *, project_id: str | None, limit: int
) -> dict[str, tuple[str, bool, datetime]]:
    """Read status, deletion and time of change, by id, of up to `limit` videos that changed after `since`, less `LATE`.
    Of all projects if `project_id` is None.

    There is no index on `updated_at`, which changes with every poll: running videos are few, and ended and deleted ones
    have times of their own.
    """
    after = since - LATE
    shown = (Video.id, Video.status, Video.deleted_at.is_not(None).label("is_deleted"), Video.updated_at)
    ways = (
        (Video.ended_at.is_(None), Video.deleted_at.is_(None), Video.updated_at > after),
        (Video.ended_at > after, Video.deleted_at.is_(None)),
        (Video.deleted_at > after,),
    )
    queries = [sa.select(*shown).where(*conditions, *_of(project_id)).limit(limit) for conditions in ways]
    found = await connection.execute(sa.union_all(*queries).limit(limit))
    return {video_id: (str(status), is_deleted, at) for video_id, status, is_deleted, at in found}


async def changed_at(connection: AsyncConnection, video_ids: Sequence[str]) -> dict[str, datetime]:
    """Read the times of the last changes by id; ids of rows that are gone are left out."""
    query = sa.select(Video.id, Video.updated_at).where(Video.id.in_(video_ids))
    return {row.id: row.updated_at for row in await connection.execute(query)}


class SharedReads:
    """Reads changed videos once for all streams of this process that need them at the same moment: a project may have
    hundreds, and a change wakes all."""

    def __init__(self, db: Database, listener: Listener) -> None:
        self._db = db
        self._listener = listener
        self._running: dict[tuple[object, ...], asyncio.Task[list[Video]]] = {}

    async def read(self, video_ids: Sequence[str], *, project_id: str | None) -> list[Video]:
        """`read_changed`, or what another stream reads just now, unless a notice came since it began, or may be
        missing."""
        if not self._listener.is_current:
            return await self._read(video_ids, project_id)
        key = (project_id, self._listener.notices, *video_ids)
        reading = self._running.get(key)
        if reading is None:
            reading = self._running[key] = asyncio.create_task(self._read(video_ids, project_id))
            reading.add_done_callback(lambda task: (self._running.pop(key), task.cancelled() or task.exception()))
        return await asyncio.shield(reading)

    async def _read(self, video_ids: Sequence[str], project_id: str | None) -> list[Video]:
        async with self._db.reading() as connection:
            return await read_changed(connection, video_ids, project_id=project_id)


async def read_changed(connection: AsyncConnection, video_ids: Sequence[str], *, project_id: str | None) -> list[Video]:
    """Read videos by id in the order of their last changes, deleted ones too."""
    query = rows.select(Video).where(Video.id.in_(video_ids), *_of(project_id))
    return await rows.all_of(Video, connection, query.order_by(Video.updated_at, Video.id))


async def count_running(connection: AsyncConnection, *, project_id: str | None) -> dict[str, int]:
    """Count running videos by status."""
    running = (Video.ended_at.is_(None), Video.deleted_at.is_(None))
    query = sa.select(Video.status, sa.func.count()).where(*running, *_of(project_id)).group_by(Video.status)
    counted = {str(status): count for status, count in await connection.execute(query)}
    return {str(status): counted.get(str(status), 0) for status in (Status.queued, Status.in_progress)}


def _of(project_id: str | None) -> tuple[sa.ColumnElement[bool], ...]:
    return () if project_id is None else (Video.project_id == project_id,)
