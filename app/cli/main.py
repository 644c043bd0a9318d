"""The command line: serve, worker, migrate, models, generate; other commands are in modules beside this one."""

import asyncio
import signal
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from app import errors, providers
from app.accounts import audit, secrets
from app.cli import doctor, manage, status
from app.cli.audit import show_audit
from app.cli.backup import backup
from app.cli.config import config_cli
from app.cli.console_link import console_link
from app.cli.generate import ClientError, generate_video
from app.cli.manage import STOPPED, complaints, console, load
from app.cli.models import alias, list_models
from app.cli.pepper import pepper_cli
from app.cli.providers import list_providers
from app.cli.restore import restore, restored
from app.cli.usage import usage
from app.db.database import running_database
from app.db.migrate import upgrade_schema
from app.providers.vendor_keys import report_unused_keys
from app.settings import ConfigurationError, Settings

EPILOG = (
    "Settings come from GATEWAY_ variables, .env and gateway.toml; .env.example lists them all. "
    "Try: video-gateway serve, and in another terminal: video-gateway generate 'a paper boat'."
)

cli = typer.Typer(
    help="A self-hosted, OpenAI-compatible gateway for video generation.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
cli.add_typer(manage.keys_cli, name="keys")
cli.add_typer(manage.projects_cli, name="projects")
cli.add_typer(pepper_cli, name="pepper")
cli.add_typer(config_cli, name="config")


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


@cli.command()
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


@cli.command()
def worker() -> None:
    """Process jobs without serving requests. Any number of workers can run, on any number of machines."""
    config = load()
    report_unused_keys(config, providers.KINDS)
    from app.cli import serve as processes

    processes.work(config)


@cli.command()
def migrate() -> None:
    """Upgrade the database's schema to this release. Safe to run at any time, also several times at once."""

    config = load()

    async def run() -> str | None:
        async with running_database(config) as url:
            return await upgrade_schema(url, audit.migrated_by(audit.command_actor()))

    revision = asyncio.run(run())
    console.print(f"The database is now at {revision}." if revision else "The database is up to date already.")


@cli.command()
def generate(
    context: typer.Context,
    prompt: Annotated[str, typer.Argument(help="Description of the video.")],
    model: Annotated[str | None, typer.Option(help="Name as listed by `models` (default: the server's).")] = None,
    seconds: Annotated[str | None, typer.Option(help="Length in seconds (default: the model's).")] = None,
    size: Annotated[str | None, typer.Option(help="1280x720, or a ratio such as 16:9 (default: the model's).")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="File or directory to write to (default: the video's id and the suffix of its type)."),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            envvar="OPENAI_BASE_URL", help="URL of the gateway, including /v1 (default: the one configured here)."
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(envvar="OPENAI_API_KEY", help="API key for --url (default: the one configured here)."),
    ] = None,
) -> None:
    """Create a video on a running gateway, show its progress, save it, and print the path."""
    config = load()
    source = context.get_parameter_source("key")
    if url is None and source is not None and source.name == "ENVIRONMENT":
        key = None  # often set for another server, such as OpenAI's
    base_url = (url or f"{config.public_url or f'http://127.0.0.1:{config.port}'}/v1").rstrip("/")
    fields = {"prompt": prompt, "model": model, "seconds": seconds, "size": size}
    wanted = {name: value for name, value in fields.items() if value is not None}
    print(asyncio.run(generate_video(base_url, key or _own_key(config), wanted, out, complaints)))


cli.command()(usage)
cli.command()(backup)
cli.command()(restore)
cli.command()(restored)
cli.command("audit")(show_audit)
cli.command()(console_link)
cli.command()(doctor.doctor)
cli.command()(status.status)
cli.command("providers")(list_providers)
cli.command("models")(list_models)
cli.command()(alias)


def _own_key(config: Settings) -> str:
    key = next(iter(config.static_keys), None) or secrets.existing_key(config)
    if key is None:
        raise ConfigurationError(
            f"there is no API key in {config.data_dir}. Give one with --key or OPENAI_API_KEY, set GATEWAY_DATA_DIR to "
            "the server's, or start the server here first:\n  video-gateway serve"
        )
    return key


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
