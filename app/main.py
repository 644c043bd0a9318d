"""Composition root: builds the gateway's parts, and the application that serves them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version

from fastapi import APIRouter, FastAPI, HTTPException, Request
from fastapi.responses import Response
from starlette.routing import BaseRoute, Match

from app import dialects, providers, settings, telemetry
from app.accounts import auth, projects, secrets
from app.admin import routes as admin
from app.db.address import read_address
from app.db.database import Database, read_and_warn, running_database
from app.db.faults import explained
from app.db.listener import Listener
from app.db.migrate import require_current_schema, upgrade_schema
from app.http import health, media
from app.http.context import Gateway
from app.http.errors import install_error_handlers, to_response
from app.http.middleware import METHODS, RequestMiddleware
from app.http.openapi import error_responses
from app.jobs.durations import Durations
from app.jobs.worker import Worker
from app.media.bucket import check_bucket
from app.media.signed_links import SignedLinks
from app.media.store import Store
from app.providers.routing import Router
from app.settings import Settings
from app.webhooks.sender import Sender

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Parts:
    gateway: Gateway
    worker: Worker


@asynccontextmanager
async def open_parts(config: Settings, *, clock: Clock = utc_now) -> AsyncIterator[Parts]:
    """Open all parts and close them again. Raises `ConfigurationError` with the next step.

    An embedded database is migrated; any other must have the current schema.
    """
    configs = dialects.configure(config)
    upstreams = providers.build(config)  # first, because its errors can be found without a database
    await check_bucket(config.storage_url)
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(running_database(config))
        if config.database_url is None:
            await upgrade_schema(url)
        else:
            await require_current_schema(url)
        database = Database(url, pool_size=config.database_pool_size, prepare=config.database_prepare)
        stack.push_async_callback(database.close)
        await database.open()
        for provider in upstreams.values():
            stack.push_async_callback(provider.aclose)
        store = Store.from_settings(config)
        signed = SignedLinks(secrets.derive_secret(config, "links"), config, clock)
        listening = config.database_listen_url
        listened = read_address(url) if listening is None else read_and_warn(listening, "GATEWAY_DATABASE_LISTEN_URL")
        listener = Listener(listened, database.notify)
        stack.push_async_callback(listener.stop, asyncio.create_task(listener.run()))
        authenticator = auth.Authenticator(database, config, listener, clock)
        with explained():
            async with database.transaction() as session:
                await projects.ensure_projects(session, authenticator.static_projects, now=clock())
        durations = Durations(database)
        stack.push_async_callback(durations.close)
        sender = Sender(config, clock=clock, links=signed, styles=dialects.WEBHOOK_STYLES)
        stack.push_async_callback(sender.aclose)
        worker = Worker(
            db=database, settings=config, providers=upstreams, store=store, links=signed, sender=sender, clock=clock
        )
        gateway = Gateway(
            settings=config,
            dialects=configs,
            db=database,
            providers=upstreams,
            router=Router(config, upstreams),
            store=store,
            links=signed,
            authenticator=authenticator,
            sender=sender,
            clock=clock,
            listener=listener,
            durations=durations,
            wake=worker.wake,
        )
        yield Parts(gateway, worker)


@cache
def _all_routes() -> Sequence[BaseRoute]:
    """Build the routes once for all applications of a process: FastAPI parses every signature at each inclusion."""
    router = APIRouter()
    for dialect in reversed(dialects.DIALECTS):  # OpenAI first: it gets the most requests
        described = error_responses(dialect.render_error, dialect.PREFIXES[0])
        router.include_router(dialect.routes, responses=described)
    for others, path in ((media.routes, "/media/"), (health.routes, "/healthz"), (admin.routes, "/admin/")):
        router.include_router(others, responses=error_responses(dialects.render_error, path))
    return router.routes


def create_app(config: Settings | None = None, *, clock: Clock = utc_now) -> FastAPI:
    """Build the ASGI application; all stateful parts start and stop with its lifespan."""
    chosen = config or settings.load()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Callable[[], None]]]:
        async with open_parts(chosen, clock=clock) as parts:
            app.state.gateway, app.state.worker = parts.gateway, parts.worker
            running = asyncio.create_task(parts.worker.run()) if chosen.run_worker else None

            def drain() -> None:
                parts.worker.stop()
                parts.gateway.listener.close()

            try:
                yield {"drain": drain}
            finally:
                if running is not None:
                    parts.worker.stop()
                    await running

    app = FastAPI(
        title="video-gateway",
        version=version("video-gateway"),
        summary="The OpenAI Videos API in front of any video vendor.",
        lifespan=lifespan,
        docs_url=None,  # see http/health.py
        redoc_url=None,
        redirect_slashes=False,
    )
    app.router.routes.extend(_all_routes())
    install_error_handlers(app, dialects.render_error)
    app.add_exception_handler(405, _method_not_allowed)
    https = (chosen.public_url or "").startswith("https:")
    app.add_middleware(
        RequestMiddleware, render_error=dialects.render_error, max_body_bytes=chosen.max_body_mb * 2**20, https=https
    )
    return app


async def _method_not_allowed(request: Request, error: Exception) -> Response:
    """Render a 405 with the methods of all routes of the path; the route that raised it knows only its own."""
    routes = request.app.routes
    allowed = (
        method
        for method in METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    )
    return to_response(request.scope, HTTPException(405, headers={"Allow": ", ".join(allowed)}), dialects.render_error)


def serving_app() -> FastAPI:
    """Application factory: `uvicorn --factory app.main:serving_app --http app.http.server:HttpProtocol`."""
    config = settings.load()
    telemetry.configure_logging(config)
    return create_app(config)
