"""The request log: a row for each create of a project, as pages and as sums. Reading only.

`app/db/models/jobs.py` has an index for each combination of conditions that a project can make large.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app import errors, ids
from app.db.models import Video
from app.db.pages import Page, Place, Window, read_page
from app.video import Status


class Outcome(StrEnum):
    """Status of a request in the log, in Lumenfall's words."""

    completed = "completed"
    pending = "pending"
    processing = "processing"
    upstream_failure = "upstream_failure"
    rejected = "rejected"
    """No row has it: a request that the gateway refuses creates no video."""
    cancelled = "cancelled"


_CANCELLED: sa.ColumnElement[str] = sa.literal_column("'cancelled'")  # no parameter, so that the partial indexes fit
_CONDITIONS: dict[Outcome, tuple[sa.ColumnElement[bool], ...]] = {
    Outcome.completed: (Video.completed_at.is_not(None),),
    Outcome.pending: (Video.ended_at.is_(None), Video.status == Status.queued),
    Outcome.processing: (Video.ended_at.is_(None), Video.status == Status.in_progress),
    Outcome.upstream_failure: (Video.error_code != _CANCELLED,),
    Outcome.rejected: (sa.false(),),
    Outcome.cancelled: (Video.error_code == _CANCELLED,),
}
_COLUMNS = (
    *(Video.id, Video.created_at, Video.dialect, Video.model, Video.status, Video.key_id),
    *(Video.cost_micros, Video.ended_at, Video.error_code, Video.error_message, Video.outputs, Video.purged_at),
    Video.request["user"].label("user"),
)
"""Without the request itself, which may have 256 KiB."""


@dataclass(frozen=True)
class Filters:
    """Conditions on the requests of a project; both times are included."""

    project_id: str
    key_id: str | None = None
    status: Outcome | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        found = [Video.project_id == self.project_id, Video.deleted_at.is_(None)]
        if self.key_id is not None:
            found.append(Video.key_id == self.key_id)
        if self.status is not None:
            found += _CONDITIONS[self.status]
        if self.created_after is not None:
            found.append(Video.created_at >= self.created_after)
        if self.created_before is not None:
            found.append(Video.created_at <= self.created_before)
        return found


def outcome_of(status: Status, error_code: str | None) -> Outcome:
    """The status of a video in the words of the log."""
    if error_code == "cancelled":
        return Outcome.cancelled
    return {
        Status.queued: Outcome.pending,
        Status.in_progress: Outcome.processing,
        Status.completed: Outcome.completed,
        Status.failed: Outcome.upstream_failure,
    }[status]


async def list_requests(connection: AsyncConnection, filters: Filters, window: Window) -> Page:
    """Read a page, newest first."""
    query = sa.select(*_COLUMNS).where(*filters.conditions())
    columns = Video.__table__.c
    return await read_page(connection, query, columns.created_at, columns.id, _within(filters, window))


def _within(filters: Filters, window: Window) -> Window:
    """The same page from a place within the times of the filters: between them and a place beyond them, all rows would
    be read for nothing."""
    after, before = window.after, window.before
    if after is not None and filters.created_before is not None and after.created_at > filters.created_before:
        after = Place(filters.created_before + timedelta(microseconds=1), "")
    if before is not None and filters.created_after is not None and before.created_at < filters.created_after:
        before = Place(filters.created_after, "")
    return Window(window.limit, after, before)


async def summarize(connection: AsyncConnection, filters: Filters) -> tuple[int, int]:
    """Count all matching requests; the second value is the sum of their known costs in micros."""
    query = sa.select(sa.func.count(), sa.func.sum(Video.cost_micros)).where(*filters.conditions())
    count, cost = (await connection.execute(query)).one()
    return count, int(cost or 0)


async def get_request(connection: AsyncConnection, request_id: str, *, project_id: str) -> sa.RowMapping:
    """Read one row. Raises `NotFound` for an id that is not the project's."""
    query = sa.select(*_COLUMNS).where(*Filters(project_id).conditions(), Video.id == request_id)
    found = (await connection.execute(query)).mappings().first() if ids.is_id(request_id, "video") else None
    if found is None:
        raise errors.NotFound(
            f"no request has the id {request_id!r:.80}; it is the id of the video", param="request_id"
        )
    return found


async def find_place(connection: AsyncConnection, request_id: str, *, project_id: str) -> Place | None:
    """The place of a request in the log; None for an unknown id. A deleted one is found while its row exists."""
    query = sa.select(Video.created_at, Video.id).where(Video.id == request_id, Video.project_id == project_id)
    row: Any = (await connection.execute(query)).first() if ids.is_id(request_id, "video") else None
    return None if row is None else Place(row.created_at, row.id)
