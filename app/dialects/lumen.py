"""Lumen's video API. Docs: lumen-ai.uk/api-docs/video, read 2026-11-21.

Quirks: several fields have two names, of which the first listed here wins; a video as input means video-to-video, an
image image-to-video; the response to a create shows `processing` for every unfinished video. Inferred: errors in
OpenAI's envelope. As at the vendor, a parameter that the model does not have is ignored, here with a sentence in
`warnings` of the GET object; unlike there, media that it cannot use, and a ratio or resolution that it lacks among
others, are refused, since the video would not be the one that was asked for. The vendor's defaults of 5 s and of sound
are sent where the model is known to have them; those of 720p and 16:9 belong to the vendor's models. A length that the
model lacks is a 404, as documented. Beyond the vendor: any model, and media as files or data URLs.
"""

import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from app import errors
from app.db.models import Video
from app.dialects import shared
from app.http.body import Body, body_of, extra_of, reject_bool, validated
from app.http.context import CallerDep, GatewayDep, get_video, origin_of
from app.http.create import app_name, create_job, new_video_id, take_idempotency, take_routing, take_webhook
from app.http.fields import Address, Base64Medium, MediumOrList, Name, Secret, Word
from app.http.openapi import Json, ResponseModel, create_schema, may_be_absent, returns
from app.http.uploads import Uploads
from app.media.signed_links import SignedLinks
from app.video import MAX_SECONDS, Status, VideoRequest, Webhook
from app.webhooks.sender import WebhookStyle

TITLE = "Lumen"
PREFIXES = ("/v1/videos/generations/",)
MIN_SECONDS = 4
DEFAULTS = {"seconds": 5, "generate_audio": True}

STATUS = {
    Status.queued: "queued",
    Status.in_progress: "processing",
    Status.completed: "succeeded",
    Status.failed: "failed",
}
"""Without `cancelled`, which is a failure with that code."""

routes = APIRouter(tags=["lumen"])


class CreateGeneration(BaseModel):
    """POST /v1/videos/generations. Fields not listed here are passed on to the provider unchanged."""

    model_config = ConfigDict(
        title="CreateLumenGeneration",
        extra="allow",
        use_attribute_docstrings=True,
        json_schema_extra={
            "examples": [{"model": "veo-3-1", "prompt": "a paper boat on a pond", "duration": 8, "resolution": "720p"}]
        },
    )

    model: Name
    prompt: shared.Prompt
    resolution: Word | None = None
    aspect_ratio: Word | None = None
    duration: Annotated[int, Field(ge=MIN_SECONDS, le=MAX_SECONDS), BeforeValidator(reject_bool)] | None = None
    generate_audio: bool | None = None
    image_url: Base64Medium | None = None
    """The first frame."""
    first_frame_url: Base64Medium | None = None
    """Another name of `image_url`."""
    last_image_url: Base64Medium | None = None
    last_frame_url: Base64Medium | None = None
    """Another name of `last_image_url`."""
    reference_image_urls: MediumOrList | None = None
    reference_images: MediumOrList | None = None
    """Another name of `reference_image_urls`."""
    reference_video_url: Base64Medium | None = None
    video_url: Base64Medium | None = None
    """Another name of `reference_video_url`."""
    webhook_url: Address | None = None
    webhook_secret: Secret | None = None


class LumenCreated(ResponseModel):
    """The response to a create of Lumen's API."""

    id: str
    status: Literal["processing", "succeeded", "failed", "cancelled"]
    created: int
    """Unix time in seconds."""


class LumenFile(ResponseModel):
    url: str
    """Signed URL; plays without a key until it expires."""


class LumenFailure(ResponseModel):
    message: str | None


class LumenGeneration(ResponseModel):
    """A video in Lumen's API."""

    example: ClassVar[Json] = {
        "id": "video_01kb3v9zq4e8tq6j8x2m5n7r9s",
        "status": "succeeded",
        "data": [
            {"url": "https://video.example.com/media/video_01kb3v9zq4e8tq6j8x2m5n7r9s/0.mp4?exp=1764183660&sig=x"}
        ],
    }

    id: str
    status: Literal["queued", "processing", "succeeded", "failed", "cancelled"]
    data: list[LumenFile] = may_be_absent()
    """The files of a video that succeeded; else absent."""
    error: LumenFailure = may_be_absent()
    """The reason for `failed` and `cancelled`; else absent."""
    warnings: list[str] = may_be_absent()


class LumenErrorDetails(ResponseModel):
    message: str
    type: str
    param: str | None
    code: str


class LumenError(ResponseModel):
    """An error in the shape of Lumen's API."""

    error: LumenErrorDetails


ErrorModel = LumenError


def parse(body: Body, uploads: Uploads, webhook: Webhook | None) -> VideoRequest:
    """Read the body of a create. Raises `InvalidRequest`."""
    wire = validated(CreateGeneration, body)

    names: dict[str, str | None] = {"size": None, "seconds": "duration"}

    def one_of(field: str, *choices: str) -> tuple[Any, str]:
        name = names[field] = next((name for name in choices if getattr(wire, name)), choices[0])
        return getattr(wire, name) or None, name

    pictures, name = one_of("reference_images", "reference_image_urls", "reference_images")
    listed = pictures if isinstance(pictures, list) else [pictures] if pictures else []
    return VideoRequest(
        prompt=wire.prompt,
        model=wire.model,
        seconds=wire.duration,
        generate_audio=wire.generate_audio,
        first_frame=shared.picture(*one_of("first_frame", "image_url", "first_frame_url"), uploads),
        last_frame=shared.picture(*one_of("last_frame", "last_image_url", "last_frame_url"), uploads),
        reference_images=tuple(uploads.media(entry, name) for entry in listed),
        reference_video=shared.picture(*one_of("reference_video", "reference_video_url", "video_url"), uploads),
        webhook=webhook,
        extra=extra_of(wire),
        client_names=names,
        drop_unsupported=True,
        preferred=DEFAULTS,
        **shared.sized(wire.aspect_ratio, wire.resolution),
    )


def _webhook(request: Request, body: Body) -> Webhook | None:
    if not body.get("webhook_url"):
        return None  # a secret alone is ignored
    if body.get("webhook_secret") in (None, ""):
        message = "webhook_secret is required with webhook_url"
        raise errors.InvalidRequest(message, param="webhook_secret", code="missing_parameter")
    return take_webhook(request, body, style=WEBHOOK_STYLE.name)


def render(video: Video) -> dict[str, Any]:
    """The response to a create."""
    status = status_of(video) if video.status.ended else "processing"
    return {"id": video.id, "status": status, "created": int(video.created_at.timestamp())}


def status_of(video: Video) -> str:
    return "cancelled" if video.error_code == "cancelled" else STATUS[video.status]


def query_object(video: Video, links: SignedLinks, origin: str) -> dict[str, Any]:
    """The response to a GET, also the body of webhooks."""
    body: dict[str, Any] = {"id": video.id, "status": status_of(video)}
    if video.status is Status.completed:
        body["data"] = [{"url": url} for url in shared.links_of(video, links, origin)]
    if video.status is Status.failed:
        body["error"] = {"message": video.error_message}
    if video.warnings:
        body["warnings"] = video.warnings
    return body


def signature(secret: str, body: bytes) -> str:
    """Return `X-Lumen-Signature`: HMAC-SHA256 over the body alone, in hex."""
    return f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"


def _sign(secrets: Sequence[str], webhook_id: str, body: bytes, now: datetime) -> dict[str, str]:
    signed = {"x-lumen-signature": signature(secrets[0], body)} if secrets else {}
    return {"x-lumen-timestamp": str(int(now.timestamp())), **signed}


WEBHOOK_STYLE = WebhookStyle("lumen", body=query_object, sign=_sign)


def render_error(error: errors.GatewayError, *, path: str, request_id: str) -> dict[str, Any]:
    """OpenAI's envelope: the vendor documents none, and its text models use OpenAI's API."""
    return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}


@routes.post("/v1/videos/generations", responses=returns(LumenCreated), openapi_extra=create_schema(CreateGeneration))
async def create_generation(request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Create a video with Lumen's API."""
    async with body_of(request, CreateGeneration) as body:
        routing = take_routing(request, body)
        idempotency = take_idempotency(request, body, "lumen")
        webhook = _webhook(request, body)
        uploads = Uploads(new_video_id(), gateway.settings.allow_networks)
        parsed = parse(body, uploads, webhook)
        try:
            created = await create_job(
                gateway,
                caller,
                parsed,
                uploads,
                dialect="lumen",
                app=app_name(request),
                idempotency=idempotency,
                routing=routing,
            )
        except errors.UnsupportedParameter as error:
            if error.param != "duration":
                raise
            raise errors.ModelNotFound(error.message, param="duration") from None
    return shared.answer(render(created.video), created=created)


@routes.get("/v1/videos/generations/{video_id}", responses=returns(LumenGeneration))
async def retrieve_generation(video_id: str, request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Read a video with Lumen's API."""
    video = await get_video(gateway, caller, video_id)
    return shared.answer(query_object(video, gateway.links, origin_of(request)))
