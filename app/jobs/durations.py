"""Median duration per model, for the poll-after hint."""

import asyncio
import time

import sqlalchemy as sa

from app.db.database import Database
from app.db.faults import is_unavailable
from app.db.models import Video
from app.video import Status

REFRESH_S = 60
LATEST = 1_000
"""Number of newest videos that the medians are computed from."""
SHARE = 20
"""Polls of a client during a job of median duration."""
SHORTEST_MS, USUAL_MS, LONGEST_MS = 250, 1_000, 10_000


class Durations:
    """Median durations by provider and upstream model, refreshed in the background after `REFRESH_S`."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._medians: dict[tuple[str, str], float] = {}
        self._read_at = float("-inf")
        self._refreshing: asyncio.Task[None] | None = None

    def poll_after_ms(self, provider: str, upstream_model: str) -> int:
        """Return the poll interval for a client in milliseconds. The SDKs use the first value for the whole job."""
        if time.monotonic() >= self._read_at + REFRESH_S and self._refreshing is None:
            self._read_at = time.monotonic()
            self._refreshing = asyncio.create_task(self.refresh())
            self._refreshing.add_done_callback(self._refreshed)
        median = self._medians.get((provider, upstream_model))
        if median is None:
            return USUAL_MS
        return round(min(LONGEST_MS, max(SHORTEST_MS, median * 1000 / SHARE)))

    async def refresh(self) -> None:
        """Read the medians from the database; does nothing while it is unavailable."""
        latest = (
            sa.select(Video.provider, Video.upstream_model, (Video.completed_at - Video.created_at).label("took"))
            .where(Video.status == Status.completed)
            .order_by(Video.id.desc())
            .limit(LATEST)
            .subquery()
        )
        seconds = sa.extract("epoch", latest.c.took)
        median = sa.func.percentile_cont(0.5).within_group(seconds)
        query = sa.select(latest.c.provider, latest.c.upstream_model, median).group_by(
            latest.c.provider, latest.c.upstream_model
        )
        try:
            async with self._db.reading() as connection:
                rows = await connection.execute(query)
            self._medians = {(row[0], row[1]): float(row[2]) for row in rows}
        except Exception as error:
            if not is_unavailable(error):
                raise

    async def close(self) -> None:
        """Wait for a running refresh: it holds a connection."""
        if self._refreshing is not None:
            await asyncio.wait((self._refreshing,))

    def _refreshed(self, task: asyncio.Task[None]) -> None:
        self._refreshing = None
        if not task.cancelled():
            task.exception()
