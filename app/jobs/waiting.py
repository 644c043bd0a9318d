"""The place of a waiting video in the queue of its provider. Reading only."""

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

MAX_COUNTED = 1_000
"""Attempts of the own project, and of the others together, up to which those ahead are counted."""

_PLACE = sa.text(
    """
    with mine as (
      select id, provider, project_id, due_at from attempts
      where video_id = :video_id and state = 'pending' order by due_at, id limit 1
    ), own as (
      select count(*) as ahead from (
        select from mine join attempts as other using (provider, project_id)
        where other.state = 'pending' and (other.due_at, other.id) < (mine.due_at, mine.id) limit :most
      ) as before
    ), others as (
      select project_id, count(*) as waiting from (
        select other.project_id from mine join attempts as other using (provider)
        where other.state = 'pending' and other.project_id <> mine.project_id and other.due_at <= :now limit :most
      ) as due group by project_id
    )
    select mine.provider, mine.due_at,
      own.ahead + coalesce((select sum(least(waiting, own.ahead + 1)) from others), 0) as ahead,
      (
        select max(open_until) from provider_health as health
        where health.name = mine.provider and health.project_id in ('', mine.project_id) and open_until > :now
      ) as rests_until
    from mine cross join own
    """
).bindparams(most=MAX_COUNTED)
"""Projects take turns (`jobs/claim.py`): of another one, at most one more than of the own come first."""


@dataclass(frozen=True)
class Wait:
    """The thing that a queued video waits for."""

    provider: str
    ahead: int
    """Outputs that come first."""
    rests_until: datetime | None
    """End of the pause of the provider's circuit; None: it is closed."""
    due_at: datetime
    """Time of the next try; later than now after one that failed."""


async def read_wait(connection: AsyncConnection, video_id: str, *, now: datetime) -> Wait | None:
    """Read the place of the first waiting output of a video; None if none waits."""
    row = (await connection.execute(_PLACE, {"video_id": video_id, "now": now})).first()
    return None if row is None else Wait(row.provider, int(row.ahead), row.rests_until, row.due_at)
