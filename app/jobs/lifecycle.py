"""State machine of attempts and videos. Only `enqueue.py` (create) and `claim.py` also set states.

    pending ──begin──▶ submitting ──accepted──▶ running ──done──▶ storing ──stored──▶ succeeded
       ▲                  │   │                   │  ▲               │
       └──── refused ─────┘   ├─ rejected ─▶ failed ◀┼───────────────┘
                              │                      └── file gone, poll again
                              └─ outcome unknown ─▶ lost ──late answer──▶ running
                                           failed ──address of the file, from an operator──▶ storing
    pending, running and storing can become cancelled; a submitting attempt is cancelled once it is accepted
    a pending attempt fails, too, when its submit is refused before it is sent

Every transition is one compare-and-set UPDATE that expects the claimed state and lease (`transitions.py`); when another
worker was faster, it changes nothing and returns False. The ledger entry is written in the same transaction
(`accounts/ledger.py`): an attempt that ends is settled, refunded, or passes its hold to the attempt that follows; a
lost attempt keeps its hold. Each function runs inside one transaction; callers commit. Time is an argument.
"""

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app import errors
from app.accounts import ledger, pricing
from app.db import rows
from app.db.models import LIVE, Attempt, Video
from app.jobs import reconcile
from app.jobs.claim import Claim
from app.jobs.transitions import add_attempt, lock_own_video, lock_video, transition
from app.telemetry.logs import log
from app.video import CANCELLED, Failure, Operation, Output, Progress, Status, Submission, is_own_cancel
from app.video import AttemptState as S
from app.webhooks import events

KEEP_CANCELLED = timedelta(hours=1)
"""Time for which a cancelled video cannot be deleted: a repeated cancel, whose response was lost, changes nothing."""
MAX_CONSECUTIVE_FAILURES = 3
"""Consecutive answers "unknown task" or "file gone" after which an attempt fails."""


# Actions of clients


async def cancel_or_delete(
    session: AsyncSession, video_id: str, *, project_id: str, has_ended: bool | None = None, now: datetime
) -> tuple[Video, bool]:
    """Cancel a running video, or delete one that has ended; one that was cancelled less than `KEEP_CANCELLED` ago stays
    as it is. The second value is True if this call cancelled it. `has_ended` is what the client has seen; None: it does
    not matter. Raises `NotFound`, and with `has_ended` `Conflict` when that is not so, or when the video stays.

    A cancelled video stays visible as failed; a deleted one is hidden at once, its files and row are purged later.
    """
    video = await lock_own_video(session, video_id, project_id=project_id)
    if video is None:
        raise errors.NotFound(f"no video has the id {video_id!r:.80}", param="video_id")
    if has_ended is not None and has_ended is not video.status.ended:
        change = "has ended meanwhile, so it was not cancelled" if video.status.ended else "runs, so it was not deleted"
        raise errors.Conflict(f"the video {change}", code="video_changed")
    if not video.status.ended:
        await _end(session, video, CANCELLED, now)
        return video, True
    if has_ended and _was_just_cancelled(video, now):
        raise errors.Conflict(
            "a video that was cancelled is kept for an hour, so it was not deleted", code="video_kept"
        )
    if not _was_just_cancelled(video, now):
        video.deleted_at = video.updated_at = now
        video.idempotency_key = None
        await events.forget_video(session, video.id)
    return video, False


def _was_just_cancelled(video: Video, now: datetime) -> bool:
    """True for a cancel by the client."""
    by_client = is_own_cancel(video.error_code, video.error_message)
    return by_client and video.ended_at is not None and now - video.ended_at < KEEP_CANCELLED


# Results of workers


async def release(connection: rows.Connection, claim: Claim, /, *, now: datetime) -> None:
    """Release an unchanged attempt: due at `now`, for any worker. Not for a submit that may have been sent."""
    if claim.was is not S.pending:
        await transition(connection, claim, claim.was, due_at=now)
        return
    for state in (
        S.pending,
        S.submitting,
    ):  # the write before the first byte may have been done although it failed here
        unsent = Claim(rows.replace(claim.attempt, state=state), claim.video, claim.was)
        if await transition(connection, unsent, S.pending, due_at=now, submits=claim.attempt.submits - 1):
            return


async def accepted(
    session: AsyncSession, claim: Claim, submission: Submission, *, due_at: datetime, now: datetime
) -> bool:
    """Record that the upstream accepted the task; the answer may arrive after the attempt was recorded as lost."""
    values = {
        "upstream_ref": submission.ref,
        "upstream_status": submission.raw_status,
        "progress": submission.progress or 0,
        "accepted_at": now,
        "due_at": _capped(due_at, claim, now),
        "error_code": None,
        "error_message": None,
        "error_body": None,
    }
    moved = await transition(session, claim, S.running, **values)
    if not moved and not await reconcile.record_late_answer(session, claim, values, now):
        return False
    await session.execute(
        sa.update(Video)
        .where(Video.id == claim.video.id, Video.status == Status.queued)
        .values(
            provider=claim.attempt.provider,
            upstream_model=claim.attempt.upstream_model,
            status=Status.in_progress if submission.status is Status.in_progress else Status.queued,
            updated_at=now,
        )
    )
    return True


async def refused(
    session: AsyncSession, claim: Claim, error: errors.UpstreamError, *, due_at: datetime, now: datetime
) -> Video | None:
    """Record that the upstream did not accept the task. If another provider may accept it, the next route is tried;
    after the last one, a temporary error starts over with the first route, any other error fails the attempt."""
    routes = len(claim.video.routes)
    if error.retryable and routes == 1:
        values = {"due_at": _capped(due_at, claim, now), "submits": claim.attempt.submits, **_error_values(error)}
        await transition(session, claim, S.pending, **values)
        return None
    await lock_video(session, claim.video.id)  # first, as everywhere, against deadlocks
    if not await transition(session, claim, S.failed, **_error_values(error), ended_at=now):
        return None
    rounds = claim.attempt.submits  # counted over all rounds, so that each round waits longer
    if not claim.on_last_route and error.next_candidate:
        return await _end_without_charge(
            session, claim, now, next_route=claim.attempt.route_index + 1, submits=rounds - 1
        )
    if error.retryable:
        return await _end_without_charge(
            session, claim, now, next_route=0, due_at=_capped(due_at, claim, now), submits=rounds
        )
    return await _end_without_charge(session, claim, now)


async def lost(
    session: AsyncSession, claim: Claim, error: errors.UpstreamUnknown, *, again_at: datetime | None, now: datetime
) -> Video | None:
    """Record that the outcome of a submit is unknown. With `again_at` (`on_unknown = "resubmit"`) the output is
    submitted once more, which may be paid twice; after a second loss it is not."""
    if not await transition(session, claim, S.lost, **_error_values(error), ended_at=now):
        return None
    if again_at is not None and not await reconcile.was_lost_before(session, claim.attempt):
        video, held = await lock_video(session, claim.video.id), claim.attempt
        following = await add_attempt(session, video, held, held.route_index, again_at, submits=held.submits)
        if video is not None and following is not None:
            await ledger.hold(session, video, following, now=now, note="resubmitted, the first may have been accepted")
    return await _end_if_over(session, claim.video.id, now)


async def snooze(connection: rows.Connection, claim: Claim, /, *, due_at: datetime, **values: Any) -> bool:
    """Postpone an attempt without changing its state: the step brought no result, or no certain one."""
    return await transition(connection, claim, claim.attempt.state, due_at=due_at, **values)


_SHOW_PROGRESS = sa.text("""
update videos set status = 'in_progress', updated_at = :now, progress = greatest(progress, (
  select least(99, avg(best)::int)
  from (select max(progress) as best from attempts where video_id = videos.id group by output_index) as each_output
)) where id = :video_id and status in ('queued', 'in_progress')
""")


async def progressed(
    session: AsyncSession, claim: Claim, progress: Progress, *, due_at: datetime, now: datetime
) -> None:
    """Record the progress of a task that is queued or in progress upstream."""
    values = {
        "due_at": _capped(due_at, claim, now),
        "polls": claim.attempt.polls + 1,
        "consecutive_failures": 0,
        "upstream_status": progress.raw_status,
        "progress": max(claim.attempt.progress, min(progress.progress or 0, 99)),
    }
    moved = await transition(session, claim, S.running, **values)
    news = values["progress"] != claim.attempt.progress or claim.video.status is Status.queued
    if moved and news and progress.status is not Status.queued:
        await session.execute(_SHOW_PROGRESS, {"video_id": claim.video.id, "now": now})


async def done(session: AsyncSession, claim: Claim, progress: Progress, output: Output, *, now: datetime) -> bool:
    """Record that the task has finished upstream; its file is downloaded next."""
    moved = await transition(
        session,
        claim,
        S.storing,
        due_at=now,
        polls=claim.attempt.polls + 1,
        upstream_status=progress.raw_status,
        progress=99,
        output=output.model_dump(mode="json"),
        reported_micros=progress.reported_micros,
    )
    if moved:
        await session.execute(
            sa.update(Video)
            .where(Video.id == claim.video.id, Video.status == Status.queued)
            .values(status=Status.in_progress, updated_at=now)
        )
    return moved


async def poll_again(session: AsyncSession, claim: Claim, *, due_at: datetime) -> bool:
    """Return to polling because the file URL did not work: the next answer may have a new URL."""
    consecutive_failures = claim.attempt.consecutive_failures + 1
    return await transition(
        session, claim, S.running, due_at=due_at, consecutive_failures=consecutive_failures, output=None
    )


def cost_of(claim: Claim, made_s: float | None) -> pricing.Cost:
    """Cost of an output by the length of its file; if that is unknown by the requested length, at least one second,
    else by the length that was held for. An extension is charged by the requested length: its file includes the source.
    What was refunded before (`Attempt.free`) costs nothing."""
    video = claim.video
    requested = video.request.get("seconds")
    held = pricing.held_seconds(video.prices, video.hold_micros)
    requested = held if requested is None else max(requested, pricing.LEAST_SECONDS)
    is_extension = Operation(video.request.get("operation", "generate")).lengthens and requested is not None
    seconds = requested if made_s is None or is_extension else made_s
    if claim.attempt.free:
        return pricing.Cost(0, seconds)
    return pricing.cost(
        video.prices,
        claim.attempt.route_index,
        seconds,
        hold_micros=video.hold_micros,
        longest_s=video.longest_s or requested or pricing.ASSUMED_SECONDS,
    )


async def stored(
    session: AsyncSession,
    claim: Claim,
    output: dict[str, Any],
    cost: pricing.Cost,
    *,
    expires_at: datetime | None,
    now: datetime,
) -> Video | None:
    """Record a stored file as an output and settle its cost. Returns the video, or None when it ended before or was
    deleted; a file that is not among its outputs must then be deleted."""
    video = await lock_video(session, claim.video.id)
    if not await transition(session, claim, S.succeeded, progress=100, ended_at=now, consecutive_failures=0):
        ours = video is not None and any(stored["key"] == output["key"] for stored in video.outputs)
        return video if ours else None  # ours: the same call has committed before, but the commit was not confirmed
    if video is None:
        return None
    reported_micros = None if claim.attempt.free else claim.attempt.reported_micros
    await ledger.settle(session, video, claim.attempt, cost, reported_micros=reported_micros, now=now)
    if video.status.ended:
        return None
    if all(other["index"] != output["index"] for other in video.outputs):  # else a second task has made the same output
        video.outputs = sorted([*video.outputs, output], key=lambda o: o["index"])
        if cost.uncapped_micros is not None:
            video.warnings = [*video.warnings, _capped_warning(output, cost)]
        video.expires_at = expires_at
        video.provider, video.upstream_model = claim.attempt.provider, claim.attempt.upstream_model
        await session.flush()
    return await _end_if_over(session, claim.video.id, now) or video


async def failed(
    session: AsyncSession,
    claim: Claim,
    failure: Failure,
    *,
    retry: bool = False,
    body: str | None = None,
    now: datetime,
) -> Video | None:
    """Record that the attempt has failed; with `retry` the next route is tried."""
    values = {"error_code": failure.code, "error_message": failure.message, "error_body": body, "ended_at": now}
    await lock_video(session, claim.video.id)  # first, as everywhere, against deadlocks
    if not await transition(session, claim, S.failed, **values):
        return None
    next_route = claim.attempt.route_index + 1 if retry and not claim.on_last_route else None
    return await _end_without_charge(session, claim, now, next_route=next_route)


async def expired(session: AsyncSession, claim: Claim, *, now: datetime) -> Video | None:
    """Fail a job after its deadline, or complete it with the outputs it has; running tasks are cancelled or watched."""
    video = await lock_video(session, claim.video.id)
    if video is None or video.status.ended:
        if claim.was is not S.pending:
            await transition(session, claim, claim.was, due_at=now)
        elif await transition(session, claim, S.cancelled, ended_at=now) and video is not None:
            await ledger.refund(session, video, claim.attempt, now=now)
        return None
    await transition(session, claim, claim.was, due_at=now)
    if video.provider is None:
        video.provider, video.upstream_model = claim.attempt.provider, claim.attempt.upstream_model
    if video.outputs:  # some outputs are stored and settled
        await _stop_attempts(session, video, now)
        video.warnings = [*video.warnings, "the other outputs were not finished in time"]
        await _complete(session, video, now)
        return video
    waited = round((now - video.created_at).total_seconds())
    reason = f" Last from the provider: {claim.attempt.error_message}" if claim.attempt.error_message else ""
    await _end(
        session, video, Failure(code="deadline_exceeded", message=f"Not finished after {waited} s.{reason}"), now
    )
    return video


async def ended_late(
    session: AsyncSession, claim: Claim, to: S, *, note: str, reported_micros: int | None = None, now: datetime
) -> None:
    """End an attempt whose job has ended before: settle it if the task succeeded upstream, or the vendor reports that
    one without success is charged (`reported_micros`), else refund it."""
    video = await lock_video(session, claim.video.id)
    cost = cost_of(claim, None)
    if to is not S.succeeded:  # never more than a success, and nothing where that has no known price
        cost = pricing.Cost(min(cost.micros or 0, reported_micros or 0), None)
    code = None if to is S.succeeded else "abandoned"
    reported_micros = claim.attempt.reported_micros if reported_micros is None else reported_micros
    values = {"ended_at": now, "error_code": code, "reported_micros": reported_micros}
    if video is None or not await transition(session, claim, to, **values):
        return
    if to is S.succeeded or cost.micros:
        await ledger.settle(session, video, claim.attempt, cost, reported_micros=reported_micros, now=now)
    else:
        await ledger.refund(session, video, claim.attempt, now=now, note=note)
    log.warning("abandoned task ended", attempt=claim.attempt.id, outcome=str(to), note=note)


# Inside one transaction


async def _end_without_charge(
    session: AsyncSession,
    claim: Claim,
    now: datetime,
    *,
    next_route: int | None = None,
    due_at: datetime | None = None,
    submits: int = 0,
) -> Video | None:
    """Continue after an attempt that made nothing: transfer its hold to an attempt at `next_route`, or refund it."""
    video = await lock_video(session, claim.video.id)
    following = None
    if next_route is not None:
        following = await add_attempt(session, video, claim.attempt, next_route, due_at or now, submits=submits)
    if following is not None:
        await ledger.transfer_hold(session, claim.attempt)
    elif video is not None:
        await ledger.refund(session, video, claim.attempt, now=now)
    return await _end_if_over(session, claim.video.id, now)


async def _end_if_over(session: AsyncSession, video_id: str, now: datetime) -> Video | None:
    """End the video when all its attempts have ended: completed with at least one file, failed with none.

    Returns the video if this call ended it.
    """
    video = await lock_video(session, video_id)
    if video is None or video.status.ended:
        return None
    attempts = (
        await session.scalars(
            sa.select(Attempt).where(Attempt.video_id == video_id).order_by(Attempt.output_index, Attempt.id)
        )
    ).all()
    if any(attempt.state in LIVE for attempt in attempts):
        return None
    if video.outputs:
        missing = video.request.get("n", 1) - len(video.outputs)
        if missing:
            last = {a.output_index: a for a in attempts if a.state is not S.succeeded}
            failures = [f"output {i} failed: {a.error_message}" for i, a in last.items()]
            video.warnings = [*video.warnings, *failures]
        await _complete(session, video, now)
        return video
    failure = attempts[-1]
    if video.provider is None:  # no provider accepted it: report the last one tried
        video.provider, video.upstream_model = failure.provider, failure.upstream_model
    code, message = failure.error_code or "generation_failed", failure.error_message or "The generation failed."
    await _end(session, video, Failure(code=code, message=message), now)
    return video


async def _complete(session: AsyncSession, video: Video, now: datetime) -> None:
    video.status, video.progress = Status.completed, 100
    video.completed_at = video.ended_at = video.updated_at = now
    await session.flush()
    await events.record_event(session, video, now=now)


async def _end(session: AsyncSession, video: Video, failure: Failure, now: datetime) -> None:
    """Fail a video: pending attempts are cancelled and refunded, running ones come due to be cancelled upstream."""
    video.status = Status.failed
    video.error_code, video.error_message = failure.code, failure.message
    video.ended_at = video.updated_at = now
    await _stop_attempts(session, video, now)
    await session.flush()
    await events.record_event(session, video, now=now)


async def _stop_attempts(session: AsyncSession, video: Video, now: datetime) -> None:
    stopped = await session.scalars(
        sa.update(Attempt)
        .where(Attempt.video_id == video.id, Attempt.state == S.pending)
        .values(state=S.cancelled, ended_at=now, lease=None)
        .returning(Attempt)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    for attempt in stopped.all():
        await ledger.refund(session, video, attempt, now=now)
    await session.execute(
        sa.update(Attempt)
        .where(Attempt.video_id == video.id, Attempt.state.in_((S.running, S.storing)), Attempt.lease.is_(None))
        .values(due_at=now)
        .execution_options(synchronize_session=False)
    )


def _capped_warning(output: dict[str, Any], cost: pricing.Cost) -> str:
    charged = pricing.format_usd(cost.micros or 0)
    return (
        f"output {output['index']} is {output['duration_s']:g} s long and was charged as {cost.seconds:g} s: its cost "
        f"was capped at {charged}"
    )


def _error_values(error: errors.UpstreamError) -> dict[str, Any]:
    return {"error_code": error.code, "error_message": error.message, "error_body": error.body}


def _capped(due_at: datetime, claim: Claim, now: datetime) -> datetime:
    """Limit a due time to the deadline, so that an overdue job fails in time."""
    return min(due_at, max(claim.video.deadline_at, now))
