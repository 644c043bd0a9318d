"""Closed days: usage of days that are over, summed once, so that a report over a year reads sums and not the ledger.

A day is closed an hour after its end, when no video of it runs or has money held. What is written for it later
reopens it in the same transaction, by a trigger (`db/functions/reopen_day.sql`), and it is summed again. See
docs/decisions/0049-closed-days.md.
"""

from datetime import date, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts import pricing
from app.accounts.ledger import day_of
from app.db.database import Database
from app.telemetry.logs import log

CLOSED_AFTER = timedelta(hours=1)
"""Time after the end of a day in which requests and answers that began on it are written."""
DAYS_AT_ONCE = 20
"""Days that one round sums; the days of an old installation are summed from the oldest on."""

_ENTRIES = """
  select settled.project_id, settled.key_id, settled.model, settled.provider, settled.app, settled.end_user,
    settled.day, settled.video_id, 0 as jobs, 1 as outputs, settled.seconds, settled.cost_micros,
    null::bigint as held_micros, (settled.cost_micros is null)::int as unpriced, settled.reported_micros,
    case when settled.reported_micros > settled.cost_micros * (1 + cast(:tolerance as float8))
      then settled.reported_micros - settled.cost_micros end as underpriced_micros,
    0 as completed, 0 as failed, 0 as cancelled, null::float8 as duration_s
  from {settled} as settled
  union all
  select created.project_id, created.key_id, created.model, ended.provider, created.app, created.end_user, created.day,
    null, 0, 0, null, null, null, 0, null, null,
    (ended.error_code is null)::int, coalesce(ended.error_code <> 'cancelled', false)::int,
    coalesce(ended.error_code = 'cancelled', false)::int,
    case when ended.error_code is null then ended.duration_s end
  from {created} as created cross join lateral (
    select provider, error_code, duration_s from (
      select id, provider, error_code, greatest(0, extract(epoch from ended_at - created_at))::float8 as duration_s
      from videos where ended_at is not null
      union all
      select id, provider, error_code, duration_s from deleted_videos
    ) as ends where ends.id = created.video_id {fence}
  ) as ended
"""
_OF_DAYS = """(
  select entry.* from days cross join lateral (
    select * from ledger where ledger.day = days.day and kind = '{kind}'
      and (cast(:project_id as text) is null or project_id = :project_id) offset 0
  ) as entry
)"""
_OF_ALL = """(
  select * from ledger where day between :since and :until and kind = '{kind}' {but}
    and (cast(:project_id as text) is null or project_id = :project_id)
)"""


def entries_of_days() -> str:
    """SQL of the usage of the days of a table `days`, from the ledger and the videos: a row for each settled output,
    and one for each ended job, which has no `video_id`. Days and videos are read one by one, by their indexes,
    whatever the planner thinks: for few days."""
    return _ENTRIES.format(
        settled=_OF_DAYS.format(kind="settle"), created=_OF_DAYS.format(kind="reserve"), fence="offset 0"
    )


def entries_between(*, only_open: bool) -> str:
    """The same from `:since` to `:until`, of all days or of those that are not closed, read as the planner likes: for
    many days."""
    but = "and day not in (select closed_days.day from closed_days)" if only_open else ""
    settled, created = (_OF_ALL.format(kind=kind, but=but) for kind in ("settle", "reserve"))
    return _ENTRIES.format(settled=settled, created=created, fence="")


_CLOSABLE = sa.text("""
select day from (
  select first.day + number as day
  from (select min(day) as day from ledger) as first
  cross join lateral generate_series(0, cast(:last as date) - first.day) as number
) as days
where not exists (select from closed_days where closed_days.day = days.day) and day not in (
  select (created_at at time zone 'UTC')::date from videos where ended_at is null
  union
  select (videos.created_at at time zone 'UTC')::date
  from attempts join videos on videos.id = attempts.video_id where attempts.settlement = 'held'
)
and (cast(:only as date) is null or day = :only)
order by day limit :limit
""")

_LOCK = sa.text("""
select pg_try_advisory_xact_lock(1970561381, cast(:day as date) - date '2000-01-01'),
  set_config('idle_in_transaction_session_timeout', '30s', true)  -- a worker that hangs does not keep the lock
""")

_SUM = """
with days as (select cast(:day as date) as day), entries as (
  {entries}
), spread as (
  select video_id from entries where video_id is not null
  group by video_id having count(distinct (project_id, key_id, model, provider, app)) > 1
), marked as (
  insert into closed_days (day) values (:day)
)
insert into usage_days (
  day, project_id, key_id, model, provider, app, video_id, jobs, outputs, seconds, cost_micros, unpriced,
  reported_micros, underpriced_micros, completed, failed, cancelled, duration_s
)
select day, project_id, key_id, model, provider, app, spread.video_id,
  count(distinct entries.video_id) filter (where spread.video_id is null), sum(outputs), coalesce(sum(seconds), 0),
  coalesce(sum(cost_micros), 0), sum(unpriced), coalesce(sum(reported_micros), 0),
  coalesce(sum(underpriced_micros), 0), sum(completed), sum(failed), sum(cancelled), coalesce(sum(duration_s), 0)
from entries left join spread using (video_id)
group by day, project_id, key_id, model, provider, app, spread.video_id
"""


async def close_days(db: Database, *, now: datetime) -> int:
    """Sum the oldest days that are over and not closed yet, each in a transaction of its own; returns their number."""
    today, last = day_of(now), day_of(now - CLOSED_AFTER) - timedelta(days=1)
    async with db.transaction() as session:
        for table in ("closed_days", "usage_days"):  # the clock was set back: they are not over any more
            await session.execute(_REOPEN[table], {"today": today})
        closable = await _closable(session, last)
    closed = 0
    for day in closable:
        async with db.transaction() as session:
            closed += await _close(session, day, last)
    if closed:
        log.info("days of usage closed", days=closed, first=str(closable[0]), last=str(closable[-1]))
    return closed


_REOPEN = {
    "closed_days": sa.text("delete from closed_days where day >= :today"),
    "usage_days": sa.text("delete from usage_days where day >= :today"),
}


async def _closable(session: AsyncSession, last: date, *, only: date | None = None) -> list[date]:
    parameters = {"last": last, "only": only, "limit": DAYS_AT_ONCE}
    return list(await session.scalars(_CLOSABLE, parameters))


async def _close(session: AsyncSession, day: date, last: date) -> bool:
    """Sum a day. False if something is being written for it at this moment, or another worker was faster."""
    if not await session.scalar(_LOCK, {"day": day}):
        return False
    if not await _closable(session, last, only=day):  # looked at again, now that no other transaction can write for it
        return False
    statement = sa.text(_SUM.format(entries=entries_of_days()))
    await session.execute(statement, {"day": day, "project_id": None, "tolerance": pricing.TOLERANCE})
    return True
