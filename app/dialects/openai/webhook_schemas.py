"""Models of the responses about webhooks, for the OpenAPI document; `webhooks.py` renders them. Times are Unix times in
seconds."""

from typing import Literal

from app.http.openapi import ResponseModel
from app.video import DeliveryState
from app.webhooks.events import EventType


class WebhookEndpoint(ResponseModel):
    """A URL that receives events."""

    id: str
    object: Literal["webhook_endpoint"]
    name: str
    url: str
    event_types: list[EventType]
    created_at: int
    updated_at: int
    signing_secret_hint: str
    """The end of the signing secret."""
    enabled: bool
    disabled_reason: str | None
    failing_since: int | None
    """Time of the first of the failures since the last success."""


class WebhookEndpointWithSecret(WebhookEndpoint):
    """An endpoint in the response to its creation or to a new secret, which alone show the secret."""

    signing_secret: str


class WebhookEndpointPage(ResponseModel):
    object: Literal["list"]
    data: list[WebhookEndpoint]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedWebhookEndpoint(ResponseModel):
    id: str
    object: Literal["webhook_endpoint.deleted"]
    deleted: Literal[True]


class WebhookEndpointTest(ResponseModel):
    """The result of a sample event."""

    object: Literal["webhook_endpoint.test"]
    event_type: EventType
    status_code: int
    """Status of the receiver's response."""
    success: Literal[True]
    webhook_endpoint_id: str


class WebhookEventTypes(ResponseModel):
    object: Literal["list"]
    data: list[EventType]


class WebhookSecret(ResponseModel):
    key: str
    """Signs events for the `webhook_url` of a request without a `webhook_secret`."""


class WebhookDeliveryTry(ResponseModel):
    at: int
    status_code: int | None
    """Null: no response."""
    duration_ms: int
    answer: str | None
    """The beginning of the response body."""
    error: str | None
    """Reason why the try failed; null: delivered."""


class WebhookDelivery(ResponseModel):
    """The delivery of an event to one receiver."""

    id: str
    object: Literal["webhook_delivery"]
    event_id: str
    event_type: EventType
    video_id: str
    webhook_endpoint_id: str | None
    """Null: the `webhook_url` of the video's request."""
    state: DeliveryState
    created_at: int
    next_try_at: int | None
    ended_at: int | None
    tries: list[WebhookDeliveryTry]


class WebhookDeliveryPage(ResponseModel):
    object: Literal["list"]
    data: list[WebhookDelivery]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeliveriesLeftOut(ResponseModel):
    """Failed deliveries that cannot be sent again, by reason, counted up to 10,000 in all."""

    endpoint_disabled: int
    """Enable the endpoint first."""
    video_deleted: int
    """The video was deleted or purged, so there is nothing left to send."""


class RedeliveredWebhooks(ResponseModel):
    """The result of sending failed deliveries again."""

    object: Literal["webhook_delivery.redelivered"]
    redelivered: int
    """Deliveries that are due now."""
    has_more: bool
    """True: repeat the request for the others."""
    left_out: DeliveriesLeftOut
