"""Luma's video API as sold by the reseller gpt.ge. Docs: gpt.morphogen.top/en/video/luma (generate, query-single,
expand); inner fields, states, `/luma/tasks` and `/luma/generations_sync` from resellers with the same adapter
(v98store, kkiai, yutoai); read 2026-11-21.

Quirks: no model field, so `GATEWAY_DIALECTS__LUMA__MODEL` names the model; `model_name`, of the other resellers, is
used if this gateway has such a model. Images are URLs, data URLs or bare base64. Times have microseconds. Inferred:
the shape of errors, which is that of new-api, the panel software of such resellers; and that `/luma/tasks` leaves out
unknown ids, so that one deleted video does not hide all others from a client; that `/luma/generations_sync` waits for
the end, as its name says (yutoai's example, the only one, shows a pending object). `loop: false` is the behaviour of
every model, so it is not passed on. `last_frame` is always null: the gateway makes thumbnails only.
"""

from typing import Annotated, Any, ClassVar, Literal, cast

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import AliasChoices, AwareDatetime, BaseModel, ConfigDict, Field

from app import errors
from app.accounts.auth import Caller
from app.db.faults import is_unavailable
from app.db.models import Video
from app.dialects import shared
from app.http.body import Body, body_of, body_schema, extra_of, validated
from app.http.context import CallerDep, Gateway, GatewayDep, get_video, origin_of
from app.http.create import app_name, create_job, new_video_id, take_idempotency, take_routing, take_webhook
from app.http.fields import Address, Base64Medium, Name, Word
from app.http.files import picture_url
from app.http.openapi import Json, ResponseModel, create_schema, returns
from app.http.uploads import Uploads
from app.http.wait import waiting_slot, watch_video
from app.jobs import videos
from app.jobs.enqueue import Created
from app.media.frames import thumbnail_size
from app.media.signed_links import SignedLinks
from app.video import Status, VideoRequest, Webhook
from app.webhooks.sender import WebhookStyle

TITLE = "Luma through gpt.ge"
PREFIXES = ("/luma/",)
MAX_TASKS = 100
NAMES = {"size": None, "seconds": "duration", "first_frame": "image_url", "last_frame": "image_end_url"}

STATE = {
    Status.queued: "pending",
    Status.in_progress: "processing",
    Status.completed: "completed",
    Status.failed: "failed",
}

routes = APIRouter(tags=["luma"])


class Config(shared.ModelConfig):
    hold_s: Annotated[float, Field(ge=0, le=60)] = 60
    """Longest wait of `/luma/generations_sync`, in seconds; must be shorter than the timeout of a proxy in front."""


class CreateGeneration(BaseModel):
    """POST /luma/generations and /luma/generations/{id}/extend. Fields not listed here are passed on to the provider
    unchanged."""

    model_config = ConfigDict(
        title="CreateLumaGeneration",
        extra="allow",
        use_attribute_docstrings=True,
        json_schema_extra={"examples": [{"user_prompt": "a paper boat on a pond", "aspect_ratio": "16:9"}]},
    )

    user_prompt: shared.Prompt
    expand_prompt: bool | None = None
    image_url: Base64Medium | None = None
    """The first frame."""
    image_end_url: Base64Medium | None = None
    """The last frame."""
    notify_hook: Address | None = None
    """Receives the video at its end."""
    loop: bool | None = None
    aspect_ratio: Word | None = None
    model_name: Name | None = Field(None, validation_alias=AliasChoices("model_name", "model"))
    duration: shared.Seconds | None = None
    """A number of seconds, or `5s`."""
    resolution: Word | None = None


class Tasks(BaseModel):
    """POST /luma/tasks."""

    model_config = ConfigDict(
        title="LumaTasks", json_schema_extra={"examples": [{"ids": ["video_01kb3v9zq4e8tq6j8x2m5n7r9s"]}]}
    )

    ids: Annotated[list[Word], Field(min_length=1, max_length=MAX_TASKS)]


class LumaRequest(ResponseModel):
    prompt: str
    aspect_ratio: str | None


class LumaCreated(ResponseModel):
    """The response to a create of gpt.ge's Luma API."""

    example: ClassVar[Json] = {
        "id": "video_01kb3v9zq4e8tq6j8x2m5n7r9s",
        "state": "pending",
        "created_at": "2026-11-26T12:00:00.000000Z",
        "request": {"prompt": "a paper boat on a pond", "aspect_ratio": "16:9"},
    }

    id: str
    state: Literal["pending", "processing", "completed", "failed"]
    created_at: AwareDatetime
    request: LumaRequest


class LumaVideo(ResponseModel):
    url: str
    """Signed URL; plays without a key until it expires."""
    width: int | None
    height: int | None
    download_url: str


class LumaRawVideo(ResponseModel):
    url: str
    width: int | None
    height: int | None
    duration: float | None
    media_type: Literal["video"]


class LumaThumbnail(ResponseModel):
    url: str
    """Signed URL of a picture, which opens without a key until it expires."""
    width: int | None
    height: int | None
    media_type: Literal["image"]


class LumaArtifact(ResponseModel):
    video: LumaVideo
    video_raw: LumaRawVideo
    thumbnail: LumaThumbnail | None
    last_frame: None
    created_at: AwareDatetime


class LumaGeneration(LumaCreated):
    """A video in gpt.ge's Luma API."""

    failure_reason: str | None
    video: LumaVideo | None
    """Set for a completed video, like `video_raw` and `artifact`."""
    video_raw: LumaRawVideo | None
    thumbnail: LumaThumbnail | None
    last_frame: None
    artifact: LumaArtifact | None


class LumaError(ResponseModel):
    """An error in the shape of gpt.ge's Luma API."""

    code: str
    message: str
    data: None


ErrorModel = LumaError


def parse(body: Body, uploads: Uploads, webhook: Webhook | None) -> tuple[VideoRequest, str | None]:
    """Read the body of a create or an extension. Returns the request without its model, and the model name given."""
    wire = validated(CreateGeneration, body)
    request = VideoRequest(
        prompt=wire.user_prompt,
        model="",
        seconds=wire.duration,
        first_frame=shared.picture(wire.image_url, "image_url", uploads),
        last_frame=shared.picture(wire.image_end_url, "image_end_url", uploads),
        loop=wire.loop or None,
        expand_prompt=wire.expand_prompt,
        webhook=webhook,
        extra=extra_of(wire),
        client_names=NAMES,
        **shared.sized(wire.aspect_ratio, wire.resolution),
    )
    return request, wire.model_name


def render(video: Video) -> dict[str, Any]:
    """The response to a create."""
    requested = video.request
    return {
        "id": video.id,
        "state": STATE[video.status],
        "created_at": shared.rfc3339(video.created_at, "microseconds"),
        "request": {"prompt": requested["prompt"], "aspect_ratio": shared.ratio_of(requested)},
    }


def query_object(video: Video, links: SignedLinks, origin: str) -> dict[str, Any]:
    """The response to a GET, also the body of webhooks."""
    video_file = raw = thumbnail = artifact = None
    url = shared.link_of(video, links, origin) if video.status is Status.completed else None
    if url is not None:
        output = video.outputs[0] if video.outputs else {}
        thumbnail = _thumbnail(video, output, links, origin) if output else None
        side = {"width": output.get("width"), "height": output.get("height")}
        video_file = {"url": url, **side, "download_url": url}
        raw = {"url": url, **side, "duration": output.get("duration_s"), "media_type": "video"}
        done_at = shared.rfc3339(video.completed_at or video.updated_at, "microseconds")
        pictures = {"thumbnail": thumbnail, "last_frame": None}
        artifact = {"video": video_file, "video_raw": raw, **pictures, "created_at": done_at}
    return {
        **render(video),
        "failure_reason": video.error_message,
        "video": video_file,
        "video_raw": raw,
        "thumbnail": thumbnail,
        "last_frame": None,
        "artifact": artifact,
    }


def _thumbnail(video: Video, output: dict[str, Any], links: SignedLinks, origin: str) -> dict[str, Any]:
    """The link to the thumbnail, which is made when the link is first opened, with the size that it will have."""
    known = output.get("width") and output.get("height")
    width, height = thumbnail_size(output["width"], output["height"]) if known else (None, None)
    url = picture_url(video, output, "thumbnail", links, origin)
    return {"url": url, "width": width, "height": height, "media_type": "image"}


WEBHOOK_STYLE = WebhookStyle("luma", body=query_object)


def render_error(error: errors.GatewayError, *, path: str, request_id: str) -> dict[str, Any]:
    return {"code": error.code, "message": error.message, "data": None}


@routes.post("/luma/generations", responses=returns(LumaCreated), openapi_extra=create_schema(CreateGeneration))
async def create_generation(request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Create a video with gpt.ge's Luma API."""
    created = await _create(request, gateway, caller)
    return shared.answer(render(created.video), created=created)


async def _create(request: Request, gateway: Gateway, caller: Caller) -> Created:
    async with body_of(request, CreateGeneration) as body:
        routing = take_routing(request, body)
        idempotency = take_idempotency(request, body, "luma")
        webhook = take_webhook(request, body, style=WEBHOOK_STYLE.name, url_field="notify_hook", secret_field=None)
        uploads = Uploads(new_video_id(), gateway.settings.allow_networks)
        parsed, named = parse(body, uploads, webhook)
        wanted = parsed.model_copy(update={"model": shared.model_for(gateway, "luma", named)})
        return await create_job(
            gateway,
            caller,
            wanted,
            uploads,
            dialect="luma",
            app=app_name(request),
            idempotency=idempotency,
            routing=routing,
        )


@routes.post(
    "/luma/generations_sync",
    responses=returns(LumaGeneration),
    dependencies=[Depends(waiting_slot)],
    openapi_extra=create_schema(CreateGeneration),
)
async def create_and_wait(request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Create a video and respond when it has ended, after 60 s at most with its state at that time. Without a free
    waiting place of the key nothing is created. The job goes on if the client disconnects."""
    created = await _create(request, gateway, caller)
    video = created.video
    hold_s = cast("Config", gateway.dialects["luma"]).hold_s
    try:
        video = await watch_video(
            request, gateway, caller, video.id, until=lambda found: found.status.ended, timeout_s=hold_s
        )
    except Exception as error:  # the job exists: an error would make the client create another
        if not is_unavailable(error):
            raise
    return shared.answer(query_object(video, gateway.links, origin_of(request)), created=created)


@routes.post("/luma/tasks", responses=returns(list[LumaGeneration]), openapi_extra=body_schema(Tasks))
async def list_tasks(request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Read several videos at once. Ids that are unknown or not yours are left out."""
    async with body_of(request, Tasks) as body:
        wanted = validated(Tasks, body).ids
    async with gateway.db.reading() as connection:
        found = await videos.get_videos(connection, wanted, project_id=caller.project_id)
    origin = origin_of(request)
    return shared.answer([query_object(video, gateway.links, origin) for video in found])


@routes.get("/luma/generations/{video_id}", responses=returns(LumaGeneration))
async def retrieve_generation(video_id: str, request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Read a video with gpt.ge's Luma API."""
    video = await get_video(gateway, caller, video_id)
    return shared.answer(query_object(video, gateway.links, origin_of(request)))


@routes.post(
    "/luma/generations/{video_id}/extend", responses=returns(LumaCreated), openapi_extra=create_schema(CreateGeneration)
)
async def extend_generation(video_id: str, request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Create an extension of a finished video."""
    async with body_of(request, CreateGeneration) as body:
        routing = take_routing(request, body)
        idempotency = take_idempotency(request, body, f"luma extend {video_id}")
        webhook = take_webhook(request, body, style=WEBHOOK_STYLE.name, url_field="notify_hook", secret_field=None)
        uploads = Uploads(new_video_id(), gateway.settings.allow_networks)
        parsed, named = parse(body, uploads, webhook)
        created = await shared.extend(
            gateway,
            caller,
            video_id,
            parsed,
            uploads,
            dialect="luma",
            app=app_name(request),
            named=named,
            idempotency=idempotency,
            routing=routing,
        )
    return shared.answer(render(created.video), created=created)
