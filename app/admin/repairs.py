"""Submits whose outcome nobody knows, and what an operator can do about them. Their money stays held until then, or
until `late_watch_s` is over.

find       the task is there: go on with it under the name the upstream has for it
resubmit   it is not there: have it made once more
fail       it is not there, and nobody wants it any more: give the money back
"""

from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app import errors, ids
from app.accounts import ledger as usage
from app.db import rows
from app.db.models import Attempt, Video
from app.http.context import Gateway
from app.jobs import reconcile as recovery
from app.jobs.claim import Claim
from app.jobs.task import task_of
from app.telemetry import log
from app.video import AttemptState

MAX_LISTED = 1_000


async def listed(connection: AsyncConnection, *, attempt_id: str | None = None) -> list[tuple[Attempt, Video]]:
    """All attempts that wait for a decision, or this one, with their videos; oldest first."""
    query = rows.select(Attempt).where(*usage.UNKNOWN).order_by(Attempt.ended_at, Attempt.id).limit(MAX_LISTED)
    if attempt_id is not None:
        query = query.where(Attempt.id == attempt_id)
    attempts = await rows.all_of(Attempt, connection, query)
    wanted = rows.select(Video).where(Video.id.in_({attempt.video_id for attempt in attempts}))
    videos = {video.id: video for video in await rows.all_of(Video, connection, wanted)}
    return [(attempt, videos[attempt.video_id]) for attempt in attempts]


async def find(gateway: Gateway, attempt_id: str, upstream_ref: str | None) -> None:
    """Go on with a task that is there after all. Its name is the operator's, from the vendor's console, else the one
    that a late answer brought; the upstream is asked whether it knows it.

    Raises `NotFound`, `InvalidRequest` for a name the upstream does not know, `UpstreamError` when it cannot be asked,
    `Conflict` for the task of another attempt.
    """
    async with gateway.db.reading() as connection:
        attempt, video = _only(await listed(connection, attempt_id=attempt_id), attempt_id)
    ref = upstream_ref or attempt.upstream_ref
    if not ref:
        raise errors.InvalidRequest(
            f"upstream_ref is required: the name that {attempt.provider} has for the task. Look in its console for "
            f"what it took about {attempt.submitted_at:%Y-%m-%d %H:%M:%S} UTC",
            param="upstream_ref",
            code="missing_parameter",
        )
    provider = gateway.providers.get(attempt.provider)
    if provider is None:
        raise errors.InvalidRequest(f"the provider {attempt.provider} is not configured here; it cannot be asked")
    async with gateway.db.reading() as connection:
        same = (Attempt.provider == attempt.provider, Attempt.upstream_ref == ref, Attempt.id != attempt.id)
        other = await connection.scalar(sa.select(Attempt.video_id).where(*same).limit(1))
    if other is not None:
        raise errors.Conflict(f"the task {ref!r:.120} makes the video {other}; this attempt has another one")
    claim = Claim(rows.replace(attempt, upstream_ref=ref), video, AttemptState.lost)
    now = gateway.clock()
    try:
        task = await task_of(claim, provider, db=gateway.db, store=gateway.store, links=gateway.links, now=now)
        await provider.poll(task)
    except (errors.UpstreamGone, errors.UpstreamRejected) as error:
        raise errors.InvalidRequest(
            f"{attempt.provider} does not know a task {ref!r:.120}: {error.message}", param="upstream_ref"
        ) from None
    deadline_at = now + timedelta(seconds=gateway.settings.job_deadline_s)
    async with gateway.db.transaction() as session:
        locked = await _locked(session, attempt_id)
        pins = {"upstream_ref": ref, "base_url": provider.config.base_url, "credential": provider.fingerprint}
        await recovery.found(session, *locked, pins=pins, deadline_at=deadline_at, now=now)
    log.warning("an operator found a lost task", attempt=attempt_id, upstream_ref=ref)


async def resubmit(gateway: Gateway, attempt_id: str) -> None:
    """Have it made once more. Raises `NotFound`, `Conflict` where the job has ended otherwise."""
    now = gateway.clock()
    deadline_at = now + timedelta(seconds=gateway.settings.job_deadline_s)
    async with gateway.db.transaction() as session:
        await recovery.resubmitted(session, *await _locked(session, attempt_id), deadline_at=deadline_at, now=now)
    log.warning("an operator had a lost submit sent again", attempt=attempt_id)


async def fail(gateway: Gateway, attempt_id: str) -> None:
    """Give the money back; the job stays as it ended. Raises `NotFound`."""
    async with gateway.db.transaction() as session:
        video, attempt = await _locked(session, attempt_id)
        await usage.refund(session, video, attempt, now=gateway.clock(), note="the operator says that it was not taken")
    log.warning("an operator gave up a lost submit", attempt=attempt_id)


async def _locked(session: AsyncSession, attempt_id: str) -> tuple[Video, Attempt]:
    """Both rows, the video first as everywhere."""
    video = await session.scalar(
        sa.select(Video)
        .where(Video.id.in_(sa.select(Attempt.video_id).where(Attempt.id == attempt_id)))
        .with_for_update()
    )
    attempt = await session.scalar(sa.select(Attempt).where(Attempt.id == attempt_id, *usage.UNKNOWN).with_for_update())
    if video is None or attempt is None:
        raise _nothing(attempt_id)
    return video, attempt


def _only(found: list[tuple[Attempt, Video]], attempt_id: str) -> tuple[Attempt, Video]:
    if not found or not ids.is_id(attempt_id, "att"):
        raise _nothing(attempt_id)
    return found[0]


def _nothing(attempt_id: str) -> errors.NotFound:
    return errors.NotFound(
        f"no attempt {attempt_id!r:.80} waits for a decision; GET /admin/v1/repairs lists those that do"
    )
