"""Lumenfall's request log, its purge and its list of keys, all of the project of the caller's key.

Shapes: docs.lumenfall.ai/api-reference/requests and /keys, and the vendor's `agent-skill` 1.2.2, read 2026-11-26. The
id of a request is that of its video: a create is a row, a refused one is not. Inferred: the names in `summary`. Null,
since it is not stored: session, trace, and size of the request. `purged_at`, `expires_at` and `revoked_at` are this
gateway's own.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import Query, Request
from fastapi.responses import Response
from pydantic import AwareDatetime, BeforeValidator
from sqlalchemy import RowMapping

from app import errors
from app.accounts import pricing
from app.accounts.keys import KeysOfProject
from app.db.pages import Page, Place, Window
from app.dialects.openai.router import AliasedRouter
from app.http.context import CallerDep, Gateway, GatewayDep
from app.http.fields import iso_moment
from app.http.openapi import ResponseModel, may_be_absent, returns
from app.http.responses import no_store
from app.jobs import payloads, request_log
from app.jobs.filters import Filters, find_place
from app.jobs.request_log import STATES, Outcome
from app.jobs.search import summarize
from app.video import MAX_NAME_CHARACTERS

routes = AliasedRouter(tags=["requests"])

FILTERS = ("limit", "created_after", "created_before", "key_id", "status", "summary")
"""Parameters that the address of another page keeps."""


Limit = Annotated[int, Query(ge=1, le=100, description="Longest page.")]
Given = Annotated[str | None, Query(max_length=MAX_NAME_CHARACTERS, pattern=r"^[^\x00]*$")]
Moment = Annotated[AwareDatetime | None, BeforeValidator(lambda value: value if value is None else iso_moment(value))]


# Responses


class LoggedRequest(ResponseModel):
    """A create in the request log; its id is that of its video."""

    id: str
    object: Literal["request"]
    created_at: AwareDatetime
    model: str
    modality: Literal["video"]
    endpoint: str | None
    """The usual path of a create in the API that was called; it may have been another one of that API."""
    status: str
    """`pending`, `processing`, `completed`, `upstream_failure` or `cancelled`."""
    cost: float | None
    """Null until it is known."""
    currency: Literal["usd"]
    duration_ms: int | None
    key_id: str | None
    error_code: str | None
    error_message: str | None
    session_id: None
    trace_id: None
    user: str | None
    request_size_bytes: None
    response_size_bytes: int | None
    purged_at: AwareDatetime | None


class RequestSummary(ResponseModel):
    total_count: int
    total_cost: float | None
    currency: Literal["usd"]


class RequestPage(ResponseModel):
    """A page of requests, newest first."""

    object: Literal["list"]
    data: list[LoggedRequest]
    next_page_url: str | None
    """Path and query of the page with older ones."""
    previous_page_url: str | None
    summary: RequestSummary = may_be_absent()
    """Present with `summary=true`."""


class PurgedRequest(ResponseModel):
    """The result of a purge."""

    id: str
    purged: Literal[True]
    already_purged: bool
    media_deleted: int
    """Number of files."""


class ProjectKey(ResponseModel):
    """A key of the project, without the key itself."""

    id: str
    object: Literal["key"]
    name: str | None
    last_four: str | None
    """Null for a key from the gateway's settings."""
    status: Literal["active", "revoked"]
    created_at: AwareDatetime | None
    expires_at: AwareDatetime | None
    revoked_at: AwareDatetime | None


class ProjectKeyPage(ResponseModel):
    """A page of keys, newest first."""

    object: Literal["list"]
    data: list[ProjectKey]
    next_page_url: str | None
    previous_page_url: str | None


# Requests


@routes.get("/v1/requests", responses=returns(RequestPage))
async def list_requests(
    request: Request,
    gateway: GatewayDep,
    caller: CallerDep,
    limit: Limit = 20,
    starting_after: Annotated[Given, Query(description="Id of the last entry of the page before.")] = None,
    ending_before: Annotated[Given, Query(description="Id of the first entry of the page behind.")] = None,
    created_after: Annotated[Moment, Query(description="ISO 8601 with an offset, included.")] = None,
    created_before: Annotated[Moment, Query(description="ISO 8601 with an offset, included.")] = None,
    key_id: Annotated[Given, Query(description="Only requests with this key.")] = None,
    status: Annotated[Outcome | None, Query(description="Only requests with this status.")] = None,
    summary: Annotated[bool, Query(description="Add number and cost of all matching requests.")] = False,
) -> Response:
    """List your project's requests, one for each video, newest first. `next_page_url` leads to older ones. `summary`
    adds number and cost of all matching requests."""
    states = None if status is None else STATES[status]
    filters = Filters(caller.project_id, key_id, states, created_after=created_after, created_before=created_before)
    cursor = _cursor(starting_after, ending_before)
    async with gateway.db.reading() as connection:
        place = await find_place(connection, cursor[1], project_id=caller.project_id) if cursor else None
        page = await request_log.list_requests(connection, filters, _window(limit, cursor, place))
        totals = await summarize(connection, filters) if summary else None
    body = _listing(request, page, [_request(row, gateway.create_paths) for row in page.rows])
    if totals is not None:
        cost = pricing.dollars(totals.cost_micros)
        body["summary"] = {"total_count": totals.count, "total_cost": cost, "currency": "usd"}
    return no_store(body)


@routes.get("/v1/requests/{request_id}", responses=returns(LoggedRequest))
async def retrieve_request(request_id: str, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Read one request: status, cost, duration and error. Its id is that of the video."""
    async with gateway.db.reading() as connection:
        row = await request_log.get_request(connection, request_id, project_id=caller.project_id)
    return no_store(_request(row, gateway.create_paths))


@routes.delete("/v1/requests/{request_id}/payloads", responses=returns(PurgedRequest))
async def purge_payloads(request_id: str, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Delete for ever what was sent with a request and what was made of it: prompt, media, texts of errors, files. The
    video must have ended; its status, times, figures and cost stay. A repeated call does no harm."""
    async with gateway.db.transaction() as session:
        purged = await payloads.purge_payloads(session, request_id, project_id=caller.project_id, now=gateway.clock())
    deleted = await payloads.purge_files(gateway.store, request_id)
    return no_store({"id": request_id, "purged": True, "already_purged": not purged, "media_deleted": deleted})


def _request(row: RowMapping, create_paths: Mapping[str, str]) -> dict[str, Any]:
    ended, sizes = row["ended_at"], [output["size"] for output in row["outputs"]]
    return {
        "id": row["id"],
        "object": "request",
        "created_at": _iso(row["created_at"]),
        "model": row["model"],
        "modality": "video",
        "endpoint": create_paths.get(row["dialect"]),
        "status": str(request_log.outcome_of(row["status"], row["error_code"])),
        "cost": pricing.dollars(row["cost_micros"]),
        "currency": "usd",
        "duration_ms": None if ended is None else max(0, round((ended - row["created_at"]).total_seconds() * 1000)),
        "key_id": row["key_id"] or None,
        "error_code": row["error_code"],
        "error_message": row["error_message"],
        "session_id": None,
        "trace_id": None,
        "user": row["user"],
        "request_size_bytes": None,
        "response_size_bytes": sum(sizes) if sizes else None,
        "purged_at": _iso(row["purged_at"]),
    }


# Keys


@routes.get("/v1/keys", responses=returns(ProjectKeyPage))
async def list_keys(
    request: Request,
    gateway: GatewayDep,
    caller: CallerDep,
    limit: Limit = 20,
    starting_after: Annotated[Given, Query(description="Id of the last entry of the page before.")] = None,
    ending_before: Annotated[Given, Query(description="Id of the first entry of the page behind.")] = None,
    status: Annotated[Literal["active", "revoked"] | None, Query(description="Only keys with this status.")] = None,
) -> Response:
    """List the keys of your project, newest first, without the keys themselves. A key that has expired is `revoked`,
    too."""
    cursor, now = _cursor(starting_after, ending_before), gateway.clock()
    keys = _keys_of(gateway, caller.project_id)
    async with gateway.db.reading() as connection:
        place = await keys.find_place(connection, cursor[1], now=now) if cursor else None
        is_active = None if status is None else status == "active"
        page = await keys.read(connection, is_active=is_active, window=_window(limit, cursor, place), now=now)
    return no_store(_listing(request, page, [_key(row) for row in page.rows]))


def _keys_of(gateway: Gateway, project_id: str) -> KeysOfProject:
    static = gateway.authenticator.static_projects
    return KeysOfProject(project_id, in_settings=project_id in static, name_in_settings=static.get(project_id))


def _key(row: RowMapping) -> dict[str, Any]:
    return {
        "id": row["id"],
        "object": "key",
        "name": row["name"],
        "last_four": row["last_four"],
        "status": "active" if row["is_active"] else "revoked",
        "created_at": _iso(row["created_at"]),
        "expires_at": _iso(row["expires_at"]),
        "revoked_at": _iso(row["revoked_at"]),
    }


# Pages


def _cursor(starting_after: str | None, ending_before: str | None) -> tuple[str, str] | None:
    """Name and value of the cursor that was given. Raises `InvalidRequest` for both."""
    if starting_after is not None and ending_before is not None:
        raise errors.InvalidRequest(
            "ending_before and starting_after exclude each other; send one of them",
            param="ending_before",
            code="invalid_value",
        )
    if starting_after is not None:
        return "starting_after", starting_after
    return None if ending_before is None else ("ending_before", ending_before)


def _window(limit: int, cursor: tuple[str, str] | None, place: Place | None) -> Window:
    """The page to read. Raises `InvalidRequest` for a cursor that was not found."""
    if cursor is None:
        return Window(limit)
    name, value = cursor
    if place is None:
        message = f"{name}: {value!r:.80} is not in this list, or not any more; start again without {name}"
        raise errors.InvalidRequest(message, param=name, code="invalid_value")
    return Window(limit, after=place) if name == "starting_after" else Window(limit, before=place)


def _listing(request: Request, page: Page, data: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Lumenfall's list object; the addresses of other pages are relative to the host, with the path prefix of a proxy,
    and keep the filters."""
    older = _page_url(request, "starting_after", data[-1]["id"]) if page.has_older else None
    newer = _page_url(request, "ending_before", data[0]["id"]) if page.has_newer else None
    return {"object": "list", "data": list(data), "next_page_url": older, "previous_page_url": newer}


def _page_url(request: Request, name: str, value: str) -> str:
    given = request.query_params
    kept = [(filter_name, given[filter_name]) for filter_name in FILTERS if filter_name in given]
    return f"{request.scope['gateway_prefix']}{request.url.path}?{urlencode([(name, value), *kept])}"


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
