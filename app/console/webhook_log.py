"""The log of webhook deliveries: what was sent where, every try and its answer, and sending again."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import TypeAdapter, ValidationError

from app import errors
from app.accounts import projects
from app.accounts.auth import Caller
from app.console.guard import ConsoleRoute, KeyHolderDep, Visitor, VisitorDep, form_of
from app.console.pages import Values, base_of, render
from app.db.models import Delivery, DeliveryTry, WebhookEndpoint
from app.http.context import Gateway, GatewayDep
from app.http.parameters import Since
from app.video import DeliveryState
from app.webhooks import deliveries, endpoints
from app.webhooks.events import EventType

routes = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

PAGE = 25
STATES = {"": "any", "pending": "Waiting", "delivered": "Delivered", "failed": "Failed"}
FILTERS = ("state", "type", "endpoint", "since", "project")
"""Fields that narrow the log, as addresses name them."""
SENT_BACK_S = 86_400
"""Seconds before now from which failed deliveries are sent again, unless another time is given."""
_MOMENT = TypeAdapter(Since)


@dataclass(frozen=True)
class Wanted:
    """The deliveries that an address asks for."""

    state: DeliveryState | None
    event_type: EventType | None
    endpoint: str | None
    since: datetime | None
    project_id: str | None
    """None: of all projects."""


@dataclass(frozen=True)
class Try:
    """One call of a receiver."""

    at: datetime
    status: int | None
    duration_ms: int
    error: str | None
    answer: str | None
    """The beginning of the answer; the operator does not see it."""


@dataclass(frozen=True)
class Line:
    """One delivery."""

    delivery: Delivery
    to: str
    """The endpoint's name, or for the operator its id; scheme, host and port of an address of a request."""
    tries: Sequence[Try]

    @property
    def words(self) -> str:
        return STATES[self.delivery.state]

    @property
    def next_try_at(self) -> datetime | None:
        return self.delivery.due_at if self.delivery.ended_at is None else None


@routes.get("/console/webhooks/log")
async def show_log(request: Request, gateway: GatewayDep, visitor: VisitorDep) -> Response:
    """Show a page of the deliveries, narrowed by the filters in the address."""
    return await _log(request, gateway, visitor, request.query_params)


@routes.post("/console/webhooks/log/{delivery_id}/again")
async def send_again(
    delivery_id: str, request: Request, gateway: GatewayDep, visitor: VisitorDep, caller: KeyHolderDep
) -> Response:
    """Send one delivery again now, and show the same page of the log."""
    form = await form_of(request)
    kept = {name: form[name] for name in (*FILTERS, "after") if form.get(name)}
    try:
        async with gateway.db.transaction() as session:
            await deliveries.redeliver(session, delivery_id, project_id=caller.project_id, now=gateway.clock())
    except errors.Conflict as error:
        return await _log(request, gateway, visitor, kept, error)
    gateway.wake()
    address = urlencode({**kept, "said": "delivery_sent"})
    return RedirectResponse(f"{base_of(request)}/webhooks/log?{address}", 303)


@routes.get("/console/webhooks/log/again")
async def count_failed(request: Request, gateway: GatewayDep, caller: KeyHolderDep) -> Response:
    """Say how many failed deliveries would be sent again."""
    given = request.query_params
    try:
        wanted = await _failed(gateway, caller, given)
    except errors.InvalidRequest as error:
        return await _again(request, given, problem=error)
    async with gateway.db.reading() as connection:
        count = await deliveries.count_failed(connection, **wanted)
    return await _again(request, given, since=wanted["since"], count=count)


@routes.post("/console/webhooks/log/again")
async def send_failed(request: Request, gateway: GatewayDep, caller: KeyHolderDep) -> Response:
    """Send the failed deliveries again, and say how many were sent."""
    given = await form_of(request)
    try:
        wanted = await _failed(gateway, caller, given)
    except errors.InvalidRequest as error:
        return await _again(request, given, problem=error)
    done = await deliveries.redeliver_failed(gateway.db, **wanted, now=gateway.clock())
    gateway.wake()
    return await _again(request, given, since=wanted["since"], done=done)


async def _log(
    request: Request,
    gateway: Gateway,
    visitor: Visitor,
    query: Mapping[str, str],
    problem: errors.GatewayError | None = None,
) -> Response:
    given = Values({name: value for name, value in query.items() if value.strip()})
    found: tuple[list[tuple[Delivery, list[DeliveryTry]]], bool] = ([], False)
    own = await _own_endpoints(gateway, visitor)
    try:
        wanted = await _wanted(gateway, visitor, given, own)
        found = await _page(gateway, wanted, given["after"] or None)
    except (errors.InvalidRequest, errors.NotFound) as error:
        problem = error
    lines, has_more = [_line(visitor, own, *entry) for entry in found[0]], found[1]
    kept = Values({name: given[name] for name in FILTERS if name in given})
    return await render(
        request,
        "webhook_log.html",
        status=200 if problem is None else problem.status_code,
        lines=lines,
        has_more=has_more,
        problem=problem,
        given=given,
        kept=kept,
        states=list(STATES.items()),
        types=[("", "any"), *((kind, kind) for kind in EventType)],
        endpoints=[("", "any"), *((one.id, one.name) for one in own.values())],
        projects=await _project_names(gateway) if visitor.is_operator else {},
        again_since=_again_since(gateway, given["since"] if problem is None else ""),
    )


def _again_since(gateway: Gateway, given: str) -> str:
    return given or f"{gateway.clock() - timedelta(seconds=SENT_BACK_S):%Y-%m-%dT%H:%M:%SZ}"


async def _wanted(
    gateway: Gateway, visitor: Visitor, given: Mapping[str, str], own: Mapping[str, WebhookEndpoint]
) -> Wanted:
    """Read an address. Raises `InvalidRequest` that names the field, `NotFound` for an unknown project or endpoint."""
    wanted = _read(given)
    if visitor.caller is not None:
        if "project" in given:
            raise _wrong("project", "this page shows your own project alone")
        if wanted.endpoint is not None and wanted.endpoint not in own:
            raise errors.NotFound("endpoint: there is no such endpoint", param="endpoint")
        return replace(wanted, project_id=visitor.project_id)
    if wanted.endpoint is not None and not wanted.endpoint.isprintable():  # PostgreSQL cannot even compare a NUL
        raise _wrong("endpoint", "expected the id of an endpoint")
    if "project" not in given:
        return wanted
    async with gateway.db.transaction() as session:
        return replace(wanted, project_id=(await projects.get_project(session, given["project"])).id)


def _read(given: Mapping[str, str]) -> Wanted:
    try:
        state = DeliveryState(given["state"]) if given.get("state") else None
    except ValueError:
        raise _wrong("state", f"expected one of {', '.join(DeliveryState)}") from None
    try:
        event_type = EventType(given["type"]) if given.get("type") else None
    except ValueError:
        raise _wrong("type", f"expected one of {', '.join(EventType)}") from None
    since = moment_of(given["since"]) if given.get("since") else None
    return Wanted(state, event_type, given.get("endpoint") or None, since, None)


def moment_of(text: str) -> datetime:
    """A time as people type it; one without an offset, or a day alone, is UTC. Raises `InvalidRequest`."""
    text = text.strip()
    if re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII):
        text += "T00:00:00Z"
    elif re.fullmatch(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?", text, re.ASCII):
        text += "Z"
    try:
        return _MOMENT.validate_python(text)
    except ValidationError:
        raise _wrong("since", "expected a time such as 2026-11-27T12:00:00Z, or a day") from None


def _wrong(param: str, why: str) -> errors.InvalidRequest:
    return errors.InvalidRequest(f"{param}: {why}", param=param, code="invalid_value")


async def _page(
    gateway: Gateway, wanted: Wanted, after: str | None
) -> tuple[list[tuple[Delivery, list[DeliveryTry]]], bool]:
    async with gateway.db.reading() as connection:
        return await deliveries.list_deliveries(
            connection,
            project_id=wanted.project_id,
            endpoint_id=wanted.endpoint,
            state=wanted.state,
            event_type=wanted.event_type,
            since=wanted.since,
            after=after,
            limit=PAGE,
        )


async def _own_endpoints(gateway: Gateway, visitor: Visitor) -> Mapping[str, WebhookEndpoint]:
    """The endpoints of a key's project, by id; none for the operator."""
    if visitor.caller is None:
        return {}
    async with gateway.db.reading() as connection:
        found, _ = await endpoints.list_endpoints(
            connection, project_id=visitor.caller.project_id, after=None, limit=endpoints.MAX_ENDPOINTS
        )
    return {one.id: one for one in found}


def _line(
    visitor: Visitor, own: Mapping[str, WebhookEndpoint], delivery: Delivery, tries: Sequence[DeliveryTry]
) -> Line:
    """A delivery as the visitor may see it: answers of receivers are the project's own."""
    endpoint = own.get(delivery.endpoint_id or "")
    to = delivery.endpoint_id or delivery.queue_key
    shown = [
        Try(one.at, one.status, one.duration_ms, one.error, None if visitor.is_operator else one.answer)
        for one in tries
    ]
    return Line(delivery, to if endpoint is None else endpoint.name, shown)


async def _project_names(gateway: Gateway) -> dict[str, str]:
    async with gateway.db.reading() as connection:
        return {one.id: one.name for one in await projects.list_projects(connection)}


async def _again(
    request: Request,
    given: Mapping[str, str],
    *,
    since: datetime | None = None,
    problem: errors.GatewayError | None = None,
    count: deliveries.Failed | None = None,
    done: deliveries.Redelivered | None = None,
) -> Response:
    """The page that says how many would be sent, how many were, or why none can be."""
    return await render(
        request,
        "webhook_again.html",
        status=200 if problem is None else problem.status_code,
        given=Values(given),
        kept=Values({name: given[name] for name in ("type", "endpoint") if given.get(name)}),
        since=since,
        problem=problem,
        count=count,
        done=done,
        most=deliveries.MAX_REDELIVERED,
        most_counted=deliveries.MAX_COUNTED,
    )


async def _failed(gateway: Gateway, caller: Caller, given: Mapping[str, str]) -> dict[str, Any]:
    """The failed deliveries that are meant. Raises `InvalidRequest`, `NotFound` for an unknown endpoint."""
    wanted = _read(given)
    if wanted.since is None:
        raise _wrong("since", "say from when on, such as 2026-11-27T12:00:00Z")
    if wanted.endpoint is not None:
        async with gateway.db.reading() as connection:
            await endpoints.get_endpoint(connection, wanted.endpoint, project_id=caller.project_id)
    return {
        "project_id": caller.project_id,
        "since": wanted.since,
        "endpoint_id": wanted.endpoint,
        "event_type": wanted.event_type,
    }
