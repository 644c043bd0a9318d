"""The library: the videos of a project, or of all for the operator; each one's page, its files, and its end."""

from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import ValidationError

from app import errors
from app.accounts import ledger
from app.admin.schemas import redact
from app.console.cards import COLUMNS, Card, card_of
from app.console.guard import ConsoleRoute, KeyHolderDep, Visitor, VisitorDep
from app.console.pages import Values, go, render
from app.db.models import Video
from app.http import request_facts
from app.http.context import Gateway, GatewayDep, end_video
from app.http.files import content_response
from app.http.filters import ListQuery
from app.http.stream import stream_response
from app.jobs import search, videos
from app.webhooks.deliveries import list_deliveries
from app.webhooks.events import queue_key_of

routes = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

PAGE = 24
MAX_ENTRIES = 100
"""Ledger entries and deliveries that a video's page shows."""
STATES = {
    "": "All",
    "queued": "Queued",
    "in_progress": "Running",
    "completed": "Ready",
    "failed": "Failed",
    "cancelled": "Cancelled",
}


@routes.get("/console/videos")
async def show_videos(request: Request, gateway: GatewayDep, visitor: VisitorDep) -> Response:
    """Show a page of the list, narrowed by the filters in the address."""
    given = {name: value for name, value in request.query_params.items() if value.strip()}
    problem, found = "", None
    try:
        query = ListQuery.model_validate({**given, "limit": PAGE})
        filters = query.filters(request, visitor.project_id)
        found = await search.find_page(gateway.db, filters, query.wanted, COLUMNS)
    except ValidationError as error:
        wrong = error.errors()[0]
        problem = f"{wrong['loc'][0]}: {wrong['msg']}"
    except errors.InvalidRequest as error:
        problem = error.message
    now = gateway.clock()
    narrowed = {name: value for name, value in given.items() if name != "after"}
    return await render(
        request,
        "videos.html",
        status=400 if problem else 200,
        cards=[Card(row, now) for row in found.rows] if found is not None else [],
        found=found,
        problem=problem,
        given=Values(given),
        narrowed=narrowed,
        states=STATES,
        is_first="after" not in given,
    )


@routes.get("/console/videos/{video_id}/card")
async def show_card(video_id: str, request: Request, gateway: GatewayDep, visitor: VisitorDep) -> Response:
    """Send the card of one video, for a list that is open."""
    video = await _video_of(gateway, visitor, video_id)
    return await render(request, "_card.html", card=card_of(video, gateway.clock()))


@routes.get("/console/feed")
async def stream_changes(request: Request, gateway: GatewayDep, visitor: VisitorDep) -> Response:
    """Stream the ids of videos that change, for pages that are open: they ask for what they show."""

    async def ids_of(found: list[Video]) -> list[dict[str, Any]]:
        return [{"id": video.id} for video in found]

    return stream_response(request, gateway, project_id=visitor.project_id, caller=visitor.caller, render=ids_of)


@routes.get("/console/videos/{video_id}")
async def show_video(video_id: str, request: Request, gateway: GatewayDep, visitor: VisitorDep) -> Response:
    """Show everything about one video; for a page that is open, what changes while it runs."""
    video = await _video_of(gateway, visitor, video_id)
    async with gateway.db.reading() as connection:
        attempts = await videos.list_attempts(connection, video_id)
        entries = await ledger.list_entries(
            connection, project_id=video.project_id, video_id=video_id, after=None, limit=MAX_ENTRIES
        )
        deliveries, _ = await list_deliveries(
            connection, project_id=video.project_id, video_id=video_id, after=None, limit=MAX_ENTRIES
        )
    requested = redact(video.request)
    if "webhook" in requested:
        hook = video.request["webhook"]  # its path and query often hold a token
        requested["webhook"] = {"url": queue_key_of(hook["url"]), "style": hook["style"]}
    return await render(
        request,
        "_video.html" if "hx-request" in request.headers else "video.html",
        card=card_of(video, gateway.clock()),
        video=video,
        attempts=attempts,
        entries=entries[::-1],
        deliveries=deliveries,
        requested=Values(requested),
    )


@routes.get("/console/videos/{video_id}/content/{index}")
@routes.head("/console/videos/{video_id}/content/{index}")
async def play(
    video_id: str,
    index: int,
    request: Request,
    gateway: GatewayDep,
    visitor: VisitorDep,
    download: bool = False,
) -> Response:
    """Send a video file, or part of it."""
    response = await content_response(request, gateway, await _video_of(gateway, visitor, video_id), index)
    if download:
        shown = response.headers["content-disposition"]
        response.headers["content-disposition"] = shown.replace("inline", "attachment", 1)
    return response


@routes.get("/console/videos/{video_id}/{variant}/{index}")
async def show_picture(
    video_id: str,
    variant: Literal["thumbnail", "spritesheet"],
    index: int,
    request: Request,
    gateway: GatewayDep,
    visitor: VisitorDep,
) -> Response:
    """Send a picture of a video file, which is made when it is first asked for."""
    video = await _video_of(gateway, visitor, video_id)
    return await content_response(request, gateway, video, index, variant=variant)


@routes.get("/console/videos/{video_id}/end")
async def confirm_end(
    video_id: str, request: Request, gateway: GatewayDep, visitor: VisitorDep, caller: KeyHolderDep
) -> Response:
    """Ask before a video is cancelled or deleted."""
    card = card_of(await _video_of(gateway, visitor, video_id), gateway.clock())
    return await render(request, "end.html", card=card)


@routes.post("/console/videos/{video_id}/end")
async def end(video_id: str, request: Request, gateway: GatewayDep, caller: KeyHolderDep) -> Response:
    """Cancel a running video, or delete one that has ended."""
    cancelled = await end_video(gateway, caller, video_id)
    return go(request, f"videos/{video_id}", "cancelled") if cancelled else go(request, "videos", "deleted")


async def _video_of(gateway: Gateway, visitor: Visitor, video_id: str) -> Video:
    video = await videos.get_video(gateway.db, video_id, project_id=visitor.project_id)
    request_facts.note_video(video)
    return video
