"""Taking work: one statement that claims what is due, and the lease that keeps it.

With `jobs.py` the only place that changes an attempt's state: claiming a pending one makes it `submitting` in the same
statement, so that what is about to be sent is written down before it is sent.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app import ids
from app.tables import Attempt, Video
from app.video import AttemptState as S
from app.video import VideoRequest


class Slots(NamedTuple):
    """How many attempts of each sort a worker can take on."""

    submits: int
    polls: int
    stores: int


@dataclass(frozen=True)
class Claim:
    """An attempt in this worker's hands until the lease ends, with its video as it was when claimed."""

    attempt: Attempt
    video: Video
    was: S
    """The state it was claimed from; `submitting` means that another worker died in the middle of the call."""

    @property
    def request(self) -> VideoRequest:
        return VideoRequest.model_validate(self.video.request)

    @property
    def on_last_route(self) -> bool:
        return self.attempt.route_index == len(self.video.routes) - 1


_CLAIM = sa.text("""
with submits as (
  select id, state from attempts where state = 'pending' and due_at <= :now
  order by due_at limit :submits for update skip locked
), rescues as (
  select id, state from attempts where state = 'submitting' and due_at <= :now
  order by due_at limit :submits for update skip locked
), polls as (
  select id, state from attempts where state = 'running' and due_at <= :now
  order by due_at limit :polls for update skip locked
), stores as (
  select id, state from attempts where state = 'storing' and due_at <= :now
  order by due_at limit :stores for update skip locked
), due as (
  select * from submits union all select * from rescues union all select * from polls union all select * from stores
)
update attempts set
  lease = :lease,
  due_at = :lease_until,
  state = case when due.state = 'pending' then 'submitting' else due.state end,
  submits = attempts.submits + case when due.state = 'pending' then 1 else 0 end,
  submitted_at = case when due.state = 'pending' then :now else attempts.submitted_at end,
  base_url = case when due.state = 'pending' then (:pins)::jsonb #>> array[attempts.provider, 'base_url']
             else attempts.base_url end,
  credential = case when due.state = 'pending' then (:pins)::jsonb #>> array[attempts.provider, 'credential']
             else attempts.credential end
from due where attempts.id = due.id
returning attempts.*, due.state as was
""").bindparams(sa.bindparam("pins", type_=sa.JSON))


async def claim(
    connection: AsyncConnection, slots: Slots, *, pins: dict[str, dict[str, str]], lease_s: float, now: datetime
) -> list[Claim]:
    """Take what is due, oldest first, as much as there are slots for: one statement however many rows.

    A pending attempt becomes `submitting`, pinned to the provider's address and credential, before anything is sent.
    """
    lease_until = now + timedelta(seconds=lease_s)
    parameters = {**slots._asdict(), "now": now, "lease": ids.new("lease"), "lease_until": lease_until, "pins": pins}
    rows = (await connection.execute(_CLAIM, parameters)).mappings().all()
    if not rows:
        return []
    wanted = {row["video_id"] for row in rows}
    found = await connection.execute(sa.select(*Video.__table__.columns).where(Video.id.in_(wanted)))
    videos = {row.id: Video(**row._mapping) for row in found}
    claims = []
    for row in rows:
        values = dict(row)
        was = S(values.pop("was"))
        claims.append(Claim(Attempt(**{**values, "state": S(values["state"])}), videos[row["video_id"]], was))
    return claims


async def renew(connection: AsyncConnection, claims: Iterable[Claim], *, lease_s: float, now: datetime) -> None:
    """Keep the attempts in hand for another lease."""
    held = [(c.attempt.id, c.attempt.lease) for c in claims]
    await connection.execute(
        sa.update(Attempt)
        .where(sa.tuple_(Attempt.id, Attempt.lease).in_(held))
        .values(due_at=now + timedelta(seconds=lease_s))
    )
