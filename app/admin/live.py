"""Administration API, events: server-sent events about the videos of all projects."""

from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response, StreamingResponse

from app.admin.schemas import row_json
from app.db.models import Video
from app.http.context import GatewayDep
from app.http.stream import EVENT_STREAM, RESUME, stream_response

SHOWN = frozenset(
    {
        *("id", "project_id", "key_id", "dialect", "status", "progress", "model", "provider", "upstream_model"),
        *("error_code", "cost_estimate_micros", "cost_micros", "settlement"),
        *("created_at", "updated_at", "completed_at", "ended_at", "expires_at"),
    }
)
"""Columns of a video in an event, which are none of its texts: those are at `/admin/v1/videos/{id}`."""
_HIDDEN = tuple(column.name for column in Video.__table__.columns if column.name not in SHOWN)

routes = APIRouter(tags=["administration"])


async def _waiting_slot(gateway: GatewayDep) -> AsyncIterator[None]:
    with gateway.waiting.slot("admin"):
        yield


@routes.get(
    "/admin/v1/events",
    response_class=StreamingResponse,
    dependencies=[Depends(_waiting_slot)],
    responses=EVENT_STREAM,
    openapi_extra={"parameters": [*RESUME]},
)
async def stream_all_events(request: Request, gateway: GatewayDep) -> Response:
    """Stream server-sent events about the videos of all projects: those of `GET /v1/events`, with ids, status, routes,
    money and times of each video, and its `project`; without prompts and other texts."""
    return stream_response(request, gateway, project_id=None, caller=None, render=_render)


async def _render(videos: list[Video]) -> list[dict[str, Any]]:
    return [{**row_json(video, without=_HIDDEN), "object": "video"} for video in videos]
