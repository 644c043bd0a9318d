"""What operators and orchestrators ask: /healthz, /readyz, /metrics."""

from importlib.metadata import version

import sqlalchemy as sa
from fastapi import APIRouter
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from app import videos
from app.db import unavailable
from app.dialects.base import GatewayDep
from app.telemetry import QUEUE, QUEUE_AGE, REGISTRY

routes = APIRouter(tags=["operations"])


@routes.get("/healthz")
async def healthz() -> Response:
    """The process answers. Says nothing about the database, so that its absence restarts nobody."""
    return JSONResponse({"status": "ok", "version": version("video-gateway")})


@routes.get("/readyz")
async def readyz(gateway: GatewayDep) -> Response:
    """200 when requests can be served: the database answers and the schema is current (checked at start); else 503."""
    try:
        async with gateway.db.reading() as connection:
            await connection.execute(sa.text("select 1 from videos limit 1"))
    except Exception as error:
        if not unavailable(error):
            raise
        return JSONResponse({"status": "database unavailable"}, status_code=503, headers={"retry-after": "2"})
    return JSONResponse({"status": "ready", "providers": list(gateway.providers)})


@routes.get("/metrics")
async def metrics(gateway: GatewayDep) -> Response:
    """Prometheus metrics of this process, and of the queue that all processes share."""
    QUEUE.clear()
    try:
        async with gateway.db.reading() as connection:
            counts, age_s = await videos.queue(connection, now=gateway.clock())
        for (provider, state), count in counts.items():
            QUEUE.labels(provider, state).set(count)
        QUEUE_AGE.set(age_s)
    except Exception as error:
        if not unavailable(error):
            raise
        QUEUE_AGE.set(float("nan"))
    return PlainTextResponse(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)
