"""Figures of the providers for the operator: their queues, and the last hour and day, from the newest attempts."""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app import ids
from app.db import rows
from app.db.models import LIVE, Attempt
from app.video import AttemptState as S

MAX_COUNTED = 50_000
"""Newest attempts that the figures are made from."""
MAX_CODES = 20
"""Codes of failures of one provider that are listed."""
HOURS = 24
SPAN = timedelta(hours=HOURS + 2)
"""Age of the oldest attempt that counts: it may have waited before its submit, and clocks differ."""

_FIGURES = sa.text(
    """
    with recent as materialized (  -- ids are ordered by time: a range of the primary key
      select id, provider, state, error_code, created_at, submitted_at, accepted_at, ended_at
      from attempts where id >= :least order by id desc limit :most
    ), ended as (
      select * from recent where ended_at >= :day and state in ('succeeded', 'failed', 'lost')
    ), totals as (
      select provider,
        count(*) filter (where submitted_at >= :hour) as submits,
        count(*) filter (where ended_at >= :hour and state = 'succeeded') as succeeded,
        count(*) filter (where ended_at >= :hour and state in ('failed', 'lost')) as failed,
        percentile_cont(array[0.5, 0.95]) within group (order by extract(epoch from accepted_at - submitted_at)::float8)
          filter (where accepted_at >= :hour and accepted_at >= submitted_at) as accepted_s,
        percentile_cont(array[0.5, 0.95]) within group (order by extract(epoch from ended_at - submitted_at)::float8)
          filter (where ended_at >= :hour and ended_at >= submitted_at and state = 'succeeded') as finished_s
      from recent group by provider
    ), codes as (
      select provider, coalesce(error_code, 'unknown') as code, count(*) as count
      from ended where ended_at >= :hour and state <> 'succeeded' group by 1, 2
    ), moments as (
      select provider, submitted_at as at, 1 as submits, 0 as failures from recent where submitted_at >= :day
      union all
      select provider, ended_at, 0, 1 from ended where state <> 'succeeded'
    ), hours as (
      select provider, floor(extract(epoch from at - :day) / 3600)::int as hour,
        sum(submits) as submits, sum(failures) as failures
      from moments group by 1, 2
    ), refused as (
      select * from recent where state = 'pending' and error_code is not null
    ), last as (
      select distinct on (provider) provider, id from (
        select provider, id, ended_at as at from ended where state <> 'succeeded'
        union all  -- refused for now, and to be submitted again
        select provider, id, submitted_at from refused where submitted_at >= :day
        union all  -- never sent: the oldest was tried, others may only have met the pause
        (select distinct on (provider) provider, id, created_at from refused
         where submitted_at is null and created_at >= :day order by provider, id)
      ) as failed order by provider, at desc, id desc
    )
    select
      (select count(*) from recent) as counted,
      (select jsonb_agg(to_jsonb(totals)) from totals) as totals,
      (select jsonb_agg(to_jsonb(codes) order by count desc, code) from codes) as codes,
      (select jsonb_agg(to_jsonb(hours)) from hours) as hours,
      (select jsonb_agg(jsonb_build_object('provider', provider, 'id', id)) from last) as last
    """
)


@dataclass
class Queue:
    """The unfinished attempts of a provider."""

    under_way: int = 0
    """Being submitted, or running at the upstream: what the limit of the account counts."""
    waiting: int = 0
    storing: int = 0
    oldest: datetime | None = None
    """Creation of the oldest waiting one."""


@dataclass
class Figures:
    """The last hour and day of a provider."""

    submits: int = 0
    succeeded: int = 0
    failed: int = 0
    accepted_s: tuple[float, float] | None = None
    """Median and 95th percentile of the seconds from submit to acceptance; None: none was accepted."""
    finished_s: tuple[float, float] | None = None
    """The same from submit to the stored file."""
    codes: list[tuple[str, int]] = field(default_factory=list)
    """Failures by error code, most frequent first."""
    hours: list[list[int]] = field(default_factory=lambda: [[0, 0] for _ in range(HOURS)])
    """Submits and failures by hour of the last day, oldest first."""
    last_error: Attempt | None = None
    """The attempt that has failed last, or was refused last and waits for its next submit."""


@dataclass(frozen=True)
class Everything:
    """Queues and figures of all providers, by name."""

    queues: dict[str, Queue]
    figures: dict[str, Figures]
    complete: bool
    """False: there were more than `MAX_COUNTED` attempts, and only the newest are counted."""


async def read_figures(connection: AsyncConnection, *, now: datetime) -> Everything:
    """Read the queues of all providers and their figures, with three statements."""
    parameters = {
        "least": ids.least("att", now - SPAN),
        "most": MAX_COUNTED,
        "hour": now - timedelta(hours=1),
        "day": now - timedelta(hours=HOURS),
    }
    row = (await connection.execute(_FIGURES, parameters)).one()
    found: defaultdict[str, Figures] = defaultdict(Figures)
    for one in row.totals or ():
        figures = found[one["provider"]]
        figures.submits, figures.succeeded, figures.failed = one["submits"], one["succeeded"], one["failed"]
        figures.accepted_s, figures.finished_s = _pair(one["accepted_s"]), _pair(one["finished_s"])
    for one in row.codes or ():
        if len(found[one["provider"]].codes) < MAX_CODES:
            found[one["provider"]].codes.append((one["code"], one["count"]))
    for one in row.hours or ():
        hour = found[one["provider"]].hours[max(0, min(HOURS - 1, one["hour"]))]
        hour[0], hour[1] = hour[0] + one["submits"], hour[1] + one["failures"]
    last = rows.select(Attempt).where(Attempt.id.in_([one["id"] for one in row.last or ()]))
    for attempt in await rows.all_of(Attempt, connection, last):
        found[attempt.provider].last_error = attempt
    return Everything(await _queues(connection), dict(found), complete=row.counted < MAX_COUNTED)


def _pair(values: Any) -> tuple[float, float] | None:
    return None if values is None or values[0] is None else (float(values[0]), float(values[1]))


async def _queues(connection: AsyncConnection) -> dict[str, Queue]:
    is_leased = Attempt.lease.is_not(None)
    query = (
        sa.select(Attempt.provider, Attempt.state, is_leased, sa.func.count(), sa.func.min(Attempt.created_at))
        .where(Attempt.state.in_(LIVE))
        .group_by(Attempt.provider, Attempt.state, is_leased)
    )
    found: defaultdict[str, Queue] = defaultdict(Queue)
    for provider, state, leased, count, oldest in await connection.execute(query):
        queue = found[provider]
        if state is S.storing:
            queue.storing += count
        elif state is S.pending and not leased:
            queue.waiting, queue.oldest = count, oldest
        else:
            queue.under_way += count
    return dict(found)
