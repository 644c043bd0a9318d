"""Purge of payloads: erases what a client sent with an ended video and what was made of it. Figures, times, ids, status
and money stay, and so does the hash of an idempotency key: a repeated create must not pay for a second video.

Rows are erased at once, in one transaction, and the files after it. Then the purge is repeated (`repeat_purges`) until
nothing is left that could still write: a crash between the two, a task that still runs upstream, a delivery that is
still being tried.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app import errors, ids
from app.db.models import LIVE, Attempt, Video
from app.media.store import StorageUnavailable, Store
from app.telemetry import log
from app.video import Settlement
from app.webhooks import events

KEPT = frozenset(
    {
        *("model", "operation", "seconds", "size", "aspect_ratio", "resolution", "n", "seed"),
        *("generate_audio", "loop", "expand_prompt", "characters", "retention_s", "app"),
    }
)
"""Fields of a request that are figures or ids; all others are erased, new ones too unless they are added here."""
ERROR_TEXT = "The text of this error was purged on request."
FIRST_REPEAT_S = 60
"""Seconds until the first repetition: longer than the call that purges needs for the files."""
REPEAT_S = 600
LAST_REPEAT_S = 3_600
"""Age of a purge from which nothing is written by requests that had begun before it, such as pictures."""
BATCH = 100


async def purge_payloads(session: AsyncSession, video_id: str, *, project_id: str, now: datetime) -> bool:
    """Erase the payloads of an ended video from all rows; the caller deletes the files after the commit.

    Returns False if that was done before. Raises `NotFound`, and `Conflict` for a video that has not ended.
    """
    video = None
    if ids.is_id(video_id, "video"):
        video = await session.scalar(
            sa.select(Video)
            .where(Video.id == video_id, Video.project_id == project_id, Video.deleted_at.is_(None))
            .with_for_update()
        )
    if video is None:
        raise errors.NotFound(f"no request has the id {video_id!r:.80}; it is the id of the video", param="request_id")
    if not video.status.ended:
        raise errors.Conflict(
            f"the video is {video.status}; cancel it first with DELETE /v1/videos/{video_id}, or wait for its end",
            code="request_not_ended",
            param="request_id",
        )
    if video.purged_at is not None:
        return False
    for name, value in erased(video.__dict__).items():
        setattr(video, name, value)
    video.idempotency_hash = video.idempotency_hash if video.idempotency_key else None  # folded: without a key
    video.purged_at = video.updated_at = now
    video.purge_due_at = now + timedelta(seconds=FIRST_REPEAT_S)
    await _erase_rows_of(session, video, now)
    return True


def erased(values: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a video that had payloads, without them. `values` are the columns before."""
    request = {"prompt": "", **{name: value for name, value in values["request"].items() if name in KEPT}}
    source = values["request"].get("source") or {}
    if source.get("video_id"):
        request["source"] = {name: source[name] for name in ("video_id", "seconds") if name in source}
    return {
        "request": request,
        "outputs": [{**output, "key": "", "sha256": ""} for output in values["outputs"]],
        "warnings": [],
        "error_message": ERROR_TEXT if values["error_code"] else None,
    }


async def _erase_rows_of(session: AsyncSession, video: Video, now: datetime) -> bool:
    """Erase the payloads from attempts that have ended and from deliveries. True if a delivery is still pending."""
    texts = (Attempt.error_message, Attempt.error_body, Attempt.output)
    await session.execute(
        sa.update(Attempt)
        .where(Attempt.video_id == video.id, Attempt.ended_at.is_not(None))
        .where(sa.or_(*(text.is_not(None) for text in texts)))
        .values(error_message=None, error_body=None, output=None)
        .execution_options(synchronize_session=False)
    )

    def erase(values: Mapping[str, Any]) -> dict[str, Any]:
        return {**values, **erased(values), "purged_at": now.isoformat()}

    return await events.purge_video(session, video.id, erase)


async def delete_files(store: Store, video_id: str) -> int:
    """Delete all files of a video; returns the number of uploads, videos and pictures. Raises `StorageUnavailable`."""
    folders = (f"videos/{video_id}/", f"uploads/{video_id}/")
    always = datetime.max.replace(tzinfo=UTC)
    found = [key for folder in folders for key in await store.written_before(folder, always)]
    for folder in folders:
        await store.delete_prefix(folder)
    return sum(not key.endswith(".failed") for key in found)


async def purge_files(store: Store, video_id: str) -> int:
    """Delete the files of a purged video. Raises `StorageUnavailable`; then they are deleted later."""
    try:
        return await delete_files(store, video_id)
    except StorageUnavailable as error:
        log.warning("files of a purge not deleted, repeated later", video=video_id, error=error.message)
        raise StorageUnavailable(
            "the texts are purged, and the files are deleted as soon as the storage works again; repeat the call to "
            "see whether they are"
        ) from None


async def repeat_purges(session: AsyncSession, store: Store, *, now: datetime) -> None:
    """Repeat the purges that are due; the last time when nothing is left that could write something."""
    horizon = now + timedelta(seconds=2 * LAST_REPEAT_S)  # a time beyond it is from before the clock was set back
    due = await session.scalars(
        sa.select(Video)
        .where(sa.or_(Video.purge_due_at <= now, Video.purge_due_at > horizon))
        .order_by(Video.purge_due_at)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    )
    for video in due.all():
        is_pending = await _erase_rows_of(session, video, now)
        live = sa.exists().where(Attempt.video_id == video.id, Attempt.state.in_(LIVE))
        is_open = is_pending or video.settlement is Settlement.held or await session.scalar(sa.select(live))
        is_old = video.purged_at is not None and now >= video.purged_at + timedelta(seconds=LAST_REPEAT_S)
        video.purge_due_at = None if is_old and not is_open else now + timedelta(seconds=REPEAT_S)
        await delete_files(store, video.id)
