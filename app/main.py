"""Composition root: builds the gateway's parts, and the application that serves them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.metadata import version

from fastapi import APIRouter, FastAPI, HTTPException, Request
from fastapi.responses import Response
from starlette.routing import BaseRoute, Match

from app import console, dialects, providers, settings
from app.accounts import audit, auth, pepper, projects, secrets
from app.accounts.operator_keys import OperatorKeys
from app.admin import routes as admin
from app.console.pages import error_page
from app.db.address import Address, read_address
from app.db.clock import DatabaseClock
from app.db.database import Database, read_and_warn, running_database
from app.db.faults import explained
from app.db.listener import Listener
from app.db.migrate import require_current_schema, upgrade_schema
from app.http import health, home, media
from app.http.address_limit import AddressLimit
from app.http.context import Gateway
from app.http.cors import Cors
from app.http.errors import WITHOUT_VERSION, install_error_handlers, to_response
from app.http.middleware import METHODS, RequestMiddleware
from app.http.openapi import DescribedApp, error_responses, operation_id
from app.http.proxies import ProxyMiddleware
from app.http.slashes import SlashMiddleware
from app.http.slots import Slots
from app.http.spool import Bodies
from app.jobs.changes import SharedReads
from app.jobs.durations import Durations
from app.jobs.gauges import Gauges
from app.jobs.metrics import begin_at_zero
from app.jobs.search import SEARCHES_AT_ONCE
from app.jobs.worker import Worker
from app.media.bucket import check_bucket
from app.media.signed_links import SignedLinks
from app.media.store import Store
from app.media.turns import Turns
from app.providers import rest
from app.providers.routing import Router
from app.settings import Settings
from app.telemetry import logs, traces
from app.webhooks.sender import Sender

WEBHOOK_TESTS = 3
"""Test events of one project at once, per process."""

Clock = Callable[[], datetime]


@dataclass(frozen=True)
class Parts:
    gateway: Gateway
    worker: Worker


WAITING = ("requests of this key wait here; poll, or use webhooks", "too_many_waiting")
SEARCHES = ("searches are under way here; repeat this one when one has ended", "too_many_searches")
"""Messages and codes of refusals, behind the number."""


@asynccontextmanager
async def open_parts(config: Settings, *, clock: Clock | None = None) -> AsyncIterator[Parts]:
    """Open all parts and close them again. Raises `ConfigurationError` with the next step.

    An embedded database is migrated; any other must have the current schema. Without `clock`, the database's is used.
    """
    # First, because their errors can be found without a database.
    configs, upstreams = dialects.configure(config), providers.build(config, starts=True)
    begin_at_zero(upstreams)
    await check_bucket(config.storage_url)
    async with AsyncExitStack() as stack:
        url, database = await stack.enter_async_context(_opened_database(config))
        clock = clock or DatabaseClock()
        with explained():
            if isinstance(clock, DatabaseClock):
                await stack.enter_async_context(clock.synchronised(database))
            await require_secrets(database, config, now=clock())
        for provider in upstreams.values():
            stack.push_async_callback(provider.aclose)
        store = Store.from_settings(config)
        signed = SignedLinks(secrets.derive_secret(config, "links"), config, clock)
        listener = Listener(_listened(config, url), database.notify)
        stack.push_async_callback(listener.stop, asyncio.create_task(listener.run()))
        authenticator = auth.Authenticator(database, config, listener, clock)
        with explained():
            async with database.transaction() as session:
                await projects.ensure_projects(session, authenticator.static_projects, now=clock())
        stack.push_async_callback(_ended, asyncio.create_task(authenticator.uses.run()))
        stack.push_async_callback((durations := Durations(database)).close)
        sender = Sender(config, clock=clock, links=signed, styles=dialects.WEBHOOK_STYLES)
        stack.push_async_callback(sender.aclose)
        worker = Worker(
            db=database, settings=config, providers=upstreams, store=store, links=signed, sender=sender, clock=clock
        )
        router = Router(config, upstreams, clock, providers.KIND_NAMES)
        if router.stand_ins:
            logs.log.info("no vendor is configured, the sandbox makes test cards", in_place_of=router.stand_ins)
        gateway = Gateway(
            settings=config,
            dialects=configs,
            create_paths={dialects.name_of(each): dialects.create_paths(each)[0] for each in dialects.DIALECTS},
            db=database,
            providers=upstreams,
            router=router,
            store=store,
            links=signed,
            authenticator=authenticator,
            operator_keys=OperatorKeys(),
            sender=sender,
            clock=clock,
            listener=listener,
            changed_videos=SharedReads(database, listener),
            durations=durations,
            gauges=Gauges(database, upstreams, clock),
            waiting=Slots(config.max_waiting, *WAITING),
            searches=Slots(SEARCHES_AT_ONCE, *SEARCHES),
            webhook_tests=Slots(WEBHOOK_TESTS, "test events of this project are being sent", "too_many_tests"),
            character_turns={name: Turns(rest.CHARACTERS_AT_ONCE) for name in upstreams},
            wake=worker.wake,
        )
        yield Parts(gateway, worker)


def _listened(config: Settings, url: str) -> Address:
    """The address of the connection that listens: that of the database, without a pooler in between."""
    listening = config.database_listen_url
    return read_address(url) if listening is None else read_and_warn(listening, "GATEWAY_DATABASE_LISTEN_URL")


async def _ended(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait for what it does last."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@asynccontextmanager
async def _opened_database(config: Settings) -> AsyncIterator[tuple[str, Database]]:
    """Yield the address and the open pools of the database, with the current schema."""
    async with running_database(config) as url:
        if config.database_url is None:
            await upgrade_schema(url, audit.migrated_by(audit.command_actor()))
        else:
            await require_current_schema(url)
        database = Database(url, pool_size=config.database_pool_size, prepare=config.database_prepare)
        try:
            await database.open()
            yield url, database
        finally:
            await database.close()


async def require_secrets(database: Database, config: Settings, *, now: datetime) -> None:
    """Check the secrets of the settings and compare them with the database. Raises `ConfigurationError`."""
    async with database.transaction() as session:
        secrets.require_strong(config, is_new=await pepper.is_new_installation(session))
        await pepper.require_pepper(session, config, now=now)


@cache
def _all_routes() -> Sequence[BaseRoute]:
    """Build the routes once for all applications of a process: FastAPI parses every signature at each inclusion."""
    router = APIRouter()
    *vendors, openai = dialects.DIALECTS
    included = [(openai, ""), *((dialect, dialects.name_of(dialect)) for dialect in reversed(vendors))]
    for dialect, prefix in included:  # OpenAI first: it gets the most requests
        errors, named = error_responses(dialect.ErrorModel), operation_id(prefix)
        router.include_router(dialect.routes, responses=errors, generate_unique_id_function=named)
    for others, prefix in ((media.routes, ""), (health.routes, ""), (home.routes, ""), (admin.routes, "admin")):
        errors, named = error_responses(openai.ErrorModel), operation_id(prefix)
        router.include_router(others, responses=errors, generate_unique_id_function=named)
    return router.routes


@cache
def _console_routes() -> Sequence[BaseRoute]:
    router = APIRouter()
    for pages in console.ROUTES:
        router.include_router(pages)
    return router.routes


def create_app(config: Settings | None = None, *, clock: Clock | None = None) -> FastAPI:
    """Build the ASGI application; all stateful parts start and stop with its lifespan."""
    chosen = config or settings.load()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Callable[[], None]]]:
        async with traces.running("server"), open_parts(chosen, clock=clock) as parts:
            app.state.gateway, app.state.worker = parts.gateway, parts.worker
            app.state.started_at = parts.gateway.clock()
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

    app = DescribedApp(
        title="video-gateway",
        version=version("video-gateway"),
        summary="The OpenAI Videos API in front of any video vendor.",
        description="Every POST takes JSON, multipart/form-data and application/x-www-form-urlencoded; multipart is "
        "described where files can be sent.",
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        lifespan=lifespan,
        openapi_url=None,  # see http/health.py, which adds the address of the gateway
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},  # has addresses
    )
    app.router.routes.extend(_all_routes())
    if chosen.console:
        app.router.routes.extend(_console_routes())
    install_error_handlers(app, dialects.render_error)
    app.add_exception_handler(405, _method_not_allowed)
    https = (chosen.public_url or "").startswith("https:")
    max_body_bytes = chosen.max_body_mb * 2**20
    app.add_middleware(
        RequestMiddleware,
        render_error=dialects.render_error,
        name_dialect=dialects.name_at,
        max_body_bytes=max_body_bytes,
        bodies=Bodies(chosen.max_bodies_mb * 2**20, max_body_bytes),
        cors=Cors(chosen.cors_origins, [*dialects.PREFIXES, *WITHOUT_VERSION]),
        https=https,
        error_page=error_page if chosen.console else None,
        addresses=AddressLimit(per_minute) if (per_minute := chosen.address_requests_per_minute) else None,
    )
    app.add_middleware(SlashMiddleware, prefixes=dialects.PREFIXES)
    app.add_middleware(ProxyMiddleware, trusted=chosen.trusted_proxies)
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
    logs.configure_logging(config)
    return create_app(config)
