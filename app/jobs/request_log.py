"""The request log: a row for each create of a project. Reading only."""

from datetime import timedelta
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app import errors, ids
from app.db.models import Video
from app.db.pages import Page, Place, Window, read_page
from app.jobs.filters import Filters, State
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


STATES: dict[Outcome, tuple[State, ...]] = {
    Outcome.completed: (State.completed,),
    Outcome.pending: (State.queued,),
    Outcome.processing: (State.in_progress,),
    Outcome.upstream_failure: (State.failed,),
    Outcome.rejected: (),
    Outcome.cancelled: (State.cancelled,),
}
"""The states that a status stands for."""
_COLUMNS = (
    *(Video.id, Video.created_at, Video.dialect, Video.model, Video.status, Video.key_id),
    *(Video.cost_micros, Video.ended_at, Video.error_code, Video.error_message, Video.outputs, Video.purged_at),
    Video.request["user"].label("user"),
)
"""Without the request itself, which may have 256 KiB."""


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
    [conditions] = filters.ranges()  # a status is one state at most
    query = sa.select(*_COLUMNS).where(*conditions)
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


async def get_request(connection: AsyncConnection, request_id: str, *, project_id: str) -> sa.RowMapping:
    """Read one row. Raises `NotFound` for an id that is not the project's."""
    shown = (Video.project_id == project_id, Video.deleted_at.is_(None))
    query = sa.select(*_COLUMNS).where(*shown, Video.id == request_id)
    found = (await connection.execute(query)).mappings().first() if ids.is_id(request_id, "video") else None
    if found is None:
        raise errors.NotFound(
            f"no request has the id {request_id!r:.80}; it is the id of the video", param="request_id"
        )
    return found
