"""The library: the videos of a project, or of all for the operator, as cards or as a table, with filters."""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field, ValidationError
from sqlalchemy import RowMapping

from app import errors, ids
from app.admin.video_list import AdminListQuery
from app.console.cards import COLUMNS, card_of, cards_of, usual_s
from app.console.guard import ConsoleRoute, Visitor, VisitorDep, require_session
from app.console.pages import Values, go, render
from app.console.videos import video_of
from app.db.models import Video
from app.http.context import Gateway, GatewayDep
from app.http.filters import ListQuery, find_page
from app.http.stream import stream_response
from app.jobs import search
from app.jobs.filters import Filters, State
from app.jobs.search import Found, Wanted

routes = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

PAGE = 24
STATES = {
    "": "All",
    "queued": "Queued",
    "in_progress": "Running",
    "completed": "Ready",
    "failed": "Failed",
    "cancelled": "Cancelled",
}
OWN = ("after", "before", "view", "said")
"""Parameters of the page that are no filters."""
_LOCAL = re.compile(r"(\d{4}-\d\d-\d\d)(?:[Tt](\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?))?")
"""A day, or a time without an offset, as fields of forms send it."""


class _Page(BaseModel):
    """Parameters of the page itself."""

    view: Literal["grid", "table"] | None = None
    before: Annotated[str, Field(max_length=100)] | None = None
    """The id of a video; the page is the one in front of it."""
    said: str = ""


class HolderQuery(_Page, ListQuery):
    """The address of the library of a project."""


class OperatorQuery(_Page, AdminListQuery):
    """The address of the library of all projects."""


@dataclass(frozen=True)
class Listed:
    """A page of the list, or the reason why there is none."""

    rows: Sequence[RowMapping] = ()
    looked: search.Looked | None = None
    older: str | None = None
    """The `after` of the next page."""
    newer: str | None = None
    """The `before` of the previous page."""
    is_short: bool = False
    """True for a page before another that is not full: the first page has more."""
    counts: Mapping[State, int] = field(default_factory=dict)
    problem: errors.GatewayError | None = None
    moments: Mapping[str, str] = field(default_factory=dict)
    """The times of the filters for fields of a form, in UTC."""


@routes.get("/console/videos")
async def show_videos(request: Request, gateway: GatewayDep, visitor: VisitorDep) -> Response:
    """Show a page of the list, narrowed by the filters in the address."""
    given = given_of(request)
    if ids.is_id(given.get("q", ""), "video"):
        return go(request, f"videos/{given['q']}")
    narrowed = {name: value for name, value in given.items() if name not in OWN}
    kept = narrowed | {name: given[name] for name in ("view",) if name in given}
    listed = await _read(request, gateway, visitor, given)
    if listed.is_short:
        return go(request, f"videos?{urlencode(kept)}")
    is_table = given.get("view", "grid" if visitor.caller else "table") == "table"
    return await render(
        request,
        "videos.html",
        status=listed.problem.status_code if listed.problem else 200,
        plays=True,
        listed=listed,
        request_id=request.scope["gateway_request_id"],
        cards=cards_of(gateway, listed.rows, gateway.clock()),
        given=Values(given),
        narrowed=narrowed,
        kept=kept,
        is_table=is_table,
        selectable=visitor.caller is not None,
        states=STATES,
        counts=_counts(listed.counts),
        deletable=_deletable(visitor, given, listed),
        models=_models(gateway, visitor, given.get("model")),
        providers=_with(sorted(gateway.providers), given.get("provider")),
        is_first="after" not in given and "before" not in given,
    )


@routes.get("/console/videos/{video_id}/card")
async def show_card(
    video_id: str,
    request: Request,
    gateway: GatewayDep,
    visitor: VisitorDep,
    view: Literal["", "grid", "table"] = "",
) -> Response:
    """Send the card of one video, for a list that is open; with `view` for the library."""
    video = await video_of(gateway, visitor, video_id)
    values = {"selectable": visitor.caller is not None} if view else {}
    template = "_row.html" if view == "table" else "_card.html"
    card = card_of(video, gateway.clock())
    card = replace(card, usual_s=usual_s(gateway, card)) if card.is_running else card
    return await render(request, template, card=card, **values)


async def _feed_slot(gateway: GatewayDep, visitor: VisitorDep) -> AsyncIterator[None]:
    with gateway.waiting.slot(f"console {visitor.holder.key_hash}"):  # beside those of the key's API requests
        yield


@routes.get("/console/feed", dependencies=[Depends(_feed_slot)])
async def stream_changes(request: Request, gateway: GatewayDep, visitor: VisitorDep) -> Response:
    """Stream the ids of videos that change, for pages that are open: they ask for what they show."""

    async def ids_of(found: list[Video]) -> list[dict[str, Any]]:
        return [{"id": video.id} for video in found]

    return stream_response(
        request,
        gateway,
        project_id=visitor.project_id,
        caller=visitor.caller,
        render=ids_of,
        check=partial(require_session, gateway, visitor),
    )


def given_of(request: Request) -> dict[str, str]:
    """The parameters of the address that have a value; times get an offset, UTC if they have none."""
    given = {name: value for name, value in request.query_params.items() if value.strip()}
    for name, end_of_day in (("created_after", "00:00:00"), ("created_before", "23:59:59.999999")):
        match = _LOCAL.fullmatch(given.get(name, ""))
        if match:
            given[name] = f"{match[1]}T{match[2] or end_of_day}Z"
    return given


async def query_of(
    request: Request, gateway: Gateway, visitor: Visitor, given: Mapping[str, str]
) -> tuple[ListQuery, Filters]:
    """The query of an address and its filters. Raises `InvalidRequest`, `NotFound` for an unknown project."""
    model = OperatorQuery if visitor.is_operator else HolderQuery
    try:
        query = model.model_validate({**given, "limit": PAGE, "order": "desc", "summary": False})
    except ValidationError as error:
        wrong = error.errors()[0]
        name = str(wrong["loc"][0])
        raise errors.InvalidRequest(f"{name}: {wrong['msg']}", param=name, code="invalid_value") from None
    project_id = await query.project_id(gateway) if isinstance(query, OperatorQuery) else visitor.project_id
    return query, query.filters(request, project_id)


async def _read(request: Request, gateway: Gateway, visitor: Visitor, given: Mapping[str, str]) -> Listed:
    try:
        query, filters = await query_of(request, gateway, visitor, given)
        before = given.get("before")
        wanted = Wanted(PAGE, before, ascending=True) if before else query.wanted
        found = await find_page(gateway, filters, wanted, COLUMNS, holder=visitor.project_id or "admin")
        async with gateway.db.reading() as connection:
            counts = await search.count_states(connection, filters)
    except (errors.InvalidRequest, errors.NotFound, errors.RateLimited) as error:
        return Listed(problem=error)
    listed = _upwards(found, counts) if before else _downwards(found, counts, given)
    moments = {name: _field_value(getattr(query, name)) for name in ("created_after", "created_before")}
    return replace(listed, moments=moments)


def _downwards(found: Found, counts: Mapping[State, int], given: Mapping[str, str]) -> Listed:
    newer = found.rows[0]["id"] if found.rows and "after" in given else None
    older = found.last_id if found.has_more else None
    return Listed(found.rows, found.looked, older, newer, counts=counts)


def _upwards(found: Found, counts: Mapping[State, int]) -> Listed:
    """The page in front of another one, which was read oldest first."""
    if not found.has_more:
        return Listed(is_short=True)
    rows = found.rows[::-1]
    return Listed(rows, found.looked, rows[-1]["id"] if rows else None, found.last_id, counts=counts)


def _counts(counts: Mapping[State, int]) -> dict[str, str]:
    """The counts behind the words of the states, by their names in addresses."""
    found = {str(state): number for state, number in counts.items()}
    if "failed" in found:
        found["failed"] += found["cancelled"]  # as the filter of the API has it
    most = search.MAX_COUNTED
    return {name: f"{most:,}+" if number >= most else str(number) for name, number in found.items() if number}


def _deletable(visitor: Visitor, given: Mapping[str, str], listed: Listed) -> str | None:
    """The words about failed videos that can be deleted together; None: there are none here."""
    if visitor.caller is None or listed.problem or given.get("status", "failed") != "failed":
        return None
    if not listed.counts:  # filters without an index: they are counted on the next page
        return "Delete all failed that match…" if listed.rows else None
    number = listed.counts[State.failed]
    if number >= search.MAX_COUNTED:
        return "Delete all failed…"
    return f"Delete all {number} failed…" if number else None


def _models(gateway: Gateway, visitor: Visitor, given: str | None) -> list[str]:
    caller = visitor.caller
    router = gateway.router
    found = router.models(every=False) if caller is None else router.permitted_models(caller.may_use, every=False)
    return _with(list(found), given)


def _with(choices: list[str], given: str | None) -> list[str]:
    """The choices, and what was typed in the address beside them."""
    return choices if given is None or given in choices else [*choices, given]


def _field_value(at: datetime | None) -> str:
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}".removesuffix(":00")
