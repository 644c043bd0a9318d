"""Usage reports from the ledger: by project, key, model, provider, app, end user and day."""

import csv
from collections.abc import Sequence
from datetime import date, timedelta
from io import StringIO
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app import errors
from app.accounts import pricing

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

_USAGE = """
with used as (
  select project_id, key_id, model, provider, app, end_user, day, video_id, seconds, cost_micros, 1 as outputs,
    null::bigint as held_micros, (cost_micros is null)::int as unpriced, reported_micros
  from ledger where kind = 'settle' and day between :since and :until
  union all
  select attempts.project_id, key_id, model, attempts.provider, request ->> 'app', request ->> 'user',
    (videos.created_at at time zone 'UTC')::date, video_id, null, null, 0, hold_micros, (hold_micros is null)::int, null
  from attempts join videos on videos.id = attempts.video_id
  where attempts.settlement = 'held' and (videos.created_at at time zone 'UTC')::date between :since and :until
)
select {columns}count(distinct video_id) as jobs, sum(outputs)::bigint as outputs,
  coalesce(sum(seconds), 0)::float8 as seconds, coalesce(sum(cost_micros), 0)::bigint as cost_micros,
  coalesce(sum(held_micros), 0)::bigint as held_micros, sum(unpriced)::bigint as unpriced,
  coalesce(sum(reported_micros), 0)::bigint as reported_micros,
  coalesce(
    sum(reported_micros - cost_micros) filter (where reported_micros > cost_micros * (1 + :tolerance)), 0
  )::bigint as underpriced_micros
from used where (cast(:project_id as text) is null or project_id = :project_id) {group}
"""


async def report(
    connection: AsyncConnection, by: Sequence[str], *, since: date, until: date, project_id: str | None = None
) -> list[dict[str, Any]]:
    """Sum usage from `since` to `until`, both included: one row for each combination of `by` (names of `DIMENSIONS`),
    or a single row without `by`.

    Columns: jobs, outputs, seconds, cost_micros, held_micros (running jobs and unknown outcomes), unpriced (outputs
    without a price, not included in cost_micros), reported_micros (costs that upstreams reported), underpriced_micros
    (reported beyond our price, of outputs where that is more than `TOLERANCE`).
    """
    columns = [DIMENSIONS[name] for name in by]
    group = f"group by {', '.join(columns)} order by {', '.join(columns)}" if columns else "having count(*) > 0"
    chosen = "".join(f"{column} as {name!r}, ".replace("'", '"') for name, column in zip(by, columns, strict=True))
    statement = sa.text(_USAGE.format(columns=chosen, group=group))
    parameters = {"since": since, "until": until, "project_id": project_id, "tolerance": pricing.TOLERANCE}
    rows = await connection.execute(statement, parameters)
    return [dict(row) for row in rows.mappings()]


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
    return {
        **usage,
        "cost_usd": pricing.dollars(cost),
        "held_usd": pricing.dollars(held),
        "unpriced_outputs": unpriced,
        "reported_usd": pricing.dollars(reported),
        "underpriced_usd": pricing.dollars(beyond),
    }


def as_csv(dimensions: Sequence[str], rows: Sequence[dict[str, Any]]) -> str:
    """Format the report as CSV; text from clients is escaped so that a spreadsheet does not run it as a formula."""
    money = ("cost_usd", "held_usd", "unpriced_outputs", "reported_usd", "underpriced_usd")
    columns = [*dimensions, "jobs", "outputs", "seconds", *money]
    file = StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([[_cell(row[column]) for column in columns] for row in rows])
    return file.getvalue()


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
