"""Responses with one video or a page of them."""

from collections.abc import Sequence
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse

from app.db.models import Attempt, Video
from app.dialects.openai import schemas
from app.dialects.openai.lumenfall import routing_headers, wants_routing
from app.dialects.openai.wire import render
from app.http.context import Gateway
from app.http.openapi import Responses, parameter
from app.http.responses import no_store
from app.jobs import videos

DRY_RUN = parameter("query", "dryRun", "Estimate the cost and create nothing.", kind="boolean")
CREATED: Responses = {
    202: {"model": schemas.Video},
    200: {
        "description": "A dry run, or the video that an earlier request with the same idempotency key created.",
        "model": schemas.Video | schemas.Estimate,
    },
}


async def shown(
    page: Sequence[Video], gateway: Gateway, request: Request, *, untried: bool = False
) -> list[dict[str, Any]]:
    """Render videos. If the response has their routing, one query reads the attempts of all; `untried` ones have none
    yet."""
    if not wants_routing(request):
        return [render(video, gateway, request) for video in page]
    attempts: dict[str, list[Attempt]] = {}
    if page and not untried:
        async with gateway.db.reading() as connection:
            attempts = await videos.last_attempts_of(connection, [video.id for video in page])
    return [render(video, gateway, request, attempts=attempts.get(video.id, ())) for video in page]


async def answer(
    video: Video, gateway: Gateway, request: Request, *, status: int = 200, untried: bool = False
) -> JSONResponse:
    headers = routing_headers(video)
    if not video.status.ended:
        provider, _, model = str(video.routes[0]).partition("/")
        headers["openai-poll-after-ms"] = str(gateway.durations.poll_after_ms(provider, model))
    [content] = await shown([video], gateway, request, untried=untried)
    return no_store(content, status=status, headers=headers)
