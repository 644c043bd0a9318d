"""Server that the gateway is compared with: FastAPI routes on the same uvicorn that do nothing, that send the gateway's
own statements raw through psycopg, and Starlette's FileResponse.

    python -m benchmarks.baseline PORT DATABASE_URL FILE
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from app import ids
from app.db.models import Video
from app.jobs.enqueue import CREATE

CONNECTIONS = 10
"""As many as the gateway's pool holds by default."""
GET = f"select {', '.join(Video.__table__.columns.keys())} from videos where id = %s and deleted_at is null"
DOCUMENT = {
    "id": "video_01jd3c8m2v9x4y6z8a0b2c4d6e",
    "object": "video",
    "model": "sandbox/testcard",
    "status": "queued",
    "progress": 0,
    "created_at": 1_795_255_200,
    "completed_at": None,
    "expires_at": None,
    "prompt": "a paper boat on a pond",
    "size": "720x1280",
    "seconds": "4",
    "remixed_from_video_id": None,
    "error": None,
    "output": None,
    "metadata": {},
}

Connection = psycopg.AsyncConnection[dict[str, Any]]


def create_parameters(video_id: str, body: dict[str, Any]) -> dict[str, Any]:
    """The parameters of the gateway's own statement, for one job."""
    now = datetime.now(UTC)
    return {
        "id": video_id,
        "project_id": "bench",
        "key_id": "bench",
        "dialect": "openai",
        "request_id": ids.new("req"),
        "traceparent": None,
        "model": body["model"],
        "request": Jsonb(body),
        "routes": Jsonb(["sandbox/testcard"]),
        "warnings": Jsonb([]),
        "cost_estimate_micros": 0,
        "prices": Jsonb([0]),
        "hold_micros": 0,
        "longest_s": 4.0,
        "entry": ids.new("txn"),
        "reserve": 0,
        "app": None,
        "user": None,
        "day": now.date(),
        "choices": Jsonb([]),
        "source_video_id": None,
        "idempotency_key": None,
        "idempotency_hash": None,
        "deadline_at": now + timedelta(hours=1),
        "provider": "sandbox",
        "upstream_model": "testcard",
        "attempts": [ids.new("att")],
        "now": now,
    }


def create_app(database_url: str, file: str) -> FastAPI:
    free: asyncio.LifoQueue[Connection] = asyncio.LifoQueue()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        for _ in range(CONNECTIONS):
            free.put_nowait(await psycopg.AsyncConnection.connect(database_url, autocommit=True, row_factory=dict_row))
        yield
        while not free.empty():
            await free.get_nowait().close()

    @asynccontextmanager
    async def connected() -> AsyncIterator[Connection]:
        connection = await free.get()
        try:
            yield connection
        finally:
            free.put_nowait(connection)

    app = FastAPI(lifespan=lifespan)

    @app.get("/bare/{video_id}")
    async def bare_get(video_id: str) -> Response:
        return JSONResponse(DOCUMENT)

    @app.post("/bare")
    async def bare_create(request: Request) -> Response:
        await request.json()
        return JSONResponse(DOCUMENT)

    @app.get("/raw/{video_id}")
    async def raw_get(video_id: str) -> Response:
        async with connected() as connection:
            row = await (await connection.execute(GET, [video_id], prepare=True)).fetchone()
        return Response(json.dumps(row, default=str), media_type="application/json")

    @app.post("/raw")
    async def raw_create(request: Request) -> Response:
        body = await request.json()
        video_id = ids.new("video")
        async with connected() as connection:
            await connection.execute(CREATE, create_parameters(video_id, body), prepare=True)
        return JSONResponse({**DOCUMENT, "id": video_id})

    @app.get("/file")
    async def content() -> Response:
        return FileResponse(file, media_type="video/mp4")

    return app


def main(port: str, database_url: str, file: str) -> None:
    app = create_app(database_url, file)
    # As in app/cli/serve.py.
    uvicorn.run(app, port=int(port), log_config=None, access_log=False, server_header=False, timeout_keep_alive=75)


if __name__ == "__main__":
    main(*sys.argv[1:])
