"""All webhook deliveries of a project, and those that failed sent again; this gateway's own."""

from typing import Annotated

from fastapi import Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict

from app.dialects.openai import webhook_schemas as schemas
from app.dialects.openai.router import After, AliasedRouter, Limit
from app.dialects.openai.webhooks import render_delivery
from app.http.body import body_of, body_schema, validated
from app.http.context import CallerDep, GatewayDep
from app.http.fields import Word
from app.http.openapi import returns
from app.http.parameters import KnownParameters, Since
from app.http.responses import no_store, page_of
from app.video import DeliveryState
from app.webhooks import deliveries, endpoints
from app.webhooks.events import EventType

routes = AliasedRouter(tags=["webhooks"])


class RedeliverFailed(BaseModel):
    """POST /v1/webhook_deliveries/redeliver_failed."""

    model_config = ConfigDict(
        extra="forbid",
        use_attribute_docstrings=True,
        json_schema_extra={"examples": [{"since": "2026-11-26T12:00:00Z", "event_type": "video.completed"}]},
    )

    since: Since
    """Creation of the oldest one: ISO 8601 with an offset, or Unix time in seconds."""
    endpoint: Word | None = None
    """Only those to this endpoint, by id."""
    event_type: EventType | None = None


@routes.get(
    "/v1/webhook_deliveries",
    responses=returns(schemas.WebhookDeliveryPage),
)
async def list_all_deliveries(
    gateway: GatewayDep,
    caller: CallerDep,
    _: KnownParameters,
    state: Annotated[DeliveryState | None, Query(description="Only those in this state.")] = None,
    event_type: Annotated[EventType | None, Query(description="Only those of this type of event.")] = None,
    endpoint: Annotated[str | None, Query(description="Only those to this endpoint, by id.")] = None,
    since: Annotated[Since | None, Query(description="Created at or after this time; Unix time or ISO 8601.")] = None,
    after: After = None,
    limit: Limit = 20,
) -> Response:
    """List all deliveries of the last 30 days, newest first, with every try and its response: those to your endpoints
    and those to the `webhook_url` of requests."""
    async with gateway.db.reading() as connection:
        if endpoint is not None:
            await endpoints.get_endpoint(connection, endpoint, project_id=caller.project_id)
        page, has_more = await deliveries.list_deliveries(
            connection,
            project_id=caller.project_id,
            endpoint_id=endpoint,
            state=state,
            event_type=event_type,
            since=since,
            after=after,
            limit=limit,
        )
    return no_store(page_of([render_delivery(*entry) for entry in page], has_more=has_more))


@routes.post(
    "/v1/webhook_deliveries/redeliver_failed",
    status_code=202,
    responses=returns(schemas.RedeliveredWebhooks, 202),
    openapi_extra=body_schema(RedeliverFailed),
)
async def redeliver_failed(request: Request, gateway: GatewayDep, caller: CallerDep, _: KnownParameters) -> Response:
    """Send failed deliveries again, oldest first, each under the same `webhook-id`: at most 1,000 for one request;
    repeat it while `has_more` is true. Those to disabled endpoints, and those of deleted or purged videos of which
    nothing is left to send, are left out."""
    async with body_of(request, RedeliverFailed) as body:
        wire = validated(RedeliverFailed, body)
    caller = await gateway.authenticator.check(caller)
    if wire.endpoint is not None:
        async with gateway.db.reading() as connection:
            await endpoints.get_endpoint(connection, wire.endpoint, project_id=caller.project_id)
    done = await deliveries.redeliver_failed(
        gateway.db,
        project_id=caller.project_id,
        since=wire.since,
        endpoint_id=wire.endpoint,
        event_type=wire.event_type,
        now=gateway.clock(),
    )
    gateway.wake()
    left_out = {"endpoint_disabled": done.endpoint_disabled, "video_deleted": done.video_deleted}
    result = {"object": "webhook_delivery.redelivered", "redelivered": done.count, "has_more": done.has_more}
    return JSONResponse({**result, "left_out": left_out}, status_code=202)
