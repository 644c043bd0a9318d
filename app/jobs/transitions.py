"""Attempt state transitions: allowed transitions, the compare-and-set UPDATE, creating a follow-up attempt.

The consequences for the video and the ledger are in `lifecycle.py`.
"""

from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app import ids
from app.db import rows
from app.db.models import Attempt, Video
from app.jobs.claim import Claim
from app.telemetry.logs import log
from app.video import AttemptState as S
from app.video import Settlement

TRANSITIONS: dict[S, frozenset[S]] = {
    S.pending: frozenset({S.submitting, S.running, S.cancelled, S.failed}),
    S.submitting: frozenset({S.running, S.pending, S.failed, S.lost, S.cancelled}),
    S.running: frozenset({S.storing, S.succeeded, S.failed, S.cancelled}),
    S.storing: frozenset({S.succeeded, S.running, S.failed, S.cancelled}),
    S.lost: frozenset({S.running}),
    S.succeeded: frozenset(),
    S.failed: frozenset({S.storing}),
    S.cancelled: frozenset(),
}
"""Allowed transitions: the next states of each state."""


@lru_cache
def _transition_statement(names: frozenset[str]) -> sa.Update:
    """Build the compare-and-set UPDATE that also sets `names`; cached, since building takes longer than executing."""
    table = Attempt.__table__.c
    held = (table[name] == sa.bindparam(f"held_{name}") for name in ("id", "lease", "state"))
    values = {name: sa.bindparam(f"new_{name}", type_=table[name].type) for name in names}
    return sa.update(Attempt.__table__).where(*held).values(state=sa.bindparam("new_state"), lease=None, **values)  # type: ignore[arg-type]  # a Table


async def transition(session: rows.Connection, claim: Claim, to: S, **values: Any) -> bool:
    """Set the state and release the lease, if the attempt still has the claimed state and lease; else return False."""
    held = claim.attempt
    if to is not held.state and to not in TRANSITIONS[held.state]:
        raise AssertionError(f"an attempt cannot go from {held.state} to {to}")
    parameters = {"held_id": held.id, "held_lease": held.lease, "held_state": held.state, "new_state": to}
    parameters |= {f"new_{name}": value for name, value in values.items()}
    moved = count(await session.execute(_transition_statement(frozenset(values)), parameters)) == 1
    if not moved:
        log.warning("transition skipped, lease lost", attempt=held.id, wanted=str(to))
    return moved


def count(result: sa.Result[Any]) -> int:
    return result.rowcount if isinstance(result, sa.CursorResult) else 0


async def lock_video(session: AsyncSession, video_id: str) -> Video | None:
    return await session.get(Video, video_id, with_for_update=True, populate_existing=True)


async def lock_own_video(session: AsyncSession, video_id: str, *, project_id: str) -> Video | None:
    """Lock a video for its client; None for an id that is not the project's, and for a deleted video."""
    if not ids.is_id(video_id, "video"):
        return None
    own = sa.select(Video).where(Video.id == video_id, Video.project_id == project_id, Video.deleted_at.is_(None))
    return await session.scalar(own.with_for_update())


async def add_attempt(
    session: AsyncSession,
    video: Video | None,
    before: Attempt,
    route_index: int,
    due_at: datetime,
    *,
    submits: int = 0,
) -> Attempt | None:
    """Create another attempt for the output of `before`; None when the video, locked by the caller, has ended."""
    if video is None or video.status.ended:
        return None
    provider, _, upstream_model = video.routes[route_index].partition("/")
    attempt = Attempt(
        id=ids.new("att"),
        video_id=video.id,
        project_id=video.project_id,
        output_index=before.output_index,
        route_index=route_index,
        state=S.pending,
        settlement=Settlement.held,
        provider=provider,
        upstream_model=upstream_model,
        due_at=due_at,
        submits=submits,
        created_at=due_at,
    )
    session.add(attempt)
    await session.flush()
    return attempt
