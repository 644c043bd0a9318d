"""The command `usage`: a report as a table or as CSV."""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from app import errors
from app.accounts import ledger, pricing, projects
from app.accounts.reports import ENDS, as_csv, dimensions_of, report, span_of, usage_row
from app.cli.manage import cell, console, load, with_database
from app.db.database import Database


def usage(
    by: Annotated[
        str, typer.Option(help="Any of project, key, model, provider, app, user and day, comma-separated.")
    ] = "project,model",
    since: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="First day, UTC (default: 30 days ago).")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Last day, UTC (default: today).")
    ] = None,
    project: Annotated[str | None, typer.Option(help="Only this project, by its id or name.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write to this file, `-` for standard output.")] = None,
) -> None:
    """Show usage: jobs, outputs, seconds, cost, money held for running videos, and jobs by how they ended."""
    dimensions = dimensions_of(by)
    today = ledger.day_of(datetime.now(UTC))
    first, last = span_of(since and since.date(), until and until.date(), today=today)

    async def run(database: Database, now: datetime) -> tuple[list[dict[str, Any]], int, dict[str, str]]:
        project_id = None
        if project is not None:
            async with database.transaction() as session:  # one of its own: it locks the project
                project_id = (await projects.get_project(session, project)).id
        async with database.transaction() as session:
            connection = await session.connection()
            found = await report(connection, dimensions, since=first, until=last, project_id=project_id)
            jobs = 0
            if csv is None:  # the table has a total, summed anew: a job that used two providers is in two rows
                whole = await report(connection, (), since=first, until=last, project_id=project_id)
                jobs = sum(row["jobs"] for row in whole)
            return found, jobs, {row.id: row.name for row in await projects.list_projects(connection)}

    rows, jobs, names = with_database(load(), run)
    if csv is not None:
        content = as_csv(dimensions, [usage_row(row) for row in rows])
        if str(csv) == "-":
            print(content, end="")
        else:
            try:
                csv.write_text(content, "utf-8", newline="")
            except OSError as error:
                raise errors.InvalidRequest(f"csv: {csv} cannot be written: {error.strerror}") from None
        return
    _show_usage(dimensions, rows, jobs, names, first, last)


def _show_usage(
    dimensions: Sequence[str],
    rows: Sequence[dict[str, Any]],
    jobs: int,
    names: dict[str, str],
    first: date,
    last: date,
) -> None:
    table = Table(box=None, header_style="bold", show_footer=bool(rows))
    for name in dimensions:
        table.add_column(name.capitalize(), footer="Total" if name == dimensions[0] else "")
    for title, name in (("Jobs", "jobs"), ("Outputs", "outputs"), ("Seconds", "seconds")):
        total = f"{jobs}" if name == "jobs" else f"{sum(row[name] for row in rows):g}"
        table.add_column(title, justify="right", footer=total)
    for title, name in (("Cost", "cost_micros"), ("Held", "held_micros")):
        table.add_column(title, justify="right", footer=pricing.format_usd(sum(row[name] for row in rows)))
    for name in ("unpriced", "completed", "failed", "cancelled"):
        table.add_column(name.capitalize(), justify="right", footer=f"{sum(row[name] for row in rows)}")
    table.add_column("Mean s", justify="right")
    for row in rows:
        cells = [names.get(row[name], row[name]) if name == "project" else row[name] for name in dimensions]
        counts = (f"{row['jobs']}", f"{row['outputs']}", f"{row['seconds']:g}")
        money = (
            pricing.format_usd(row["cost_micros"]),
            pricing.format_usd(row["held_micros"]),
            f"{row['unpriced'] or ''}",
        )
        ends = (*(f"{row[name] or ''}" for name in ENDS[:3]), f"{row['mean_duration_s'] or ''}")
        table.add_row(*(cell(value) for value in cells), *counts, *money, *ends)
    console.print(table)
    beyond = sum(row["underpriced_micros"] for row in rows)
    if beyond:
        console.print(
            f"Vendors reported {pricing.format_usd(beyond)} more than your prices, which was not charged; "
            "--by provider,model shows where."
        )
    if not rows:
        console.print(f"Nothing was used from {first} to {last}.")
