"""Median durations: of a model for the poll-after hint, of a route for the choice of the fastest."""

import asyncio
import time
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from app.db.database import Database
from app.db.faults import is_unavailable
from app.db.models import Attempt, Video
from app.jobs.choose import Time
from app.providers.routing import Route
from app.video import Status, VideoRequest

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
        self._times: dict[tuple[str, str, float | None, str | None], Time] = {}
        """By provider, upstream model, length and resolution."""
        self._read_at = float("-inf")
        self._refreshing: asyncio.Task[None] | None = None

    def poll_after_ms(self, provider: str, upstream_model: str) -> int:
        """Return the poll interval for a client in milliseconds. The SDKs use the first value for the whole job."""
        self._refresh_if_old()
        median = self._medians.get((provider, upstream_model))
        if median is None:
            return USUAL_MS
        return round(min(LONGEST_MS, max(SHORTEST_MS, median * 1000 / SHARE)))

    def times(self, routes: Iterable[Route], request: VideoRequest) -> dict[str, Time]:
        """Return the times of routes for videos of this length and resolution, by name; of those that made any."""
        self._refresh_if_old()
        found = {
            route.name: self._times.get((route.provider.name, route.model, request.seconds, request.resolution))
            for route in routes
        }
        return {name: one for name, one in found.items() if one is not None}

    def _refresh_if_old(self) -> None:
        if time.monotonic() >= self._read_at + REFRESH_S and self._refreshing is None:
            self._read_at = time.monotonic()
            self._refreshing = asyncio.create_task(self.refresh())
            self._refreshing.add_done_callback(self._refreshed)

    async def refresh(self) -> None:
        """Read the medians from the database; does nothing while it is unavailable."""
        # From the last submit: a vendor that took over a job is not charged with the time at the ones before it.
        submitted = sa.select(sa.func.max(Attempt.submitted_at)).where(
            Attempt.video_id == Video.id, Attempt.provider == Video.provider
        )
        began = sa.func.coalesce(submitted.scalar_subquery(), Video.created_at)
        took = (Video.completed_at - began).label("took")
        shape = (Video.request["seconds"].as_float().label("length"), Video.request["resolution"].as_string())
        latest = (
            sa.select(Video.provider, Video.upstream_model, took, shape[0], shape[1].label("resolution"))
            .where(Video.status == Status.completed)
            .order_by(Video.id.desc())
            .limit(LATEST)
            .subquery()
        )
        seconds = sa.extract("epoch", latest.c.took)
        median = sa.func.percentile_cont(0.5).within_group(seconds)
        model = (latest.c.provider, latest.c.upstream_model)
        like = (*model, latest.c.length, latest.c.resolution)
        sets = sa.func.grouping_sets(sa.tuple_(*model), sa.tuple_(*like))
        query = sa.select(*like, sa.func.grouping(latest.c.length), median, sa.func.count()).group_by(sets)
        try:
            async with self._db.reading() as connection:
                self._take((await connection.execute(query)).all())
        except Exception as error:
            if not is_unavailable(error):
                raise

    def _take(self, rows: Iterable[Any]) -> None:
        medians, times = {}, {}
        for provider, model, length, resolution, is_whole_model, median, jobs in rows:
            if is_whole_model:
                medians[provider, model] = float(median)
            else:
                times[provider, model, length, resolution] = Time(float(median), jobs)
        self._medians, self._times = medians, times

    async def close(self) -> None:
        """Wait for a running refresh: it holds a connection."""
        if self._refreshing is not None:
            await asyncio.wait((self._refreshing,))

    def _refreshed(self, task: asyncio.Task[None]) -> None:
        self._refreshing = None
        if not task.cancelled():
            task.exception()
