"""Webhooks in the OpenAI dialect: the SDK's `client.webhooks`, Lumenfall's secret, and the log of deliveries.

Shapes: OpenAI SDK 3.52 and docs.lumenfall.ai/webhooks, read 2026-11-21. `enabled`, `disabled_reason`, `failing_since`
and everything under `deliveries` are this gateway's own.
"""

from typing import Annotated, Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from app import errors
from app.db.models import Delivery, DeliveryTry, Video, WebhookEndpoint
from app.dialects.openai import webhook_schemas as schemas
from app.dialects.openai.router import After, AliasedRouter, Limit
from app.dialects.openai.wire import render_output
from app.http.body import body_of, body_schema, validated
from app.http.context import CallerDep, Gateway, GatewayDep, get_video
from app.http.fields import Address, Word
from app.http.openapi import returns
from app.http.responses import no_store, page_of
from app.http.webhooks import send_test
from app.media.signed_links import SignedLinks
from app.webhooks import deliveries, endpoints, events, signing
from app.webhooks.sender import WebhookStyle

routes = AliasedRouter(tags=["webhooks"])

HINT_CHARACTERS = 4


# Wire models


class CreateEndpoint(BaseModel):
    """POST /v1/webhook_endpoints."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"name": "shop", "url": "https://shop.example.com/events", "event_types": ["video.completed"]}]
        }
    )

    name: Word
    url: Address
    event_types: Annotated[list[Word], Field(max_length=100)]


class UpdateEndpoint(BaseModel):
    """POST /v1/webhook_endpoints/{id}; omitted fields stay unchanged."""

    model_config = ConfigDict(use_attribute_docstrings=True, json_schema_extra={"examples": [{"enabled": True}]})

    name: Word | None = None
    url: Address | None = None
    event_types: Annotated[list[Word], Field(max_length=100)] | None = None
    enabled: bool | None = None
    """True also re-enables an endpoint that was disabled; so does a new `url`."""


class RotateSecret(BaseModel):
    """POST /v1/webhook_endpoints/{id}/rotate_secret."""

    keep_old_secret_active_for_24_hours: bool = False


class TestEndpoint(BaseModel):
    """POST /v1/webhook_endpoints/{id}/test."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"event_type": "video.completed"}]})

    event_type: Word


# Rendering


def render_data(video: Video, links: SignedLinks, origin: str) -> dict[str, Any]:
    """The `data` of an event for the `webhook_url` of a request, in Lumenfall's shape; OpenAI's shape has only
    the `id`."""
    data = {"object": "video.generation", "id": video.id, "model": video.model, "status": str(video.status)}
    if video.error_code:
        return {**data, "error": {"code": video.error_code, "message": video.error_message}}

    return {**data, "output": render_output(video, links, origin, links.clock())}


WEBHOOK_STYLE = WebhookStyle(signing.STANDARD, body=render_data, sign=signing.standard_headers)


def _seconds(value: Any) -> int | None:
    return int(value.timestamp()) if value is not None else None


def _endpoint(endpoint: WebhookEndpoint, *, with_secret: bool = False) -> dict[str, Any]:
    return {
        "id": endpoint.id,
        "object": "webhook_endpoint",
        "name": endpoint.name,
        "url": endpoint.url,
        "event_types": endpoint.event_types,
        "created_at": _seconds(endpoint.created_at),
        "updated_at": _seconds(endpoint.updated_at),
        "signing_secret_hint": f"{signing.PREFIX}...{endpoint.secret[-HINT_CHARACTERS:]}",
        "enabled": endpoint.disabled_at is None,
        "disabled_reason": endpoint.disabled_reason,
        "failing_since": _seconds(endpoint.failing_since),
        **({"signing_secret": endpoint.secret} if with_secret else {}),
    }


def render_delivery(delivery: Delivery, tries: list[DeliveryTry]) -> dict[str, Any]:
    """A delivery with all its tries."""
    return {
        "id": delivery.id,
        "object": "webhook_delivery",
        "event_id": delivery.event_id,
        "event_type": delivery.event_type,
        "video_id": delivery.video_id,
        "webhook_endpoint_id": delivery.endpoint_id,
        "state": str(delivery.state),
        "created_at": _seconds(delivery.created_at),
        "next_try_at": _seconds(delivery.due_at) if delivery.ended_at is None else None,
        "ended_at": _seconds(delivery.ended_at),
        "tries": [
            {
                "at": _seconds(entry.at),
                "status_code": entry.status,
                "duration_ms": entry.duration_ms,
                "answer": entry.answer,
                "error": entry.error,
            }
            for entry in tries
        ],
    }


# Endpoints


@routes.post(
    "/v1/webhook_endpoints",
    responses=returns(schemas.WebhookEndpointWithSecret),
    openapi_extra=body_schema(CreateEndpoint),
)
async def create_endpoint(request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Register a URL that receives an event when a video of yours ends. Its secret is shown only in this response."""
    async with body_of(request, CreateEndpoint) as body:
        wire = validated(CreateEndpoint, body)
    caller = await gateway.authenticator.check(caller)  # the key may have expired while the body was read
    async with gateway.db.transaction() as session:
        endpoint = await endpoints.create_endpoint(
            session,
            project_id=caller.project_id,
            name=wire.name,
            url=wire.url,
            types=wire.event_types,
            allow=gateway.settings.allow_networks,
            now=gateway.clock(),
        )
    return no_store(_endpoint(endpoint, with_secret=True))


@routes.get("/v1/webhook_endpoints", responses=returns(schemas.WebhookEndpointPage))
async def list_endpoints(gateway: GatewayDep, caller: CallerDep, after: After = None, limit: Limit = 20) -> Response:
    """List your endpoints, newest first. Request the next page with `after=<last_id>` while `has_more` is true."""
    async with gateway.db.reading() as connection:
        page, has_more = await endpoints.list_endpoints(
            connection, project_id=caller.project_id, after=after, limit=limit
        )
    return no_store(page_of([_endpoint(endpoint) for endpoint in page], has_more=has_more))


@routes.get("/v1/webhook_event_types", responses=returns(schemas.WebhookEventTypes))
async def list_event_types(caller: CallerDep) -> Response:
    """List the event types that an endpoint can subscribe to."""
    return JSONResponse({"object": "list", "data": [str(kind) for kind in events.EventType]})


@routes.get("/v1/webhooks/secret", responses=returns(schemas.WebhookSecret))
async def read_secret(gateway: GatewayDep, caller: CallerDep) -> Response:
    """Read the secret that signs events for the `webhook_url` of a request without a `webhook_secret`."""
    async with gateway.db.transaction() as session:
        return no_store({"key": await endpoints.project_secret(session, caller.project_id)})


@routes.get("/v1/webhook_endpoints/{endpoint_id}", responses=returns(schemas.WebhookEndpoint))
async def retrieve_endpoint(endpoint_id: str, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Read an endpoint, without its secret."""
    async with gateway.db.reading() as connection:
        return JSONResponse(
            _endpoint(await endpoints.get_endpoint(connection, endpoint_id, project_id=caller.project_id))
        )


@routes.post(
    "/v1/webhook_endpoints/{endpoint_id}",
    responses=returns(schemas.WebhookEndpoint),
    openapi_extra=body_schema(UpdateEndpoint),
)
async def update_endpoint(endpoint_id: str, request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Change the given fields. A new `url`, or `enabled: true`, re-enables a disabled endpoint."""
    async with body_of(request, UpdateEndpoint) as body:
        wire = validated(UpdateEndpoint, body)
    caller = await gateway.authenticator.check(caller)
    async with gateway.db.transaction() as session:
        endpoint = await endpoints.update_endpoint(
            session,
            endpoint_id,
            project_id=caller.project_id,
            name=wire.name,
            url=wire.url,
            types=wire.event_types,
            enabled=wire.enabled,
            allow=gateway.settings.allow_networks,
            now=gateway.clock(),
        )
    return JSONResponse(_endpoint(endpoint))


@routes.delete("/v1/webhook_endpoints/{endpoint_id}", responses=returns(schemas.DeletedWebhookEndpoint))
async def delete_endpoint(endpoint_id: str, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Delete an endpoint and its pending deliveries."""
    async with gateway.db.transaction() as session:
        await endpoints.delete_endpoint(session, endpoint_id, project_id=caller.project_id)
    return JSONResponse({"id": endpoint_id, "object": "webhook_endpoint.deleted", "deleted": True})


@routes.post(
    "/v1/webhook_endpoints/{endpoint_id}/rotate_secret",
    responses=returns(schemas.WebhookEndpointWithSecret),
    openapi_extra=body_schema(RotateSecret, required=False),
)
async def rotate_secret(endpoint_id: str, request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Create a new secret. With `keep_old_secret_active_for_24_hours`, events carry both signatures for a day."""
    async with body_of(request, RotateSecret, optional=True) as body:
        wire = validated(RotateSecret, body)
    caller = await gateway.authenticator.check(caller)
    async with gateway.db.transaction() as session:
        keep = wire.keep_old_secret_active_for_24_hours
        endpoint = await endpoints.rotate_secret(
            session, endpoint_id, project_id=caller.project_id, keep_old=keep, now=gateway.clock()
        )
    return no_store(_endpoint(endpoint, with_secret=True))


@routes.post(
    "/v1/webhook_endpoints/{endpoint_id}/test",
    responses=returns(schemas.WebhookEndpointTest),
    openapi_extra=body_schema(TestEndpoint),
)
async def test_endpoint(endpoint_id: str, request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Send one sample event now and return the receiver's status code; 400 with the reason if it did not respond."""
    async with body_of(request, TestEndpoint) as body:
        event_type = validated(TestEndpoint, body).event_type
    caller = await gateway.authenticator.check(caller)
    endpoint, answer = await send_test(gateway, endpoint_id, event_type, project_id=caller.project_id)
    if answer.status is None:
        raise errors.InvalidRequest(
            f"the endpoint could not be called: {answer.error}", param="url", code="webhook_endpoint_unreachable"
        )
    result = {"object": "webhook_endpoint.test", "event_type": event_type, "status_code": answer.status}
    return JSONResponse({**result, "success": True, "webhook_endpoint_id": endpoint.id})


# Deliveries: this gateway's own


@routes.get("/v1/webhook_endpoints/{endpoint_id}/deliveries", responses=returns(schemas.WebhookDeliveryPage))
async def list_deliveries(
    endpoint_id: str, gateway: GatewayDep, caller: CallerDep, after: After = None, limit: Limit = 20
) -> Response:
    """List the deliveries to an endpoint in the last 30 days, newest first, with every try and its response."""
    async with gateway.db.reading() as connection:
        await endpoints.get_endpoint(connection, endpoint_id, project_id=caller.project_id)
        page, has_more = await deliveries.list_deliveries(
            connection, project_id=caller.project_id, endpoint_id=endpoint_id, after=after, limit=limit
        )
    return no_store(page_of([render_delivery(*entry) for entry in page], has_more=has_more))


@routes.post(
    "/v1/webhook_endpoints/{endpoint_id}/deliveries/{delivery_id}/redeliver",
    status_code=202,
    responses=returns(schemas.WebhookDelivery, 202),
)
async def redeliver(endpoint_id: str, delivery_id: str, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Send an event once more under the same `webhook-id`, even if it was delivered."""
    async with gateway.db.transaction() as session:
        delivery = await deliveries.redeliver(
            session, delivery_id, project_id=caller.project_id, endpoint_id=endpoint_id, now=gateway.clock()
        )
    return await _redelivered(delivery, gateway)


@routes.get("/v1/videos/{video_id}/deliveries", responses=returns(schemas.WebhookDeliveryPage))
async def list_deliveries_of_video(
    video_id: str, gateway: GatewayDep, caller: CallerDep, after: After = None, limit: Limit = 20
) -> Response:
    """List the deliveries about a video: to your endpoints and to the `webhook_url` of its request."""
    async with gateway.db.reading() as connection:
        page, has_more = await deliveries.list_deliveries(
            connection, project_id=caller.project_id, video_id=video_id, after=after, limit=limit
        )
    if not page and after is None:  # a deleted video may have deliveries, an unknown one has none
        await get_video(gateway, caller, video_id)
    return no_store(page_of([render_delivery(*entry) for entry in page], has_more=has_more))


@routes.post(
    "/v1/videos/{video_id}/deliveries/{delivery_id}/redeliver",
    status_code=202,
    responses=returns(schemas.WebhookDelivery, 202),
)
async def redeliver_of_video(video_id: str, delivery_id: str, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Send an event about a video once more under the same `webhook-id`, even if it was delivered."""
    async with gateway.db.transaction() as session:
        delivery = await deliveries.redeliver(
            session, delivery_id, project_id=caller.project_id, video_id=video_id, now=gateway.clock()
        )
    return await _redelivered(delivery, gateway)


async def _redelivered(delivery: Delivery, gateway: Gateway) -> Response:
    gateway.wake()
    return JSONResponse(render_delivery(delivery, []), status_code=202)
