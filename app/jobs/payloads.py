"""Purge of payloads: erases what a client sent with an ended video and what was made of it. Figures, times, ids, status
and money stay, and so does the hash of an idempotency key: a repeated create must not pay for a second video.

Rows are erased at once, in one transaction, and the files after it. Then the purge is repeated (`repeat_purges`) until
nothing is left that could still write: a crash between the two, or a task that still runs upstream. Deliveries that are
still tried erase what is left themselves, with their last try (`webhooks/deliveries.py`).
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app import errors
from app.db.database import Database
from app.db.models import LIVE, Attempt, Video
from app.jobs.transitions import lock_own_video, lock_video
from app.media.store import StorageUnavailable, Store
from app.telemetry.logs import log
from app.video import Settlement, is_own_cancel
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
    video = await lock_own_video(session, video_id, project_id=project_id)
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
        "error_message": _error_text(values["error_code"], values["error_message"]),
    }


def _error_text(code: str | None, message: str | None) -> str | None:
    """The text instead of that of an error; our own one about a cancel stays, by which it is recognised."""
    own = is_own_cancel(code, message)
    return message if code is None or own else ERROR_TEXT


async def _erase_rows_of(session: AsyncSession, video: Video, now: datetime) -> None:
    """Erase the payloads from attempts that have ended and from deliveries."""
    await _erase_attempts_of(session, video)

    def erase(values: Mapping[str, Any]) -> dict[str, Any]:
        return {**values, **erased(values), "purged_at": now.isoformat()}

    await events.purge_video(session, video.id, erase)


async def _erase_attempts_of(session: AsyncSession, video: Video) -> None:
    texts = (Attempt.error_message, Attempt.error_body, Attempt.output)
    await session.execute(
        sa.update(Attempt)
        .where(Attempt.video_id == video.id, Attempt.ended_at.is_not(None))
        .where(sa.or_(*(text.is_not(None) for text in texts)))
        .values(error_message=None, error_body=None, output=None)
        .execution_options(synchronize_session=False)
    )


async def erase_deleted(session: AsyncSession, video_id: str, *, now: datetime) -> None:
    """Erase the payloads of a deleted video whose files are deleted and whose row stays for a while, so that event
    streams learn of it."""
    video = await lock_video(session, video_id)
    if video is not None and video.deleted_at is not None:
        for name, value in erased(video.__dict__).items():
            setattr(video, name, value)
        video.outputs, video.purged_at = [], now
        await _erase_attempts_of(session, video)


async def delete_files(store: Store, video_id: str) -> int:
    """Delete all files of a video; returns the number of uploads, videos and pictures. Raises `StorageUnavailable`."""
    folders = _folders(video_id)
    always = datetime.max.replace(tzinfo=UTC)
    found = [key for folder in folders for key in await store.written_before(folder, always)]
    for folder in folders:
        await store.delete_prefix(folder)
    return sum(not key.endswith(".failed") for key in found)


def _folders(video_id: str) -> tuple[str, str]:
    return f"videos/{video_id}/", f"uploads/{video_id}/"


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


async def repeat_purges(db: Database, store: Store, *, now: datetime) -> None:
    """Repeat the purges that are due, the last time when nothing is left that could write something. Files that cannot
    be deleted are tried again with the next repetition of their video."""
    async with db.transaction() as session:
        due = await _erase_due(session, now)
    done = [video_id for video_id, is_last in due if await store.try_to_delete(*_folders(video_id)) and is_last]
    if done:
        async with db.transaction() as session:
            await session.execute(sa.update(Video).where(Video.id.in_(done)).values(purge_due_at=None))


async def _erase_due(session: AsyncSession, now: datetime) -> list[tuple[str, bool]]:
    """Erase the rows of the videos whose purge is due, and set the time of their next repetition. Returns their ids;
    the second value is True where nothing can be written any more."""
    horizon = now + timedelta(seconds=2 * LAST_REPEAT_S)  # a time beyond it is from before the clock was set back
    due = await session.scalars(
        sa.select(Video)
        .where(sa.or_(Video.purge_due_at <= now, Video.purge_due_at > horizon))
        .order_by(Video.purge_due_at)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    )
    found = []
    for video in due.all():
        await _erase_rows_of(session, video, now)
        age_s = (now - (video.purged_at or now)).total_seconds()
        live = sa.exists().where(Attempt.video_id == video.id, Attempt.state.in_(LIVE))
        is_open = video.settlement is Settlement.held or await session.scalar(sa.select(live))
        found.append((video.id, age_s >= LAST_REPEAT_S and not is_open))
        # growing gaps, so that a project with many such videos does not delay the purges of others
        video.purge_due_at = now + timedelta(seconds=min(max(age_s, REPEAT_S), LAST_REPEAT_S))
    return found
