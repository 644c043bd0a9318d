"""Lost attempts, whose submit nobody knows the end of: what becomes of one when its answer comes late, or when an
operator has looked into the vendor's console. Part of the state machine, see `jobs.py`.
"""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from app import errors
from app.accounts import ledger as usage
from app.db.models import LIVE, Attempt, Video
from app.jobs.claim import Claim
from app.jobs.transitions import add_attempt, locked
from app.telemetry import log
from app.video import AttemptState as S
from app.video import Settlement, Status


async def answered_late(session: AsyncSession, claim: Claim, values: dict[str, Any], now: datetime) -> bool:
    """The answer to a submit that was given up as lost comes after all: its task is gone on with, at once or, where
    another one was sent in its place, when that has ended (`left_over`)."""
    if await _resume(session, claim.attempt, now, **values):
        log.warning("the answer to a lost submit came late", attempt=claim.attempt.id)
        return True
    lost = sa.update(Attempt).where(Attempt.id == claim.attempt.id, Attempt.state == S.lost)
    await session.execute(lost.values(upstream_ref=values["upstream_ref"]))
    log.error("an accepted task is left over", upstream_ref=values["upstream_ref"], attempt=claim.attempt.id)
    return False


async def left_over(session: AsyncSession, *, now: datetime) -> Attempt | None:
    """Go on with a lost attempt whose task has a name by now, if there is one and its output is not being made: what it
    costs is to be seen to, whatever became of the job."""
    other = aliased(Attempt)
    same = (other.video_id == Attempt.video_id, other.output_index == Attempt.output_index)
    found = await session.scalar(
        sa.select(Attempt)
        .where(Attempt.state == S.lost, Attempt.upstream_ref.is_not(None))
        .where(Attempt.settlement.in_((Settlement.held, Settlement.moved)))
        .where(~sa.exists().where(*same, other.state.in_(LIVE)))
        .order_by(Attempt.ended_at)
        .limit(1)
    )
    return found if found is not None and await _resume(session, found, now) else None


async def found(
    session: AsyncSession,
    video: Video,
    attempt: Attempt,
    *,
    pins: dict[str, str],
    deadline_at: datetime,
    now: datetime,
) -> None:
    """An operator has found the task of a lost attempt, by the name and at the place that `pins` say: it is gone on
    with, and settled when it ends; a job that failed by it runs again. Raises `Conflict`."""
    if await is_being_made(session, attempt):
        raise errors.Conflict("another task for this output is under way; decide once that has ended")
    if not await _resume(session, attempt, now, **pins):
        raise errors.Conflict("somebody else has just decided about this attempt", code="already_decided")
    if _may_run_again(video):
        await _reopen(session, video, Status.in_progress, deadline_at, now)


async def resubmitted(
    session: AsyncSession, video: Video, attempt: Attempt, *, deadline_at: datetime, now: datetime
) -> None:
    """An operator has a lost attempt made once more, as one that was never taken; a job that failed by it runs again.

    Raises `Conflict` where the job has ended otherwise or the output is being made already.
    """
    if video.status.ended and not _may_run_again(video):
        raise errors.Conflict("the job has ended otherwise, so it cannot be made again; decide on fail or find")
    if await is_being_made(session, attempt):
        raise errors.Conflict("this output is being made already; decide on fail or find")
    if video.status.ended:
        await _reopen(session, video, Status.queued, deadline_at, now)
    await add_attempt(session, video, attempt, attempt.route_index, now)
    await usage.transfer_hold(session, attempt)


async def is_being_made(session: AsyncSession, attempt: Attempt) -> bool:
    return await _is_another(session, attempt, Attempt.state.in_(LIVE))


async def was_lost_before(session: AsyncSession, attempt: Attempt) -> bool:
    """Whether another attempt at the same output was lost, too."""
    return await _is_another(session, attempt, Attempt.state == S.lost)


async def _is_another(session: AsyncSession, attempt: Attempt, which: sa.ColumnElement[bool]) -> bool:
    same = (Attempt.video_id == attempt.video_id, Attempt.output_index == attempt.output_index)
    return bool(await session.scalar(sa.select(sa.exists().where(*same, Attempt.id != attempt.id, which))))


def _may_run_again(video: Video) -> bool:
    return video.status is Status.failed and video.error_code != "cancelled" and video.deleted_at is None


async def _reopen(session: AsyncSession, video: Video, status: Status, deadline_at: datetime, now: datetime) -> None:
    """A failed job runs again; its end will be told anew."""
    video.status, video.error_code, video.error_message, video.ended_at = status, None, None, None
    video.deadline_at, video.updated_at = max(deadline_at, video.deadline_at), now
    await session.flush()


async def _resume(session: AsyncSession, lost: Attempt, now: datetime, **values: Any) -> bool:
    """Go on with the task of a lost attempt, unless its output is being made; what came back of its money meanwhile is
    held once more."""
    video = await locked(session, lost.video_id)
    attempt = await session.get(Attempt, lost.id, with_for_update=True, populate_existing=True)
    if video is None or attempt is None or attempt.state is not S.lost or await is_being_made(session, attempt):
        return False
    if attempt.settlement is not Settlement.held:
        await usage.hold(session, video, attempt, now=now, note="the task was found after its money had come back")
    accepted = {"due_at": now, "accepted_at": now, "error_code": None, "error_message": None, "error_body": None}
    running = {"state": S.running, "lease": None, "ended_at": None}
    await session.execute(sa.update(Attempt).where(Attempt.id == lost.id).values({**accepted, **values, **running}))
    return True
