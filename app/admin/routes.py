"""The administration API: JSON under /admin/v1, with `GATEWAY_ADMIN_KEY`. Shows what clients do not see."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from app import errors
from app.accounts import auth, budgets, keys, projects
from app.accounts.keys import Changes
from app.admin import billing, repairs
from app.admin.schemas import (
    Dollars,
    Given,
    Moment,
    budget_or_refuse,
    key_object,
    listing,
    project_object,
    project_objects,
    redact,
    row_json,
)
from app.http.body import body_of, body_schema, validated
from app.http.context import GatewayDep, gateway_of
from app.http.openapi import BearerKey
from app.http.responses import no_store
from app.jobs import videos
from app.video import Billing
from app.webhooks import events


async def require_admin(request: Request) -> None:
    """Raises `AuthenticationFailed`, `NotFound` where no admin key is set: there is no administration then."""
    key = gateway_of(request).settings.admin_key
    if key is None:
        raise errors.NotFound("there is no administration API; set GATEWAY_ADMIN_KEY to have one", code="unknown_url")
    auth.require_key(key, request.headers.get("authorization", ""), "admin")


_admin_key = BearerKey("admin_key", "`GATEWAY_ADMIN_KEY`.", require_admin)
routes = APIRouter(tags=["administration"], dependencies=[Depends(_admin_key)])


class ProjectChanges(BaseModel):
    """What of a project can be set."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = None
    billing: Billing | None = None
    """`prepaid`: nothing is made that its balance does not cover."""
    monthly_budget_usd: Dollars | None = None
    """What all its keys may spend in a calendar month, UTC; null takes the limit away."""


class NewProject(ProjectChanges):
    """POST /admin/v1/projects."""

    name: str


class KeyChanges(BaseModel):
    """What of a key can be set; null takes a limit away."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = None
    models: list[str] | None = None
    """Patterns of the models it may ask for, such as `lumen/*`."""
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    concurrent_jobs: Annotated[int, Field(ge=1)] | None = None
    """Videos that may be under way at once."""
    monthly_budget_usd: Dollars | None = None
    expires_at: Moment | None = None
    """ISO 8601 with an offset."""


class NewKey(KeyChanges):
    """POST /admin/v1/keys."""

    name: str
    project: str | None = None
    """Id or name of the project it belongs to; null makes one of its own."""


# Projects


@routes.get("/admin/v1/projects")
async def list_projects(gateway: GatewayDep) -> Response:
    """All projects; each static key of the settings is one."""
    async with gateway.db.reading() as connection:
        found = await projects.list_projects(connection)
    return no_store(listing(await project_objects(gateway, found)))


@routes.post("/admin/v1/projects", status_code=201, openapi_extra=body_schema(NewProject))
async def create_project(request: Request, gateway: GatewayDep) -> Response:
    """Make a project."""
    async with body_of(request) as body:
        wire = validated(NewProject, body)
    budget = budget_or_refuse(wire.monthly_budget_usd)
    async with gateway.db.transaction() as session:
        project = await projects.create_project(session, wire.name, now=gateway.clock())
        await budgets.limit_project(session, project, budget, wire.billing or project.billing, now=gateway.clock())
    return no_store(await project_object(gateway, project), status=201)


@routes.get("/admin/v1/projects/{project_id}")
async def show_project(project_id: str, gateway: GatewayDep) -> Response:
    async with gateway.db.transaction() as session:
        project = await projects.get_project(session, project_id)
    return no_store(await project_object(gateway, project))


@routes.patch("/admin/v1/projects/{project_id}", openapi_extra=body_schema(ProjectChanges))
async def change_project(project_id: str, request: Request, gateway: GatewayDep) -> Response:
    """Set what is named in the body; what was spent this month already counts against a new budget."""
    async with body_of(request) as body:
        wire = validated(ProjectChanges, body)
    async with gateway.db.transaction() as session:
        project = await projects.get_project(session, project_id)
        if wire.name is not None:
            project.name = projects.checked_name("name", wire.name)
        if wire.model_fields_set & {"billing", "monthly_budget_usd"}:
            budget = project.monthly_budget_micros
            if "monthly_budget_usd" in wire.model_fields_set:
                budget = budget_or_refuse(wire.monthly_budget_usd)
            billing = wire.billing or project.billing
            await budgets.limit_project(session, project, budget, billing, now=gateway.clock())
    return no_store(await project_object(gateway, project))


# Keys


@routes.get("/admin/v1/keys")
async def list_keys(gateway: GatewayDep, project: Given = None) -> Response:
    """All keys, without the keys themselves."""
    async with gateway.db.transaction() as session:
        project_id = (await projects.get_project(session, project)).id if project is not None else None
        found = await keys.list_keys(await session.connection(), project_id=project_id)
    return no_store(listing([key_object(key) for key in found]))


@routes.post("/admin/v1/keys", status_code=201, openapi_extra=body_schema(NewKey))
async def create_key(request: Request, gateway: GatewayDep) -> Response:
    """Make a key. `key` in the answer is shown this once only."""
    async with body_of(request) as body:
        wire = validated(NewKey, body)
    changes, budget, now = _changes(wire), budget_or_refuse(wire.monthly_budget_usd), gateway.clock()
    async with gateway.db.transaction() as session:
        key, secret = await keys.create_key(
            session, wire.name, project_id=wire.project, changes=changes, settings=gateway.settings, now=now
        )
        await budgets.limit_key(session, key, budget, now=now)
    return no_store({**key_object(key), "key": secret}, status=201)


@routes.get("/admin/v1/keys/{key_id}")
async def show_key(key_id: str, gateway: GatewayDep) -> Response:
    async with gateway.db.transaction() as session:
        return no_store(key_object(await keys.get_key(session, key_id)))


@routes.patch("/admin/v1/keys/{key_id}", openapi_extra=body_schema(KeyChanges))
async def change_key(key_id: str, request: Request, gateway: GatewayDep) -> Response:
    """Set what is named in the body, on every process within a second."""
    async with body_of(request) as body:
        wire = validated(KeyChanges, body)
    changes, now = _changes(wire), gateway.clock()
    async with gateway.db.transaction() as session:
        key = await keys.get_key(session, key_id)
        await keys.change_key(session, key, changes, now=now)
        if "monthly_budget_usd" in wire.model_fields_set:
            await budgets.limit_key(session, key, budget_or_refuse(wire.monthly_budget_usd), now=now)
    return no_store(key_object(key))


@routes.delete("/admin/v1/keys/{key_id}")
async def revoke_key(key_id: str, gateway: GatewayDep) -> Response:
    """Refuse a key from now on, on every process within a second. What it started runs on."""
    async with gateway.db.transaction() as session:
        key = await keys.revoke_key(session, key_id, now=gateway.clock())
    return no_store(key_object(key))


def _changes(wire: KeyChanges) -> Changes:
    """What the body names; a name cannot be taken away."""
    named = wire.model_fields_set & {"name", "models", "requests_per_minute", "concurrent_jobs", "expires_at"}
    values: dict[str, Any] = {name: getattr(wire, name) for name in named}
    if values.get("name", ...) is None:
        del values["name"]
    return Changes(**values)


# Videos


@routes.get("/admin/v1/videos/{video_id}")
async def show_video(video_id: str, gateway: GatewayDep) -> Response:
    """One video of whichever project, with every attempt: where it was sent, what the upstream said, what it cost. One
    that its project deleted is there, with `deleted_at`, while it still runs upstream or holds money."""
    video = await videos.get_video(gateway.db, video_id, project_id=None, deleted=True)
    async with gateway.db.reading() as connection:
        attempts = await videos.list_attempts(connection, video_id)
    shown = [row_json(attempt, without=("video_id", "project_id", "lease")) for attempt in attempts]
    for attempt in shown:
        attempt["output"] = redact(attempt["output"])
    request = redact(video.request)
    if "webhook" in request:
        hook = video.request["webhook"]  # its path and query often hold a token
        request["webhook"] = {**hook, "url": events.queue_key_of(hook["url"]), "secret": None}
    return no_store({**row_json(video, without=("idempotency_hash",)), "request": request, "attempts": shown})


routes.include_router(billing.routes)
routes.include_router(repairs.routes)
