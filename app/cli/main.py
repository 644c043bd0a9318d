"""The command line: serve, worker, migrate; other commands are in modules beside this one."""

import asyncio
import signal
import sys
from importlib.metadata import version
from typing import Annotated

import typer
from rich.markup import escape

from app import errors, providers
from app.accounts import audit
from app.cli import doctor, manage, status
from app.cli.audit import show_audit
from app.cli.backup import backup
from app.cli.commands import ACCOUNTS, BACKUP, OPERATE, RUN, USE, Commands
from app.cli.config import config_cli
from app.cli.console_link import console_link
from app.cli.generate import ClientError, cancel, generate
from app.cli.manage import STOPPED, complaints, console, load
from app.cli.models import alias, list_models
from app.cli.pepper import pepper_cli
from app.cli.providers import list_providers
from app.cli.restore import restore, restored
from app.cli.usage import usage
from app.db.database import running_database
from app.db.migrate import upgrade_schema
from app.providers.vendor_keys import report_unused_keys
from app.settings import ConfigurationError

EPILOG = (
    "Settings come from GATEWAY_ variables, .env and gateway.toml; .env.example lists them all. "
    "Try: video-gateway serve, and in another terminal: video-gateway generate 'a paper boat'."
)

cli = Commands(
    help="A self-hosted, OpenAI-compatible gateway for video generation.",
    epilog=EPILOG,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"video-gateway {version('video-gateway')}")
        raise typer.Exit


@cli.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit."),
    ] = False,
) -> None:
    pass


@cli.command(rich_help_panel=RUN)
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (default: GATEWAY_HOST or 127.0.0.1).")] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65_535, help="Port to listen on; 0 takes a free one (default: GATEWAY_PORT or 8080)."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Number of server processes.")] = 1,
    worker: Annotated[
        bool | None,
        typer.Option(
            "--worker/--no-worker",
            help="Process jobs too, or leave them to `video-gateway worker` (default: GATEWAY_RUN_WORKER or yes).",
        ),
    ] = None,
) -> None:
    """Run the server, which also processes the jobs unless --no-worker is given.

    Needs nothing else: without GATEWAY_DATABASE_URL it runs its own PostgreSQL under GATEWAY_DATA_DIR (./data), and
    without a configured provider the model sandbox/testcard renders test videos. The first start creates an API key
    and prints it. With your own database, run `video-gateway migrate` first, and `video-gateway keys create NAME`.

    Thumbnails, sprite sheets and test videos are made by the newest ffmpeg on PATH or of the `ffmpeg` extra; the log
    names it at first use.
    """
    given = {"host": host, "port": port, "run_worker": worker}
    config = load(**{name: value for name, value in given.items() if value is not None})
    report_unused_keys(config, providers.KINDS)
    from app.cli import serve as processes  # here, since it takes longer to load than most commands to run

    processes.serve(config, workers)


@cli.command(rich_help_panel=RUN)
def worker(
    concurrency: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, help="Upstream calls at once (default: GATEWAY_WORKER_CONCURRENCY or 100)."),
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65_535, help="Port for Prometheus metrics (default: GATEWAY_WORKER_METRICS_PORT or none)."
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Do what is due now, and exit: for a job that cron starts.")] = (
        False
    ),
) -> None:
    """Process jobs without serving requests. Any number of workers can run, on any number of machines."""
    given = {"worker_concurrency": concurrency, "worker_metrics_port": metrics_port}
    config = load(**{name: value for name, value in given.items() if value is not None})
    report_unused_keys(config, providers.KINDS)
    from app.cli import serve as processes

    processes.work(config, once=once)


@cli.command(rich_help_panel=RUN)
def migrate() -> None:
    """Upgrade the database's schema to this release. Safe to run at any time, also several times at once."""

    config = load()

    async def run() -> str | None:
        async with running_database(config) as url:
            return await upgrade_schema(url, audit.migrated_by(audit.command_actor()))

    revision = asyncio.run(run())
    console.print(f"The database is now at {revision}." if revision else "The database is up to date already.")


cli.command(rich_help_panel=USE)(generate)
cli.command(rich_help_panel=USE)(cancel)
cli.command("models", rich_help_panel=USE)(list_models)
cli.command(rich_help_panel=USE)(alias)
cli.command(rich_help_panel=OPERATE)(status.status)
cli.command(rich_help_panel=OPERATE)(doctor.doctor)
cli.command("providers", rich_help_panel=OPERATE)(list_providers)
cli.command(rich_help_panel=OPERATE)(usage)
cli.command("audit", rich_help_panel=OPERATE)(show_audit)
cli.command(rich_help_panel=OPERATE)(console_link)
for command in (backup, restore, restored):
    cli.command(rich_help_panel=BACKUP)(command)
cli.add_typer(manage.keys_cli, name="keys", rich_help_panel=ACCOUNTS)
cli.add_typer(manage.projects_cli, name="projects", rich_help_panel=ACCOUNTS)
cli.add_typer(config_cli, name="config", rich_help_panel=ACCOUNTS)
cli.add_typer(pepper_cli, name="pepper", rich_help_panel=ACCOUNTS)


def main() -> None:
    """Entry point of the `video-gateway` command: a known error is one message and exit code 1, not a traceback."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(STOPPED))  # so that open resources are closed
    try:
        cli()
    except (ConfigurationError, errors.GatewayError, ClientError) as error:
        complaints.print(f"[bold red]video-gateway:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
