"""Administration API, billing: credits, the ledger and usage."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from app.accounts import ledger, projects
from app.accounts.reports import OPERATORS, dimensions_of, report, span_of
from app.admin import responses
from app.admin.schemas import Dollars, Given, GivenProject, micros_or_refuse, project_object, row_json
from app.http.body import body_of, body_schema, validated
from app.http.context import GatewayDep
from app.http.openapi import returns
from app.http.operator import ActorDep
from app.http.parameters import only_known_parameters
from app.http.responses import no_store, page_of
from app.http.usage import By, Format, Since, Until, usage_response

routes = APIRouter(tags=["administration"], dependencies=[Depends(only_known_parameters)])


class Credit(BaseModel):
    """POST /admin/v1/projects/{project_id}/credits."""

    model_config = ConfigDict(
        extra="forbid",
        use_attribute_docstrings=True,
        json_schema_extra={"examples": [{"amount_usd": 50, "reference": "invoice 17"}]},
    )

    amount_usd: Dollars
    """Added to the balance; a negative amount is subtracted."""
    reference: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """Your reference, such as an invoice number: the same one is credited once, so that a repeated call is safe."""


@routes.post(
    "/admin/v1/projects/{project_id}/credits",
    status_code=201,
    responses=returns(responses.Project, 201),
    openapi_extra=body_schema(Credit),
)
async def credit_project(project_id: str, request: Request, gateway: GatewayDep, actor: ActorDep) -> Response:
    """Credit the balance of a project."""
    async with body_of(request, Credit) as body:
        wire = validated(Credit, body, keep_nulls=True)
    amount = micros_or_refuse(wire.amount_usd, "amount_usd")
    async with gateway.db.transaction() as session:
        project = await projects.get_project(session, project_id)
        await ledger.credit(session, project, amount, reference=wire.reference, actor=actor, now=gateway.clock())
    return no_store(await project_object(gateway, project), status=201)


# Usage


@routes.get(
    "/admin/v1/usage",
    responses={200: {"model": responses.UsageReport, "content": {"text/csv": {"schema": {"type": "string"}}}}},
    dependencies=[Depends(only_known_parameters)],
)
async def show_usage(
    gateway: GatewayDep,
    since: Since = None,
    until: Until = None,
    by: By = "day",
    project: GivenProject = None,
    form: Format = "json",
) -> Response:
    """Report usage from `since` to `until`, both included (UTC, default: the last 30 days), grouped `by` any of
    project, key, model, provider, app, user and day, comma-separated. `format=csv` returns a spreadsheet."""
    dimensions = dimensions_of(by)
    first, last = span_of(since, until, today=ledger.day_of(gateway.clock()))
    project_id = None
    if project is not None:
        async with gateway.db.transaction() as session:  # one of its own: it locks the project
            project_id = (await projects.get_project(session, project)).id
    async with gateway.db.transaction() as session:
        rows = await report(
            await session.connection(), dimensions, since=first, until=last, project_id=project_id, bounds=OPERATORS
        )
    return await usage_response(dimensions, rows, since=first, until=last, form=form)


@routes.get("/admin/v1/ledger", responses=returns(responses.LedgerPage))
async def show_ledger(
    gateway: GatewayDep,
    project: GivenProject = None,
    video: Annotated[Given, Query(description="Only entries of this video, by id.")] = None,
    after: Annotated[Given, Query(description="The `last_id` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=1_000, description="Longest page.")] = 100,
) -> Response:
    """List the entries of the ledger, newest first. Request the next page with `after=<last_id>` while `has_more` is
    true."""
    async with gateway.db.transaction() as session:
        project_id = (await projects.get_project(session, project)).id if project is not None else None
        connection = await session.connection()
        found = await ledger.list_entries(
            connection, project_id=project_id, video_id=video, after=after, limit=limit + 1
        )
    data = [row_json(entry) for entry in found[:limit]]
    return no_store(page_of(data, has_more=len(found) > limit))
