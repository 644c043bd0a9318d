"""Operational routes: /healthz, /readyz, /metrics, /docs and /openapi.json."""

import asyncio
import re
from base64 import b64encode
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from app import errors
from app.http.context import GatewayDep, gateway_of, origin_of, require_operator
from app.http.openapi import METRICS_KEY, ResponseModel, may_be_absent, returns
from app.jobs import presence
from app.telemetry.metrics import REGISTRY

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
    """Return the Prometheus metrics of this server, and those of the whole gateway that its database has. If
    `GATEWAY_METRICS_KEY` is set, it is required as a bearer token."""
    if gateway.settings.metrics_key is not None:
        require_operator(request, {"metrics": gateway.settings.metrics_key}, "metrics")
    await gateway.gauges.refresh()
    page = await asyncio.to_thread(generate_latest, REGISTRY)  # thousands of lines take a tenth of a second
    return PlainTextResponse(page, media_type=CONTENT_TYPE_LATEST)
