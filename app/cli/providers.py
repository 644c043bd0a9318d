"""`video-gateway providers`: each kind of provider, the variables of its key, and what is configured of it."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

import typer

from app import net, providers
from app.cli import checks_network
from app.cli.checks import Check, Installation, Status
from app.cli.doctor import STYLES, run_check
from app.cli.manage import cell, console, load
from app.providers import Instance
from app.providers.base import Provider
from app.providers.vendor_keys import unused_keys
from app.settings import Settings, are_set
from app.telemetry import logs

INDENT = 11
VARIABLE_WIDTH = 40


@dataclass
class Kind:
    """One kind as it is shown."""

    kind: str
    title: str
    tried_live: str | None
    """The day; None: not yet."""
    settings: dict[str, bool]
    """The variables that make a provider of this kind and name, the key among them; True for one that is set, or that
    follows from others."""
    vendor_variables: dict[str, bool]
    """The vendor's own variables of the key; True for one that is set."""
    add: str | None
    """The line that makes a provider of a key at hand."""
    key_page: str | None
    instances: list[dict[str, Any]] = field(default_factory=list)


def list_providers(
    check: Annotated[
        bool, typer.Option("--check", help="Try the address and key of each configured provider by a free call.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON document.")] = False,
) -> None:
    """List every kind of provider: the variable of its key, the page where keys are made, and what is configured.

    A vendor's own variable that is set, such as FAL_KEY, is named with the line to add. Keys are never printed.
    Needs no database. With --check, the exit code is 1 if a provider refuses its key or does not answer.
    """
    config = load()
    instances = list(providers.read_instances(config))
    results = asyncio.run(check_all(config)) if check else {}
    lines = {key.kind: key.line for key in unused_keys(config, providers.KINDS)}
    shown = [_kind(kind, config, instances, results, lines.get(kind.kind)) for kind in providers.KINDS]
    ok = not any(one.status is Status.failed for found in results.values() for one in found)
    if as_json:
        print(json.dumps({"ok": ok, "kinds": [vars(kind) for kind in shown]}, indent=2))
    else:
        for kind in shown:
            _print(kind)
        if check and not results:
            console.print("Nothing was checked: no vendor is configured.", highlight=False)
    if not ok:
        raise typer.Exit(1)


async def check_all(config: Settings) -> dict[str, list[Check]]:
    """The results of the checks of `doctor` by provider, made at the same time; the sandbox calls no vendor."""
    found: dict[str, list[Check]] = {}
    with logs.collected_warnings():  # `doctor` prints them
        async with AsyncExitStack() as stack:
            here = Installation(stack)
            here.use(config)
            runs = []
            for provider in providers.build(config).values():
                stack.push_async_callback(provider.aclose)
                if provider.kind != "sandbox":
                    found[provider.name] = []
                    run = partial(checks_network.check_provider, provider)
                    runs.append(run_check(provider.name, run, here, found[provider.name].append))
            await asyncio.gather(*runs)
    return found


def _kind(
    kind: type[Provider],
    config: Settings,
    instances: Sequence[Instance],
    results: dict[str, list[Check]],
    line: str | None,
) -> Kind:
    fields = kind.Config.model_fields
    names = [name for name, found in fields.items() if found.is_required()]
    if kind.key_variables and "api_key" not in names:
        names.append("api_key")
    mine = [one for one in instances if one.kind is kind]
    values = config.providers.get(kind.kind, {})
    own = values if values.get("kind", kind.kind) == kind.kind else {}
    made = [vars(one.config) for one in mine if one.name == kind.kind and one.config is not None]
    own = made[0] if made else own  # a setting may follow from another, such as a project from a key file
    at_hand = are_set(kind.key_variables)
    return Kind(
        kind=kind.kind,
        title=kind.title,
        tried_live=kind.tried.isoformat() if kind.tried is not None else None,
        settings={f"GATEWAY_PROVIDERS__{kind.kind.upper()}__{name.upper()}": bool(own.get(name)) for name in names},
        vendor_variables={variable: variable in at_hand for variable in kind.key_variables},
        add=line,
        key_page=kind.key_page or None,
        instances=[_instance(one, results.get(one.name, [])) for one in mine],
    )


def _instance(one: Instance, results: Sequence[Check]) -> dict[str, Any]:
    config = one.config
    return {
        "name": one.name,
        "base_url": net.redact_urls(config.base_url) if config is not None else None,
        "enabled": config is not None and config.enabled,
        "key_set": config is not None and config.api_key is not None,
        "credentials": config.credentials if config is not None else None,
        "missing": one.missing or None,
        "checks": [{"status": str(check.status), "text": check.text, "hint": check.hint} for check in results],
    }


# The screen


def _print(kind: Kind) -> None:
    name = f"[bold]{cell(kind.kind):<{INDENT}}[/]{cell(kind.title)}"
    _line(f"{name}; tried live: {kind.tried_live or 'not yet'}", indent=0)
    for variable, is_set in (kind.settings | kind.vendor_variables).items():
        state = "[green]set[/]" if is_set else "[dim]not set[/]"
        _line(f"{variable:<{VARIABLE_WIDTH}}{state}")
    if kind.add is not None:
        _line(f"add [bold]{cell(kind.add)}[/]")
    if kind.key_page is not None:
        _line(f"keys are made at {cell(kind.key_page)}")
    elif not kind.settings:
        _line("needs no key")
    elif not any(variable.endswith("__BASE_URL") for variable in kind.settings):
        _line("[dim]the page on which the vendor makes keys is not known[/]")
    for one in kind.instances:
        _print_instance(one, needs_key=bool(kind.settings))


def _print_instance(one: dict[str, Any], *, needs_key: bool) -> None:
    if one["missing"] is not None:
        _line(f"provider {cell(one['name'])}: [yellow]left out[/], missing {cell(one['missing'])}")
        return
    other = f"credentials by {one['credentials']}" if one["credentials"] else "no key" if needs_key else ""
    key = "key set" if one["key_set"] else other
    parts = (one["base_url"], "enabled" if one["enabled"] else "disabled", key)
    _line(f"provider {cell(one['name'])}: {cell(', '.join(part for part in parts if part))}")
    for check in one["checks"]:
        _line(f"  [{STYLES[Status(check['status'])]}]{check['status']}[/]  {cell(check['text'])}")
        if check["hint"]:
            _line(f"  [dim]next step: {cell(check['hint'])}[/]")


def _line(text: str, *, indent: int = INDENT) -> None:
    console.print(f"{'':{indent}}{text}", highlight=False, soft_wrap=True)
