"""The command line for operators: projects and keys."""

import asyncio
import re
import signal
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app import errors, settings, telemetry
from app.accounts import budgets, keys, ledger, pricing, projects
from app.accounts.key_uses import Use, read_uses
from app.accounts.keys import Changes
from app.db.database import Database, running_database
from app.db.faults import explained
from app.db.migrate import require_current_schema, upgrade_schema
from app.db.models import Key, Project
from app.settings import Settings
from app.video import Billing

T = TypeVar("T")

STOPPED = 128 + signal.SIGTERM
"""Exit code of a process that SIGTERM has ended."""
NONE = "none"
"""Option value that removes a limit."""
SPAN = re.compile(r"(\d{1,5})([dh])")

console = Console(width=None if sys.stdout.isatty() else 200)
complaints = Console(stderr=True)

keys_cli = typer.Typer(help="Create, list, change and revoke API keys.", no_args_is_help=True)
projects_cli = typer.Typer(
    help="Create, list, change and credit projects, which own keys, videos, webhooks and money.", no_args_is_help=True
)


def load(**overrides: Any) -> Settings:
    """Read the settings and set up logging by them. Raises `ConfigurationError`."""
    config = settings.load(**overrides)
    telemetry.configure_logging(config)
    for problem in settings.unknown_names():
        telemetry.log.warning("unknown setting ignored", reason=problem)
    return config


async def prepared(config: Settings, url: str) -> None:
    """Migrate an embedded database; require the current schema of any other. Raises `ConfigurationError`."""
    await (upgrade_schema(url) if config.database_url is None else require_current_schema(url))


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


# Options


class Pays(StrEnum):
    prepaid = "prepaid"
    postpaid = "postpaid"


Budget = Annotated[
    str | None, typer.Option("--monthly-budget", help="US dollars in a calendar month, UTC; `none` for no limit.")
]
Rpm = Annotated[str | None, typer.Option("--requests-per-minute", help="A number; `none` for no limit.")]
Jobs = Annotated[str | None, typer.Option("--concurrent-jobs", help="Unfinished videos at once; `none` for no limit.")]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", help="A model it may use, or a pattern such as lumen/*; repeatable; `none` for no limit."),
]
MaxCost = Annotated[
    str | None, typer.Option("--max-cost", help="Highest cost of one request in US dollars; `none` for no limit.")
]
Kinds = Annotated[
    list[str] | None,
    typer.Option("--kind", help="A kind of provider that it may use, such as fal; repeatable; `none` for all."),
]
Expires = Annotated[
    str | None,
    typer.Option(
        "--expires", help="Lifetime such as 90d or 12h, or a date such as 2027-01-31 (UTC); `none` for never."
    ),
]


def _micros(value: str | None, name: str) -> Any:
    """Micros, None for no limit, `...` without the option. Raises `InvalidRequest`."""
    if value is None or value == NONE:
        return ... if value is None else None
    micros = _amount(value, name)
    if micros < 0:
        raise errors.InvalidRequest(f"{name}: expected 0 or more")
    return micros


def _amount(value: str, name: str) -> int:
    try:
        return pricing.micros_of(Decimal(value.removeprefix("$")))
    except (ValueError, ArithmeticError):
        raise errors.InvalidRequest(f"{name}: expected US dollars such as 25 or 12.50, got {value!r:.40}") from None


def _number(value: str | None, name: str) -> Any:
    if value is None or value == NONE:
        return ... if value is None else None
    if not value.isdecimal() or len(value) > 9:
        raise errors.InvalidRequest(f"{name}: expected a whole number or `none`, got {value!r:.40}")
    return int(value)


def _moment(value: str | None) -> Any:
    if value is None or value == NONE:
        return ... if value is None else None
    if span := SPAN.fullmatch(value):
        return datetime.now(UTC) + (timedelta(days=int(span[1])) if span[2] == "d" else timedelta(hours=int(span[1])))
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        raise errors.InvalidRequest(f"expires: expected 90d, 12h or 2027-01-31, got {value!r:.40}") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _listed(values: list[str] | None) -> Any:
    """The values of a repeatable option, None for `none`, `...` without the option."""
    if not values:
        return ...
    return None if values == [NONE] else values


def _changes(
    rpm: str | None, jobs: str | None, models: list[str] | None, expires: str | None, max_cost: str | None, **more: Any
) -> Changes:
    return Changes(
        models=_listed(models),
        max_cost_micros=_micros(max_cost, "max-cost"),
        requests_per_minute=_number(rpm, "requests-per-minute"),
        concurrent_jobs=_number(jobs, "concurrent-jobs"),
        expires_at=_moment(expires),
        **more,
    )


def cell(value: Any) -> str:
    """Text for a terminal, without control characters: clients choose some of these values."""
    if value is None:
        return ""
    return escape("".join(character if character.isprintable() else "\ufffd" for character in str(value)))


def _at(moment: datetime | None) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}" if moment else ""


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
    changes, micros = _changes(rpm, jobs, models, expires, max_cost), _micros(budget, "monthly-budget")

    async def run(database: Database, now: datetime) -> tuple[Key, str]:
        async with database.transaction() as session:
            row, key = await keys.create_key(
                session, name, project_id=project, changes=changes, settings=config, now=now
            )
            await budgets.limit_key(session, row, None if micros is ... else micros, now=now)
            return row, key

    row, key = with_database(config, run)
    message = escape(f"{row.id}, project {row.project_id}. Keep the key; it is not shown again:")
    complaints.print(message, style="dim", highlight=False, soft_wrap=True)
    print(key)


@keys_cli.command("update")
def update_key(
    key_id: Annotated[str, typer.Argument(help="As shown by `keys list`.")],
    name: Annotated[str | None, typer.Option(help="New name.")] = None,
    budget: Budget = None,
    rpm: Rpm = None,
    jobs: Jobs = None,
    models: Models = None,
    max_cost: MaxCost = None,
    expires: Expires = None,
) -> None:
    """Change a key. Takes effect in every process within a second."""
    changes = _changes(rpm, jobs, models, expires, max_cost, **({} if name is None else {"name": name}))
    micros = _micros(budget, "monthly-budget")

    async def run(database: Database, now: datetime) -> str:
        async with database.transaction() as session:
            key = await keys.get_key(session, key_id)
            await keys.change_key(session, key, changes, now=now)
            if micros is not ...:
                await budgets.limit_key(session, key, micros, now=now)
            return key.name

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
def revoke_key(key_id: Annotated[str, typer.Argument(help="As shown by `keys list`.")]) -> None:
    """Revoke a key. Takes effect in every process within a second; running videos continue."""

    async def run(database: Database, now: datetime) -> str:
        async with database.transaction() as session:
            return (await keys.revoke_key(session, key_id, now=now)).name

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
    micros, only = _micros(budget, "monthly-budget"), _listed(kinds)

    async def run(database: Database, now: datetime) -> str:
        async with database.transaction() as session:
            project = await projects.create_project(session, name, now=now)
            project.kinds = projects.checked_kinds(None if only is ... else only)
            limit = None if micros is ... else micros
            await budgets.limit_project(session, project, limit, Billing(billing), now=now)
            return project.id

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
    micros, only = _micros(budget, "monthly-budget"), _listed(kinds)

    async def run(database: Database, now: datetime) -> str:
        async with database.transaction() as session:
            row = await projects.get_project(session, project)
            if name is not None:
                row.name = projects.checked_name("name", name)
            if only is not ...:
                row.kinds = projects.checked_kinds(only)
            if micros is not ... or billing is not None:
                limit = row.monthly_budget_micros if micros is ... else micros
                await budgets.limit_project(session, row, limit, Billing(billing or row.billing), now=now)
            return row.name

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
    micros = _amount(amount, "amount")

    async def run(database: Database, now: datetime) -> tuple[Project, int | None]:
        async with database.transaction() as session:
            row = await projects.get_project(session, project)
            await ledger.credit(session, row, micros, reference=reference, now=now)
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
