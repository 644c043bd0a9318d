"""`video-gateway doctor`: looks for what is wrong with an installation, and changes nothing."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import asdict, replace
from functools import partial
from typing import Annotated

import typer

from app.cli import checks, checks_database, checks_network
from app.cli.checks import Check, Installation, Run, Skip, Status, failure
from app.cli.manage import cell, console
from app.db.embedded import PATIENCE_S
from app.telemetry import logs

LIMIT_S = 10
"""Time limit of one check; the start of the embedded database may take as long as that of a server."""
STYLES = {Status.ok: "green", Status.warning: "yellow", Status.failed: "bold red", Status.skipped: "dim"}
WIDTH = 9


def doctor(
    strict: Annotated[bool, typer.Option("--strict", help="Count warnings as failures.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Look for mistakes in the settings, the database, the store, the providers and the network.

    Prints one line for each finding, and the next step below those that need one. Exit code 1 if a check failed.
    Nothing is changed but a small file in the store, which is deleted again, and no call costs money.
    """
    found: list[Check] = []

    def report(check: Check) -> None:
        found.append(check)
        if not as_json:
            _print(check)

    asyncio.run(examine(report))
    bad = {Status.failed, Status.warning} if strict else {Status.failed}
    ok = not any(check.status in bad for check in found)
    if as_json:
        print(json.dumps({"ok": ok, "checks": [asdict(check) for check in found]}, indent=2))
    else:
        counts = (f"{sum(check.status is status for check in found)} {status}" for status in Status)
        console.print(f"In all: {', '.join(counts)}.", style="dim", highlight=False)
    if not ok:
        raise typer.Exit(1)


async def examine(report: Callable[[Check], None]) -> None:
    """Run all checks in their order, and report each result as it comes."""
    async with AsyncExitStack() as stack:
        here = Installation(stack)
        for name, run in _all_checks(here):
            with logs.collected_warnings():  # the results have them in words
                await run_check(name, run, here, report)
        with logs.collected_warnings():
            await stack.aclose()


def _all_checks(here: Installation) -> Iterator[tuple[str, Run]]:
    """The checks in order; those of the providers are known once the settings are read."""
    yield "settings", checks.check_settings
    yield "secrets", checks.check_secrets
    yield "database", checks_database.check_database
    yield "schema", checks_database.check_schema
    yield "clock", checks_database.check_clock
    yield "pepper", checks_database.check_the_pepper
    yield "notices", checks_database.check_notices
    yield "pooler", checks_database.check_pooler
    yield "store", checks.check_store
    yield "ffmpeg", checks.check_ffmpeg
    yield "models", checks.check_models
    for provider in here.found_providers.values():
        if provider.kind != "sandbox":
            yield f"provider {provider.name}", partial(checks_network.check_provider, provider)
    yield "public URL", checks_network.check_public_url
    yield "workers", checks_database.check_workers
    yield "API keys", checks_database.check_keys


async def run_check(name: str, run: Run, here: Installation, report: Callable[[Check], None]) -> None:
    """Run one check, and report its results without secrets, whatever happens in it."""

    def without_secrets(check: Check) -> None:
        """Report a result; an error in it may repeat a secret."""
        report(replace(check, text=here.clean(check.text), hint=here.clean(check.hint)))

    embedded = here.found_settings is not None and here.found_settings.database_url is None
    limit_s = PATIENCE_S if name == "database" and embedded else LIMIT_S
    try:
        async with asyncio.timeout(limit_s), aclosing(run(here)) as results:
            async for check in results:
                without_secrets(check)
    except Skip as reason:
        without_secrets(Check(name, Status.skipped, str(reason)))
    except TimeoutError:
        without_secrets(Check(name, Status.failed, f"no result within {limit_s:g} s", "check the network in between"))
    except Exception as error:
        without_secrets(failure(name, error))


def _print(check: Check) -> None:
    style = STYLES[check.status]
    line = f"[{style}]{check.status:<{WIDTH}}[/]{cell(check.name):<20} {cell(check.text)}"
    console.print(line, highlight=False, soft_wrap=True)
    if check.hint:
        console.print(f"{'':<{WIDTH + 21}}next step: {cell(check.hint)}", style="dim", highlight=False, soft_wrap=True)
