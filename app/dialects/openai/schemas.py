"""Models of the responses of the OpenAI dialect, for the OpenAPI document; `wire.py` and `webhooks.py` render them.

The first 13 fields of a video are OpenAI's. Times are Unix times in seconds, amounts are US dollars.
"""

from datetime import date
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from app.http.openapi import Json, ResponseModel, may_be_absent
from app.video import AttemptState, Billing, DeliveryState, Operation, Status
from app.webhooks.events import EventType

Uri = Annotated[str, Field(json_schema_extra={"format": "uri"})]


class OpenAIErrorDetails(ResponseModel):
    message: str
    """The reason and the next step."""
    type: str
    """Class of the error, such as `invalid_request_error` or `rate_limit_error`."""
    param: str | None
    """The field or parameter that the error is about."""
    code: str
    """Stable name of the error, such as `invalid_value` or `model_not_found`."""


class OpenAIError(ResponseModel):
    """An error in OpenAI's shape."""

    example: ClassVar[Json] = {
        "error": {
            "message": "seconds: Input should be greater than 0",
            "type": "invalid_request_error",
            "param": "seconds",
            "code": "invalid_value",
        }
    }

    error: OpenAIErrorDetails


# Videos


class VideoFailure(ResponseModel):
    """The reason why a video failed."""

    code: str
    """Stable name of the reason; `cancelled` for a video that was cancelled."""
    message: str | None


class VideoFile(ResponseModel):
    """A finished file."""

    url: Uri
    """Signed URL: plays without a key until it expires; read the video again for a new one."""
    expires_at: int
    """Time at which the link expires."""
    content_type: str
    """Such as `video/mp4`."""
    size_bytes: int
    duration_seconds: float | None
    """Measured length; null if it could not be measured."""
    width: int | None
    height: int | None


class VideoOutput(VideoFile):
    """The first finished file of a video, and the list of all if there are several."""

    files: list[VideoFile] = may_be_absent()
    """All files of a video with several outputs; absent for one file."""


class VideoAttempt(ResponseModel):
    """A task at an upstream, in the routing of a video."""

    provider: str
    executed_model: str
    """`provider/upstream-model`."""
    status: AttemptState
    upstream_id: str | None
    error_code: str | None


class Video(ResponseModel):
    """A video: OpenAI's fields, then those of Lumenfall and of this gateway."""

    example: ClassVar[Json] = {
        "id": "video_01kb3v9zq4e8tq6j8x2m5n7r9s",
        "object": "video",
        "model": "sora-2",
        "status": "completed",
        "progress": 100,
        "created_at": 1764180000,
        "completed_at": 1764180060,
        "expires_at": 1764266460,
        "prompt": "a paper boat on a pond",
        "size": "1280x720",
        "seconds": "4",
        "remixed_from_video_id": None,
        "error": None,
        "url": "https://video.example.com/media/video_01kb3v9zq4e8tq6j8x2m5n7r9s/0.mp4?exp=1764183660&sig=x",
        "output": {
            "url": "https://video.example.com/media/video_01kb3v9zq4e8tq6j8x2m5n7r9s/0.mp4?exp=1764183660&sig=x",
            "expires_at": 1764183660,
            "content_type": "video/mp4",
            "size_bytes": 1048576,
            "duration_seconds": 4.0,
            "width": 1280,
            "height": 720,
        },
        "metadata": {"order": "17"},
        "provider": "openai",
        "upstream_model": "sora-2",
        "cost_estimate": 0.4,
        "cost": 0.4,
        "cost_currency": "USD",
    }

    id: str
    object: Literal["video"]
    model: str
    """The model as the request named it."""
    status: Status
    progress: int
    """0 to 100; 100 only when the video is completed."""
    created_at: int
    completed_at: int | None
    expires_at: int | None
    """Time at which the files are deleted; null: never, or not completed yet."""
    prompt: str
    size: str | None
    """The requested size or ratio; once completed the measured size, null if it could not be measured."""
    seconds: str | None
    """The requested length; once completed the measured one, null if it could not be measured."""
    remixed_from_video_id: str | None
    """The video that a remix, an edit or an extension was made from."""
    error: VideoFailure | None
    """Set for a failed video."""
    url: str | None
    """The `url` of `output`."""
    output: VideoOutput | None
    """Set for a completed video until its files are deleted."""
    metadata: dict[str, str | float | list[VideoAttempt] | None]
    """The metadata of the request; at `/openai/v1`, or with `x-gateway-metadata: full`, also the routing."""
    provider: str
    """The provider that makes the video."""
    upstream_model: str
    """That provider's name of the model."""
    cost_estimate: float | None
    """Estimated cost in US dollars; null: no price is known."""
    cost: float | None
    """Cost in US dollars; null: nothing is charged yet, or no price is known."""
    cost_currency: Literal["USD"]
    warnings: list[str] = may_be_absent()
    """Deviations of the video from its request; absent if there are none."""


class VideoPage(ResponseModel):
    """A page of videos."""

    object: Literal["list"]
    data: list[Video]
    first_id: str | None
    last_id: str | None
    """The value of `after` for the next page."""
    has_more: bool


class DeletedVideo(ResponseModel):
    """Confirmation of a deletion or of a cancel."""

    id: str
    object: Literal["video.deleted"]
    deleted: Literal[True]


class EstimateComponent(ResponseModel):
    type: Literal["output"]
    metric: Literal["second", "task"]
    """`task`: what is added to the price by length, such as a price of input images."""
    quantity: float
    """Seconds of all outputs, or outputs."""
    billable_quantity: float
    """Seconds that are charged, or outputs."""
    unit_price: float
    """US dollars per second, or per output."""
    total_cost: int
    """Millionths of a US dollar."""


class EstimatedRoute(ResponseModel):
    """A route, its price for this request, and the reason for its place."""

    route: str
    cost_estimate: float | None
    median_seconds: float | None
    """Median time to the finished video, for the same length and resolution."""
    kept: bool
    """False: it is not tried."""
    reason: str


class Estimate(ResponseModel):
    """The response to `?dryRun=true`: what the video would cost."""

    estimated: Literal[True]
    model: str
    provider: str
    total_cost_micros: int | None
    """Millionths of a US dollar; null: the price or the length is not known."""
    currency: Literal["USD"]
    components: list[EstimateComponent]
    cost_estimate: float | None
    """US dollars on the first route."""
    cost_at_most: float | None
    """US dollars on the dearest route that may be tried: so much is reserved. Null: a price is not known."""
    routes: list[EstimatedRoute]
    """Routes that could serve the request, in the order in which they are tried, then those passed over."""
    warnings: list[str] = may_be_absent()


class VideoCharacter(ResponseModel):
    """A reusable character."""

    id: str
    name: str
    created_at: int


# Models


class SecondsRange(ResponseModel):
    minimum: float
    maximum: float
    whole: bool
    """True: whole seconds only."""


class CountRange(ResponseModel):
    minimum: int
    maximum: int


class ModelCapabilities(ResponseModel):
    """Parameters and values that a model supports. Null: not known, the upstream decides. Empty: no such parameter."""

    seconds: list[float] | SecondsRange | None
    """Supported lengths."""
    default_seconds: float | None
    sizes: list[str] | None
    aspect_ratios: list[str] | None
    resolutions: list[str] | None
    parameters: list[str]
    """Optional fields of a request that it supports."""
    media: list[Literal["upload", "url"]]
    """Forms of pictures and videos that it takes."""
    operations: list[Operation]
    n: CountRange
    """Number of outputs per request."""
    passes_unknown_fields: bool
    """True: fields that this gateway does not know are passed on."""


class ModelPricing(ResponseModel):
    currency: Literal["USD"]
    per_second: dict[str, float]
    """US dollars per second by resolution; `any` stands for every other resolution."""


class ModelRoute(ResponseModel):
    """A route of a model."""

    route: str
    capabilities: ModelCapabilities
    pricing: ModelPricing | None
    median_seconds: float | None
    """Median time to the finished video of the model's default length and resolution; null: none was made lately."""
    tried_live: date | None
    """Date at which its kind was last tried with the real vendor."""


class Model(ResponseModel):
    """A model or an alias, with the capabilities and the price of its first route."""

    example: ClassVar[Json] = {
        "id": "lumen/veo-3-1",
        "object": "model",
        "created": 0,
        "owned_by": "lumen",
        "title": None,
        "status": None,
        "routes": ["lumen/veo-3-1"],
        "capabilities": {
            "seconds": [4, 6, 8],
            "default_seconds": 8,
            "sizes": None,
            "aspect_ratios": ["16:9", "9:16"],
            "resolutions": ["720p", "1080p"],
            "parameters": ["first_frame", "generate_audio"],
            "media": ["upload", "url"],
            "operations": ["generate"],
            "n": {"minimum": 1, "maximum": 4},
            "passes_unknown_fields": False,
        },
        "pricing": {"currency": "USD", "per_second": {"any": 0.1}},
        "served_by": [],
    }

    id: str
    object: Literal["model"]
    created: int
    """Always 0."""
    owned_by: str
    """The provider of its first route."""
    title: str | None
    """Null: not a model of the catalogue."""
    status: Literal["current", "legacy", "retired"] | None
    routes: list[str]
    """`provider/model` of all its routes, in order."""
    capabilities: ModelCapabilities
    pricing: ModelPricing | None
    """Null: no price is known."""
    served_by: list[ModelRoute]
    """Each route with its own capabilities and price."""


class ModelList(ResponseModel):
    object: Literal["list"]
    data: list[Model]


class BalanceAmount(ResponseModel):
    amount: float | None
    """Null: no limit."""
    currency: Literal["usd"]


class Balance(ResponseModel):
    """The amount that a key may still spend."""

    object: Literal["balance"]
    billing_type: Billing
    available: BalanceAmount


# Webhooks


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
