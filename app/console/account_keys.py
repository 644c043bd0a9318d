"""Keys, for the operator: each one's page, new keys, changes, and their end."""

from collections.abc import Mapping
from dataclasses import replace

from fastapi import APIRouter, Request
from fastapi.responses import Response

from app import errors
from app.accounts import keys, projects
from app.admin.routes import KeyChanges, NewKey, key_changes_of
from app.console.account_lines import LISTED, key_lines, static_keys
from app.console.guard import ConsoleRoute, OperatorDep, form_of
from app.console.inputs import KEY_FIELDS, Problem, anew, key_values, problem_of, read_changes, read_form
from app.console.pages import Frame, Values, base_of, go, render
from app.http.context import Gateway, GatewayDep

routes = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

SENT_TWICE = (
    "If you sent this form twice, the key was made the first time. If you have not seen it, it is lost: revoke that "
    "key, and make one with another name."
)
EMPTY = dict.fromkeys((*KEY_FIELDS, "project"), "")


@routes.get("/console/accounts/keys/new")
async def show_new_key(request: Request, gateway: GatewayDep, actor: OperatorDep, project: str = "") -> Response:
    """Show the form of a new key."""
    return await _new_key(request, gateway, {**EMPTY, "project": project})


@routes.post("/console/accounts/keys/new")
async def make_key(request: Request, gateway: GatewayDep, actor: OperatorDep) -> Response:
    """Make a key, and a project for it if none is given. Only this response shows the key."""
    form = await form_of(request)
    try:
        wire = read_form(NewKey, form, EMPTY)
        async with gateway.db.transaction() as session:
            project_id = None
            if wire.project is not None:
                project_id = (await projects.get_project(session, wire.project)).id
                await keys.require_free_name(session, wire.name, project_id)
            else:
                await projects.require_free_name(session, wire.name)
            key, secret = await keys.create_key(
                session,
                wire.name,
                project_id=project_id,
                changes=key_changes_of(wire),
                settings=gateway.settings,
                actor=actor,
                now=gateway.clock(),
            )
    except errors.GatewayError as error:
        problem = problem_of(error)
        if isinstance(error, errors.Conflict):
            problem = replace(problem, message=f"{problem.message}. {SENT_TWICE}")
        return await _new_key(request, gateway, {**EMPTY, **form}, problem)
    # Nothing is read that might fail, not even for the head: the secret would be lost.
    back = f"{base_of(request)}/accounts/keys/{key.id}"
    values = {"name": key.name, "secret": secret, "title": f"The key {key.name}", "back": back}
    return await render(request, "key_made.html", status=201, frame=Frame(), **values)


async def _new_key(
    request: Request, gateway: Gateway, given: Mapping[str, str], problem: Problem | None = None
) -> Response:
    async with gateway.db.reading() as connection:
        known = await projects.find_projects(connection, limit=LISTED)
    values = {"given": Values(given), "problem": problem, "projects": known}
    return await render(request, "key_new.html", status=problem.status if problem else 200, **values)


@routes.get("/console/accounts/keys/{key_id}")
async def show_key(key_id: str, request: Request, gateway: GatewayDep, actor: OperatorDep) -> Response:
    """Show a key, without its secret, and the form that changes it."""
    return await _key(request, gateway, key_id, "key.html")


@routes.post("/console/accounts/keys/{key_id}")
async def change_key(key_id: str, request: Request, gateway: GatewayDep, actor: OperatorDep) -> Response:
    """Change the fields of a key that differ from those which the form has shown; every process knows within a
    second."""
    form = await form_of(request)
    try:
        async with gateway.db.transaction() as session:
            key = await keys.get_key(session, key_id)
            wire = read_changes(KeyChanges, form, key_values(key))
            if wire.name is not None:
                await keys.require_free_name(session, wire.name, key.project_id)
            await keys.change_key(session, key_id, key_changes_of(wire), actor=actor, now=gateway.clock())
    except errors.NotFound:
        raise
    except errors.GatewayError as error:
        return await _key(request, gateway, key_id, "key.html", form, problem_of(error))
    return go(request, f"accounts/keys/{key_id}", "key_changed")


@routes.get("/console/accounts/keys/{key_id}/revoke")
async def confirm_revoke(key_id: str, request: Request, gateway: GatewayDep, actor: OperatorDep) -> Response:
    """Ask before a key is revoked."""
    return await _key(request, gateway, key_id, "key_revoke.html")


@routes.post("/console/accounts/keys/{key_id}/revoke")
async def revoke_key(key_id: str, request: Request, gateway: GatewayDep, actor: OperatorDep) -> Response:
    """Revoke a key whose name was typed."""
    form = await form_of(request)
    try:
        async with gateway.db.transaction() as session:
            key = await keys.get_key(session, key_id)
            if form.get("typed", "").strip() != key.name:
                raise errors.InvalidRequest("this is not the key's name", param="typed", code="invalid_value")
            await keys.revoke_key(session, key_id, actor=actor, now=gateway.clock())
    except errors.InvalidRequest as error:
        return await _key(request, gateway, key_id, "key_revoke.html", form, problem_of(error))
    return go(request, f"accounts/keys/{key_id}", "key_revoked")


async def _key(
    request: Request,
    gateway: Gateway,
    key_id: str,
    template: str,
    form: Mapping[str, str] | None = None,
    problem: Problem | None = None,
) -> Response:
    is_static = key_id in gateway.authenticator.static_projects
    if is_static and template != "key.html":
        raise errors.NotFound("this key is in the settings, which alone can change it", code="unknown_url")
    async with gateway.db.transaction() as session:
        found = [] if is_static else [await keys.get_key(session, key_id)]
        static = static_keys(gateway, project_id=key_id) if is_static else []
        (line,) = await key_lines(await session.connection(), gateway, found, static=static, now=gateway.clock())
    shown = key_values(found[0]) if found else {}
    return await render(
        request,
        template,
        status=problem.status if problem else 200,
        problem=problem,
        line=line,
        given=Values(anew(form, shown, problem)),
    )
