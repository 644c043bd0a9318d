"""Webhook endpoints of a project: make, change, test, a new secret, delete."""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from sqlalchemy.ext.asyncio import AsyncSession

from app import errors
from app.accounts.auth import Caller
from app.console.guard import ConsoleRoute, KeyHolderDep, VisitorDep, form_of
from app.console.pages import Values, go, render
from app.console.webhook_log import show_log
from app.db.models import WebhookEndpoint
from app.http.context import Gateway, GatewayDep
from app.http.webhooks import send_test
from app.webhooks import endpoints
from app.webhooks.events import EventType

routes = APIRouter(include_in_schema=False, route_class=ConsoleRoute)

LONGEST_TEST_S = 15
"""Seconds for the answer to a test event, while the browser waits."""
TYPE = "type "
"""Beginning of the name of a checkbox in a form; the type of event follows."""


@routes.get("/console/webhooks")
async def show_endpoints(request: Request, gateway: GatewayDep, visitor: VisitorDep) -> Response:
    """Show the endpoints of the project; the operator, who has none, sees the deliveries of all."""
    if visitor.caller is None:
        return await show_log(request, gateway, visitor)
    return await _list(request, gateway, visitor.caller)


@routes.post("/console/webhooks")
async def make_endpoint(request: Request, gateway: GatewayDep, caller: KeyHolderDep) -> Response:
    """Make an endpoint, whose secret is in this answer alone."""
    form = await form_of(request)
    try:
        async with gateway.db.transaction() as session:
            made = await endpoints.create_endpoint(
                session,
                project_id=caller.project_id,
                name=form.get("name", ""),
                url=form.get("url", "").strip(),
                types=_types_of(form),
                allow=gateway.settings.allow_networks,
                now=gateway.clock(),
            )
            await _require_other_name(session, made)
    except (errors.InvalidRequest, errors.Conflict) as error:
        return await _list(request, gateway, caller, form, error)
    return await _one(request, gateway, made, secret=made.secret, title=f"The secret of {made.name}")


@routes.get("/console/webhooks/{endpoint_id}")
async def show_endpoint(endpoint_id: str, request: Request, gateway: GatewayDep, caller: KeyHolderDep) -> Response:
    """Show one endpoint with all that can be done to it."""
    return await _one(request, gateway, await _endpoint(gateway, caller, endpoint_id))


@routes.post("/console/webhooks/{endpoint_id}")
async def change_endpoint(endpoint_id: str, request: Request, gateway: GatewayDep, caller: KeyHolderDep) -> Response:
    """Change name, address and types."""
    form = await form_of(request)
    try:
        async with gateway.db.transaction() as session:
            await endpoints.update_endpoint(
                session,
                endpoint_id,
                project_id=caller.project_id,
                name=form.get("name", ""),
                url=form.get("url", "").strip(),
                types=_types_of(form),
                allow=gateway.settings.allow_networks,
                now=gateway.clock(),
            )
    except errors.InvalidRequest as error:
        endpoint = await _endpoint(gateway, caller, endpoint_id)
        return await _one(request, gateway, endpoint, form=form, problem=error)
    return go(request, f"webhooks/{endpoint_id}", "endpoint_changed")


@routes.get("/console/webhooks/{endpoint_id}/enable")
@routes.get("/console/webhooks/{endpoint_id}/secret")
@routes.get("/console/webhooks/{endpoint_id}/test")
async def lead_to_endpoint(
    endpoint_id: str,
    request: Request,
    gateway: GatewayDep,
    caller: KeyHolderDep,
) -> Response:
    """Lead to the page of an endpoint: answers to its forms have these addresses, which browsers open again."""
    return go(request, f"webhooks/{(await _endpoint(gateway, caller, endpoint_id)).id}")


@routes.post("/console/webhooks/{endpoint_id}/enable")
async def enable_endpoint(endpoint_id: str, request: Request, gateway: GatewayDep, caller: KeyHolderDep) -> Response:
    """Let an endpoint get events, or no more of them."""
    enabled = (await form_of(request)).get("enabled") == "true"
    async with gateway.db.transaction() as session:
        await endpoints.update_endpoint(
            session,
            endpoint_id,
            project_id=caller.project_id,
            enabled=enabled,
            allow=gateway.settings.allow_networks,
            now=gateway.clock(),
        )
    return go(request, f"webhooks/{endpoint_id}", "endpoint_enabled" if enabled else "endpoint_disabled")


@routes.post("/console/webhooks/{endpoint_id}/secret")
async def rotate_secret(endpoint_id: str, request: Request, gateway: GatewayDep, caller: KeyHolderDep) -> Response:
    """Make a new secret, which is in this answer alone; the old one signs for another day, or no more.

    A form that is sent twice makes one: the second would end the secret that the receiver has.
    """
    form = await form_of(request)
    try:
        async with gateway.db.transaction() as session:
            known = await endpoints.lock_endpoint(session, endpoint_id, project_id=caller.project_id)
            if not hmac.compare_digest(form.get("instead_of", "").encode(), _mark_of(known).encode()):
                raise errors.Conflict(
                    "A new secret was made already since this page was opened. Nothing was changed now.",
                    code="secret_was_made",
                )
            endpoint = await endpoints.rotate_secret(
                session,
                endpoint_id,
                project_id=caller.project_id,
                keep_old="keep_old" in form,
                now=gateway.clock(),
            )
    except errors.Conflict as error:
        return await _one(request, gateway, await _endpoint(gateway, caller, endpoint_id), problem=error)
    title = f"The new secret of {endpoint.name}"
    return await _one(request, gateway, endpoint, secret=endpoint.secret, title=title)


@routes.post("/console/webhooks/{endpoint_id}/test")
async def test_endpoint(endpoint_id: str, request: Request, gateway: GatewayDep, caller: KeyHolderDep) -> Response:
    """Send a sample event now, and show the answer."""
    event_type = (await form_of(request)).get("event_type", "")
    try:
        endpoint, answer = await send_test(
            gateway, endpoint_id, event_type, project_id=caller.project_id, longest_s=LONGEST_TEST_S
        )
    except (errors.InvalidRequest, errors.RateLimited) as error:
        endpoint = await _endpoint(gateway, caller, endpoint_id)
        return await _one(request, gateway, endpoint, problem=error)
    return await _one(request, gateway, endpoint, answer=answer, tested=event_type)


@routes.get("/console/webhooks/{endpoint_id}/delete")
async def confirm_delete(endpoint_id: str, request: Request, gateway: GatewayDep, caller: KeyHolderDep) -> Response:
    """Ask before an endpoint is deleted."""
    return await render(request, "webhook_delete.html", endpoint=await _endpoint(gateway, caller, endpoint_id))


@routes.post("/console/webhooks/{endpoint_id}/delete")
async def delete_endpoint(endpoint_id: str, request: Request, gateway: GatewayDep, caller: KeyHolderDep) -> Response:
    """Delete an endpoint with its deliveries."""
    async with gateway.db.transaction() as session:
        await endpoints.delete_endpoint(session, endpoint_id, project_id=caller.project_id)
    return go(request, "webhooks", "endpoint_deleted")


def _types_of(form: Mapping[str, str]) -> list[str]:
    return [name.removeprefix(TYPE) for name in form if name.startswith(TYPE)]


def _mark_of(endpoint: WebhookEndpoint) -> str:
    """The text by which a form tells the secret that it replaces."""
    return hashlib.sha256(endpoint.secret.encode()).hexdigest()[:32]


async def _require_other_name(session: AsyncSession, made: WebhookEndpoint) -> None:
    """Require that no other endpoint has both name and address, as after a form that was sent twice. Raises
    `Conflict`. The project is locked since `made` was, so that both are not made at once."""
    found, _ = await endpoints.list_endpoints(
        await session.connection(), project_id=made.project_id, after=None, limit=endpoints.MAX_ENDPOINTS
    )
    if any(one.id != made.id and (one.name, one.url) == (made.name, made.url) for one in found):
        raise errors.Conflict(
            "There is an endpoint with this name and address already. If you have not seen its secret, make a new one "
            "on its page; a second endpoint needs another name.",
            param="name",
            code="already_made",
        )


async def _endpoint(gateway: Gateway, caller: Caller, endpoint_id: str) -> WebhookEndpoint:
    async with gateway.db.reading() as connection:
        return await endpoints.get_endpoint(connection, endpoint_id, project_id=caller.project_id)


async def _list(
    request: Request,
    gateway: Gateway,
    caller: Caller,
    form: Mapping[str, str] | None = None,
    problem: errors.GatewayError | None = None,
) -> Response:
    async with gateway.db.reading() as connection:
        found, _ = await endpoints.list_endpoints(
            connection, project_id=caller.project_id, after=None, limit=endpoints.MAX_ENDPOINTS
        )
    return await render(
        request,
        "webhooks.html",
        status=200 if problem is None else problem.status_code,
        endpoints=found,
        most=endpoints.MAX_ENDPOINTS,
        given=Values(form or {}),
        chosen=list(EventType) if form is None else _types_of(form),
        problem=problem,
        types=list(EventType),
        prefix=TYPE,
    )


async def _one(
    request: Request,
    gateway: Gateway,
    endpoint: WebhookEndpoint,
    *,
    form: Mapping[str, str] | None = None,
    problem: errors.GatewayError | None = None,
    **values: Any,
) -> Response:
    """The page of an endpoint, with what was typed and the problem of the last try, with a new `secret` and its
    `title`, or with the `answer` to the event that was `tested`."""
    now = gateway.clock()
    return await render(
        request,
        "webhook.html",
        status=200 if problem is None else problem.status_code,
        endpoint=endpoint,
        given=Values({"name": endpoint.name, "url": endpoint.url} if form is None else form),
        chosen=endpoint.event_types if form is None else _types_of(form),
        problem=problem,
        types=list(EventType),
        type_choices=[(kind, kind) for kind in EventType],
        prefix=TYPE,
        longest_s=min(LONGEST_TEST_S, gateway.settings.webhook_timeout_s),
        mark=_mark_of(endpoint),
        signing=len(endpoints.secrets_of(endpoint, now)),
        **{"secret": "", "title": "", "answer": None, "tested": "", **values},
    )
