"""Jobs of a restored database, which is older than the state of the upstreams: what may have been submitted after the
backup was made is not submitted again blindly.

- An attempt that was waiting or being submitted becomes a submit of unknown outcome (`submit.rescue`).
- A video with several routes may have gone on at the next one: it is never tried there again, and never resubmitted,
  not even at an upstream where the same id makes no second task. The row `restored` of `deployment` says which videos.
- A video whose tasks all run gets the time to its deadline once more: nothing was polled since, and what the upstream
  has made meanwhile is charged in any case.
"""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.database import Database
from app.db.models import Attempt, DeploymentFact, Video, WorkerProcess
from app.jobs.transitions import count
from app.video import AttemptState as S

NAME = "restored"


async def mark_restored(session: AsyncSession, *, backup_at: datetime | None, now: datetime) -> int:
    """Mark all submits that may have been sent since the backup as of unknown outcome, and forget the workers of then.
    Returns their number. For the transaction of the restore, or one before any worker runs. One that was not sent at
    `backup_at` (None: not known) was sent later, if at all."""
    earliest = Attempt.created_at if backup_at is None else sa.func.greatest(Attempt.created_at, backup_at)
    sent_at = sa.case((Attempt.state == S.pending, earliest), else_=sa.func.coalesce(Attempt.submitted_at, earliest))
    waiting = sa.update(Attempt).where(Attempt.state.in_((S.pending, S.submitting)))
    marked = await session.execute(
        waiting.values(
            state=S.submitting,
            due_at=now,
            lease=None,
            submits=sa.func.greatest(Attempt.submits, 1),
            submitted_at=sent_at,
        ).execution_options(synchronize_session=False)
    )
    unsure = sa.exists().where(Attempt.video_id == Video.id, Attempt.state == S.submitting)
    running = sa.update(Video).where(Video.ended_at.is_(None), ~unsure)
    deadline_at = sa.func.greatest(Video.deadline_at, now + (Video.deadline_at - Video.created_at))
    await session.execute(running.values(deadline_at=deadline_at).execution_options(synchronize_session=False))
    newest = sa.select(sa.func.max(Video.created_at)).scalar_subquery()  # may be later by the clock of another server
    values = {"value": now.isoformat(), "created_at": sa.func.greatest(now, newest)}
    row = insert(DeploymentFact).values(name=NAME, **values)
    await session.execute(row.on_conflict_do_update(index_elements=["name"], set_=values))
    await session.execute(sa.delete(WorkerProcess))
    return count(marked)


async def was_restored(db: Database, video: Video) -> bool:
    """Return True for a video that is older than the last restore of the database."""
    restored = sa.exists().where(DeploymentFact.name == NAME, DeploymentFact.created_at >= video.created_at)
    async with db.reading() as connection:
        return bool(await connection.scalar(sa.select(restored)))
