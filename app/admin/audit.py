"""Administration API, audit log: who changed what."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response

from app.accounts import audit, projects
from app.admin import responses
from app.admin.schemas import Given, GivenProject, Moment
from app.http.context import GatewayDep
from app.http.openapi import returns
from app.http.parameters import only_known_parameters
from app.http.responses import no_store, page_of

routes = APIRouter(tags=["administration"])


@routes.get("/admin/v1/audit", responses=returns(responses.AuditPage), dependencies=[Depends(only_known_parameters)])
async def show_audit(
    gateway: GatewayDep,
    actor: Annotated[Given, Query(description="Name of the admin key, or user and host of a command.")] = None,
    action: Annotated[Given, Query(description="Such as `key.create`.")] = None,
    subject: Annotated[Given, Query(description="Id of what was changed.")] = None,
    project: GivenProject = None,
    since: Annotated[Moment | None, Query(description="Earliest time, ISO 8601 with an offset.")] = None,
    until: Annotated[Moment | None, Query(description="Latest time, ISO 8601 with an offset.")] = None,
    after: Annotated[Given, Query(description="The `last_id` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=1_000, description="Longest page.")] = 100,
) -> Response:
    """List the changes by operators, newest first. Request the next page with `after=<last_id>` while `has_more` is
    true."""
    async with gateway.db.transaction() as session:
        project_id = (await projects.get_project(session, project)).id if project is not None else None
        wanted = audit.Wanted(actor, action, subject, project_id, since, until)
        found = await audit.list_entries(await session.connection(), wanted, after=after, limit=limit + 1)
    return no_store(page_of([audit.as_json(entry) for entry in found[:limit]], has_more=len(found) > limit))
