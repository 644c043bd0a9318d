"""The ledger and its only writer: reserve, hold, settle, refund, credit. Amounts in millionths of a US dollar (micros).

Money follows the upstream's result, not the status of the job: a cancelled job whose task could not be stopped is
settled, a refused task is refunded, and while the outcome is unknown the reservation stays held. Every function runs in
the caller's transaction, so that a state and its money are written together or not at all.

`reserve` is written by the statement that creates a job (`jobs/enqueue.py`); a trigger refuses it beyond a limit
(`db/functions/count_money.sql`). At all times, for each video:

    sum of its entries  =  - cost_micros - hold_micros * number of held attempts
"""

from contextlib import AbstractContextManager
from datetime import UTC, date, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app import errors, ids
from app.accounts import audit
from app.accounts.audit import Actor
from app.accounts.pricing import MICROS, NO_COST, Cost, Quote, dollars
from app.db import rows
from app.db.models import Attempt, LedgerEntry, Project, Video
from app.telemetry import traces
from app.telemetry.labels import labels
from app.telemetry.logs import log
from app.telemetry.metrics import COST
from app.video import AttemptState, Entry, Settlement, VideoRequest

UNKNOWN = (
    Attempt.ended_at.is_not(None),
    Attempt.state == AttemptState.lost,
    Attempt.settlement == Settlement.held,
)
"""Condition for attempts with an unknown outcome, until an operator decides."""


RESERVE = b"""
  insert into ledger (
    id, project_id, kind, amount_micros, key_id, video_id, model, provider, upstream_model, app, end_user, day,
    created_at
  )
  select
    %(entry)s, %(project_id)s, 'reserve', %(reserve)s, %(key_id)s, video.id, %(model)s, %(provider)s,
    %(upstream_model)s, %(app)s, %(user)s, %(day)s, %(now)s
  from video"""
"""The reservation of a new job, part of the statement that creates it (`jobs/enqueue.py`); `video` is the inserted row,
if any."""


def reserve_parameters(quote: Quote, request: VideoRequest, now: datetime) -> dict[str, Any]:
    """Parameters of `RESERVE` that are not columns of the job."""
    return {
        "entry": ids.new("txn"),
        "reserve": None if quote.hold_micros is None else -quote.hold_micros * request.n,
        "app": request.app,
        "user": request.user,
        "day": day_of(now),
    }


# Called by the state machine


async def settle(
    session: AsyncSession,
    video: Video,
    attempt: Attempt,
    cost: Cost,
    *,
    reported_micros: int | None = None,
    now: datetime,
) -> None:
    """Settle an attempt that made an output: return its hold, charge its cost, keep the reported one beside it. Does
    nothing if already done. `video` is locked by the caller."""
    micros = cost.micros
    with _span("ledger.settle", video, attempt):
        if not await _close(session, attempt.id, Settlement.settled, cost):
            return
        known = None if video.hold_micros is None and micros is None else (video.hold_micros or 0) - (micros or 0)
        values = {"cost_micros": micros, "seconds": cost.seconds, "reported_micros": reported_micros}
        await _write(session, video, attempt, Entry.settle, known, now, **values)
        if micros is not None:
            video.cost_micros = (video.cost_micros or 0) + micros
        if cost.seconds is not None:
            video.billed_s = (video.billed_s or 0) + cost.seconds
        await update_video_settlement(session, video)
        traces.note(cost_usd=None if micros is None else micros / MICROS, seconds=cost.seconds)
        if micros:
            model = labels.model(attempt.provider, attempt.upstream_model)
            counter = COST.labels(labels.project(video.project_id), attempt.provider, model)
            sa.event.listen(session.sync_session, "after_commit", lambda _: counter.inc(micros / MICROS), once=True)


async def refund(
    session: AsyncSession, video: Video, attempt: Attempt, *, now: datetime, note: str | None = None
) -> bool:
    """Refund the whole hold of an attempt that cost nothing. False if it was already settled or refunded."""
    with _span("ledger.refund", video, attempt):
        if not await _close(session, attempt.id, Settlement.refunded):
            return False
        await _write(session, video, attempt, Entry.refund, video.hold_micros, now, note=note)
        await update_video_settlement(session, video)
        return True


def _span(name: str, video: Video, attempt: Attempt) -> AbstractContextManager[None]:
    return traces.step(name, video.traceparent, video=video.id, attempt=attempt.id, provider=attempt.provider)


async def transfer_hold(session: AsyncSession, attempt: Attempt) -> None:
    """Mark the hold of an attempt as moved to the attempt that replaces it."""
    await _close(session, attempt.id, Settlement.moved)


async def hold(session: AsyncSession, video: Video, attempt: Attempt, *, now: datetime, note: str) -> None:
    """Hold the cost of an attempt again, even beyond limits: for a second task of the same output, or a task whose
    hold was refunded."""
    await session.execute(
        sa.update(Attempt).where(Attempt.id == attempt.id).values(settlement=Settlement.held, cost_micros=None)
    )
    amount = None if video.hold_micros is None else -video.hold_micros
    await _write(session, video, attempt, Entry.hold, amount, now, note=note)
    await update_video_settlement(session, video)


async def release_unknown(session: AsyncSession, *, older_than_s: float, now: datetime) -> Attempt | None:
    """Refund one attempt whose outcome has been unknown for `older_than_s`, if any. One per transaction: several would
    lock the meters of several projects in any order, which can deadlock."""
    found = await _oldest(session, *UNKNOWN, Attempt.ended_at <= now - timedelta(seconds=older_than_s))
    if found is None:
        return None
    attempt, video = found
    await refund(session, video, attempt, now=now, note="outcome unknown")
    return attempt


async def close_leftover(session: AsyncSession, *, now: datetime) -> Attempt | None:
    """Settle or refund one attempt that ended without a settlement, if any: a worker of a release without a ledger ran
    after the migration. An output is charged with its hold."""
    found = await _oldest(session, Attempt.settlement == Settlement.held, Attempt.state != AttemptState.lost)
    if found is None:
        return None
    attempt, video = found
    if attempt.state is AttemptState.succeeded:
        await settle(session, video, attempt, Cost(video.hold_micros, None), now=now)
    else:
        await refund(session, video, attempt, now=now)
    return attempt


async def _oldest(session: AsyncSession, *which: sa.ColumnElement[bool]) -> tuple[Attempt, Video] | None:
    """Lock the longest ended attempt that matches, with its video."""
    ended = await session.execute(
        sa.select(Attempt, Video)
        .join(Video, Video.id == Attempt.video_id)
        .where(Attempt.ended_at.is_not(None), *which)
        .order_by(Attempt.ended_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    found = ended.first()
    return None if found is None else (found[0], found[1])


async def _close(session: AsyncSession, attempt_id: str, to: Settlement, cost: Cost = NO_COST) -> bool:
    """Change the settlement of an attempt from `held` to `to`; False if it is no longer held."""
    closed = await session.execute(
        sa.update(Attempt)
        .where(Attempt.id == attempt_id, Attempt.settlement == Settlement.held)
        .values(settlement=to, cost_micros=cost.micros, uncapped_micros=cost.uncapped_micros)
        .execution_options(synchronize_session=False)
    )
    if closed.rowcount != 1:  # type: ignore[attr-defined]  # the result of an UPDATE
        log.warning("attempt already settled or refunded", attempt=attempt_id, wanted=str(to))
        return False
    return True


async def _write(
    session: AsyncSession,
    video: Video,
    attempt: Attempt,
    kind: Entry,
    amount_micros: int | None,
    now: datetime,
    **values: Any,
) -> None:
    entry = {
        "id": ids.new("txn"),
        "project_id": video.project_id,
        "kind": kind,
        "amount_micros": amount_micros,
        "key_id": video.key_id,
        "video_id": video.id,
        "attempt_id": attempt.id,
        "model": video.model,
        "provider": attempt.provider,
        "upstream_model": attempt.upstream_model,
        "app": video.request.get("app"),
        "end_user": video.request.get("user"),
        "day": day_of(video.created_at),
        "created_at": now,
        **values,
    }
    await session.execute(insert(LedgerEntry).values(entry))


async def update_video_settlement(session: AsyncSession, video: Video) -> None:
    """Derive the video's settlement from its attempts."""
    found = await session.scalars(
        sa.select(Attempt.settlement).where(Attempt.video_id == video.id).group_by(Attempt.settlement)
    )
    states = {Settlement(settlement) for settlement in found}
    order = (Settlement.held, Settlement.settled, Settlement.refunded)
    video.settlement = next((settlement for settlement in order if settlement in states), Settlement.refunded)
    await session.flush()


def day_of(at: datetime) -> date:
    """The accounting day of a time, UTC."""
    return at.astimezone(UTC).date()


# Credits by the operator


async def credit(
    session: AsyncSession, project: Project, amount_micros: int, *, reference: str | None, actor: Actor, now: datetime
) -> None:
    """Add to a project's balance; a negative amount reduces it. Raises `Conflict` when the reference was already
    credited."""
    entry = {
        "id": ids.new("txn"),
        "project_id": project.id,
        "kind": Entry.credit,
        "amount_micros": amount_micros,
        "day": day_of(now),
        "note": reference,
        "created_at": now,
    }
    written = insert(LedgerEntry).values(entry).on_conflict_do_nothing().returning(LedgerEntry.id)
    if await session.scalar(written) is None:
        raise errors.Conflict(
            f"the reference {reference!r:.120} was credited to this project before", param="reference"
        )
    credited = {"amount_usd": dollars(amount_micros), "reference": reference}
    await audit.record(session, actor, "project.credit", project.id, project_id=project.id, after=credited, now=now)


# Reading


async def list_entries(
    connection: AsyncConnection, *, project_id: str | None, video_id: str | None, after: str | None, limit: int
) -> list[LedgerEntry]:
    """Read ledger entries, newest first."""
    query = rows.select(LedgerEntry).order_by(LedgerEntry.id.desc()).limit(limit)
    if project_id is not None:
        query = query.where(LedgerEntry.project_id == project_id)
    if video_id is not None:
        query = query.where(LedgerEntry.video_id == video_id)
    if after is not None:
        query = query.where(LedgerEntry.id < after)
    return await rows.all_of(LedgerEntry, connection, query)
