"""Processes of the server: one or several that answer requests, and the worker. Imported by their commands alone, since
the web framework takes longer to load than most other commands to run."""

import asyncio
import errno
import multiprocessing
import os
import signal
import socket
import threading
from pathlib import Path
from typing import Any

import typer
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from app import dialects, providers, settings
from app.accounts import keys, sessions
from app.cli.console_link import own_holder
from app.cli.manage import STOPPED, prepared
from app.cli.welcome import facts, greet
from app.db.database import Database, running_database
from app.http.server import HttpProtocol
from app.http.worker_port import WorkerPort
from app.main import create_app, open_parts, require_secrets, serving_app
from app.media.bucket import check_bucket
from app.settings import ConfigurationError, Settings
from app.telemetry import logs, traces
from app.telemetry.processes import keep_ended, shared_metrics


def serve(config: Settings, workers: int) -> None:
    """Run `workers` server processes until they are stopped. Raises `ConfigurationError`."""
    with _bound(config.host, config.port) as listener:
        if workers == 1:
            with asyncio.Runner(loop_factory=uvicorn.Config("", log_config=None).get_loop_factory()) as runner:
                runner.run(_serve_one(config, listener))
        else:
            _serve_many(config, listener, workers)


def work(config: Settings, *, once: bool = False) -> None:
    """Run a worker until it is stopped, or until it has done `once` what is due. Raises `ConfigurationError`."""
    port = None if once else _worker_port(config)  # it may run beside another worker, whose port that is

    async def run() -> None:
        async with traces.running("worker"), open_parts(config) as parts:
            if port is not None:
                port.watch(parts.worker, parts.gateway.gauges)
            if once:
                done = await parts.worker.run_due()
                logs.log.info("worker finished", steps=done)
                return
            loop = asyncio.get_running_loop()
            for name in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(name, parts.worker.stop)
            logs.log.info("worker started", **facts(config, parts.gateway.providers))
            await parts.worker.run()
        logs.log.info("worker stopped")

    try:
        asyncio.run(run())
    finally:
        if port is not None:
            port.close()


def _worker_port(config: Settings) -> WorkerPort | None:
    """Open the port of a worker, if it has one. Raises `ConfigurationError`."""
    if config.worker_metrics_port is None:
        return None
    try:
        return WorkerPort(config, config.worker_metrics_port)
    except (OSError, UnicodeError) as error:
        option = "GATEWAY_WORKER_METRICS_PORT="
        raise ConfigurationError(cannot_listen(error, config.host, config.worker_metrics_port, option)) from None


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
    finally:
        if server.started:
            logs.log.info("stopped")


def _serve_many(config: Settings, listener: socket.socket, workers: int) -> None:
    """Run several server processes; the parent runs the embedded database and prints the welcome before they start."""
    dialects.configure(config)
    upstreams = providers.build(config)
    with asyncio.Runner() as runner:
        runner.run(check_bucket(config.storage_url))
        database = running_database(config)
        url = runner.run(database.__aenter__())
        try:
            has_keys = runner.run(_first_look(config, url))
            settings.export(database_url=url, host=config.host, port=config.port, run_worker=config.run_worker)
            options = _uvicorn_config(config, "app.cli.serve:child_app", factory=True, workers=workers)
            listener.listen(options.backlog)  # early clients wait for the first child instead of failing
            greet(config, listener.getsockname()[1], upstreams, has_keys=has_keys)
            with shared_metrics() as folder:
                children = _Children(options, [listener], folder)
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


class _Children(Multiprocess):
    """The server processes, whose metrics are in one folder."""

    def __init__(self, options: uvicorn.Config, sockets: list[socket.socket], metrics: Path) -> None:
        super().__init__(options, sockets)
        self._metrics = metrics

    def keep_subprocess_alive(self) -> None:
        super().keep_subprocess_alive()
        keep_ended(self._metrics, {process.pid for process in self.processes if process.pid is not None})


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
    """Greets once the server can be reached, with the port that was bound."""

    def __init__(self, options: uvicorn.Config, config: Settings, app: FastAPI) -> None:
        super().__init__(options)
        self._settings = config
        self._app = app

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if sockets and not self.should_exit:
            async with self._app.state.gateway.db.transaction() as session:
                has_keys = await keys.has_keys(session)
            code = await self._code()
            port, upstreams = sockets[0].getsockname()[1], self._app.state.gateway.providers
            greet(self._settings, port, upstreams, has_keys=has_keys, code=code)

    async def _code(self) -> str | None:
        """The code of a sign-in link, where the key itself is printed, too; else None."""
        config, gateway = self._settings, self._app.state.gateway
        holder = own_holder(config) if config.console and config.database_url is None else None
        if holder is None or config.static_keys:
            return None
        async with gateway.db.reading() as connection:
            return await sessions.make_link(connection, holder, now=gateway.clock())
