"""The command line: serve, worker, migrate, models, keys, generate."""

import asyncio
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
import uvicorn
from rich.console import Console
from rich.table import Table
from uvicorn.supervisors import Multiprocess

from app import client, db, errors, keys, providers, settings, telemetry
from app import main as wiring
from app.db import Database
from app.routing import Router
from app.settings import ConfigurationError, Settings

T = TypeVar("T")

EPILOG = (
    "Settings come from GATEWAY_ variables, .env and gateway.toml; .env.example lists them all. "
    "Try: video-gateway serve, then video-gateway generate 'a paper boat'."
)

cli = typer.Typer(
    help="A self-hosted, OpenAI-compatible gateway for video generation.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
keys_cli = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)
cli.add_typer(keys_cli, name="keys")

console = Console()
complaints = Console(stderr=True)


@cli.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on. [GATEWAY_HOST, else 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on. [GATEWAY_PORT, else 8080]")] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Server processes.")] = 1,
    worker: Annotated[
        bool | None,
        typer.Option("--worker/--no-worker", help="Whether each process also works on jobs. [GATEWAY_RUN_WORKER]"),
    ] = None,
) -> None:
    """Run the server, and unless told otherwise a worker in the same process.

    Without GATEWAY_DATABASE_URL it starts a PostgreSQL of its own under GATEWAY_DATA_DIR; without a vendor configured,
    the model sandbox/testcard renders test films.
    """
    given = {"host": host, "port": port, "run_worker": worker}
    config = settings.load(**{name: value for name, value in given.items() if value is not None})
    telemetry.configure_logging(config)
    if workers == 1:
        asyncio.run(_serve_one(config))
    else:
        _serve_many(config, workers)


async def _serve_one(config: Settings) -> None:
    app = wiring.create_app(config)
    server = _Server(_uvicorn_config(config, app), config)
    await server.serve()
    if not server.started:
        raise typer.Exit(1)


def _serve_many(config: Settings, workers: int) -> None:
    """The parent holds the embedded database and prints the welcome; its children find both ready."""
    with asyncio.Runner() as runner:
        database = db.url_of(config)
        url = runner.run(database.__aenter__())
        try:
            runner.run(db.migrate(url) if config.database_url is None else db.require_current_schema(url))
            settings.export(database_url=url, host=config.host, port=config.port, run_worker=config.run_worker)
            options = _uvicorn_config(config, "app.main:serving_app", factory=True, workers=workers)
            socket = options.bind_socket()
            _welcome(config, socket.getsockname()[1])
            Multiprocess(options, sockets=[socket]).run()
        finally:
            runner.run(database.__aexit__(None, None, None))


def _uvicorn_config(config: Settings, app: Any, **options: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=config.host,
        port=config.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=max(1, int(config.shutdown_grace_s)),
        h11_max_incomplete_event_size=64 * 1024,
        **options,
    )


class _Server(uvicorn.Server):
    """Prints the welcome once the socket is open, with the port that was really taken."""

    def __init__(self, options: uvicorn.Config, config: Settings) -> None:
        super().__init__(options)
        self._settings = config

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started and not self.should_exit:
            _welcome(self._settings, self.servers[0].sockets[0].getsockname()[1])


def _welcome(config: Settings, port: int) -> None:
    """What a newcomer needs next. The key is shown only where it is ours and the database too: on somebody's own
    machine, not in a production log."""
    host = "127.0.0.1" if config.host in ("0.0.0.0", "::") else config.host  # noqa: S104  # shown, not listened on
    url = config.public_url or f"http://{f'[{host}]' if ':' in host else host}:{port}"
    print(f"\nvideo-gateway is ready at {url}/v1   (documentation: {url}/docs)")
    if config.api_keys:
        key = "$GATEWAY_KEY"
        print("API keys: those in GATEWAY_API_KEYS, and those made with `video-gateway keys create`")
    else:
        own, path = keys.first_key(config)
        key = own if config.database_url is None else f"$(cat {path})"
        print(f"API key: {key}   (kept in {path})" if config.database_url is None else f"API key: in {path}")
    print(
        f"\nTry it:\n"
        f"  curl {url}/v1/videos -H 'Authorization: Bearer {key}' \\\n"
        f"    -F prompt='a paper boat on a pond' -F model=sandbox/testcard -F seconds=4\n"
        f"or watch it being made:\n"
        f"  video-gateway generate 'a paper boat on a pond'\n",
        flush=True,
    )


@cli.command()
def worker() -> None:
    """Work on jobs without serving requests; run as many as you like, on as many machines."""
    config = settings.load()
    telemetry.configure_logging(config)

    async def work() -> None:
        async with wiring.open_parts(config) as parts:
            loop = asyncio.get_running_loop()
            for name in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(name, parts.worker.stop)
            telemetry.log.info("worker started", providers=list(parts.gateway.providers))
            await parts.worker.run()

    asyncio.run(work())


@cli.command()
def migrate() -> None:
    """Bring the database's schema to this release. Safe to run at any time, and by many at once."""

    async def run() -> str | None:
        config = settings.load()
        async with db.url_of(config) as url:
            return await db.migrate(url)

    revision = asyncio.run(run())
    console.print(f"The database is now at {revision}." if revision else "The database is up to date already.")


@cli.command()
def models() -> None:
    """List every model that a request can name, and where it goes."""
    config = settings.load()
    table = Table("Model", "Goes to", "Seconds", "Sizes", box=None, header_style="bold")
    for name, routes in Router(config, providers.build(config)).models().items():
        able = routes[0].provider.capabilities(routes[0].model)
        seconds = "any" if able is None or able.seconds is None else "–".join(f"{s:g}" for s in able.seconds)
        if able is not None and able.seconds is not None and not able.seconds_range:
            seconds = ", ".join(f"{s:g}" for s in able.seconds)
        sizes = ", ".join(able.sizes) if able is not None and able.sizes is not None else "any"
        table.add_row(name, ", ".join(route.name for route in routes), seconds, sizes)
    console.print(table)


@keys_cli.command("create")
def keys_create(
    name: Annotated[str, typer.Argument(help="What the key is for, for your own eyes.")],
    owner: Annotated[
        str | None, typer.Option(help="Keys with the same owner see the same videos. [default: an owner of its own]")
    ] = None,
) -> None:
    """Make an API key and print it. It is shown this once only."""
    config = settings.load()

    async def run(database: Database) -> tuple[str, str, str]:
        async with database.transaction() as session:
            row, key = await keys.create(session, name, owner=owner, settings=config, now=datetime.now(UTC))
            return row.id, row.owner, key

    key_id, key_owner, key = asyncio.run(_with_database(config, run))
    complaints.print(f"{key_id}, owner {key_owner}. Keep the key; it is not shown again:", style="dim")
    print(key)


@keys_cli.command("list")
def keys_list() -> None:
    """List all keys, without the keys themselves."""

    async def run(database: Database) -> list[Any]:
        async with database.reading() as connection:
            return await keys.listed(connection)

    table = Table("Id", "Name", "Owner", "Ends in", "Created", "Revoked", box=None, header_style="bold")
    for key in asyncio.run(_with_database(settings.load(), run)):
        revoked = f"{key.revoked_at:%Y-%m-%d %H:%M}" if key.revoked_at else ""
        table.add_row(key.id, key.name, key.owner, f"…{key.hint}", f"{key.created_at:%Y-%m-%d %H:%M}", revoked)
    console.print(table)


@keys_cli.command("revoke")
def keys_revoke(key_id: Annotated[str, typer.Argument(help="As shown by `keys list`.")]) -> None:
    """Refuse a key from now on; every process knows within a second."""

    async def run(database: Database) -> str:
        async with database.transaction() as session:
            return (await keys.revoke(session, key_id, now=datetime.now(UTC))).name

    console.print(f"{asyncio.run(_with_database(settings.load(), run))} is revoked.")


async def _with_database(config: Settings, run: Any) -> Any:
    async with db.url_of(config) as url:
        await (db.migrate(url) if config.database_url is None else db.require_current_schema(url))
        database = Database(url, pool_size=1, prepare=config.database_prepare)
        try:
            return await run(database)
        finally:
            await database.close()


@cli.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="What the video should show.")],
    model: Annotated[str | None, typer.Option(help="As listed by `models`. [default: the server's]")] = None,
    seconds: Annotated[str | None, typer.Option(help="Length in seconds.")] = None,
    size: Annotated[str | None, typer.Option(help="1280x720, or a ratio such as 16:9.")] = None,
    out: Annotated[Path | None, typer.Option(help="File to write. [default: the video's id, .mp4]")] = None,
    url: Annotated[
        str | None, typer.Option(envvar="OPENAI_BASE_URL", help="Gateway to ask. [default: the one configured here]")
    ] = None,
    key: Annotated[
        str | None, typer.Option(envvar="OPENAI_API_KEY", help="API key. [default: the one configured here]")
    ] = None,
) -> None:
    """Make a video on a running gateway, show how far it is, save it, and print the path."""
    config = settings.load()
    base_url = url or f"{config.public_url or f'http://127.0.0.1:{config.port}'}/v1"
    if key is None:
        key = config.api_keys[0].get_secret_value() if config.api_keys else keys.first_key(config)[0]
    fields = {"prompt": prompt, "model": model, "seconds": seconds, "size": size}
    wanted = {name: value for name, value in fields.items() if value is not None}
    print(asyncio.run(client.generate(base_url, key, wanted, out, complaints)))


def main() -> None:
    """Entry point of the `video-gateway` command: known trouble is one message and exit code 1, not a traceback."""
    try:
        cli()
    except (ConfigurationError, errors.GatewayError, client.ClientError) as error:
        complaints.print(f"[bold red]video-gateway:[/] {error}", highlight=False, soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
