"""The command line: serve, worker, migrate, models, generate; other commands are in modules beside this one."""

import asyncio
import errno
import multiprocessing
import os
import shlex
import shutil
import signal
import socket
import sys
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
import uvicorn
from fastapi import FastAPI
from rich.markup import escape
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from app import dialects, errors, providers, settings, telemetry
from app.accounts import keys, secrets
from app.cli import doctor, manage, status
from app.cli.config import config_cli
from app.cli.generate import ClientError, generate_video
from app.cli.manage import complaints, console, load, prepared
from app.cli.models import alias, list_models
from app.cli.pepper import pepper_cli
from app.cli.providers import list_providers
from app.db.database import Database, running_database
from app.db.migrate import upgrade_schema
from app.http import health
from app.http.server import HttpProtocol
from app.main import create_app, open_parts, require_secrets, serving_app
from app.media.bucket import check_bucket
from app.providers.vendor_keys import report_unused_keys
from app.settings import ConfigurationError, Settings

T = TypeVar("T")

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

STOPPED = 128 + signal.SIGTERM


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
    with _bound(config.host, config.port) as listener:
        if workers == 1:
            with asyncio.Runner(loop_factory=uvicorn.Config("", log_config=None).get_loop_factory()) as runner:
                runner.run(_serve_one(config, listener))
        else:
            _serve_many(config, listener, workers)


def _bound(host: str, port: int) -> socket.socket:
    """Bind the port before anything else is started. Raises `ConfigurationError`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is given because asyncio sets TCP_NODELAY only then; without it every response waits for an ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except (OSError, UnicodeError) as error:
        listener.close()
        raise ConfigurationError(cannot_listen(error, host, port, "video-gateway serve --port ")) from None
    return listener


def cannot_listen(error: OSError | UnicodeError, host: str, port: int, option: str) -> str:
    """The reason why a port cannot be bound, and what to change: the address or the port."""
    reason = (getattr(error, "strerror", None) or "not an address").lower()
    if isinstance(error, socket.gaierror | UnicodeError) or error.errno == errno.EADDRNOTAVAIL:
        return (
            f"cannot listen on {host}: {reason}.\n"
            "Choose an address of this machine by --host or GATEWAY_HOST: 127.0.0.1 for itself alone, 0.0.0.0 for all."
        )
    another = port + 1 if 1023 < port < 65_535 else 8080
    return f"cannot listen on port {port} of {host}: {reason}.\nAnother port: {option}{another}"


async def _serve_one(config: Settings, listener: socket.socket) -> None:
    gateway = create_app(config)
    app = _StartupGuard(gateway)
    server = _Server(_uvicorn_config(config, app), config, gateway)
    try:
        await server.serve(sockets=[listener])
    except SystemExit as end:
        if not server.started:
            raise app.error or typer.Exit(1) from None
        if end.code != STOPPED:
            raise


def _serve_many(config: Settings, listener: socket.socket, workers: int) -> None:
    """Run several server processes; the parent runs the embedded database and prints the welcome before they start."""
    dialects.configure(config)
    providers.build(config)
    with asyncio.Runner() as runner:
        runner.run(check_bucket(config.storage_url))
        database = running_database(config)
        url = runner.run(database.__aenter__())
        try:
            has_keys = runner.run(_first_look(config, url))
            settings.export(database_url=url, host=config.host, port=config.port, run_worker=config.run_worker)
            options = _uvicorn_config(config, "app.cli.main:child_app", factory=True, workers=workers)
            listener.listen(options.backlog)  # early clients wait for the first child instead of failing
            _welcome(config, listener.getsockname()[1], has_keys=has_keys)
            children = Multiprocess(options, sockets=[listener])
            children.run()
            if any(child.exitcode == STARTUP_FAILURE for child in children.processes):
                raise typer.Exit(1)
        finally:
            runner.run(database.__aexit__(None, None, None))


async def _first_look(config: Settings, url: str) -> bool:
    """Check the schema and the secrets before child processes do. Returns True if the database has API keys."""
    await prepared(config, url)
    database = Database(url, pool_size=1, prepare=config.database_prepare)
    try:
        await require_secrets(database, config, now=await database.now())
        async with database.transaction() as session:
            return await keys.has_keys(session)
    finally:
        await database.close()


def child_app() -> FastAPI:
    """Application factory of a child process, which ends with its parent, also when that was killed."""
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=follow, daemon=True).start()
    return serving_app()


def _uvicorn_config(config: Settings, app: Any, **options: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=config.host,
        port=config.port,
        http=HttpProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # see http/proxies.py
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=max(1, int(config.shutdown_grace_s)),
        timeout_worker_healthcheck=60,  # children respond only after the import; a kill before that starts another
        **options,
    )


class _StartupGuard:
    """ASGI wrapper that keeps the `ConfigurationError` of a failed start, which uvicorn would log as a traceback."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.error: ConfigurationError | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        failed: list[Message] = []

        async def listen(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed":
                failed.append(message)  # held back until the exception arrives
            else:
                await send(message)

        try:
            await self._app(scope, receive, listen)
        except ConfigurationError as error:
            self.error = error
            failed = [{"type": message["type"]} for message in failed]
            raise
        finally:
            for message in failed:
                await send(message)


class _Server(uvicorn.Server):
    """Prints the welcome once the server can be reached, with the port that was bound."""

    def __init__(self, options: uvicorn.Config, config: Settings, app: FastAPI) -> None:
        super().__init__(options)
        self._settings = config
        self._app = app

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if sockets and not self.should_exit:
            async with self._app.state.gateway.db.transaction() as session:
                has_keys = await keys.has_keys(session)
            _welcome(self._settings, sockets[0].getsockname()[1], has_keys=has_keys)


def _welcome(config: Settings, port: int, *, has_keys: bool) -> None:
    """Print the next steps for a new user."""
    host = "127.0.0.1" if config.host in ("0.0.0.0", "::") else config.host  # noqa: S104  # shown, not listened on
    url = config.public_url or f"http://{f'[{host}]' if ':' in host else host}:{port}"
    print(f"\nvideo-gateway is ready at {url}/v1   (documentation: {url}/docs)")
    key, message = _key_to_show(config, has_keys=has_keys)
    print(message)
    if not config.run_worker:
        print("No worker runs here: start `video-gateway worker`.\n\nCtrl-C stops the server.\n", flush=True)
        return
    elsewhere = "" if config.public_url or port == settings.load().port else f" --url {url}/v1"
    print(
        f"\nTry it in another terminal:\n"
        f'  curl {url}/v1/videos -H "Authorization: Bearer {key}" \\\n'
        f"    -F prompt='a paper boat on a pond' -F model=sandbox/testcard -F seconds=4\n"
        f"or create a video, watch its progress and save the file:\n"
        f"  {_command()} generate 'a paper boat on a pond'{elsewhere}\n\n"
        f"Ctrl-C stops the server.\n",
        flush=True,
    )


def _key_to_show(config: Settings, *, has_keys: bool) -> tuple[str, str]:
    """The key for an example, and a line about keys. The key itself is printed only if the gateway created both the key
    and the database: on a developer's machine, not in a production log."""
    if config.static_keys:
        return "$API_KEY", "API keys: those in GATEWAY_API_KEYS, and those created with `video-gateway keys create`"
    if config.database_url is None:
        key, path = secrets.first_key(config)
        return key, f"API key: {key}   (kept in {path})"
    if secrets.existing_key(config) is not None:
        path = secrets.first_key(config)[1]
        return f"$(cat {shlex.quote(str(path))})", f"API key: in {path}"
    if has_keys:
        return "$API_KEY", "API keys: those created with `video-gateway keys create`"
    return "$API_KEY", f"No API key yet: {_command()} keys create NAME"


def _command() -> str:
    """This command as it can be typed here: `make run` runs it from a virtual environment that is not on the PATH."""
    path = Path(sys.argv[0]).absolute()
    if path.name != "video-gateway":
        return "video-gateway"
    if path.is_relative_to(Path.cwd()):
        return shlex.quote(str(path.relative_to(Path.cwd())))
    return "video-gateway" if shutil.which("video-gateway") == str(path) else shlex.quote(str(path))


@cli.command()
def worker() -> None:
    """Process jobs without serving requests. Any number of workers can run, on any number of machines."""
    config = load()
    report_unused_keys(config, providers.KINDS)
    if config.worker_metrics_port is not None:
        try:
            health.show_metrics(config.host, config.worker_metrics_port, config.metrics_key)
        except (OSError, UnicodeError) as error:
            option = "GATEWAY_WORKER_METRICS_PORT="
            raise ConfigurationError(cannot_listen(error, config.host, config.worker_metrics_port, option)) from None

    async def work() -> None:
        async with open_parts(config) as parts:
            loop = asyncio.get_running_loop()
            for name in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(name, parts.worker.stop)
            telemetry.log.info("worker started", providers=list(parts.gateway.providers))
            await parts.worker.run()
        telemetry.log.info("worker stopped")

    asyncio.run(work())


@cli.command()
def migrate() -> None:
    """Upgrade the database's schema to this release. Safe to run at any time, also several times at once."""

    config = load()

    async def run() -> str | None:
        async with running_database(config) as url:
            return await upgrade_schema(url)

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


cli.command()(manage.usage)
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
