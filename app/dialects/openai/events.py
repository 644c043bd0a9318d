"""Server-sent events about one video, until it ends."""

import json
from collections.abc import AsyncIterator
from functools import partial

from fastapi import Depends, Request
from fastapi.responses import Response, StreamingResponse

from app import errors
from app.accounts.auth import Caller
from app.db.faults import is_unavailable
from app.db.models import Video
from app.dialects.openai.responses import shown
from app.dialects.openai.router import AliasedRouter
from app.http.context import CallerDep, Gateway, GatewayDep, get_video
from app.http.openapi import parameter
from app.http.wait import waiting_slot, watch_video

KEEP_ALIVE_S = 15
"""Seconds between keep-alive comments: proxies close idle streams."""

routes = AliasedRouter(tags=["videos"])


@routes.get(
    "/v1/videos/{video_id}/events",
    response_class=StreamingResponse,
    dependencies=[Depends(waiting_slot)],
    responses={
        200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
        204: {"description": "The client has received the last event."},
    },
    openapi_extra={"parameters": [parameter("header", "Last-Event-ID", "Id of the last event received.")]},
)
async def stream_events(video_id: str, request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Stream server-sent events: `status` and `progress` with the video object, `end` as the last one. `Last-Event-ID`
    skips the events already received; after `end` the response is 204, at which an EventSource stops."""
    video = await get_video(gateway, caller, video_id)  # a 404 is a response, not an event
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    if video.status.ended and request.headers.get("last-event-id") == _end_mark(video):
        return Response(status_code=204, headers=headers)
    events = _events(video_id, request, gateway, caller)
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


async def _events(video_id: str, request: Request, gateway: Gateway, caller: Caller) -> AsyncIterator[bytes]:
    seen = request.headers.get("last-event-id", "")
    while True:
        try:
            video = await watch_video(
                request, gateway, caller, video_id, until=partial(_is_news, seen=seen), timeout_s=KEEP_ALIVE_S
            )
            news = await shown([video] if _is_news(video, seen=seen) else [], gateway, request)
        except errors.GatewayError:  # the key was revoked, or the video deleted: end the stream
            return
        except Exception as error:
            if is_unavailable(error):  # end it, too; the client connects again
                return
            raise
        data = json.dumps(news[0] if news else None, ensure_ascii=False)
        if _mark(video) != seen:
            name = "progress" if seen.startswith(f"{video.status}.") else "status"
            yield _event(name, _mark(video), data)
            seen = _mark(video)
        elif not video.status.ended:
            yield b": still here\n\n"
        if video.status.ended:
            yield _event("end", _end_mark(video), data)
            return
        if gateway.listener.closed:
            return


def _mark(video: Video) -> str:
    """The id of an event: status and progress of the video."""
    return f"{video.status}.{video.progress}"


def _end_mark(video: Video) -> str:
    """The id of the last event, which differs from that of the status before it: a client cut off in between still
    needs the `end`."""
    return f"{_mark(video)}.end"


def _is_news(video: Video, *, seen: str) -> bool:
    return video.status.ended or _mark(video) != seen


def _event(name: str, mark: str, data: str) -> bytes:
    return f"id: {mark}\nevent: {name}\ndata: {data}\n\n".encode()
