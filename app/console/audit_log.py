"""The audit log, for the operator: who changed what, narrowed by filters in the address."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from app import errors, ids
from app.accounts import audit, projects
from app.console.guard import ConsoleRoute, OperatorDep
from app.console.inputs import local_text, moment_text, problem_of
from app.console.pages import Values, format_moment, render
from app.db.models import AuditEntry
from app.http.body import checked
from app.http.context import Gateway, GatewayDep
from app.http.parameters import repeated_parameter, unknown_parameter

routes = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

PAGE = 50
FILTERS = ("actor", "action", "subject", "project", "since", "until")
KINDS = {"admin_key": "API", "console": "console", "cli": "command line"}
"""The way in which a change came, in words."""


@dataclass(frozen=True)
class Field:
    """One field that a change has set, in words."""

    name: str
    before: str
    after: str


@dataclass(frozen=True)
class Line:
    """One entry with its place in the console."""

    row: AuditEntry

    @property
    def kind(self) -> str:
        return KINDS.get(self.row.actor_kind, self.row.actor_kind)

    @property
    def fields(self) -> list[Field]:
        """The fields of before and after, side by side; of something new those that have a value."""
        before, after = self.row.before or {}, self.row.after or {}
        names = dict.fromkeys((*before, *after))
        return [
            Field(name, _words(before, name), _words(after, name))
            for name in names
            if before or after[name] is not None
        ]

    @property
    def page(self) -> str:
        """The page of what was changed, below the console's address; empty if it has none."""
        subject, after = self.row.subject, self.row.after or {}
        if ids.is_id(subject, "key"):
            return f"accounts/keys/{subject}"
        if self.row.action.startswith("project."):
            return f"accounts/projects/{subject}"
        if self.row.action.startswith("repair.") and ids.is_id(str(after.get("video", "")), "video"):
            return f"videos/{after['video']}"
        return "providers" if self.row.action.startswith("breaker.") else ""


@routes.get("/console/audit")
async def show_audit(request: Request, gateway: GatewayDep, actor: OperatorDep) -> Response:
    """Show a page of the changes by operators, newest first."""
    given = {name: value.strip() for name, value in request.query_params.items() if value.strip()}
    found: list[AuditEntry] = []
    names: dict[str, str] = {}
    problem = None
    try:
        found, names = await _find(request, gateway, given)
    except errors.GatewayError as error:
        problem = problem_of(error)
    narrowed = {name: value for name, value in given.items() if name != "after"}
    shown = {name: _local(value) if name in ("since", "until") else value for name, value in given.items()}
    return await render(
        request,
        "audit.html",
        status=problem.status if problem else 200,
        problem=problem,
        lines=[Line(row) for row in found[:PAGE]],
        names=names,
        has_more=len(found) > PAGE,
        given=Values(shown),
        narrowed=narrowed,
        is_first="after" not in given,
    )


async def _find(request: Request, gateway: Gateway, given: dict[str, str]) -> tuple[list[AuditEntry], dict[str, str]]:
    """The entries of a page and one more, and the names of their projects. Raises `InvalidRequest`, and `NotFound` for
    an unknown project."""
    names = [name for name, _ in request.query_params.multi_items()]
    for name in names:
        if name not in (*FILTERS, "after"):
            raise unknown_parameter(name, FILTERS)
        if names.count(name) > 1:
            raise repeated_parameter(name)
    checked(given)
    since, until = (_moment(name, given.get(name)) for name in ("since", "until"))
    async with gateway.db.transaction() as session:
        project_id = (await projects.get_project(session, given["project"])).id if "project" in given else None
        actor, action, subject = (given.get(name) for name in ("actor", "action", "subject"))
        wanted = audit.Wanted(actor, action, subject, project_id, since, until)
        connection = await session.connection()
        found = await audit.list_entries(connection, wanted, after=given.get("after"), limit=PAGE + 1)
        return found, await projects.names_of(connection, {row.project_id for row in found if row.project_id})


def _moment(name: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(moment_text(name, text))
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        message = f"{name}: expected a time such as 2026-11-27T12:00, or one with an offset"
        raise errors.InvalidRequest(message, param=name, code="invalid_value")
    return found.astimezone(UTC)


def _local(text: str) -> str:
    """A typed time as the control of a browser takes it; other text as it is."""
    try:
        return local_text(_moment("since", text))
    except errors.InvalidRequest:
        return text


def _words(state: dict[str, Any], name: str) -> str:
    """The value of a field for people; empty if the state has none."""
    if name not in state:
        return ""
    match state[name]:
        case None:
            return "none"
        case str() as text if name.endswith("_at"):
            return _time(text)
        case str() as text:
            return text
        case int() | float() as amount if name.endswith("_usd"):
            return f"${amount:.2f}" if round(amount, 2) == amount else f"${amount:f}".rstrip("0")
        case list() as values if all(isinstance(value, str) for value in values):
            return ", ".join(values)
        case value:
            return json.dumps(value, ensure_ascii=False)


def _time(text: str) -> str:
    try:
        return format_moment(datetime.fromisoformat(text))
    except ValueError:
        return text
