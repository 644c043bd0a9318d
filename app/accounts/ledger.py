"""The ledger: reserve, hold, settle, refund, credit; and what is left. Its only writer. US dollars in millionths.

Money follows what upstreams did, not what the client was told: a cancelled job whose task could not be stopped is
settled, one that was refused is refunded, and while nobody knows, what was reserved stays held. Every function is part
of the caller's transaction, so that a state and its money are written together or not at all.

`reserve` is written by the statement that creates a job (`intake.py`), and the database refuses there what a limit does
not cover (migration 0003). At all times, for each video:

    sum of its entries  =  - cost_micros - hold_micros * attempts that are held
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app import errors, ids
from app.db import rows
from app.db.models import Attempt, Key, LedgerEntry, Meter, Project, Video
from app.telemetry import log
from app.video import AttemptState, Billing, Entry, Settlement

ALL_TIME = date(1, 1, 1)
"""The month of a meter that counts a balance."""
UNKNOWN = (
    Attempt.ended_at.is_not(None),
    Attempt.state == AttemptState.lost,
    Attempt.settlement == Settlement.held,
)
"""Attempts of which nobody knows whether the upstream took them, until an operator decides."""


# What the state machine says


async def settle(
    session: AsyncSession,
    video: Video,
    attempt: Attempt,
    *,
    cost_micros: int | None,
    seconds: float | None,
    now: datetime,
) -> None:
    """The upstream made it: what was held comes back, what it cost goes. Does nothing where that was done before.

    `video` is locked by the caller; `cost_micros` is None where no price is known.
    """
    if not await _close(session, attempt.id, Settlement.settled, cost_micros=cost_micros):
        return
    known = None if video.hold_micros is None and cost_micros is None else (video.hold_micros or 0) - (cost_micros or 0)
    await _write(session, video, attempt, Entry.settle, known, now, cost_micros=cost_micros, seconds=seconds)
    if cost_micros is not None:
        video.cost_micros = (video.cost_micros or 0) + cost_micros
    await _sum_up(session, video)


async def refund(
    session: AsyncSession, video: Video, attempt: Attempt, *, now: datetime, note: str | None = None
) -> bool:
    """It cost nothing: what was held comes back in full. False where its money was settled or refunded before."""
    if not await _close(session, attempt.id, Settlement.refunded):
        return False
    await _write(session, video, attempt, Entry.refund, video.hold_micros, now, note=note)
    await _sum_up(session, video)
    return True


async def move(session: AsyncSession, attempt: Attempt) -> None:
    """Another attempt was made in its place: what was held for it is held for that one."""
    await _close(session, attempt.id, Settlement.moved)


async def hold(session: AsyncSession, video: Video, attempt: Attempt, *, now: datetime, note: str) -> None:
    """Hold once more what an attempt may cost, whatever the limits say: one more task of the same output, or one whose
    money had come back already."""
    await session.execute(
        sa.update(Attempt).where(Attempt.id == attempt.id).values(settlement=Settlement.held, cost_micros=None)
    )
    minus = None if video.hold_micros is None else -video.hold_micros
    await _write(session, video, attempt, Entry.hold, minus, now, note=note)
    await _sum_up(session, video)


async def release_unknown(session: AsyncSession, *, older_than_s: float, now: datetime) -> Attempt | None:
    """Refund an attempt whose outcome nobody has found out for so long, if there is one. One for each transaction: the
    meters of several owners would be locked in any order."""
    found = await _oldest(session, *UNKNOWN, Attempt.ended_at <= now - timedelta(seconds=older_than_s))
    if found is None:
        return None
    attempt, video = found
    await refund(session, video, attempt, now=now, note="nobody found out what became of it")
    return attempt


async def close_leftover(session: AsyncSession, *, now: datetime) -> Attempt | None:
    """Settle or refund an attempt that ended without it, if there is one: a worker of a release that knew nothing of
    money was still at it after the migration. What it made is charged as it was held."""
    found = await _oldest(session, Attempt.settlement == Settlement.held, Attempt.state != AttemptState.lost)
    if found is None:
        return None
    attempt, video = found
    if attempt.state is AttemptState.succeeded:
        await settle(session, video, attempt, cost_micros=video.hold_micros, seconds=None, now=now)
    else:
        await refund(session, video, attempt, now=now)
    return attempt


async def _oldest(session: AsyncSession, *which: sa.ColumnElement[bool]) -> tuple[Attempt, Video] | None:
    """Lock an attempt that has ended, with its video."""
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


async def _close(session: AsyncSession, attempt_id: str, to: Settlement, **values: Any) -> bool:
    """Take an attempt's money out of `held`, once."""
    closed = await session.execute(
        sa.update(Attempt)
        .where(Attempt.id == attempt_id, Attempt.settlement == Settlement.held)
        .values(settlement=to, **values)
        .execution_options(synchronize_session=False)
    )
    if closed.rowcount != 1:  # type: ignore[attr-defined]  # the result of an UPDATE
        log.warning("the money of the attempt was seen to before", attempt=attempt_id, wanted=str(to))
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
        "owner": video.owner,
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


async def _sum_up(session: AsyncSession, video: Video) -> None:
    """Say of the video what is true of its attempts."""
    found = await session.scalars(
        sa.select(Attempt.settlement).where(Attempt.video_id == video.id).group_by(Attempt.settlement)
    )
    left = {Settlement(settlement) for settlement in found}
    order = (Settlement.held, Settlement.settled, Settlement.refunded)
    video.settlement = next((settlement for settlement in order if settlement in left), Settlement.refunded)
    await session.flush()


def day_of(at: datetime) -> date:
    """The day that money counts for."""
    return at.astimezone(UTC).date()


# What the operator says


async def credit(
    session: AsyncSession, project: Project, amount_micros: int, *, reference: str | None, now: datetime
) -> None:
    """Add to a project's balance, or with a minus take from it. Raises `Conflict` when the reference was credited
    before."""
    entry = {
        "id": ids.new("txn"),
        "owner": project.id,
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


async def limit_key(session: AsyncSession, key: Key, budget_micros: int | None, *, now: datetime) -> None:
    """Set what a key may spend in a month; what it has spent already counts. None: as much as it likes."""
    key.monthly_budget_micros = budget_micros
    if budget_micros is not None:
        await _start_meters(session, LedgerEntry.key_id == key.id, key.id, prepaid=False, now=now)


async def limit_project(
    session: AsyncSession, project: Project, budget_micros: int | None, billing: Billing, *, now: datetime
) -> None:
    """Set how a project pays and what it may spend in a month; what it has spent already counts."""
    project.monthly_budget_micros, project.billing = budget_micros, billing
    if budget_micros is not None or billing is Billing.prepaid:
        whose, subject = LedgerEntry.owner == project.id, f"project:{project.id}"
        await _start_meters(session, whose, subject, prepaid=billing is Billing.prepaid, now=now)


async def _start_meters(
    session: AsyncSession, whose: sa.ColumnElement[bool], subject: str, *, prepaid: bool, now: datetime
) -> None:
    """Set the meters of what has just been limited to what the ledger says. Nobody else writes to the ledger until this
    transaction ends, so that nothing falls between the sum and the triggers."""
    await session.flush()
    await session.execute(sa.text("lock table ledger in share row exclusive mode"))
    # One month more than there should be anything of, for entries of a clock that runs ahead.
    since = (day_of(now).replace(day=1) - timedelta(days=1)).replace(day=1)
    month = sa.func.date_trunc("month", LedgerEntry.day).cast(sa.Date)
    spent = -sa.func.coalesce(sa.func.sum(LedgerEntry.amount_micros), 0)
    found = await session.execute(
        sa.select(month, spent).where(whose, LedgerEntry.kind != Entry.credit, LedgerEntry.day >= since).group_by(month)
    )
    meters: dict[date, Any] = {row[0]: row[1] for row in found}
    if prepaid:
        meters[ALL_TIME] = await session.scalar(sa.select(spent).where(whose))
    for counted, micros in meters.items():
        values = {"subject": subject, "month": counted, "spent_micros": int(micros or 0)}
        written = insert(Meter).values(values)
        await session.execute(
            written.on_conflict_do_update(
                index_elements=["subject", "month"], set_={"spent_micros": written.excluded.spent_micros}
            )
        )


# What is left, and what is written

_AVAILABLE = """
select project.id, project.billing, balance.spent_micros as balance_spent,
  project.monthly_budget_micros as project_budget,
  coalesce(project_month.spent_micros, 0) as project_spent, keys.monthly_budget_micros as key_budget,
  coalesce(key_month.spent_micros, 0) as key_spent
from projects as project
left join keys on keys.id = %(key_id)s
left join meters as balance on balance.subject = 'project:' || project.id and balance.month = '0001-01-01'
left join meters as project_month on project_month.subject = 'project:' || project.id
  and project_month.month = %(month)s
left join meters as key_month on key_month.subject = keys.id and key_month.month = %(month)s
where project.id = any(%(owners)s)
"""


async def available(
    connection: AsyncConnection, owners: Sequence[str], *, key_id: str | None = None, now: datetime
) -> dict[str, tuple[Billing, int | None]]:
    """How each of these projects pays, and how many micros it may still spend by whatever limits it most, with a key
    that key; None: no limit."""
    parameters = {"owners": list(owners), "key_id": key_id, "month": day_of(now).replace(day=1)}
    found = await connection.exec_driver_sql(_AVAILABLE, parameters)
    nothing_known: dict[str, tuple[Billing, int | None]] = dict.fromkeys(owners, (Billing.postpaid, None))
    return nothing_known | {row["id"]: (Billing(row["billing"]), _left(row)) for row in found.mappings()}


def _left(row: sa.RowMapping) -> int | None:
    left = [
        row[f"{what}_budget"] - row[f"{what}_spent"] for what in ("project", "key") if row[f"{what}_budget"] is not None
    ]
    if row["billing"] == Billing.prepaid:
        left.append(-(row["balance_spent"] or 0))
    return min(left, default=None)


async def entries(
    connection: AsyncConnection, *, owner: str | None, video_id: str | None, after: str | None, limit: int
) -> list[LedgerEntry]:
    """Entries of the ledger, newest first."""
    query = rows.select(LedgerEntry).order_by(LedgerEntry.id.desc()).limit(limit)
    if owner is not None:
        query = query.where(LedgerEntry.owner == owner)
    if video_id is not None:
        query = query.where(LedgerEntry.video_id == video_id)
    if after is not None:
        query = query.where(LedgerEntry.id < after)
    return await rows.all_of(LedgerEntry, connection, query)
