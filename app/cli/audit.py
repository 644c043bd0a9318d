"""The command line for the audit log: who changed what."""

import json
from datetime import UTC, datetime, time
from typing import Annotated, Any

import typer
from rich.table import Table

from app.accounts import audit, projects
from app.cli.manage import cell, console, load, with_database
from app.db.database import Database
from app.db.models import AuditEntry


def show_audit(
    actor: Annotated[str | None, typer.Option(help="Only changes by this admin key, or this user@host.")] = None,
    action: Annotated[str | None, typer.Option(help="Only this action, such as key.create.")] = None,
    subject: Annotated[str | None, typer.Option(help="Only changes of this key, project or attempt, by id.")] = None,
    project: Annotated[str | None, typer.Option(help="Only this project, by its id or name.")] = None,
    since: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="First day, UTC.")] = None,
    until: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Last day, UTC.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="Most entries that are shown.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON document.")] = False,
) -> None:
    """Show the changes by admin keys and commands, newest first: who, when, what."""
    first = since and since.replace(tzinfo=UTC)
    end = until and datetime.combine(until, time.max, UTC)

    async def run(database: Database, now: datetime) -> list[AuditEntry]:
        async with database.transaction() as session:
            project_id = (await projects.get_project(session, project)).id if project is not None else None
            wanted = audit.Wanted(actor, action, subject, project_id, first, end)
            return await audit.list_entries(await session.connection(), wanted, limit=limit)

    found = [audit.as_json(entry) for entry in with_database(load(), run)]
    if as_json:
        print(json.dumps({"entries": found}, indent=2))
        return
    table = Table("At", "Actor", "Address", "Action", "Subject", "Change", box=None, header_style="bold")
    for entry in found:
        who, at = entry["actor"], datetime.fromisoformat(entry["at"])
        cells = (f"{at:%Y-%m-%d %H:%M:%S}", f"{who['kind']}:{who['name']}", who["address"], entry["action"])
        table.add_row(*(cell(value) for value in (*cells, entry["subject"], _change(entry))))
    console.print(table)


def _change(entry: dict[str, Any]) -> str:
    """The changed fields, `name: before → after`."""
    before, after = entry["before"] or {}, entry["after"] or {}
    changes = []
    for name in {**before, **after}:
        new = json.dumps(after.get(name), ensure_ascii=False)
        old = f"{json.dumps(before[name], ensure_ascii=False)} → " if name in before else ""
        if old or after.get(name) is not None:
            changes.append(f"{name}: {old}{new}")
    return ", ".join(changes)
