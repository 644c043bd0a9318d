"""`video-gateway models` and `alias`: names that requests can use, and another name for one of them."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from app import errors, providers
from app.accounts import pricing
from app.capabilities import Capabilities
from app.cli.manage import console, load
from app.providers.routing import Route, Router
from app.settings import Settings, origins
from app.video import MAX_NAME_CHARACTERS


def list_models(
    every: Annotated[bool, typer.Option("--all", help="Also every provider/model that a listed model covers.")] = False,
) -> None:
    """List the models that a request can name, with routes and prices, and the providers that serve any other model."""
    config = load()
    configured = providers.build(config)
    table = Table("Model", "Goes to", "Seconds", "Sizes", "$ per second", box=None, header_style="bold")
    for name, routes in Router(config, configured).models(every=every).items():
        for number, route in enumerate(routes):
            shown = escape(name) if number == 0 else ""
            table.add_row(shown, escape(route.name), *_limits(route.capabilities), _prices(config, route))
    for provider in configured.values():
        if provider.any_model is not None:
            limits = _limits(provider.any_model)
            table.add_row(escape(f"{provider.name}/<any model>"), escape(provider.name), *limits, "")
    for alias, unused in providers.unused_routes(config, configured, providers.KIND_NAMES).items():
        if len(unused) == len(config.models[alias].routes):
            reasons = "; ".join(one.reason for one in unused)
            table.add_row(escape(alias), escape(f"left out: {reasons}"), "", "", "", style="dim")
    console.print(table)


def _prices(config: Settings, route: Route) -> str:
    """Prices of a route as a cell of a table: from the lowest to the highest."""
    prices = sorted({micros / pricing.MICROS for micros in pricing.prices_of(config, route).values()})
    return "–".join(f"{price:g}" for price in (*prices[:1], *prices[1:][-1:])) if prices else "not known"


def _limits(able: Capabilities) -> tuple[str, str]:
    """Lengths and sizes of a model as cells of a table."""
    sizes = "any" if able.sizes is None else ", ".join(able.sizes)
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
    file = Path(next((name for name in origins()[0] if name != ".env"), "gateway.toml"))
    if not 0 < len(name) <= MAX_NAME_CHARACTERS or not name.isprintable():
        raise errors.InvalidRequest(f"name: expected 1 to {MAX_NAME_CHARACTERS} printable characters")
    if name in config.models:
        routes = ", ".join(str(route) for route in config.models[name].routes)
        raise errors.Conflict(f"the alias {name} exists: it goes to {routes}; change it in {file}")
    found = Router(config, providers.build(config)).routes(model)
    lines = f'\n[models.{json.dumps(name)}]\nroutes = [{json.dumps(model)}]\nunsupported = "drop"\n'
    with file.open("a", encoding="utf-8") as document:
        document.write(lines)
    console.print(f"{file} has these lines now:{escape(lines)}", highlight=False)
    console.print(f"{escape(name)} goes to {escape(', '.join(route.name for route in found))} after the next start.")
