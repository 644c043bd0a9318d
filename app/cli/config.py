"""The command line for settings: `config show` with values and origins, `config check` without a start."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from pydantic import BaseModel, SecretStr
from rich.markup import escape
from rich.table import Table

from app import errors, net, providers, settings, telemetry
from app.cli.manage import cell, console
from app.db.address import read_address
from app.media.bucket import open_bucket
from app.mistakes import LEAST_SECRET, too_short
from app.providers.base import Provider, ProviderConfig
from app.providers.routing import Router
from app.settings import ConfigurationError, Settings

config_cli = typer.Typer(help="Show and check the settings, without a start.", no_args_is_help=True)

MASK = "***"
SHOWN_CHARACTERS = 4
"""Last characters that are shown of a secret that is long enough."""


@dataclass(frozen=True)
class Shown:
    """One setting as it is shown: without secrets."""

    name: str
    value: Any
    origin: str


@config_cli.command("show")
def show(
    every: Annotated[bool, typer.Option("--all", help="Those that are not set, too, with their defaults.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON document.")] = False,
) -> None:
    """Show the settings, each with its value and its origin. Secrets are masked."""
    config = settings.load()
    files, _ = settings.origins()
    found = list(shown_settings(config, every=every))
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

    telemetry.configure_logging(config)
    dialects.configure(config)
    with telemetry.collected_warnings() as warnings:
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


def default_model_problem(config: Settings, configured: dict[str, Provider]) -> str | None:
    """The reason why requests without a model cannot use the one of the settings; None if they can."""
    if config.default_model is None:
        return None
    try:
        Router(config, configured).routes(config.default_model)
    except errors.ModelNotFound as error:
        return f"GATEWAY_DEFAULT_MODEL: {error.message}"
    return None


# Values without secrets


def shown_settings(config: Settings, *, every: bool) -> Iterator[Shown]:
    """The settings that are set, in the order of the documentation, with `every` the others, too."""
    _, found = settings.origins()
    for field in Settings.model_fields:
        paths = [path for path in found if path[0] == field]
        for path in paths:
            raw, origin = found[path]
            yield Shown(_name(path), _value(path, raw, config), origin)
        if every and not paths:
            yield Shown(_name((field,)), _value((field,), None, config), "default")


def secrets_of(config: Settings) -> set[str]:
    """Every secret of the settings, for removal from texts."""
    single = (config.database_url, config.database_listen_url, config.admin_key, config.metrics_key, config.pepper)
    found = {secret.get_secret_value() for secret in single if secret is not None} | set(config.static_keys)
    found |= {given.key.get_secret_value() for given in config.admin_keys.values()}
    for url in filter(None, (config.database_url, config.database_listen_url)):
        with suppress(ConfigurationError):
            options = read_address(url.get_secret_value()).options
            found |= {value for name, value in options.items() if "password" in name}
    for name, values in config.providers.items():
        found |= {str(value) for field, value in values.items() if not _is_open(("providers", name, field), config)}
    return found - {""}


def masked(secret: str) -> str:
    return MASK + (secret[-SHOWN_CHARACTERS:] if len(secret) >= LEAST_SECRET else "")


def _name(path: tuple[str, ...]) -> str:
    """The variable of a setting; the place in the TOML file for names that variables cannot have."""
    if path[0] in ("models", "prices") and len(path) > 1:
        return f"{path[0]}.{'.'.join(json.dumps(part, ensure_ascii=False) for part in path[1:])}"
    return "GATEWAY_" + "__".join(path).upper()


def _value(path: tuple[str, ...], raw: Any, config: Settings) -> Any:
    """The value of one part of the settings without secrets: as it is read, or as it is written in a nested one."""
    if len(path) > 1:
        return _redacted(raw) if _is_open(path, config) else masked(str(raw))
    value = getattr(config, path[0])
    if path[0] in ("database_url", "database_listen_url") and value is not None:
        try:
            return str(read_address(value.get_secret_value()))
        except ConfigurationError:
            return MASK
    if path[0] == "api_keys":
        if isinstance(value, dict):
            return {name: masked(key.get_secret_value()) for name, key in value.items()}
        return [masked(key.get_secret_value()) for key in value]
    if path[0] == "admin_keys":
        return {
            name: {"key": masked(given.key.get_secret_value()), "role": given.role} for name, given in value.items()
        }
    if isinstance(value, SecretStr):
        return masked(value.get_secret_value())
    return _redacted(config.model_dump(mode="json", include={path[0]})[path[0]])


def _redacted(value: Any) -> Any:
    return net.redact_urls(value) if isinstance(value, str) else value


def _is_open(path: tuple[str, ...], config: Settings) -> bool:
    """True for a part of a nested setting that is known to hold no secret; a name that is not known may hold one."""
    if path[0] not in ("providers", "dialects"):
        return True
    known: type[BaseModel] | None
    if path[0] == "providers":
        kind = providers.KIND_NAMES.get(str(config.providers.get(path[1], {}).get("kind", path[1])))
        known = ProviderConfig if kind is None else kind.Config
    else:
        from app import dialects

        named = {dialects.name_of(dialect): dialect for dialect in dialects.DIALECTS}
        known = getattr(named.get(path[1]), "Config", None)
    fields = known.model_fields if known is not None else {}
    return len(path) == 3 and path[2] in fields and "SecretStr" not in str(fields[path[2]].annotation)


def _as_text(value: Any) -> str:
    if value is None:
        return "(unset)"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
