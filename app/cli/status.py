"""`video-gateway status`: one screen of the running gateway, read from its database."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import sqlalchemy as sa
import typer
from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncConnection

from app.accounts import pricing
from app.cli.manage import cell, console, load, usd, with_database
from app.db.database import Database
from app.db.migrate import newest_revision
from app.db.models import LIVE, Attempt, Delivery, ProviderHealth, Video, WebhookEndpoint
from app.jobs import presence, reconcile
from app.video import DeliveryState, Settlement, Status

DAY = sa.func.make_interval(0, 0, 0, 1)
MOST_SHOWN = 20
"""Rows of one list on the screen; `--json` has all."""


def status(as_json: Annotated[bool, typer.Option("--json", help="Print a JSON document.")] = False) -> None:
    """Show the running gateway: workers, jobs, open circuits, decisions that wait for you, webhooks and money.

    Exit code 1 if the database cannot be reached.
    """
    config = load()
    found = with_database(config, read_status)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    _show(found, config.public_url or f"http://127.0.0.1:{config.port}")


async def read_status(database: Database, now: datetime) -> dict[str, Any]:
    """Read everything that is shown."""
    async with database.reading() as connection:
        workers = [
            {
                "host": worker.host,
                "pid": worker.pid,
                "version": worker.version,
                "seen_s": _seconds(now, worker.seen_at),
            }
            for worker in await presence.list_running(connection)
        ]
        return {
            "version": presence.RELEASE,
            "schema": newest_revision(),  # `with_database` has compared it
            "workers": workers,
            "jobs": await _jobs(connection, now),
            "circuits": await _circuits(connection, now),
            "undecided": await _undecided(connection),
            "webhooks": await _webhooks(connection, now),
            "last_24_h": await _last_day(connection),
            "held_usd": await _held(connection),
        }


async def _jobs(connection: AsyncConnection, now: datetime) -> list[dict[str, Any]]:
    query = (
        sa.select(Attempt.provider, Attempt.state, sa.func.count(), sa.func.min(Attempt.created_at))
        .where(Attempt.state.in_(LIVE))
        .group_by(Attempt.provider, Attempt.state)
        .order_by(Attempt.provider, Attempt.state)
    )
    return [
        {"provider": provider, "state": str(state), "count": count, "oldest_s": _seconds(now, oldest)}
        for provider, state, count, oldest in await connection.execute(query)
    ]


async def _circuits(connection: AsyncConnection, now: datetime) -> list[dict[str, Any]]:
    columns = (ProviderHealth.name, ProviderHealth.project_id, ProviderHealth.open_until)
    query = sa.select(*columns).where(ProviderHealth.open_until > now).order_by(*columns[:2])
    return [
        {"provider": provider, "project": project or None, "open_until": until and until.isoformat()}
        for provider, project, until in await connection.execute(query)
    ]


async def _undecided(connection: AsyncConnection) -> list[dict[str, Any]]:
    return [
        {
            "id": attempt.id,
            "video": video.id,
            "project": video.project_id,
            "provider": attempt.provider,
            "submitted_at": attempt.submitted_at and attempt.submitted_at.isoformat(),
            "held_usd": pricing.dollars(video.hold_micros),
        }
        for attempt, video in await reconcile.list_undecided(connection)
    ]


async def _webhooks(connection: AsyncConnection, now: datetime) -> dict[str, Any]:
    waiting = sa.select(sa.func.count(), sa.func.min(Delivery.created_at)).where(
        Delivery.state == DeliveryState.pending
    )
    count, oldest = (await connection.execute(waiting)).one()
    columns = (WebhookEndpoint.id, WebhookEndpoint.project_id, WebhookEndpoint.name, WebhookEndpoint.disabled_reason)
    disabled = sa.select(*columns).where(WebhookEndpoint.disabled_at.is_not(None)).order_by(WebhookEndpoint.id)
    return {
        "pending": count,
        "oldest_s": None if oldest is None else _seconds(now, oldest),
        "disabled_endpoints": [dict(row._mapping) for row in await connection.execute(disabled)],
    }


async def _last_day(connection: AsyncConnection) -> dict[str, int]:
    query = sa.select(Video.status, sa.func.count()).where(Video.ended_at >= sa.func.now() - DAY).group_by(Video.status)
    counts = {str(ended): count for ended, count in await connection.execute(query)}
    return {str(name): counts.get(str(name), 0) for name in (Status.completed, Status.failed)}


async def _held(connection: AsyncConnection) -> Any:
    held = sa.select(sa.func.sum(Video.hold_micros)).select_from(Attempt).join(Video, Video.id == Attempt.video_id)
    micros = await connection.scalar(held.where(Attempt.settlement == Settlement.held))
    return pricing.dollars(int(micros or 0))


def _seconds(now: datetime, then: datetime) -> int:
    return max(0, round((now - then).total_seconds()))


# The screen


def _show(found: dict[str, Any], url: str) -> None:
    console.print(f"video-gateway {found['version']}, schema {found['schema']}", style="bold", highlight=False)
    workers = [(w["host"], w["pid"], w["version"], _span(w["seen_s"]) + " ago") for w in found["workers"]]
    _list(
        "Workers",
        ("Host", "Process", "Version", "Seen"),
        workers,
        "none runs; video-gateway serve or video-gateway worker starts one",
    )
    jobs = [(job["provider"], job["state"], job["count"], _span(job["oldest_s"])) for job in found["jobs"]]
    _list("Unfinished jobs, by output", ("Provider", "State", "Outputs", "Oldest"), jobs, "none")
    circuits = [(c["provider"], c["project"] or "all projects", c["open_until"]) for c in found["circuits"]]
    _list("Open circuits: nothing is submitted there", ("Provider", "Project", "Until"), circuits, "none")
    undecided = [(u["id"], u["video"], u["provider"], u["submitted_at"] or "") for u in found["undecided"]]
    _list("Submits of unknown outcome", ("Attempt", "Video", "Provider", "Submitted"), undecided, "none")
    if undecided:
        body = '{"action": "fail"}'
        key = '-H "Authorization: Bearer $GATEWAY_ADMIN_KEY" -H "content-type: application/json"'
        for line in (
            f"  decide each with: curl {url}/admin/v1/repairs/ATTEMPT {key} -d '{body}'",
            "  or with the actions find (and upstream_ref) or resubmit, see docs/accounts.md, Unknown outcomes",
        ):
            console.print(cell(line), highlight=False, soft_wrap=True)
    webhooks = found["webhooks"]
    disabled = [(e["id"], e["project_id"], e["name"], e["disabled_reason"]) for e in webhooks["disabled_endpoints"]]
    _list("Disabled webhook endpoints", ("Endpoint", "Project", "Name", "Reason"), disabled, "none")
    oldest = f", the oldest for {_span(webhooks['oldest_s'])}" if webhooks["pending"] else ""
    day = found["last_24_h"]
    for line in (
        f"Webhooks waiting: {webhooks['pending']}{oldest}",
        f"Videos of the last 24 hours: {day['completed']} completed, {day['failed']} failed",
        f"Money held: {usd(round(found['held_usd'] * 1_000_000))}",
    ):
        console.print(line, highlight=False)


def _list(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], otherwise: str) -> None:
    if not rows:
        console.print(f"{title}: {otherwise}", highlight=False, soft_wrap=True)
        return
    console.print(f"{title}:", highlight=False)
    table = Table(*columns, box=None, header_style="dim", padding=(0, 1, 0, 2))
    for row in rows[:MOST_SHOWN]:
        table.add_row(*(cell(value) for value in row))
    console.print(table)
    if len(rows) > MOST_SHOWN:
        console.print(f"  and {len(rows) - MOST_SHOWN} more; --json lists all", highlight=False)


def _span(seconds: int) -> str:
    """A duration in its largest unit."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
