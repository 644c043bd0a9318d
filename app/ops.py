"""What operators and orchestrators ask: /healthz, /readyz, /metrics."""

import hmac
import math
import time
from importlib.metadata import version

import sqlalchemy as sa
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from app import errors, videos
from app.db import unavailable
from app.dialects.base import Gateway, GatewayDep
from app.telemetry import QUEUE, QUEUE_AGE, REGISTRY

QUEUE_READ_S = 5
"""How often a process counts the queue for /metrics, however often it is asked."""

routes = APIRouter(tags=["operations"])


@routes.get("/healthz")
async def healthz() -> Response:
    """The process answers. Says nothing about the database, so that its absence restarts nobody."""
    return JSONResponse({"status": "ok", "version": version("video-gateway")})


@routes.get("/readyz", responses={503: {"description": "Not now."}})
async def readyz(gateway: GatewayDep) -> Response:
    """200 when requests can be served: the database answers and the schema is current (checked at start); else 503."""
    try:
        async with gateway.db.reading() as connection:
            await connection.execute(sa.text("select 1 from videos limit 1"))
    except Exception as error:
        if not unavailable(error):
            raise
        return JSONResponse({"status": "database unavailable"}, status_code=503, headers={"retry-after": "2"})
    return JSONResponse({"status": "ready"})


@routes.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request, gateway: GatewayDep) -> Response:
    """Prometheus metrics of this process, and of the queue that all processes share. With `GATEWAY_METRICS_KEY` it
    wants that key as a bearer token."""
    _require_key(request, gateway)
    state = request.app.state
    if time.monotonic() - getattr(state, "queue_read_at", -math.inf) >= QUEUE_READ_S:
        state.queue_read_at = time.monotonic()  # before the query: those who ask meanwhile do not repeat it
        await _read_queue(gateway)
    return PlainTextResponse(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)


def _require_key(request: Request, gateway: Gateway) -> None:
    key = gateway.settings.metrics_key
    if key is None:
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    right = hmac.compare_digest(given.strip().encode(), key.get_secret_value().encode())
    if scheme.lower() != "bearer" or not right:
        raise errors.AuthenticationFailed("send the metrics key as `Authorization: Bearer <key>`")


async def _read_queue(gateway: Gateway) -> None:
    try:
        async with gateway.db.reading() as connection:
            counts, age_s = await videos.queue(connection, now=gateway.clock())
        QUEUE.clear()
        for (provider, state), count in counts.items():
            QUEUE.labels(provider, state).set(count)
        QUEUE_AGE.set(age_s)
    except Exception as error:
        if not unavailable(error):
            raise
        QUEUE.clear()
        QUEUE_AGE.set(math.nan)
