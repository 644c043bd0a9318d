"""The administration API: JSON under /admin/v1, authorised by the admin keys, with details hidden from clients."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from app.accounts import keys, projects
from app.accounts.keys import Changes
from app.admin import (
    audit,
    billing,
    installation,
    live,
    providers,
    repairs,
    responses,
    video_list,
    webhook_deliveries,
)
from app.admin.schemas import (
    Dollars,
    GivenProject,
    Moment,
    amount_or_refuse,
    key_object,
    key_objects,
    listing,
    new_key_object,
    project_object,
    project_objects,
    redact,
    row_json,
)
from app.http.body import body_of, body_schema, validated
from app.http.context import GatewayDep
from app.http.fields import Word
from app.http.openapi import returns
from app.http.operator import ADMIN_KEY, ActorDep
from app.http.parameters import only_known_parameters
from app.http.responses import no_store
from app.jobs import videos
from app.video import Billing
from app.webhooks import events

routes = APIRouter(tags=["administration"], dependencies=[Depends(ADMIN_KEY)])


class ProjectChanges(BaseModel):
    """Settable fields of a project."""

    model_config = ConfigDict(
        extra="forbid", use_attribute_docstrings=True, json_schema_extra={"examples": [{"monthly_budget_usd": 100}]}
    )

    name: Word | None = None
    billing: Billing | None = None
    """`prepaid`: no video is created that the balance does not cover."""
    monthly_budget_usd: Dollars | None = None
    """Spending limit of all its keys together per calendar month, UTC; null removes the limit."""
    kinds: Annotated[list[Word], Field(max_length=100)] | None = None
    """Kinds of provider that its requests may go to, such as `["gemini", "vertex"]`; null: all."""


class NewProject(ProjectChanges):
    """POST /admin/v1/projects."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "web shop", "billing": "prepaid"}]})

    name: Word


class KeyChanges(BaseModel):
    """Settable fields of a key; null removes a limit."""

    model_config = ConfigDict(
        extra="forbid", use_attribute_docstrings=True, json_schema_extra={"examples": [{"requests_per_minute": 60}]}
    )

    name: Word | None = None
    models: Annotated[list[Word], Field(max_length=keys.MAX_PATTERNS)] | None = None
    """Patterns of the models it may use, such as `lumen/*`."""
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    concurrent_jobs: Annotated[int, Field(ge=1)] | None = None
    """Limit of unfinished videos."""
    monthly_budget_usd: Dollars | None = None
    max_cost_usd: Dollars | None = None
    """Highest cost of one request, all outputs; dearer routes are not used."""
    expires_at: Moment | None = None
    """ISO 8601 with an offset."""


class NewKey(KeyChanges):
    """POST /admin/v1/keys."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "shop", "project": "web shop"}]})

    name: Word
    project: Word | None = None
    """Id or name of its project; null creates a project for it."""


# Projects


@routes.get(
    "/admin/v1/projects", responses=returns(responses.ProjectList), dependencies=[Depends(only_known_parameters)]
)
async def list_projects(gateway: GatewayDep) -> Response:
    """List all projects, including one for each static key of the settings."""
    async with gateway.db.reading() as connection:
        found = await projects.list_projects(connection)
    return no_store(listing(await project_objects(gateway, found)))


@routes.post(
    "/admin/v1/projects",
    status_code=201,
    responses=returns(responses.Project, 201),
    openapi_extra=body_schema(NewProject),
)
async def create_project(request: Request, gateway: GatewayDep, actor: ActorDep) -> Response:
    """Create a project."""
    async with body_of(request, NewProject) as body:
        wire = validated(NewProject, body, keep_nulls=True)
    changes = project_changes_of(wire)
    async with gateway.db.transaction() as session:
        project = await projects.create_project(session, changes, actor=actor, now=gateway.clock())
    return no_store(await project_object(gateway, project), status=201)


@routes.get("/admin/v1/projects/{project_id}", responses=returns(responses.Project))
async def show_project(project_id: str, gateway: GatewayDep) -> Response:
    """Read a project."""
    async with gateway.db.transaction() as session:
        project = await projects.get_project(session, project_id)
    return no_store(await project_object(gateway, project))


@routes.patch(
    "/admin/v1/projects/{project_id}", responses=returns(responses.Project), openapi_extra=body_schema(ProjectChanges)
)
async def change_project(project_id: str, request: Request, gateway: GatewayDep, actor: ActorDep) -> Response:
    """Change the given fields. Spending of the current month already counts against a new budget."""
    async with body_of(request, ProjectChanges) as body:
        wire = validated(ProjectChanges, body, keep_nulls=True)
    changes = project_changes_of(wire)
    async with gateway.db.transaction() as session:
        project = await projects.change_project(session, project_id, changes, actor=actor, now=gateway.clock())
    return no_store(await project_object(gateway, project))


def project_changes_of(wire: ProjectChanges) -> projects.ProjectChanges:
    """The fields given in the body; a null name and a null billing are ignored."""
    given = wire.model_fields_set
    named = ("name", "billing")
    values: dict[str, Any] = {name: value for name in named if (value := getattr(wire, name)) is not None}
    if "kinds" in given:
        values["kinds"] = wire.kinds
    if "monthly_budget_usd" in given:
        values["monthly_budget_micros"] = amount_or_refuse(wire.monthly_budget_usd, "monthly_budget_usd")
    return projects.ProjectChanges(**values)


# Keys


@routes.get("/admin/v1/keys", responses=returns(responses.ApiKeyList), dependencies=[Depends(only_known_parameters)])
async def list_keys(gateway: GatewayDep, project: GivenProject = None) -> Response:
    """List all keys, without their secrets."""
    async with gateway.db.transaction() as session:
        project_id = (await projects.get_project(session, project)).id if project is not None else None
        found = await keys.list_keys(await session.connection(), project_id=project_id)
    return no_store(listing(await key_objects(gateway, found)))


@routes.post(
    "/admin/v1/keys", status_code=201, responses=returns(responses.NewApiKey, 201), openapi_extra=body_schema(NewKey)
)
async def create_key(request: Request, gateway: GatewayDep, actor: ActorDep) -> Response:
    """Create a key. `key` is shown only in this response."""
    async with body_of(request, NewKey) as body:
        wire = validated(NewKey, body, keep_nulls=True)
    changes, now = key_changes_of(wire), gateway.clock()
    async with gateway.db.transaction() as session:
        key, secret = await keys.create_key(
            session,
            wire.name,
            project_id=wire.project,
            changes=changes,
            settings=gateway.settings,
            actor=actor,
            now=now,
        )
    return no_store({**new_key_object(key), "key": secret}, status=201)


@routes.get("/admin/v1/keys/{key_id}", responses=returns(responses.ApiKey))
async def show_key(key_id: str, gateway: GatewayDep) -> Response:
    """Read a key, without its secret."""
    async with gateway.db.transaction() as session:
        key = await keys.get_key(session, key_id)
    return no_store(await key_object(gateway, key))


@routes.patch(
    "/admin/v1/keys/{key_id}",
    responses=returns(responses.ApiKey),
    openapi_extra=body_schema(KeyChanges),
)
async def change_key(key_id: str, request: Request, gateway: GatewayDep, actor: ActorDep) -> Response:
    """Change the given fields. Takes effect in every process within a second."""
    async with body_of(request, KeyChanges) as body:
        wire = validated(KeyChanges, body, keep_nulls=True)
    changes = key_changes_of(wire)
    async with gateway.db.transaction() as session:
        key = await keys.change_key(session, key_id, changes, actor=actor, now=gateway.clock())
    return no_store(await key_object(gateway, key))


@routes.delete("/admin/v1/keys/{key_id}", responses=returns(responses.ApiKey))
async def revoke_key(key_id: str, gateway: GatewayDep, actor: ActorDep) -> Response:
    """Revoke a key. Takes effect in every process within a second; running videos continue."""
    async with gateway.db.transaction() as session:
        key = await keys.revoke_key(session, key_id, actor=actor, now=gateway.clock())
    return no_store(await key_object(gateway, key))


def key_changes_of(wire: KeyChanges) -> Changes:
    """The fields given in the body; a null name is ignored."""
    named = wire.model_fields_set & {"name", "models", "requests_per_minute", "concurrent_jobs", "expires_at"}
    values: dict[str, Any] = {name: getattr(wire, name) for name in named}
    if values.get("name", ...) is None:
        del values["name"]
    for name in ("max_cost", "monthly_budget"):
        if f"{name}_usd" in wire.model_fields_set:
            values[f"{name}_micros"] = amount_or_refuse(getattr(wire, f"{name}_usd"), f"{name}_usd")
    return Changes(**values)


# Videos


@routes.get("/admin/v1/videos/{video_id}", responses=returns(responses.VideoDetails))
async def show_video(video_id: str, gateway: GatewayDep) -> Response:
    """Read a video of any project, with every attempt: its route, the upstream's answer, its cost. A deleted video is
    shown, with `deleted_at`, for an hour, and while it still runs upstream or has money held."""
    video = await videos.get_video(gateway.db, video_id, project_id=None, deleted=True)
    async with gateway.db.reading() as connection:
        attempts = await videos.list_attempts(connection, video_id)
    rows = [row_json(attempt, without=("video_id", "project_id", "lease")) for attempt in attempts]
    for row in rows:
        row["output"] = redact(row["output"])
    request = redact(video.request)
    if "webhook" in request:
        hook = video.request["webhook"]  # its path and query often hold a token
        request["webhook"] = {**hook, "url": events.queue_key_of(hook["url"]), "secret": None}
    return no_store({**row_json(video, without=("idempotency_hash",)), "request": request, "attempts": rows})


routes.include_router(audit.routes)
routes.include_router(billing.routes)
routes.include_router(live.routes)
routes.include_router(repairs.routes)
routes.include_router(providers.routes)
routes.include_router(installation.routes)
routes.include_router(webhook_deliveries.routes)
routes.include_router(video_list.routes)
