"""The administration API, money: credits, the ledger, usage, and submits whose outcome nobody knows."""

from datetime import timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from app.accounts import ledger as usage
from app.accounts import pricing as prices
from app.accounts import projects
from app.accounts.reports import as_csv, dimensions_of, report, span_of, usage_row
from app.admin import repairs
from app.admin.schemas import Day, Dollars, Given, listing, micros_or_refuse, no_store, project_object
from app.db.models import Attempt, Video
from app.db.rows import to_json
from app.http.body import body_of, body_schema, validated
from app.http.context import Gateway, GatewayDep

routes = APIRouter(tags=["administration"])


class Credit(BaseModel):
    """POST /admin/v1/projects/{project_id}/credits."""

    model_config = ConfigDict(extra="forbid")

    amount_usd: Dollars
    """What the balance grows by; with a minus, what it shrinks by."""
    reference: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """Your word for it, such as an invoice number: the same one is credited once, so that a repeated call is safe."""


class Repair(BaseModel):
    """POST /admin/v1/repairs/{attempt_id}."""

    model_config = ConfigDict(extra="forbid")

    action: Literal["find", "resubmit", "fail"]
    upstream_ref: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    """With `find`: the upstream's name for the task, as its console shows it."""


@routes.post("/admin/v1/projects/{project_id}/credits", status_code=201, openapi_extra=body_schema(Credit))
async def credit_project(project_id: str, request: Request, gateway: GatewayDep) -> Response:
    """Add to the balance of a project."""
    async with body_of(request) as body:
        wire = validated(Credit, body)
    amount = micros_or_refuse(wire.amount_usd, "amount_usd")
    async with gateway.db.transaction() as session:
        project = await projects.get_project(session, project_id)
        await usage.credit(session, project, amount, reference=wire.reference, now=gateway.clock())
    return no_store(await project_object(gateway, project), status=201)


# Usage


@routes.get("/admin/v1/usage", responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}})
async def show_usage(
    gateway: GatewayDep,
    since: Day | None = None,
    until: Day | None = None,
    by: Annotated[str, Query(max_length=100)] = "day",
    project: Given = None,
    form: Annotated[Literal["json", "csv"], Query(alias="format")] = "json",
) -> Response:
    """What was used from `since` to `until`, both included (UTC, the last 30 days); `by` any of project, key, model,
    provider, app, user and day, comma separated. `format=csv` for a spreadsheet."""
    dimensions = dimensions_of(by)
    since, until = span_of(since, until, today=usage.day_of(gateway.clock()))
    async with gateway.db.transaction() as session:
        owner = (await projects.get_project(session, project)).id if project is not None else None
        connection = await session.connection()
        rows = await report(connection, dimensions, since=since, until=until, owner=owner)
    shown = [usage_row(row) for row in rows]
    if form == "csv":
        return Response(
            as_csv(dimensions, shown),
            media_type="text/csv",
            headers={"content-disposition": f'attachment; filename="usage-{since}-{until}.csv"'},
        )
    whole = {"since": since.isoformat(), "until": until.isoformat(), "by": dimensions}
    return no_store({"object": "usage", **whole, "data": shown})


@routes.get("/admin/v1/ledger")
async def show_ledger(
    gateway: GatewayDep,
    project: Given = None,
    video: Given = None,
    after: Given = None,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
) -> Response:
    """The entries of the ledger, newest first; page on with `after=<last_id>` while `has_more`."""
    async with gateway.db.transaction() as session:
        owner = (await projects.get_project(session, project)).id if project is not None else None
        connection = await session.connection()
        found = await usage.list_entries(connection, owner=owner, video_id=video, after=after, limit=limit + 1)
    data = [to_json(entry) for entry in found[:limit]]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return no_store({**listing(data), **ends, "has_more": len(found) > limit})


# Submits whose outcome nobody knows


@routes.get("/admin/v1/repairs")
async def list_repairs(gateway: GatewayDep) -> Response:
    """Submits of which nobody knows whether the upstream took them; what they may cost is held until you decide."""
    async with gateway.db.reading() as connection:
        found = await repairs.listed(connection)
    return no_store(listing([_repair(attempt, video, gateway) for attempt, video in found]))


@routes.post("/admin/v1/repairs/{attempt_id}", openapi_extra=body_schema(Repair))
async def decide(attempt_id: str, request: Request, gateway: GatewayDep) -> Response:
    """`find` goes on with the task that the upstream has under `upstream_ref`, `resubmit` has it made once more, `fail`
    gives the money back."""
    async with body_of(request) as body:
        wire = validated(Repair, body)
    match wire.action:
        case "find":
            await repairs.find(gateway, attempt_id, wire.upstream_ref)
        case "resubmit":
            await repairs.resubmit(gateway, attempt_id)
        case "fail":
            await repairs.fail(gateway, attempt_id)
    gateway.wake()
    return JSONResponse({"id": attempt_id, "object": "repair.decided", "action": wire.action})


def _repair(attempt: Attempt, video: Video, gateway: Gateway) -> dict[str, Any]:
    given_back = attempt.ended_at and attempt.ended_at + timedelta(seconds=gateway.settings.late_watch_s)
    return {
        "id": attempt.id,
        "object": "repair",
        "video": video.id,
        "video_status": str(video.status),
        "project": video.owner,
        "provider": attempt.provider,
        "upstream_model": attempt.upstream_model,
        "upstream_ref": attempt.upstream_ref,
        "submitted_at": attempt.submitted_at and attempt.submitted_at.isoformat(),
        "prompt": str(video.request["prompt"])[:200],
        "held_usd": prices.dollars(video.hold_micros),
        "given_back_at": given_back and given_back.isoformat(),
        "error": {"code": attempt.error_code, "message": attempt.error_message, "body": attempt.error_body},
        "actions": ["find", "resubmit", "fail"],
    }
