"""Operational routes: /healthz, /readyz, /metrics and /docs."""

import math
import re
import socket
import time
from base64 import b64encode
from hashlib import sha256
from importlib.metadata import version
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer
from pydantic import SecretStr

from app import errors
from app.accounts import auth
from app.db.faults import is_unavailable
from app.http.context import Gateway, GatewayDep
from app.jobs import videos
from app.telemetry import QUEUE, QUEUE_AGE, REGISTRY

QUEUE_READ_S = 5
"""Shortest interval between two counts of the queue for /metrics, per process."""
RELEASE = version("video-gateway")
"""Read once, because it is read from a file: a process without free file descriptors is still alive."""

SWAGGER = "https://cdn.jsdelivr.net/npm/swagger-ui-dist@5/"
DOCS_POLICY = (
    "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; connect-src 'self'; "
    f"script-src {SWAGGER} 'sha256-{{}}'; style-src {SWAGGER} 'unsafe-inline'; "
    "img-src 'self' data: blob: https://fastapi.tiangolo.com/img/"
)
"""Allows what Swagger UI loads: itself, inline styles, icons in its style sheet, images in responses, FastAPI's favicon
and the OpenAPI document. The page's own script is allowed by its hash."""

routes = APIRouter(tags=["operations"])


@routes.get("/healthz")
async def healthz() -> Response:
    """Report that the process responds. The database is not checked, so that its outage restarts no process."""
    return JSONResponse({"status": "ok", "version": RELEASE})


@routes.get("/readyz", responses={503: {"description": "The database is unavailable."}})
async def readyz(gateway: GatewayDep) -> Response:
    """Report readiness: 200 if the database responds, takes writes and its schema is current (checked at start), else
    503 with the reason."""
    fault = await gateway.db.check()
    if fault is None:
        return JSONResponse({"status": "ready"})
    body = {"status": "database unavailable", "reason": fault.text}
    return JSONResponse(body, status_code=503, headers={"retry-after": "2"})


@routes.api_route("/docs", methods=["GET", "HEAD"], include_in_schema=False)
async def docs(request: Request) -> Response:
    """FastAPI's Swagger UI page, with a content security policy that allows only what it needs."""
    app: FastAPI = request.app
    address = f"{request.scope.get('root_path', '').rstrip('/')}{app.openapi_url}"
    page = get_swagger_ui_html(
        openapi_url=address,
        title=f"{app.title} - Swagger UI",
        swagger_js_url=f"{SWAGGER}swagger-ui-bundle.js",
        swagger_css_url=f"{SWAGGER}swagger-ui.css",
    )
    script = re.findall(rb"<script>(.*?)</script>", page.body, re.DOTALL)[0]
    page.headers["content-security-policy"] = DOCS_POLICY.format(b64encode(sha256(script).digest()).decode())
    return page


@routes.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request, gateway: GatewayDep) -> Response:
    """Return the Prometheus metrics of this process, and of the queue that all processes share. If
    `GATEWAY_METRICS_KEY` is set, it is required as a bearer token."""
    _require_key(request, gateway)
    state = request.app.state
    if time.monotonic() - getattr(state, "queue_read_at", -math.inf) >= QUEUE_READ_S:
        state.queue_read_at = time.monotonic()  # before the query, so that concurrent requests do not repeat it
        await _read_queue(gateway)
    return PlainTextResponse(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)


def _require_key(request: Request, gateway: Gateway) -> None:
    key = gateway.settings.metrics_key
    if key is None:
        return
    auth.require_key(key, request.headers.get("authorization", ""), "metrics")


def show_metrics(host: str, port: int, key: SecretStr | None) -> None:
    """Serve metrics in a thread, for a process that serves nothing else; `key` is required unless it is None."""
    metrics = make_wsgi_app(REGISTRY)

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Any:
        try:
            if key is not None:
                auth.require_key(key, environ.get("HTTP_AUTHORIZATION", ""), "metrics")
        except errors.AuthenticationFailed as error:
            start_response("401 Unauthorized", [("content-type", "text/plain"), ("www-authenticate", "Bearer")])
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
        QUEUE.clear()
        for (provider, state), count in counts.items():
            QUEUE.labels(provider, state).set(count)
        QUEUE_AGE.set(age_s)
    except Exception as error:
        if not is_unavailable(error):
            raise
        QUEUE.clear()
        QUEUE_AGE.set(math.nan)
