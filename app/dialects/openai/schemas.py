"""Models of the responses of the OpenAI dialect, for the OpenAPI document; `wire.py` and `webhooks.py` render them.

The first 13 fields of a video are OpenAI's. Times are Unix times in seconds, amounts are US dollars.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from app.http.filters import SearchedVideos, VideoSums
from app.http.openapi import Json, ResponseModel, may_be_absent
from app.video import AttemptState, Billing, Status

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
    thumbnail_url: Uri | None
    """Signed URL of a WebP picture at most 640 pixels wide, made when it is first opened; null: no pictures are made
    here, since the gateway has no ffmpeg."""
    spritesheet_url: Uri | None
    """Signed URL of a JPEG of 5 by 5 evenly spaced frames, otherwise the same."""
    expires_at: int
    """Time at which the links expire."""
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
            "thumbnail_url": "https://video.example.com/media/video_01kb3v9zq4e8tq6j8x2m5n7r9s/0.thumbnail.webp"
            "?exp=1764183660&sig=y",
            "spritesheet_url": "https://video.example.com/media/video_01kb3v9zq4e8tq6j8x2m5n7r9s/0.spritesheet.jpg"
            "?exp=1764183660&sig=z",
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
    """The value of `after` for the next page; `searched` may have looked further than the last video."""
    has_more: bool
    searched: SearchedVideos = may_be_absent()
    """Present with filters without an index."""
    summary: VideoSums = may_be_absent()
    """Present with `summary=true`."""


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


# Money


class BalanceAmount(ResponseModel):
    amount: float | None
    """Null: no limit."""
    currency: Literal["usd"]


class Balance(ResponseModel):
    """The amount that a key may still spend."""

    object: Literal["balance"]
    billing_type: Billing
    available: BalanceAmount
