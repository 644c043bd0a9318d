"""Several videos of the library at once: selected ones cancelled or deleted, and all failed ones deleted."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from app import errors, ids
from app.accounts.auth import Caller
from app.console.cards import card_of
from app.console.guard import ConsoleRoute, KeyHolderDep, Visitor, VisitorDep, form_of
from app.console.library import OWN, given_of, query_of
from app.console.pages import go, render
from app.db.models import Video
from app.http.context import Gateway, GatewayDep, end_video
from app.http.filters import find_page
from app.jobs import videos
from app.jobs.filters import Filters, State
from app.jobs.search import Wanted

routes = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

MAX_AT_ONCE = 200
"""Videos that one request ends."""
_IDS = (Video.__table__.c.id, Video.__table__.c.ended_at)
TYPED_FROM = 51
"""Number of videos from which it has to be typed before they are deleted."""


@routes.get("/console/videos/selected")
async def lead_to_library(request: Request, visitor: VisitorDep) -> Response:
    """Lead to the library: the answer to a form has its address, which browsers open again."""
    return go(request, "videos")


@routes.post("/console/videos/selected")
async def end_selected(request: Request, gateway: GatewayDep, caller: KeyHolderDep) -> Response:
    """Cancel those of the selected videos that run, or delete those that have ended; asks first."""
    form = await form_of(request)
    deletes = form.get("do") == "delete"
    if not deletes and form.get("do") != "cancel":
        raise errors.InvalidRequest("choose what to do with the selected videos", param="do", code="invalid_value")
    chosen = [name for name in form if ids.is_id(name, "video")][:MAX_AT_ONCE]
    async with gateway.db.reading() as connection:
        found = await videos.get_videos(connection, chosen, project_id=caller.project_id)
    fitting = [video for video in found if video.status.ended is deletes]
    values: dict[str, Any] = {"deletes": deletes, "left_out": len(chosen) - len(fitting)}
    if form.get("sure") != "yes":
        now = gateway.clock()
        return await render(request, "selected.html", cards=[card_of(video, now) for video in fitting], **values)
    done = await _end_all(gateway, caller, [video.id for video in fitting], has_ended=deletes)
    return await render(request, "ended.html", done=done, left=len(chosen) - done, deletes=deletes)


@routes.get("/console/videos/failed")
async def confirm_failed(request: Request, gateway: GatewayDep, visitor: VisitorDep, caller: KeyHolderDep) -> Response:
    """Say how many failed videos match the filters of the address, and ask before they are deleted."""
    filters, until = await _failed_of(request, gateway, visitor), gateway.clock()
    found = await find_page(gateway, filters, Wanted(0, summary=True), _IDS, holder=caller.project_id)
    count = found.totals.count if found.totals is not None else 0
    values = {"count": count, "until": until.isoformat(), "typed_from": TYPED_FROM, **_address(request)}
    return await render(request, "failed.html", problem=None, **values)


@routes.post("/console/videos/failed")
async def delete_failed(request: Request, gateway: GatewayDep, visitor: VisitorDep, caller: KeyHolderDep) -> Response:
    """Delete the failed videos that the page has counted, at most `MAX_AT_ONCE`; says how many are left."""
    form = await form_of(request)
    count, until = _counted(form)
    values = {"count": count, "until": until.isoformat(), "typed_from": TYPED_FROM, **_address(request)}
    if count >= TYPED_FROM and form.get("number", "").strip() != str(count):
        problem = errors.InvalidRequest(f"Type {count} to delete so many videos.", param="number")
        return await render(request, "failed.html", status=400, problem=problem, **values)
    filters = await _failed_of(request, gateway, visitor)
    most = min(count, MAX_AT_ONCE)
    chosen, has_more = await _failed_until(gateway, caller, filters, until, most)
    done = await _end_all(gateway, caller, chosen, has_ended=True)
    left = count - done if has_more else 0
    return await render(request, "ended.html", done=done, left=left, deletes=True, continues=left > 0, **values)


def _counted(form: Mapping[str, str]) -> tuple[int, datetime]:
    """The number that a page has named, and the time of its count. Raises `InvalidRequest`."""
    given = form.get("count", "")
    try:
        until = datetime.fromisoformat(form.get("until", ""))
    except ValueError:
        until = datetime.min  # noqa: DTZ901  # without an offset, as others that are refused
    if not given.isdecimal() or not 0 < len(given) < 9 or until.utcoffset() is None:
        raise errors.InvalidRequest("this form is incomplete; open the page again", param="count")
    return int(given), until


async def _failed_until(
    gateway: Gateway, caller: Caller, filters: Filters, until: datetime, most: int
) -> tuple[list[str], bool]:
    """The newest videos that had failed at a time, `most` at most, and whether there are more. Others that have failed
    since are passed over, however old they are."""
    before = until if filters.created_before is None else min(until, filters.created_before)
    filters, wanted, chosen = replace(filters, created_before=before), Wanted(most + 1), list[str]()
    while True:
        found = await find_page(gateway, filters, wanted, _IDS, holder=caller.project_id)
        chosen += [row["id"] for row in found.rows if row["ended_at"] <= until]
        if len(chosen) > most or not found.has_more or not found.rows:
            return chosen[:most], len(chosen) > most or found.has_more
        wanted = replace(wanted, after=found.last_id)


async def _failed_of(request: Request, gateway: Gateway, visitor: Visitor) -> Filters:
    _, filters = await query_of(request, gateway, visitor, given_of(request))
    return replace(filters, states=(State.failed,))


def _address(request: Request) -> dict[str, Any]:
    """The filters of the address, for the next page."""
    return {"narrowed": {name: value for name, value in given_of(request).items() if name not in (*OWN, "status")}}


async def _end_all(gateway: Gateway, caller: Caller, video_ids: Iterable[str], *, has_ended: bool) -> int:
    """End videos one by one; returns the number of those that were as expected."""
    done = 0
    for video_id in video_ids:
        try:
            await end_video(gateway, caller, video_id, has_ended=has_ended)
        except (errors.NotFound, errors.Conflict):  # changed or gone since it was read
            continue
        done += 1
    return done
