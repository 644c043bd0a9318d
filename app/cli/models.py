"""`video-gateway models` and `alias`: names that requests can use, and another name for one of them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.markup import escape
from rich.table import Table

from app import errors, providers
from app.accounts import pricing
from app.capabilities import Capabilities
from app.cli.manage import console, load
from app.providers.base import Provider
from app.providers.routing import Route, Router
from app.setting_types import ModelSettings
from app.settings import Settings, files
from app.video import MAX_NAME_CHARACTERS

NO_KEY = "-"
"""Key of providers that only describe their kind; they are never called."""


def list_models(
    every: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Also each provider/model that a listed model covers, and models that no provider here serves.",
        ),
    ] = False,
) -> None:
    """List the models that a request can name, with routes and prices, and the providers that serve any other model.

    Routes of the catalogue at vendors that are not configured are dimmed, with the reason.
    """
    config = load()
    configured = providers.build(config)
    off = _switched_off(config, configured)
    described = {name: provider for name, (provider, _) in off.items()}
    table = Table("Model", "Goes to", "Seconds", "Sizes", "$ per second", box=None, header_style="bold")
    shows_off = False
    usable = Router(config, configured).models(every=every)
    possible = Router(config, {**configured, **described}).models(every=False)
    for name in [*usable, *(name for name in possible if every and name not in usable and "/" not in name)]:
        routes = possible.get(name, usable.get(name, ()))
        for number, route in enumerate(routes if name not in config.models else usable[name]):
            shown = escape(name) if number == 0 else ""
            shows_off |= route.provider.name in off
            reason = off[route.provider.name][1] if route.provider.name in off else None
            to = escape(route.name if reason is None else f"{route.name} (off: {reason})")
            style = None if reason is None else "dim"
            table.add_row(shown, to, *_limits(route.capabilities), _prices(config, route), style=style)
    for provider in configured.values():
        if provider.any_model is not None:
            limits = _limits(provider.any_model)
            table.add_row(escape(f"{provider.name}/<any model>"), escape(provider.name), *limits, "")
    for alias, unused in providers.unused_routes(config, configured, providers.KIND_NAMES).items():
        if len(unused) == len(config.models[alias].routes):
            reasons = "; ".join(one.reason for one in unused)
            table.add_row(escape(alias), escape(f"left out: {reasons}"), "", "", "", style="dim")
    console.print(table)
    if shows_off:
        console.print("`video-gateway providers` has the settings of those that are off.", style="dim", highlight=False)


def _switched_off(config: Settings, configured: Mapping[str, Provider]) -> dict[str, tuple[Provider, str]]:
    """A provider of each kind that has none here and needs nothing but a key, by its name, and why it is off."""
    served = {provider.kind for provider in configured.values()}
    reasons = {
        one.kind.kind: "disabled" if one.config is not None else f"missing {one.missing}"
        for one in providers.read_instances(config)
    }
    found = {}
    for kind in providers.KINDS:
        if kind.kind in served or kind.kind in configured:
            continue
        try:
            described = kind.Config.model_validate({"kind": kind.kind, "api_key": NO_KEY})
        except ValidationError:  # it needs an address, too
            continue
        found[kind.kind] = (kind(kind.kind, described), reasons.get(kind.kind, "no key"))
    return found


def _prices(config: Settings, route: Route) -> str:
    """Prices of a route as a cell of a table: from the lowest to the highest."""
    prices = sorted({micros / pricing.MICROS for micros in pricing.prices_of(config, route).values()})
    return "–".join(f"{price:g}" for price in (*prices[:1], *prices[1:][-1:])) if prices else "not known"


def _limits(able: Capabilities) -> tuple[str, str]:
    """Lengths and sizes of a model as cells of a table."""
    sizes = ", ".join(able.sizes or able.resolutions or ()) or ("" if able.sizes == () else "any")
    if not able.seconds:
        return "any" if able.seconds is None else "", sizes
    first, last = able.seconds[0], able.seconds[-1]
    every = able.seconds_range or (len(able.seconds) > 3 and last - first == len(able.seconds) - 1)
    return f"{first:g}–{last:g}" if every else ", ".join(f"{seconds:g}" for seconds in able.seconds), sizes


def alias(
    name: Annotated[str, typer.Argument(help="The name that clients use, such as sora-2.")],
    model: Annotated[str, typer.Argument(help="The model that answers: a name that `models` lists.")],
) -> None:
    """Let a model answer to another name: adds the lines to gateway.toml. Running servers have to be restarted."""
    config = load()
    file = Path(next((name for name in files() if name != ".env"), "gateway.toml"))
    if not 0 < len(name) <= MAX_NAME_CHARACTERS or not name.isprintable():
        raise errors.InvalidRequest(f"name: expected 1 to {MAX_NAME_CHARACTERS} printable characters")
    if name in config.models:
        routes = ", ".join(str(route) for route in config.models[name].routes)
        raise errors.Conflict(f"the alias {name} exists: it goes to {routes}; change it in {file}")
    aliased = ModelSettings(routes=[model], unsupported="drop")
    with_alias = config.model_copy(update={"models": {**config.models, name: aliased}})
    configured = providers.build(config)
    unused = providers.unused_routes(with_alias, configured, providers.KIND_NAMES).get(name)
    if unused:
        raise errors.InvalidRequest(f"{model}: {unused[0].reason}")
    found = Router(with_alias, configured).routes(name)
    lines = f'\n[models.{json.dumps(name)}]\nroutes = [{json.dumps(model)}]\nunsupported = "drop"\n'
    with file.open("a", encoding="utf-8") as document:
        document.write(lines)
    console.print(f"{file} has these lines now:{escape(lines)}", highlight=False)
    console.print(f"{escape(name)} goes to {escape(', '.join(route.name for route in found))} after the next start.")
