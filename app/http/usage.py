"""Reports of usage as responses, for the operator and for the holder of a key."""

import asyncio
import re
from collections.abc import Sequence
from datetime import date
from typing import Annotated, Any, Literal

from fastapi import Query
from fastapi.responses import Response
from pydantic import BeforeValidator

from app.accounts.reports import as_csv, usage_row
from app.http.responses import no_store


def _written_as_a_day(value: Any) -> Any:
    """Require YYYY-MM-DD: pydantic would read a number, also 20261101, as seconds since 1970."""
    if isinstance(value, str) and not re.fullmatch(r"\d{4}-\d\d-\d\d", value):
        raise ValueError("expected a day such as 2026-11-01")
    return value


Day = Annotated[date, BeforeValidator(_written_as_a_day)]
Since = Annotated[Day | None, Query(description="First day, UTC; default: 30 days in all.")]
Until = Annotated[Day | None, Query(description="Last day, UTC; default: today.")]
By = Annotated[str, Query(max_length=100, description="Dimensions, comma-separated.")]
Format = Annotated[Literal["json", "csv"], Query(alias="format", description="Format of the response.")]


async def usage_response(
    dimensions: Sequence[str],
    rows: Sequence[dict[str, Any]],
    *,
    since: date,
    until: date,
    form: str,
    without: Sequence[str] = (),
) -> Response:
    """Render a report as JSON or as a spreadsheet, without the given columns; in a thread, since it may be long."""
    return await asyncio.to_thread(_render, dimensions, rows, since, until, form, without)


def _render(
    dimensions: Sequence[str],
    rows: Sequence[dict[str, Any]],
    since: date,
    until: date,
    form: str,
    without: Sequence[str],
) -> Response:
    data = [{name: value for name, value in usage_row(row).items() if name not in without} for row in rows]
    if form == "csv":
        disposition = f'attachment; filename="usage-{since}-{until}.csv"'
        headers = {"content-disposition": disposition, "cache-control": "no-store"}
        return Response(as_csv(dimensions, data, without=without), media_type="text/csv", headers=headers)
    whole = {"since": since.isoformat(), "until": until.isoformat(), "by": list(dimensions)}
    return no_store({"object": "usage", **whole, "data": data})
