"""`video-gateway status`: one screen of the running gateway, read from its database."""

import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.table import Table

from app.cli.manage import cell, console, load, usd, with_database
from app.jobs.overview import read_overview

MOST_SHOWN = 20
"""Rows of one list on the screen; `--json` has all."""


def status(as_json: Annotated[bool, typer.Option("--json", help="Print a JSON document.")] = False) -> None:
    """Show the running gateway: workers, jobs, open circuits, decisions that wait for you, webhooks and money.

    Exit code 1 if the database cannot be reached.
    """
    config = load()
    found = with_database(config, read_overview)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    _show(found, config.public_url or f"http://127.0.0.1:{config.port}")


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
