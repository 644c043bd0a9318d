"""Claims due attempts in one statement, renews their leases, and records that a submit is about to be sent.

A claimed attempt keeps its state under a lease. `begin_submit` makes a pending one `submitting` right before the first
byte of its submit; until then nothing was sent, and an expired lease is simply claimed again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypedDict

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app import ids
from app.db import rows
from app.db.database import Database
from app.db.models import LIVE, Attempt, Video
from app.video import AttemptState as S
from app.video import VideoRequest

MAX_OVERDUE = 100
"""Overdue pending attempts of one claim, which take no slot."""


class Slots(NamedTuple):
    """Free capacity of a worker, by type of step."""

    submits: int
    polls: int
    stores: int


STORES, SUBMITS = "", "*"
"""Stand for the slots of downloads, and of submits to all providers together, where others go by provider."""


class Held(TypedDict):
    """Slots that one project holds of a worker, for submits to a provider or for downloads (`STORES`)."""

    provider: str
    project_id: str
    slots: int
    served: int
    """The number of the worker's last claim that served it; the smallest is next among equals."""


@dataclass(eq=False)
class Claim:
    """An attempt leased by this worker, with its video as it was when claimed."""

    attempt: Attempt
    """As claimed; `begin_submit` sets its new state. `submits` counts the coming try of a pending one."""
    video: Video
    was: S
    """The state it was claimed from; `submitting` means that another worker died during the call."""
    sent: bool = False
    """True once this worker has recorded that it sends the submit; until then nothing was sent."""
    stopped: bool = False
    """True when the worker stops before the submit was sent; then it must not be sent."""

    @property
    def request(self) -> VideoRequest:
        return VideoRequest.model_validate(self.video.request)

    @property
    def folder(self) -> str:
        """Prefix of the storage keys of its files."""
        return f"videos/{self.video.id}/{self.attempt.id}/"

    @property
    def on_last_route(self) -> bool:
        return self.attempt.route_index == len(self.video.routes) - 1


_CLAIM = sa.text(
    """
with recursive turns as (  -- each provider and project with a pending attempt; a loose index scan
  (select provider, project_id from attempts where state = 'pending' order by provider, project_id limit 1)
  union all
  select next.provider, next.project_id from turns cross join lateral (
    select provider, project_id from attempts
    where state = 'pending' and (provider, project_id) > (turns.provider, turns.project_id)
    order by provider, project_id limit 1
  ) as next
), busy as (  -- counted only for providers with a limit, which bounds the number of rows
  select capped.provider, project_id, tasks
  from jsonb_object_keys((:limits)::jsonb) as capped (provider) cross join lateral (
    select project_id, count(*) as tasks from attempts
    where (state in ('submitting', 'running') or (state = 'pending' and lease is not null and due_at > :now))
      and provider = capped.provider
    group by project_id
  ) as under_way
), held as (
  select * from jsonb_to_recordset((:held)::jsonb) as held (provider text, project_id text, slots int, served int)
), waiting as (
  select first.id, first.due_at, turns.provider, turns.project_id,
    row_number() over (partition by turns.provider, turns.project_id order by first.due_at, first.id) as nth
  from turns cross join lateral (
    select id, due_at from attempts
    where state = 'pending' and provider = turns.provider and project_id = turns.project_id and due_at <= :now
    order by due_at, id limit :submits
  ) as first
), ordered as (  -- projects with fewer tasks at the provider, or fewer slots here, come first
  select waiting.*, coalesce(busy.tasks, slots, 0) + nth as turn, coalesce(slots, 0) + nth as slot,
    coalesce(served, 0) as served
  from waiting left join busy using (provider, project_id) left join held using (provider, project_id)
), placed as (
  select *, row_number() over (partition by provider order by turn, served, due_at, id) as place from ordered
  where (:shares)::jsonb -> provider is null or slot <= ((:shares)::jsonb ->> provider)::int
), mine as (
  select *, row_number() over (partition by project_id order by turn, served, due_at, id)
    + (select coalesce(sum(slots), 0) from held where held.project_id = placed.project_id and provider <> '') as total
  from placed
  where ((:limits)::jsonb -> provider is null or place <= ((:limits)::jsonb ->> provider)::int
    - (select coalesce(sum(tasks), 0) from busy where busy.provider = placed.provider))
  and ((:free_connections)::jsonb -> provider is null or place <= ((:free_connections)::jsonb ->> provider)::int)
), chosen as (
  select id from mine where (:shares)::jsonb -> '*' is null or total <= ((:shares)::jsonb ->> '*')::int
  order by total, served, due_at, id limit :submits
), submits as (
  select id, state from attempts where id in (select id from chosen) and state = 'pending' and due_at <= :now
  for update skip locked
), overdue as (  -- their jobs fail, with or without a free slot
  select attempts.id, state from videos join attempts on video_id = videos.id
  where videos.ended_at is null and deadline_at <= :now and state = 'pending' and due_at <= :now
  order by deadline_at limit :overdue for update of attempts skip locked  -- the order makes the plan use the index
), rescues as (
  select id, state from attempts where state = 'submitting' and due_at <= :now
  order by due_at limit :submits for update skip locked
), polls as (
  select id, state from attempts where state = 'running' and due_at <= :now
  order by due_at limit :polls for update skip locked
), owners as (  -- each project with a finished task; a loose index scan
  (select project_id from attempts where state = 'storing' order by project_id limit 1)
  union all
  select next.project_id from owners cross join lateral (
    select project_id from attempts where state = 'storing' and project_id > owners.project_id
    order by project_id limit 1
  ) as next
), finished as (
  select first.id, due_at, coalesce(slots, 0)
    + row_number() over (partition by owners.project_id order by due_at, first.id) as slot
  from owners left join held on held.provider = '' and held.project_id = owners.project_id
  cross join lateral (
    select id, due_at from attempts where state = 'storing' and project_id = owners.project_id and due_at <= :now
    order by due_at, id limit :stores
  ) as first
), stores as (
  select id, state from attempts where state = 'storing' and due_at <= :now and id in (
    select id from finished where (:shares)::jsonb -> '' is null or slot <= ((:shares)::jsonb ->> '')::int
    order by slot, due_at, id limit :stores
  ) for update skip locked
), due as (
  select * from submits union select * from overdue
  union all select * from rescues union all select * from polls union all select * from stores
)
update attempts set lease = :lease, due_at = :lease_until
from due where attempts.id = due.id
returning {columns}, due.state as was
""".replace("{columns}", rows.column_list(Attempt))
).bindparams(*(sa.bindparam(name, type_=sa.JSON) for name in ("limits", "free_connections", "shares", "held")))

_LOCK = sa.text("select pg_advisory_xact_lock(427020085613::bigint)")


async def claim_attempts(
    connection: rows.Connection,
    slots: Slots,
    *,
    limits: dict[str, int],
    free_connections: dict[str, int],
    shares: dict[str, int],
    held: Sequence[Held],
    lease_s: float,
    now: datetime,
) -> list[Claim]:
    """Claim due attempts, up to `slots`, in one statement.

    Pending attempts are claimed in turns between projects, within each provider's limit over all workers (`limits`) and
    at most as many as this worker has free connections; overdue ones beyond that, up to `MAX_OVERDUE`. Finished tasks
    are stored in turns, too. Of the submits to a provider, of all submits (`SUBMITS`) and of the downloads (`STORES`),
    one project gets at most its share of this worker's slots, including those it holds. All others are claimed oldest
    first. With limits, `connection` must be in a transaction: only one claim at a time may count running tasks.
    """
    if limits:
        await connection.execute(_LOCK)
    parameters = {
        **slots._asdict(),
        "now": now,
        "lease": ids.new("lease"),
        "lease_until": now + timedelta(seconds=lease_s),
        "overdue": MAX_OVERDUE,
        "limits": limits,
        "free_connections": free_connections,
        "shares": shares,
        "held": held,
    }
    claimed = (await connection.execute(_CLAIM, parameters)).mappings().all()
    if not claimed:
        return []
    wanted = {row["video_id"] for row in claimed}
    found = await rows.all_of(Video, connection, rows.select(Video).where(Video.id.in_(wanted)))
    videos = {video.id: video for video in found}
    return [_claim(dict(row), videos[row["video_id"]]) for row in claimed]


def _claim(row: dict[str, Any], video: Video) -> Claim:
    was, attempt = S(row["was"]), rows.from_values(Attempt, row)
    if was is S.pending:
        attempt = rows.replace(attempt, submits=attempt.submits + 1)
    return Claim(attempt, video, was)


_BEGIN = b"""
update attempts set
  state = 'submitting', submits = %(submits)s, submitted_at = %(now)s, base_url = %(base_url)s,
  credential = %(credential)s, due_at = greatest(due_at, %(lease_until)s)
where id = %(id)s and lease = %(lease)s and state = %(state)s
returning id
"""


async def begin_submit(
    db: Database, claim: Claim, *, base_url: str, credential: str, lease_s: float, now: datetime
) -> bool:
    """Record that the submit is about to be sent, with the provider's base URL and credential, and renew the lease: a
    worker that was halted must not send what another one is about to rescue. False if the attempt is
    no longer leased to this worker: the job was cancelled, or another worker has claimed it; then it must not be sent.

    Uses the second pool, for the shortest time between this write and the first byte.
    """
    held = claim.attempt
    values = {"submits": held.submits, "base_url": base_url, "credential": credential}
    expected = {"id": held.id, "lease": held.lease, "state": held.state}
    lease_until = now + timedelta(seconds=lease_s)
    if await db.one(_BEGIN, {**values, **expected, "lease_until": lease_until, "now": now}) is None:
        return False
    claim.attempt = rows.replace(held, state=S.submitting, submitted_at=now, **values)
    return True


_RENEW = b"""
with held as (  -- a row being recorded now is locked and needs no renewal; skip it instead of waiting
  select attempts.id from attempts
  join unnest(%(ids)s::text[], %(leases)s::text[]) as mine (id, lease) using (id, lease)
  for update of attempts skip locked
), renewed as (
  update attempts set due_at = %(lease_until)s from held where attempts.id = held.id returning attempts.id
)
select count(*) as renewed from renewed
"""


async def renew_leases(db: Database, claims: Iterable[Claim], *, lease_s: float, now: datetime) -> None:
    """Renew the leases of claimed attempts. Uses the second pool, so that a worker whose main pool is busy keeps its
    leases."""
    held = [claim.attempt for claim in claims]
    parameters = {"ids": [attempt.id for attempt in held], "leases": [attempt.lease for attempt in held]}
    await db.one(_RENEW, {**parameters, "lease_until": now + timedelta(seconds=lease_s)})


async def repair_due_times(connection: AsyncConnection, *, horizon_s: float, now: datetime) -> int:
    """Make attempts due whose due time is beyond the horizon: the database's clock was set back since. Returns their
    number."""
    repaired = 0
    for state in LIVE:  # one state at a time, to use the index
        moved = await connection.execute(
            sa.update(Attempt)
            .where(Attempt.state == state, Attempt.due_at > now + timedelta(seconds=horizon_s))
            .values(due_at=now)
        )
        repaired += moved.rowcount
    return repaired


async def poll_now(connection: AsyncConnection, attempt_id: str, *, now: datetime) -> bool:
    """Make a running attempt due after a callback of the upstream. False when it is not running or being polled."""
    moved = await connection.execute(
        sa.update(Attempt)
        .where(Attempt.id == attempt_id, Attempt.state == S.running, Attempt.lease.is_(None), Attempt.due_at > now)
        .values(due_at=now)
    )
    return moved.rowcount == 1
