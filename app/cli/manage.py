"""The command line for operators: projects and keys."""

import asyncio
import shlex
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app import settings
from app.accounts import audit, budgets, keys, ledger, pricing, projects
from app.accounts.key_uses import Use, read_uses
from app.accounts.projects import ProjectChanges
from app.cli.commands import Commands
from app.cli.options import (
    Budget,
    Expires,
    Jobs,
    Kinds,
    MaxCost,
    Models,
    Pays,
    Rpm,
    read_amount,
    read_changes,
    read_list,
    read_micros,
)
from app.db.database import Database, running_database
from app.db.faults import explained
from app.db.migrate import require_current_schema, upgrade_schema
from app.db.models import Key, Project
from app.settings import Settings
from app.telemetry import logs
from app.video import Billing

T = TypeVar("T")

STOPPED = 128 + signal.SIGTERM
"""Exit code of a process that SIGTERM has ended."""

console = Console(width=None if sys.stdout.isatty() else 200)
complaints = Console(stderr=True)

keys_cli = Commands(help="Create, list, change and revoke API keys.")
projects_cli = Commands(help="Create, list, change and credit projects, which own keys, videos, webhooks and money.")


def load(**overrides: Any) -> Settings:
    """Read the settings and set up logging by them. Raises `ConfigurationError`."""
    config = settings.load(**overrides)
    logs.configure_logging(config)
    for problem in settings.unknown_names():
        logs.log.warning("unknown setting ignored", reason=problem)
    return config


async def prepared(config: Settings, url: str) -> None:
    """Migrate an embedded database; require the current schema of any other. Raises `ConfigurationError`."""
    note = audit.migrated_by(audit.command_actor())
    await (upgrade_schema(url, note) if config.database_url is None else require_current_schema(url))


def with_database(config: Settings, run: Callable[[Database, datetime], Awaitable[T]]) -> T:
    """Run a function with the configured database and its time; the embedded one is started for it."""

    async def running() -> T:
        async with running_database(config) as url:
            await prepared(config, url)
            database = Database(url, pool_size=1, prepare=config.database_prepare)
            try:
                with explained():
                    return await run(database, await database.now())
            finally:
                await database.close()

    return asyncio.run(running())


def cell(value: Any) -> str:
    """Text for a terminal, without control characters: clients choose some of these values."""
    if value is None:
        return ""
    return escape("".join(character if character.isprintable() else "\ufffd" for character in str(value)))


def _at(moment: datetime | None) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}" if moment else ""


def this_command() -> str:
    """This command as it can be typed here: `make run` runs it from a virtual environment that is not on the PATH."""
    path = Path(sys.argv[0]).absolute()
    if path.name != "video-gateway":
        return "video-gateway"
    if path.is_relative_to(Path.cwd()):
        return shlex.quote(str(path.relative_to(Path.cwd())))
    return "video-gateway" if shutil.which("video-gateway") == str(path) else shlex.quote(str(path))


def usd(micros: int | None) -> str:
    return "" if micros is None else pricing.format_usd(micros)


# Keys


@keys_cli.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Name of the key, for your reference.")],
    project: Annotated[
        str | None,
        typer.Option(help="Id or name; keys of one project see the same videos (default: a project of its own)."),
    ] = None,
    budget: Budget = None,
    rpm: Rpm = None,
    jobs: Jobs = None,
    models: Models = None,
    max_cost: MaxCost = None,
    expires: Expires = None,
) -> None:
    """Create an API key and print it. It is shown only once, alone on standard output."""
    config = load()
    changes, actor = read_changes(rpm, jobs, models, expires, max_cost, budget), audit.command_actor()

    async def run(database: Database, now: datetime) -> tuple[Key, str]:
        async with database.transaction() as session:
            return await keys.create_key(
                session, name, project_id=project, changes=changes, settings=config, actor=actor, now=now
            )

    row, key = with_database(config, run)
    message = escape(f"{row.id}, project {row.project_id}. Keep the key; it is not shown again:")
    complaints.print(message, style="dim", highlight=False, soft_wrap=True)
    print(key)


@keys_cli.command("update")
def update_key(
    key: Annotated[str, typer.Argument(help="Id or name, as shown by `keys list`.")],
    name: Annotated[str | None, typer.Option(help="New name.")] = None,
    budget: Budget = None,
    rpm: Rpm = None,
    jobs: Jobs = None,
    models: Models = None,
    max_cost: MaxCost = None,
    expires: Expires = None,
) -> None:
    """Change a key. Takes effect in every process within a second."""
    named = {} if name is None else {"name": name}
    changes, actor = read_changes(rpm, jobs, models, expires, max_cost, budget, **named), audit.command_actor()

    async def run(database: Database, now: datetime) -> str:
        async with database.transaction() as session:
            key_id = await keys.find_key_id(await session.connection(), key)
            return (await keys.change_key(session, key_id, changes, actor=actor, now=now)).name

    changed = with_database(load(), run)
    console.print(f"The key {escape(changed)} is changed.", highlight=False, soft_wrap=True)


@keys_cli.command("list")
def list_keys(
    project: Annotated[str | None, typer.Option(help="Only keys of this project, by its id or name.")] = None,
) -> None:
    """List all keys, without their secrets, with their last use and the spending of this month."""

    async def run(database: Database, now: datetime) -> list[tuple[Key, Use]]:
        async with database.transaction() as session:
            project_id = (await projects.get_project(session, project)).id if project is not None else None
            connection = await session.connection()
            found = await keys.list_keys(connection, project_id=project_id)
            uses = await read_uses(connection, [key.id for key in found], now=now)
            return [(key, uses[key.id]) for key in found]

    columns = ("Id", "Name", "Project", "Ends in", "Models", "Per minute", "Jobs", "Budget", "Max cost", "Expires")
    table = Table(*columns, "Revoked", "Last used", "Spent", "Running", box=None, header_style="bold")
    for key, use in with_database(load(), run):
        limits = (", ".join(key.models or ()), key.requests_per_minute, key.concurrent_jobs)
        table.add_row(
            *(cell(value) for value in (key.id, key.name, key.project_id, f"…{key.hint}", *limits)),
            usd(key.monthly_budget_micros),
            usd(key.max_cost_micros),
            _at(key.expires_at),
            _at(key.revoked_at),
            _at(use.last_used_at),
            usd(use.spent_micros),
            str(use.running),
        )
    console.print(table)


@keys_cli.command("revoke")
def revoke_key(key: Annotated[str, typer.Argument(help="Id or name, as shown by `keys list`.")]) -> None:
    """Revoke a key. Takes effect in every process within a second; running videos continue."""

    async def run(database: Database, now: datetime) -> str:
        async with database.transaction() as session:
            key_id = await keys.find_key_id(await session.connection(), key)
            return (await keys.revoke_key(session, key_id, actor=audit.command_actor(), now=now)).name

    name = with_database(load(), run)
    console.print(f"The key {escape(name)} is revoked.", highlight=False, soft_wrap=True)


# Projects


@projects_cli.command("create")
def create_project(
    name: Annotated[str, typer.Argument(help="Name of the project.")],
    billing: Annotated[Pays, typer.Option(help="prepaid: no video is created that the balance does not cover.")] = (
        Pays.postpaid
    ),
    budget: Budget = None,
    kinds: Kinds = None,
) -> None:
    """Create a project and print its id."""
    limits = {"monthly_budget_micros": read_micros(budget, "monthly-budget"), "kinds": read_list(kinds)}
    changes = ProjectChanges(name=name, billing=Billing(billing), **limits)

    async def run(database: Database, now: datetime) -> str:
        async with database.transaction() as session:
            return (await projects.create_project(session, changes, actor=audit.command_actor(), now=now)).id

    print(with_database(load(), run))


@projects_cli.command("update")
def update_project(
    project: Annotated[str, typer.Argument(help="Id or name.")],
    name: Annotated[str | None, typer.Option(help="New name.")] = None,
    billing: Annotated[Pays | None, typer.Option(help="New billing type.")] = None,
    budget: Budget = None,
    kinds: Kinds = None,
) -> None:
    """Change a project. Spending of the current month counts against a new budget."""
    changes = ProjectChanges(
        name=... if name is None else name,
        billing=... if billing is None else Billing(billing),
        monthly_budget_micros=read_micros(budget, "monthly-budget"),
        kinds=read_list(kinds),
    )

    async def run(database: Database, now: datetime) -> str:
        async with database.transaction() as session:
            actor = audit.command_actor()
            return (await projects.change_project(session, project, changes, actor=actor, now=now)).name

    changed = with_database(load(), run)
    console.print(f"The project {escape(changed)} is changed.", highlight=False, soft_wrap=True)


@projects_cli.command("credit")
def credit_project(
    project: Annotated[str, typer.Argument(help="Id or name.")],
    amount: Annotated[str, typer.Argument(help="US dollars; a negative amount (after --) is subtracted.")],
    reference: Annotated[
        str | None, typer.Option(help="Your reference, such as an invoice number; the same one is credited once.")
    ] = None,
) -> None:
    """Credit a project's balance and print what it may spend now."""
    micros = read_amount(amount, "amount")

    async def run(database: Database, now: datetime) -> tuple[Project, int | None]:
        async with database.transaction() as session:
            row = await projects.get_project(session, project)
            await ledger.credit(session, row, micros, reference=reference, actor=audit.command_actor(), now=now)
            left = await budgets.available(await session.connection(), [row.id], now=now)
            return row, left[row.id][1]

    row, left = with_database(load(), run)
    note = "" if row.billing is Billing.prepaid else " The project is postpaid, so its balance limits nothing."
    message = f"{pricing.format_usd(micros)} credited to {row.name}; it may spend {usd(left) or 'any amount'}.{note}"
    console.print(escape(message), highlight=False, soft_wrap=True)


@projects_cli.command("list")
def list_projects() -> None:
    """List all projects, and the amount that each may still spend."""

    async def run(database: Database, now: datetime) -> list[tuple[Project, int | None]]:
        async with database.reading() as connection:
            found = await projects.list_projects(connection)
            left = await budgets.available(connection, [row.id for row in found], now=now)
            return [(row, left[row.id][1]) for row in found]

    table = Table("Id", "Name", "Pays", "Budget", "May spend", "Kinds", "Created", box=None, header_style="bold")
    for row, left in with_database(load(), run):
        cells = (cell(row.id), cell(row.name), str(row.billing), usd(row.monthly_budget_micros))
        table.add_row(*cells, usd(left), cell(", ".join(row.kinds or ())), _at(row.created_at))
    console.print(table)
