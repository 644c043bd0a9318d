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
from app.db import rows
from app.db.database import Database
from app.db.models import LIVE, Attempt, Video
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
    def folder(self) -> str:
        """Where its file is stored."""
        return f"videos/{self.video.id}/{self.attempt.id}/"

    @property
    def on_last_route(self) -> bool:
        return self.attempt.route_index == len(self.video.routes) - 1


_CLAIM = sa.text("""
with recursive turns as (  -- each provider and project with something pending, found by skipping along the index
  (select provider, project_id from attempts where state = 'pending' order by provider, project_id limit 1)
  union all
  select next.provider, next.project_id from turns cross join lateral (
    select provider, project_id from attempts
    where state = 'pending' and (provider, project_id) > (turns.provider, turns.project_id)
    order by provider, project_id limit 1
  ) as next
), busy as (  -- only where there is a limit, so never more rows than the limits allow
  select capped.provider, project_id, tasks
  from jsonb_object_keys((:limits)::jsonb) as capped (provider) cross join lateral (
    select project_id, count(*) as tasks from attempts
    where state in ('submitting', 'running') and provider = capped.provider
    group by project_id
  ) as under_way
), waiting as (  -- a project's turn comes after all who have fewer tasks at the provider
  select first.id, first.due_at, turns.provider, coalesce(busy.tasks, 0)
    + row_number() over (partition by turns.provider, turns.project_id order by first.due_at, first.id) as turn
  from turns left join busy using (provider, project_id) cross join lateral (
    select id, due_at from attempts
    where state = 'pending' and provider = turns.provider and project_id = turns.project_id and due_at <= :now
    order by due_at, id limit :submits
  ) as first
), placed as (
  select *, row_number() over (partition by provider order by turn, due_at, id) as place from waiting
), chosen as (
  select id from placed
  where ((:limits)::jsonb -> provider is null or place <= ((:limits)::jsonb ->> provider)::int
    - (select coalesce(sum(tasks), 0) from busy where busy.provider = placed.provider))
  and ((:free_connections)::jsonb -> provider is null or place <= ((:free_connections)::jsonb ->> provider)::int)
  order by turn, due_at, id limit :submits
), submits as (
  select id, state from attempts where id in (select id from chosen) and state = 'pending' and due_at <= :now
  for update skip locked
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
  base_url = case when due.state = 'pending' then (:pinned)::jsonb #>> array[attempts.provider, 'base_url']
             else attempts.base_url end,
  credential = case when due.state = 'pending' then (:pinned)::jsonb #>> array[attempts.provider, 'credential']
             else attempts.credential end
from due where attempts.id = due.id
returning attempts.*, due.state as was
""").bindparams(*(sa.bindparam(name, type_=sa.JSON) for name in ("pinned", "limits", "free_connections")))

_LOCK = sa.text("select pg_advisory_xact_lock(427020085613::bigint)")


async def claim_attempts(
    connection: rows.Connection,
    slots: Slots,
    *,
    pinned: dict[str, dict[str, str]],
    limits: dict[str, int],
    free_connections: dict[str, int],
    lease_s: float,
    now: datetime,
) -> list[Claim]:
    """Take what is due, as much as there are slots for: one statement however many rows.

    Pending attempts are taken in turns between projects, within each provider's limit of `limits` over all workers, and
    not more than this worker can send at once, `rooms`: should it be killed, what waits to be sent is as lost as what
    was. The rest is taken oldest first.
    A pending attempt becomes `submitting`, pinned to the provider's address and credential (`pins`), before anything is
    sent. With limits it has to be given a transaction: only one claim at a time may count what is under way.
    """
    if limits:
        await connection.execute(_LOCK)
    parameters = {
        **slots._asdict(),
        "now": now,
        "lease": ids.new("lease"),
        "lease_until": now + timedelta(seconds=lease_s),
        "pinned": pinned,
        "limits": limits,
        "free_connections": free_connections,
    }
    claimed = (await connection.execute(_CLAIM, parameters)).mappings().all()
    if not claimed:
        return []
    wanted = {row["video_id"] for row in claimed}
    found = await rows.all_of(Video, connection, rows.select(Video).where(Video.id.in_(wanted)))
    videos = {video.id: video for video in found}
    return [Claim(rows.from_values(Attempt, row), videos[row["video_id"]], S(row["was"])) for row in claimed]


_RENEW = b"""
with held as (  -- what is being recorded at this moment needs no longer lease, and must not keep the others waiting
  select attempts.id from attempts
  join unnest(%(ids)s::text[], %(leases)s::text[]) as mine (id, lease) using (id, lease)
  for update of attempts skip locked
), renewed as (
  update attempts set due_at = %(lease_until)s from held where attempts.id = held.id returning attempts.id
)
select count(*) as renewed from renewed
"""


async def renew_leases(db: Database, claims: Iterable[Claim], *, lease_s: float, now: datetime) -> None:
    """Keep the attempts in hand for another lease. Goes round the pool in which the work itself waits its turn: a busy
    worker is not a dead one."""
    held = [claim_attempts.attempt for claim_attempts in claims]
    parameters = {"ids": [attempt.id for attempt in held], "leases": [attempt.lease for attempt in held]}
    await db.one(_RENEW, {**parameters, "lease_until": now + timedelta(seconds=lease_s)})


async def repair_due_times(connection: AsyncConnection, *, horizon_s: float, now: datetime) -> int:
    """Make due what is due later than anything ever is: it was written by a clock that ran ahead. Returns how many."""
    pulled = 0
    for state in LIVE:  # one at a time, along the index
        moved = await connection.execute(
            sa.update(Attempt)
            .where(Attempt.state == state, Attempt.due_at > now + timedelta(seconds=horizon_s))
            .values(due_at=now)
        )
        pulled += moved.rowcount
    return pulled


async def poll_now(connection: AsyncConnection, attempt_id: str, *, now: datetime) -> bool:
    """An upstream says that there is news: poll now. False when there is nothing to poll, or it is being polled."""
    moved = await connection.execute(
        sa.update(Attempt)
        .where(Attempt.id == attempt_id, Attempt.state == S.running, Attempt.lease.is_(None), Attempt.due_at > now)
        .values(due_at=now)
    )
    return moved.rowcount == 1
