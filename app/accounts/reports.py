"""Usage reports from sums of closed days and the ledger: by project, key, model, provider, app, end user and day."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from io import StringIO
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app import errors
from app.accounts import pricing
from app.accounts.closed_days import entries_between, entries_of_days

MAX_DAYS = 3_700
DIMENSIONS = {
    "project": "project_id",
    "key": "key_id",
    "model": "model",
    "provider": "provider",
    "app": "app",
    "user": "end_user",
    "day": "day",
}
"""Dimensions of a report: public name to column."""
VENDORS = ("reported_usd", "underpriced_usd")
"""Columns of a report about the costs of vendors, which are the operator's alone."""
ENDS = ("completed", "failed", "cancelled", "mean_duration_s")
"""Columns of a report about the ends of jobs."""
FEW_DAYS, FEW_PART = 7, 8
"""Days that are not closed, and their part of all days (an eighth), up to which a report reads them one by one."""


@dataclass(frozen=True)
class Bounds:
    """Most rows of a report, and most seconds that the database may take for it."""

    rows: int
    seconds: float


OWN = Bounds(20_000, 10)
"""Of the holder of a key."""
OPERATORS = Bounds(50_000, 60)
"""Of the administration API; the command `usage` has none."""

_USAGE = """
with {days} used as (
  {entries}
  union all
  select attempts.project_id, key_id, model, attempts.provider, request ->> 'app', request ->> 'user',
    (videos.created_at at time zone 'UTC')::date, video_id, 0, 0, null, null, hold_micros, (hold_micros is null)::int,
    null, null, 0, 0, 0, null
  from attempts join videos on videos.id = attempts.video_id
  where attempts.settlement = 'held' and (videos.created_at at time zone 'UTC')::date between :since and :until
    and (cast(:project_id as text) is null or attempts.project_id = :project_id)
  {closed}
), by_video as (  -- so that no video is counted twice, without sorting them
  select {columns}video_id, sum(jobs) as jobs, sum(outputs) as outputs, sum(seconds) as seconds,
    sum(cost_micros) as cost_micros, sum(held_micros) as held_micros, sum(unpriced) as unpriced,
    sum(reported_micros) as reported_micros, sum(underpriced_micros) as underpriced_micros,
    sum(completed) as completed, sum(failed) as failed, sum(cancelled) as cancelled, sum(duration_s) as duration_s
  from used group by {columns}video_id
)
select {named}(sum(jobs) + count(video_id))::bigint as jobs, sum(outputs)::bigint as outputs,
  round(coalesce(sum(seconds), 0)::numeric, 6)::float8 as seconds,
  coalesce(sum(cost_micros), 0)::bigint as cost_micros, coalesce(sum(held_micros), 0)::bigint as held_micros,
  sum(unpriced)::bigint as unpriced, coalesce(sum(reported_micros), 0)::bigint as reported_micros,
  coalesce(sum(underpriced_micros), 0)::bigint as underpriced_micros, sum(completed)::bigint as completed,
  sum(failed)::bigint as failed, sum(cancelled)::bigint as cancelled,
  round((sum(duration_s) / nullif(sum(completed), 0))::numeric, 3)::float8 as mean_duration_s
from by_video {group} limit cast(:most as bigint)
"""
_DAYS = """days as materialized (
  select cast(:since as date) + number as day
  from generate_series(0, cast(:until as date) - cast(:since as date)) as number
  where not exists (select from closed_days where closed_days.day = cast(:since as date) + number)
),"""
_CLOSED = """
  union all
  select project_id, key_id, model, provider, app, null, day, video_id, jobs, outputs, seconds, cost_micros, null,
    unpriced, reported_micros, underpriced_micros, completed, failed, cancelled, duration_s
  from usage_days where day between :since and :until
    and (cast(:project_id as text) is null or project_id = :project_id)
"""


# The best plan depends on days and project, so it is made each time; compiling it would take longer than it runs.
_BEGIN = sa.text("""
select set_config('jit', 'off', true), set_config('plan_cache_mode', 'force_custom_plan', true),
  set_config('statement_timeout', coalesce(:timeout, current_setting('statement_timeout')), true),
  least(cast(:until as date), (select max(day) from ledger))
    - greatest(cast(:since as date), (select min(day) from ledger)) + 1 as days,
  (select count(*) from closed_days where day between :since and :until) as closed_days
""")


async def report(
    connection: AsyncConnection,
    by: Sequence[str],
    *,
    since: date,
    until: date,
    project_id: str | None = None,
    bounds: Bounds | None = None,
) -> list[dict[str, Any]]:
    """Sum usage from `since` to `until`, both included: one row for each combination of `by` (names of `DIMENSIONS`),
    or a single row without `by`. Closed days are read from their sums, which know no end users; other days, and all
    of a report by user, from the ledger. `connection` is in a transaction. Raises `InvalidRequest` beyond `bounds`.

    Columns: jobs, outputs, seconds, cost_micros, held_micros (running jobs and unknown outcomes), unpriced (outputs
    without a price, not included in cost_micros), reported_micros (costs that upstreams reported), underpriced_micros
    (reported beyond our price, of outputs where that is more than `TOLERANCE`), completed, failed, cancelled (jobs by
    their end), mean_duration_s (from create to end, of completed jobs).
    """
    span = {"since": since, "until": until}
    timeout = None if bounds is None else f"{round(bounds.seconds * 1_000)}ms"
    begun = (await connection.execute(_BEGIN, {**span, "timeout": timeout})).one()
    few_open = begun.days - begun.closed_days <= max(FEW_DAYS, begun.days // FEW_PART)
    parameters = {
        **span,
        "project_id": project_id,
        "tolerance": pricing.TOLERANCE,
        "most": None if bounds is None else bounds.rows + 1,
    }
    try:
        rows = await connection.execute(_statement(by, one_by_one=few_open), parameters)
    except sa.exc.DBAPIError as error:
        if bounds is None or not isinstance(error.orig, psycopg.errors.QueryCanceled):
            raise
        message = f"the report took longer than {bounds.seconds:g} s; ask for fewer days, or not by user"
        raise errors.InvalidRequest(message, code="report_too_slow") from None
    found = [dict(row) for row in rows.mappings()]
    if bounds is not None and len(found) > bounds.rows:
        message = f"the report has more than {bounds.rows:,} rows; ask for fewer days or fewer dimensions"
        raise errors.InvalidRequest(message, param="by", code="report_too_long")
    return found


def _statement(by: Sequence[str], *, one_by_one: bool) -> sa.TextClause:
    columns = [DIMENSIONS[name] for name in by]
    sums = "user" not in by
    one_by_one = one_by_one and sums
    return sa.text(
        _USAGE.format(
            days=_DAYS if one_by_one else "",
            entries=entries_of_days() if one_by_one else entries_between(only_open=sums),
            columns="".join(f"{column}, " for column in columns),
            named="".join(f'{column} as "{name}", ' for name, column in zip(by, columns, strict=True)),
            group=f"group by {', '.join(columns)} order by {', '.join(columns)}" if columns else "having count(*) > 0",
            closed=_CLOSED if sums else "",
        )
    )


def dimensions_of(by: str) -> list[str]:
    """Parse a comma-separated list of dimensions. Raises `InvalidRequest`."""
    names = [name.strip() for name in by.split(",") if name.strip()]
    if any(name not in DIMENSIONS for name in names) or len(set(names)) != len(names):
        raise errors.InvalidRequest(f"by: expected any of {', '.join(DIMENSIONS)}, each once", param="by")
    return names


def span_of(since: date | None, until: date | None, *, today: date) -> tuple[date, date]:
    """Return the first and last day of a report, by default the last 30 days. Raises `InvalidRequest`."""
    last = until or today
    if since is None and last.toordinal() <= 30:
        raise errors.InvalidRequest("until: there was nothing then", param="until")
    first = since or last - timedelta(days=29)
    if not 0 <= (last - first).days <= MAX_DAYS:
        raise errors.InvalidRequest("since has to be before until, by ten years at most", param="since")
    return first, last


def usage_row(row: dict[str, Any]) -> dict[str, Any]:
    """Convert a row of the report to JSON values, with money in US dollars."""
    usage: dict[str, Any] = {name: v.isoformat() if isinstance(v, date) else v for name, v in row.items()}
    cost, held = usage.pop("cost_micros"), usage.pop("held_micros")
    unpriced = usage.pop("unpriced")
    reported, beyond = usage.pop("reported_micros"), usage.pop("underpriced_micros")
    ends = {name: usage.pop(name) for name in ENDS}
    return {
        **usage,
        "cost_usd": pricing.dollars(cost),
        "held_usd": pricing.dollars(held),
        "unpriced_outputs": unpriced,
        "reported_usd": pricing.dollars(reported),
        "underpriced_usd": pricing.dollars(beyond),
        **ends,
    }


def as_csv(dimensions: Sequence[str], rows: Sequence[dict[str, Any]], *, without: Sequence[str] = ()) -> str:
    """Format the report as CSV; text from clients is escaped so that a spreadsheet does not run it as a formula."""
    money = ("cost_usd", "held_usd", "unpriced_outputs", *VENDORS)
    columns = [*dimensions, "jobs", "outputs", "seconds", *(name for name in money if name not in without), *ENDS]
    file = StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([[_cell(row[column]) for column in columns] for row in rows])
    return file.getvalue()


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
