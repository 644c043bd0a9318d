"""Housekeeping: expired, deleted and purged videos, files that no row references, stale holds, days of usage."""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.accounts import closed_days, ledger, sessions
from app.db.database import Database
from app.db.models import LIVE, Attempt, Video
from app.jobs import payloads, reconcile
from app.jobs.changes import LATE, REMEMBERED
from app.jobs.claim import Claim, repair_due_times
from app.media.store import StorageUnavailable, Store
from app.settings import Settings
from app.telemetry.logs import log
from app.video import Settlement
from app.webhooks.deliveries import purge_deliveries

BATCH = 100
UPLOAD_LEFT_S = 3_600
"""Age from which an upload without a job may be deleted: longer than any request takes to arrive."""
MIN_HORIZON_S = 120
"""Least horizon for due times; a due time beyond it was written before the database's clock was set back."""


async def purge(db: Database, settings: Settings, store: Store, *, now: datetime) -> None:
    """Run all housekeeping that is due at `now`."""
    async with db.transaction() as session:
        await purge_deliveries(session, now=now)
        horizon_s = 2 * max(settings.job_deadline_s, settings.lease_s, MIN_HORIZON_S / 2)
        if await repair_due_times(await session.connection(), horizon_s=horizon_s, now=now):
            log.warning("due times in the far future repaired")
        await sessions.purge_sessions(await session.connection(), now=now)
    try:
        for _ in range(BATCH):
            if not await _settle_stale_hold(db, settings, now):
                break
        await _purge_videos(db, store, now)
        await _purge_uploads(db, store, now)
    except StorageUnavailable as error:
        log.warning("files not deleted, repeated later", error=error.message)
    await closed_days.close_days(db, now=now)


async def _settle_stale_hold(db: Database, settings: Settings, now: datetime) -> bool:
    """Resume, settle or refund one attempt that no worker holds. True when there may be more."""
    async with db.transaction() as session:
        found = await reconcile.resume_lost(session, now=now)
        found = found or await ledger.release_unknown(session, older_than_s=settings.late_watch_s, now=now)
        found = found or await ledger.close_leftover(session, now=now)
    if found is None:
        return False
    log.warning("stale hold resolved", video=found.video_id, attempt=found.id, was=str(found.state))
    return True


async def _purge_videos(db: Database, store: Store, now: datetime) -> None:
    """Delete the files of expired and of purged videos, files and payloads of deleted ones, and their rows `REMEMBERED`
    later. Files come before the rows that name them, each video for itself: a crash or a file that cannot be deleted
    leaves the row."""
    is_expired = (Video.expires_at <= now, Video.ended_at.is_not(None), Video.outputs != [])
    live = sa.exists().where(Attempt.video_id == Video.id, Attempt.state.in_(LIVE))
    is_deleted = (Video.deleted_at.is_not(None), Video.settlement != Settlement.held, ~live)
    for expired in await _without_files(db, store, *is_expired):
        async with db.transaction() as session:
            emptied = {"outputs": [], "updated_at": now}
            await session.execute(sa.update(Video).where(Video.id == expired, *is_expired).values(emptied))
        log.info("expired files deleted", video=expired)
    is_over = Video.deleted_at <= now - REMEMBERED - LATE
    has_payloads = sa.or_(Video.purged_at.is_(None), Video.outputs != [])
    for deleted in await _without_files(db, store, *is_deleted, has_payloads):
        async with db.transaction() as session:
            await payloads.erase_deleted(session, deleted, now=now)
    for over in await _without_files(db, store, *is_deleted, is_over):
        async with db.transaction() as session:
            await session.execute(sa.delete(Video).where(Video.id == over, *is_deleted, is_over))
    await payloads.repeat_purges(db, store, now=now)


async def _without_files(db: Database, store: Store, *conditions: sa.ColumnElement[bool]) -> list[str]:
    """Delete the files of the videos that match; returns the ids of those where that was possible."""
    async with db.reading() as connection:
        found = list(await connection.scalars(sa.select(Video.id).where(*conditions).limit(BATCH)))
    return [video_id for video_id in found if await store.try_to_delete(f"videos/{video_id}/")]


async def _purge_uploads(db: Database, store: Store, now: datetime) -> None:
    """Delete uploads that no job needs: the server died before it wrote the job, the worker died after the job ended,
    the job was cancelled, or an operator may no longer resubmit it."""
    old = await store.written_before("uploads/", now - timedelta(seconds=UPLOAD_LEFT_S))
    unused = {key.split("/")[1] for key in old}
    if unused:
        async with db.reading() as connection:
            unused -= await needing_uploads(connection, unused)
    for video_id in unused:
        await store.delete_prefix(f"uploads/{video_id}/")
        log.info("unused uploads deleted", video=video_id)


async def needing_uploads(connection: AsyncConnection, video_ids: Collection[str]) -> set[str]:
    """Return those of the videos whose uploads may still be sent to an upstream: running ones, and ended ones that an
    operator may resubmit."""
    undecided = sa.or_(Video.ended_at.is_(None), Video.settlement == Settlement.held)
    query = sa.select(Video.id).where(Video.id.in_(video_ids), undecided, Video.purged_at.is_(None))
    return set(await connection.scalars(query))


async def delete_earlier_files(claim: Claim, db: Database, store: Store) -> None:
    """Delete the files that workers with earlier leases stored and did not record, before this worker stores its own:
    once the video has ended, a worker that is killed leaves no file behind. Raises `StorageUnavailable`."""
    found = await store.written_before(claim.folder, datetime.max.replace(tzinfo=UTC))
    if not found:
        return
    async with db.reading() as connection:
        # Read after the files were listed: while the lease is ours, none of them is a later worker's.
        held = await connection.scalar(sa.select(Attempt.lease).where(Attempt.id == claim.attempt.id))
        _, kept = await _files_of(connection, claim.attempt.id)
    if held == claim.attempt.lease:
        await store.delete(key for key in found if not key.startswith(tuple(kept)))


async def delete_stray_files(claim: Claim, db: Database, store: Store, key: str | None = None) -> None:
    """Delete the files of an ended attempt that no row references: left by workers that died before recording them.

    For an attempt that has not ended, because another worker has it now, delete only this worker's own `key`."""
    async with db.reading() as connection:
        ended, kept = await _files_of(connection, claim.attempt.id)
    try:
        if ended:
            await store.delete_prefix(claim.folder, but=kept)
        elif key is not None and key not in kept:
            await store.delete([key])
    except StorageUnavailable as error:
        log.warning("stray files not deleted", folder=claim.folder, error=error.message)


async def _files_of(connection: AsyncConnection, attempt_id: str) -> tuple[bool, list[str]]:
    """Return True if an attempt has ended or is deleted, and the keys of all files of its video."""
    query = (
        sa.select(Attempt.ended_at, Video.outputs)
        .join(Video, Video.id == Attempt.video_id)
        .where(Attempt.id == attempt_id)
    )
    row = (await connection.execute(query)).first()
    if row is None:
        return True, []
    return row.ended_at is not None, [output["key"] for output in row.outputs if output["key"]]  # without: purged
