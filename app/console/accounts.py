"""Accounts, for the operator: the projects with their money, and a list of all keys."""

import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import Response

from app import errors
from app.accounts import keys, ledger, projects
from app.admin.billing import Credit
from app.admin.routes import NewProject, ProjectChanges, project_changes_of
from app.admin.schemas import micros_or_refuse
from app.console.account_lines import LISTED, key_lines, project_lines, static_keys
from app.console.guard import ConsoleRoute, OperatorDep, form_of
from app.console.inputs import (
    PROJECT_FIELDS,
    Problem,
    anew,
    problem_of,
    project_values,
    read_changes,
    read_form,
)
from app.console.pages import Values, go, render
from app.db.models import Key, Project
from app.http.body import checked, validated
from app.http.context import Gateway, GatewayDep
from app.http.parameters import KnownParameters
from app.providers import KIND_NAMES

routes = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

ENTRIES = 20
"""Ledger entries that a project's page shows."""
BILLING = (("postpaid", "postpaid: paid afterwards"), ("prepaid", "prepaid: the balance has to cover each video"))
EMPTY = {**dict.fromkeys(PROJECT_FIELDS, ""), "billing": "postpaid"}


@routes.get("/console/accounts")
async def show_accounts(
    request: Request,
    gateway: GatewayDep,
    actor: OperatorDep,
    _: KnownParameters,
    project: str = "",
    q: str = "",
) -> Response:
    """Show projects and keys, narrowed by a project and by a text in names, ids and ends."""
    given = {name: text.strip() for name, text in (("project", project), ("q", q)) if text.strip()}
    now, text = gateway.clock(), given.get("q", "")
    found: list[Project] = []
    owned: list[Key] = []
    static: list[str] = []
    problem = None
    async with gateway.db.transaction() as session:
        connection = await session.connection()
        try:
            checked(given)
            one = await projects.get_project(session, given["project"]) if "project" in given else None
            found = [one] if one else await projects.find_projects(connection, text=text, limit=LISTED + 1)
            project_id = one.id if one else None
            owned = await keys.find_keys(connection, text=text, project_id=project_id, limit=LISTED + 1)
            static = static_keys(gateway, text=text, project_id=project_id)
        except errors.GatewayError as error:
            problem = problem_of(error)
        lines = await project_lines(connection, gateway, found[:LISTED], now=now)
        room = max(0, LISTED - len(static))
        listed = await key_lines(connection, gateway, owned[:room], static=static[:LISTED], now=now)
    return await render(
        request,
        "accounts.html",
        status=problem.status if problem else 200,
        problem=problem,
        given=Values(given),
        projects=lines,
        more_projects=len(found) > LISTED,
        keys=listed,
        more_keys=len(static) + len(owned) > LISTED,
        listed=LISTED,
    )


@routes.get("/console/accounts/projects/new")
async def show_new_project(request: Request, actor: OperatorDep) -> Response:
    """Show the form of a new project."""
    return await _new_project(request, EMPTY)


@routes.post("/console/accounts/projects/new")
async def make_project(request: Request, gateway: GatewayDep, actor: OperatorDep) -> Response:
    """Make a project."""
    form = await form_of(request)
    try:
        wire = read_form(NewProject, form, EMPTY)
        async with gateway.db.transaction() as session:
            await projects.require_free_name(session, wire.name)
            project = await projects.create_project(session, project_changes_of(wire), actor=actor, now=gateway.clock())
    except errors.GatewayError as error:
        return await _new_project(request, {**EMPTY, **form}, problem_of(error))
    return go(request, f"accounts/projects/{project.id}", "project_made")


async def _new_project(request: Request, given: Mapping[str, str], problem: Problem | None = None) -> Response:
    return await render(
        request,
        "project_new.html",
        status=problem.status if problem else 200,
        problem=problem,
        given=Values(given),
        name_in_settings=False,
        billing=BILLING,
        kinds=list(KIND_NAMES),
    )


@routes.get("/console/accounts/projects/{project_id}")
async def show_project(project_id: str, request: Request, gateway: GatewayDep, actor: OperatorDep) -> Response:
    """Show a project: its money, its keys, and the form that changes it."""
    return await _project(request, gateway, project_id)


@routes.post("/console/accounts/projects/{project_id}")
async def change_project(project_id: str, request: Request, gateway: GatewayDep, actor: OperatorDep) -> Response:
    """Change the fields of a project that differ from those which the form has shown."""
    form = await form_of(request)
    try:
        async with gateway.db.transaction() as session:
            project = await projects.get_project(session, project_id)
            wire = read_changes(ProjectChanges, form, project_values(project))
            if wire.name is not None:
                await projects.require_free_name(session, wire.name, but=project.id)
            changes = project_changes_of(wire)
            await projects.change_project(session, project.id, changes, actor=actor, now=gateway.clock())
    except errors.NotFound:
        raise
    except errors.GatewayError as error:
        return await _project(request, gateway, project_id, form, problem_of(error))
    return go(request, f"accounts/projects/{project_id}", "project_changed")


async def _project(
    request: Request,
    gateway: Gateway,
    project_id: str,
    form: Mapping[str, str] | None = None,
    problem: Problem | None = None,
) -> Response:
    now = gateway.clock()
    async with gateway.db.transaction() as session:
        project = await projects.get_project(session, project_id)
        connection = await session.connection()
        (line,) = await project_lines(connection, gateway, [project], now=now)
        owned = await keys.find_keys(connection, project_id=project.id, limit=LISTED + 1)
        static, names = static_keys(gateway, project_id=project.id), {project.id: project.name}
        listed = await key_lines(connection, gateway, owned[:LISTED], static=static, names=names, now=now)
        entries = await ledger.list_entries(connection, project_id=project.id, video_id=None, after=None, limit=ENTRIES)
    return await render(
        request,
        "project.html",
        status=problem.status if problem else 200,
        problem=problem,
        line=line,
        given=Values(anew(form, project_values(project), problem)),
        name_in_settings=gateway.authenticator.static_projects.get(project.id) is not None,
        billing=BILLING,
        kinds=list(KIND_NAMES),
        keys=listed,
        more_keys=len(owned) > LISTED,
        listed=LISTED,
        entries=entries,
    )


# Credits


@routes.get("/console/accounts/projects/{project_id}/credit")
async def show_credit(project_id: str, request: Request, gateway: GatewayDep, actor: OperatorDep) -> Response:
    """Show the form of a credit, and with an amount in the address, what it would do.

    The reference is in the address from the start, so that Back and a reload keep it: it is credited once.
    """
    given = dict(request.query_params)
    if not given.get("reference", "").strip():
        async with gateway.db.transaction() as session:
            project = await projects.get_project(session, project_id)
        given["reference"] = f"console-{secrets.token_hex(4)}"
        return go(request, f"accounts/projects/{project.id}/credit?{urlencode(given)}")
    problem, amount = None, None
    if "amount_usd" in given:
        try:
            amount, _ = _credit_of(given)
        except errors.GatewayError as error:
            problem = problem_of(error)
    return await _credit(request, gateway, project_id, given, problem, amount=amount)


@routes.post("/console/accounts/projects/{project_id}/credit")
async def credit(project_id: str, request: Request, gateway: GatewayDep, actor: OperatorDep) -> Response:
    """Credit the balance of a project."""
    form = await form_of(request)
    try:
        amount, reference = _credit_of(form)
        async with gateway.db.transaction() as session:
            project = await projects.get_project(session, project_id)
            await ledger.credit(session, project, amount, reference=reference, actor=actor, now=gateway.clock())
    except errors.NotFound:
        raise
    except errors.GatewayError as error:
        return await _credit(request, gateway, project_id, form, problem_of(error))
    return go(request, f"accounts/projects/{project_id}", "credited")


def _credit_of(form: Mapping[str, str]) -> tuple[int, str | None]:
    """Amount and reference of a credit. Raises `InvalidRequest`."""
    typed: dict[str, Any] = {name: form.get(name, "").strip() or None for name in ("amount_usd", "reference")}
    wire = validated(Credit, checked({name: text for name, text in typed.items() if text is not None}))
    return micros_or_refuse(wire.amount_usd, "amount_usd"), wire.reference


async def _credit(
    request: Request,
    gateway: Gateway,
    project_id: str,
    given: Mapping[str, str],
    problem: Problem | None,
    *,
    amount: int | None = None,
) -> Response:
    async with gateway.db.transaction() as session:
        project: Project = await projects.get_project(session, project_id)
        (line,) = await project_lines(await session.connection(), gateway, [project], now=gateway.clock())
    return await render(
        request,
        "credit.html",
        status=problem.status if problem else 200,
        problem=problem,
        line=line,
        given=Values(given),
        amount=amount,
    )
