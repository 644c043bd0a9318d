"""Operational routes: /healthz, /readyz, /metrics, /docs and /openapi.json."""

import math
import re
import socket
import time
from base64 import b64encode
from datetime import UTC, datetime
from hashlib import sha256
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from typing import Annotated, Any, Literal
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer
from pydantic import SecretStr

from app import errors
from app.accounts.operator_keys import OperatorKeys
from app.db.faults import is_unavailable
from app.http.context import Gateway, GatewayDep, gateway_of, origin_of, require_operator
from app.http.openapi import METRICS_KEY, ResponseModel, may_be_absent, returns
from app.jobs import presence, videos
from app.telemetry.metrics import QUEUE, QUEUE_AGE, REGISTRY, WORKERS

QUEUE_READ_S = 5
"""Shortest interval between two counts of the queue for /metrics, per process."""
SILENCE_S = 300
"""Seconds without a sign of a worker after which `/readyz?deep=1` reports it."""
RELEASE = version("video-gateway")
"""Read once, because it is read from a file: a process without free file descriptors is still alive."""

STATIC = Path(__file__).parent / "static"
SWAGGER_UI = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}
DOCS_POLICY = (
    "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; connect-src 'self'; "
    "script-src 'self' 'sha256-{}'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:"
)
"""Allows what Swagger UI loads: its two files, inline styles, icons in its style sheet, images in responses and the
OpenAPI document; nothing from another host. The page's own script is allowed by its hash."""

routes = APIRouter(tags=["operations"])


class Health(ResponseModel):
    """A sign of life."""

    status: Literal["ok"]
    version: str


class Readiness(ResponseModel):
    """The readiness to serve requests."""

    status: str
    """`ready`, or what is missing."""
    reason: str = may_be_absent()
    """Details of a fault of the database."""


@routes.get("/healthz", responses=returns(Health))
async def healthz() -> Response:
    """Report that the process responds. The database is not checked, so that its outage restarts no process."""
    return JSONResponse({"status": "ok", "version": RELEASE})


@routes.get(
    "/readyz",
    responses={
        200: {"model": Readiness},
        503: {"description": "The database is unavailable, or no worker runs.", "model": Readiness},
    },
)
async def readyz(
    request: Request,
    gateway: GatewayDep,
    deep: Annotated[bool, Query(description="Also require that a worker runs.")] = False,
) -> Response:
    """Report readiness: 200 if the database responds, takes writes and its schema is current (checked at start), else
    503 with the reason. With `?deep=1` also 503 if no worker was seen for five minutes."""
    fault = await gateway.db.check()
    if fault is not None:
        body = {"status": "database unavailable", "reason": fault.text}
        return JSONResponse(body, status_code=503, headers={"retry-after": "2"})
    if deep:
        async with gateway.db.reading() as connection:
            seen = await presence.read_presence(connection)
        up_s = (gateway.clock() - request.app.state.started_at).total_seconds()
        silence_s = up_s if seen.silence_s is None else seen.silence_s
        if silence_s > SILENCE_S:
            return JSONResponse({"status": f"no worker for {silence_s:.0f} s"}, status_code=503)
    return JSONResponse({"status": "ready"})


@routes.api_route("/openapi.json", methods=["GET", "HEAD"], include_in_schema=False)
def openapi_document(request: Request) -> Response:
    """The OpenAPI document. Its first server is the address at which the client reached this gateway, the only one that
    /docs may call; the second one is the public address, if it is another. In a thread: building it takes a while."""
    app: FastAPI = request.app
    public = gateway_of(request).settings.public_url
    addresses = dict.fromkeys([origin_of(request), *([public] if public else [])])
    return JSONResponse({**app.openapi(), "servers": [{"url": address} for address in addresses]})


@routes.api_route("/docs", methods=["GET", "HEAD"], include_in_schema=False)
async def docs(request: Request) -> Response:
    """FastAPI's Swagger UI page, with a content security policy that allows only what it needs."""
    app: FastAPI = request.app
    root = request.scope["gateway_prefix"]
    page = get_swagger_ui_html(
        openapi_url=f"{root}/openapi.json",
        title=f"{app.title} - Swagger UI",
        swagger_js_url=f"{root}/docs/swagger-ui-bundle.js",
        swagger_css_url=f"{root}/docs/swagger-ui.css",
        swagger_favicon_url="data:,",
    )
    script = re.findall(rb"<script>(.*?)</script>", page.body, re.DOTALL)[0]
    page.headers["content-security-policy"] = DOCS_POLICY.format(b64encode(sha256(script).digest()).decode())
    return page


@routes.api_route("/docs/{name}", methods=["GET", "HEAD"], include_in_schema=False)
async def docs_file(name: str) -> Response:
    """A file of Swagger UI, which the package contains; so the page works without internet."""
    if name not in SWAGGER_UI:
        raise errors.NotFound("there is no such file; the documentation is at /docs", code="unknown_url")
    return FileResponse(STATIC / name, media_type=SWAGGER_UI[name], headers={"cache-control": "public, max-age=3600"})


@routes.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    openapi_extra={"security": [{}, {METRICS_KEY: []}]},
)
async def metrics(request: Request, gateway: GatewayDep) -> Response:
    """Return the Prometheus metrics of this process, and of the queue that all processes share. If
    `GATEWAY_METRICS_KEY` is set, it is required as a bearer token."""
    if gateway.settings.metrics_key is not None:
        require_operator(request, {"metrics": gateway.settings.metrics_key}, "metrics")
    state = request.app.state
    if time.monotonic() - getattr(state, "queue_read_at", -math.inf) >= QUEUE_READ_S:
        state.queue_read_at = time.monotonic()  # before the query, so that concurrent requests do not repeat it
        await _read_queue(gateway)
    return PlainTextResponse(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)


def show_metrics(host: str, port: int, key: SecretStr | None) -> None:
    """Serve metrics in a thread, for a process that serves nothing else; `key` is required unless it is None."""
    metrics, keys = make_wsgi_app(REGISTRY), OperatorKeys()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Any:
        try:
            if key is not None:
                header, address = environ.get("HTTP_AUTHORIZATION", ""), environ.get("REMOTE_ADDR", "")
                keys.require({"metrics": key}, header, what="metrics", address=address, now=datetime.now(UTC))
        except (errors.AuthenticationFailed, errors.RateLimited) as error:
            status = f"{error.status_code} {HTTPStatus(error.status_code).phrase}"
            headers = {**error.headers, "content-type": "text/plain", "www-authenticate": "Bearer"}
            start_response(status, list(headers.items()))
            return [f"{error.message}\n".encode()]
        return metrics(environ, start_response)

    class Server(ThreadingWSGIServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    server = make_server(host, port, app, Server, _QuietHandler)
    Thread(target=server.serve_forever, daemon=True).start()


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # named as in the base class
        """Log nothing: metrics are scraped every few seconds."""


async def _read_queue(gateway: Gateway) -> None:
    try:
        async with gateway.db.reading() as connection:
            counts, age_s = await videos.count_queue(connection, now=gateway.clock())
            workers = await presence.read_presence(connection)
        QUEUE.clear()
        for (provider, state), count in counts.items():
            QUEUE.labels(provider, state).set(count)
        QUEUE_AGE.set(age_s)
        WORKERS.set(workers.running)
    except Exception as error:
        if not is_unavailable(error):
            raise
        QUEUE.clear()
        QUEUE_AGE.set(math.nan)
        WORKERS.set(math.nan)
