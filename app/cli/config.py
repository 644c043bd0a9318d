"""The command line for settings: `config show` with values and origins, `config check` without a start."""

import json
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from app import providers, settings
from app.admin.shown_settings import DialectConfigs, default_model_problem, shown_settings
from app.cli.commands import Commands
from app.cli.manage import cell, console
from app.db.address import read_address
from app.media.bucket import open_bucket
from app.mistakes import too_short
from app.settings import Settings
from app.telemetry import logs

config_cli = Commands(help="Show and check the settings, without a start.")


@config_cli.command("show")
def show(
    every: Annotated[bool, typer.Option("--all", help="Those that are not set, too, with their defaults.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON document.")] = False,
) -> None:
    """Show the settings, each with its value and its origin. Secrets are masked."""
    config = settings.load()
    files, _ = origins = settings.origins()
    found = list(shown_settings(config, origins, dialect_configs() if config.dialects else {}, every=every))
    if as_json:
        rows = [{"name": one.name, "value": one.value, "origin": one.origin} for one in found]
        print(json.dumps({"files": files, "settings": rows}, indent=2, default=str))
        return
    table = Table("Setting", "Value", "From", box=None, header_style="bold")
    for one in found:
        table.add_row(cell(one.name), cell(_as_text(one.value)), cell(one.origin))
    console.print(table)
    console.print(escape(f"Files read: {', '.join(files) or 'none'}."), highlight=False, soft_wrap=True)


@config_cli.command("check")
def check() -> None:
    """Check everything about the settings that needs no database and no network, and print what a start would warn of.

    Exit code 1 if a start would be refused.
    """
    config = settings.load()
    for warning in check_settings(config):
        console.print(f"[yellow]warning[/]  {cell(warning)}", highlight=False, soft_wrap=True)
    console.print("The settings can be used.", highlight=False)


def check_settings(config: Settings) -> list[str]:
    """Sentences about what a start would warn of. Raises `ConfigurationError` where it would be refused."""
    from app import dialects  # here, since it brings the web framework, which takes long to load

    logs.configure_logging(config)
    dialects.configure(config)
    with logs.collected_warnings() as warnings:
        configured = providers.build(config)
    warnings = [*settings.unknown_names(), *warnings, *map(too_short, config.short_secrets())]
    for url, variable in (
        (config.database_url, "GATEWAY_DATABASE_URL"),
        (config.database_listen_url, "GATEWAY_DATABASE_LISTEN_URL"),
    ):
        dropped = read_address(url.get_secret_value(), variable).dropped if url is not None else ()
        warnings += [f"{variable}: the option {name} is dropped; PostgreSQL's library has none" for name in dropped]
    if config.storage_url is not None and not config.storage_url.startswith("file:"):
        open_bucket(config.storage_url)
    if (problem := default_model_problem(config, configured)) is not None:
        warnings.append(problem)
    return warnings


def dialect_configs() -> DialectConfigs:
    """The class of the settings of each dialect that has some, by name."""
    from app import dialects

    named = {dialects.name_of(dialect): getattr(dialect, "Config", None) for dialect in dialects.DIALECTS}
    return {name: config for name, config in named.items() if config is not None}


def _as_text(value: Any) -> str:
    if value is None:
        return "(unset)"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
