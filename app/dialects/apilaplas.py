"""Luma's video API as sold by the reseller Apilaplas, version 2. Docs: docs.apilaplas.com (luma-ai-v2,
errors-and-messages/general-info), read 2026-11-21; field rules and the 201 from AI/ML API, whose text it repeats.

Quirks: an extension is a create with a generation as key frame 0; a GET with a `state` waits until the video reaches
it, for 30 s at most; ids are in the query; error bodies carry the status code as text. Inferred: the response's shape
(none is published: Luma's own, plus `video.url`, which one client reads); that a GET of several ids waits for all of
them and leaves out unknown ids. Unlike at the vendor, `aspect_ratio` is optional. `model` may name any model of this
gateway, else `GATEWAY_DIALECTS__APILAPLAS__MODEL` is used. `loop: false` is the behaviour of every model, so it is not
passed on.
"""

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal, cast

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from app import errors
from app.accounts.auth import Caller
from app.db.models import Video
from app.dialects import shared
from app.http.body import Body, body_of, extra_of, validated
from app.http.context import CallerDep, Gateway, GatewayDep, origin_of
from app.http.create import app_name, create_job, new_video_id, take_idempotency
from app.http.fields import Address, Base64Medium, Name, Word
from app.http.openapi import Json, ResponseModel, Responses, create_schema, may_be_absent, parameter, returns
from app.http.uploads import Uploads
from app.http.wait import wait_for_video
from app.jobs import videos
from app.media.signed_links import SignedLinks
from app.video import Media, Status, VideoRequest
from app.webhooks import endpoints
from app.webhooks.sender import WebhookStyle

TITLE = "Luma through Apilaplas"
PREFIXES = ("/v2/",)
PATH = "/v2/generate/video/luma-ai"
MAX_IDS = 100

STATE = {
    Status.queued: "queued",
    Status.in_progress: "dreaming",
    Status.completed: "completed",
    Status.failed: "failed",
}
ORDER = list(STATE.values())
"""From the first state to the last."""

IDS = parameter("query", "generation_ids", f"Up to {MAX_IDS} ids, comma-separated.")

State = Annotated[str | None, Query(description="Wait until the video reaches this state, for 30 s at most.")]
SameState = Annotated[str | None, Query(description="Another name of `state`.")]

routes = APIRouter(tags=["apilaplas"])


class Config(shared.ModelConfig):
    hold_s: Annotated[float, Field(ge=0, le=30)] = 30
    """Longest wait of a GET with a `state`, in seconds; must be shorter than the timeout of a proxy in front."""


class ApilaplasFrame(BaseModel):
    """An image, or an earlier video."""

    type: Literal["image", "generation"]
    url: Base64Medium | None = None
    id: Word | None = None


class ApilaplasKeyframes(BaseModel):
    """The first and the last frame."""

    model_config = ConfigDict(extra="forbid")

    frame0: ApilaplasFrame | None = None
    frame1: ApilaplasFrame | None = None


class CreateGeneration(BaseModel):
    """POST /v2/generate/video/luma-ai/generation. Fields not listed here are passed on to the provider unchanged."""

    model_config = ConfigDict(
        title="CreateApilaplasGeneration",
        extra="allow",
        use_attribute_docstrings=True,
        json_schema_extra={"examples": [{"prompt": "a paper boat on a pond", "aspect_ratio": "16:9"}]},
    )

    prompt: shared.Prompt
    aspect_ratio: Word | None = None
    loop: bool | None = None
    keyframes: ApilaplasKeyframes | None = None
    generation_type: Literal["video"] | None = None
    callback_url: Address | None = None
    model: Name | None = None
    resolution: Word | None = None
    duration: shared.Seconds | None = None
    """A number of seconds, or `5s`."""


class ApilaplasFile(ResponseModel):
    url: str
    """Signed URL; plays without a key until it expires."""


class ApilaplasAssets(ResponseModel):
    video: str
    """The same URL as `video.url` of the generation."""


class ApilaplasGivenFrame(ResponseModel):
    """A key frame of a request."""

    type: Literal["image", "generation"]
    url: str | None = may_be_absent()
    """URL of an image; null if its bytes were sent."""
    id: str = may_be_absent()
    """Id of a generation."""


class ApilaplasGivenKeyframes(ResponseModel):
    frame0: ApilaplasGivenFrame = may_be_absent()
    frame1: ApilaplasGivenFrame = may_be_absent()


class ApilaplasRequest(ResponseModel):
    prompt: str
    aspect_ratio: str | None
    loop: bool | None
    keyframes: ApilaplasGivenKeyframes | None


class ApilaplasGeneration(ResponseModel):
    """A video in Apilaplas' Luma API."""

    example: ClassVar[Json] = {
        "id": "video_01kb3v9zq4e8tq6j8x2m5n7r9s",
        "generation_type": "video",
        "state": "queued",
        "failure_reason": None,
        "created_at": "2026-11-26T12:00:00.000Z",
        "assets": None,
        "video": None,
        "model": "luma/ray-2",
        "request": {"prompt": "a paper boat on a pond", "aspect_ratio": "16:9", "loop": False, "keyframes": None},
    }

    id: str
    generation_type: Literal["video"]
    state: Literal["queued", "dreaming", "completed", "failed"]
    failure_reason: str | None
    created_at: AwareDatetime
    assets: ApilaplasAssets | None
    """Set for a completed video, like `video`."""
    video: ApilaplasFile | None
    model: str
    request: ApilaplasRequest


class ApilaplasError(ResponseModel):
    """An error in the shape of Apilaplas' API."""

    message: str
    path: str
    requestId: str  # noqa: N815  the vendor's name
    statusCode: str  # noqa: N815  the vendor's name
    timestamp: AwareDatetime


ErrorModel = ApilaplasError
CREATED: Responses = {
    201: {"model": ApilaplasGeneration},
    200: {
        "description": "The video that an earlier request with the same idempotency key created.",
        "model": ApilaplasGeneration,
    },
}


def parse(body: Body, uploads: Uploads, origin: str) -> tuple[VideoRequest, str | None, str | None]:
    """Read the body of a create. Returns the request without its model, the model name that was given, and the id of
    the video to extend."""
    wire = validated(CreateGeneration, body)
    frames = wire.keyframes or ApilaplasKeyframes()
    if frames.frame1 is not None and frames.frame1.type == "generation":
        message = "keyframes.frame1: a generation is supported only as frame0, which extends it"
        raise errors.UnsupportedParameter(message, param="keyframes.frame1")
    source = frames.frame0 if frames.frame0 is not None and frames.frame0.type == "generation" else None
    if source is not None and not source.id:
        raise errors.InvalidRequest("keyframes.frame0.id is required", param="keyframes.frame0.id")
    hook = wire.callback_url or None
    request = VideoRequest(
        prompt=wire.prompt,
        model="",
        seconds=wire.duration,
        first_frame=None if source else _picture(frames.frame0, "keyframes.frame0.url", uploads),
        last_frame=_picture(frames.frame1, "keyframes.frame1.url", uploads),
        loop=wire.loop or None,
        webhook=endpoints.requested(hook, style=WEBHOOK_STYLE.name, url_param="callback_url", origin=origin)
        if hook
        else None,
        extra=extra_of(wire),
        **shared.sized(wire.aspect_ratio, wire.resolution),
    )
    return request, wire.model, source.id if source else None


def _picture(frame: ApilaplasFrame | None, name: str, uploads: Uploads) -> Media | None:
    if frame is None:
        return None
    if frame.url in (None, ""):
        raise errors.InvalidRequest(f"{name} is required", param=name, code="missing_parameter")
    return shared.picture(frame.url, name, uploads)


def query_object(video: Video, links: SignedLinks, origin: str) -> dict[str, Any]:
    """The generation object, in every response and in webhooks."""
    done = video.status is Status.completed
    url = shared.links_of(video, links, origin)[0] if done else None
    requested = video.request
    return {
        "id": video.id,
        "generation_type": "video",
        "state": STATE[video.status],
        "failure_reason": video.error_message,
        "created_at": shared.rfc3339(video.created_at, "milliseconds"),
        "assets": {"video": url} if done else None,
        "video": {"url": url} if done else None,
        "model": video.model,
        "request": {
            "prompt": requested["prompt"],
            "aspect_ratio": shared.ratio_of(requested),
            "loop": requested.get("loop", False),
            "keyframes": _keyframes(requested, video.source_video_id),
        },
    }


def _keyframes(requested: dict[str, Any], source_id: str | None) -> dict[str, Any] | None:
    """The key frames as given; an image sent as bytes has no URL."""
    found: dict[str, Any] = {}
    for name, field in (("frame0", "first_frame"), ("frame1", "last_frame")):
        if requested.get(field):
            found[name] = {"type": "image", "url": requested[field].get("url")}
    if source_id is not None:
        found["frame0"] = {"type": "generation", "id": source_id}
    return found or None


WEBHOOK_STYLE = WebhookStyle("apilaplas", body=query_object)


def render_error(error: errors.GatewayError, *, path: str, request_id: str) -> dict[str, Any]:
    return {
        "message": error.message,
        "path": path,
        "requestId": request_id,
        "statusCode": str(error.status_code),
        "timestamp": shared.rfc3339(datetime.now(UTC), "milliseconds"),
    }


@routes.post(f"{PATH}/generation", status_code=201, responses=CREATED, openapi_extra=create_schema(CreateGeneration))
async def create_generation(request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Create a video, or extend the generation given as `keyframes.frame0`, with Apilaplas' Luma API."""
    origin = origin_of(request)
    async with body_of(request) as body:
        idempotency = take_idempotency(request, body, "apilaplas")
        uploads = Uploads(new_video_id())
        parsed, named, source_id = parse(body, uploads, origin)
        if source_id is not None:
            created = await shared.extend(
                gateway,
                caller,
                source_id,
                parsed,
                uploads,
                dialect="apilaplas",
                app=app_name(request),
                named=named,
                idempotency=idempotency,
            )
        else:
            wanted = parsed.model_copy(update={"model": shared.model_for(gateway, "apilaplas", named)})
            created = await create_job(
                gateway, caller, wanted, uploads, dialect="apilaplas", app=app_name(request), idempotency=idempotency
            )
    return shared.answer(query_object(created.video, gateway.links, origin), status=201, created=created)


@routes.get(f"{PATH}/generation", responses=returns(ApilaplasGeneration))
async def retrieve_generation(
    request: Request,
    gateway: GatewayDep,
    caller: CallerDep,
    generation_id: Annotated[str, Query(description="Id of the video; required.")] = "",
    state: State = None,
    status: SameState = None,
) -> Response:
    """Read a video. With `state` (or `status`), wait until the video reaches it, for 30 s at most."""
    if not generation_id:
        raise errors.InvalidRequest("generation_id is required", param="generation_id", code="missing_parameter")
    reached = reached_by(state or status)
    hold_s = _hold_s(gateway)
    video = await wait_for_video(request, gateway, caller, generation_id, until=reached, timeout_s=hold_s)
    return shared.answer(query_object(video, gateway.links, origin_of(request)))


@routes.get(
    f"{PATH}/generations",
    responses=returns(list[ApilaplasGeneration]),
    openapi_extra={"parameters": [IDS]},
)
async def list_generations(
    request: Request, gateway: GatewayDep, caller: CallerDep, state: State = None, status: SameState = None
) -> Response:
    """Read several videos: one `generation_ids[]=...` for each, or `generation_ids` comma-separated. With `state` (or
    `status`), wait until all of them reach it, for 30 s at most. Ids that are unknown or not yours are left out."""
    wanted = ids_of(request)
    found = await _wait_for_all(request, gateway, caller, wanted, reached_by(state or status))
    origin = origin_of(request)
    return shared.answer([query_object(video, gateway.links, origin) for video in found])


def ids_of(request: Request) -> list[str]:
    """Return the ids of a query without duplicates. Raises `InvalidRequest`."""
    given = request.query_params.multi_items()
    values = [value for name, value in given if re.fullmatch(r"generation_ids(\[\d*\])?", name)]
    wanted = list(dict.fromkeys(part.strip() for value in values for part in value.split(",") if part.strip()))
    if not 1 <= len(wanted) <= MAX_IDS:
        raise errors.InvalidRequest(f"generation_ids: expected 1 to {MAX_IDS} ids", param="generation_ids")
    return wanted


def reached_by(state: str | None) -> Callable[[Video], bool]:
    """Return a predicate: the video has reached `state` or a later one. Raises `InvalidRequest`."""
    if not state:
        return lambda video: True
    if state not in ORDER[:-1]:
        reason = "a failure cannot be waited for" if state == ORDER[-1] else f"expected {', '.join(ORDER[:-1])}"
        raise errors.InvalidRequest(f"state: {reason}", param="state", code="invalid_value")
    return lambda video: ORDER.index(STATE[video.status]) >= ORDER.index(state)


def _hold_s(gateway: Gateway) -> float:
    return cast("Config", gateway.dialects["apilaplas"]).hold_s


async def _wait_for_all(
    request: Request, gateway: Gateway, caller: Caller, wanted: list[str], reached: Callable[[Video], bool]
) -> list[Video]:
    loop = asyncio.get_running_loop()
    until = loop.time() + _hold_s(gateway)
    found = await _get_videos(gateway, caller, wanted)
    for video in found:
        if not reached(video):
            with suppress(errors.NotFound):  # deleted meanwhile
                left_s = until - loop.time()
                await wait_for_video(request, gateway, caller, video.id, until=reached, timeout_s=left_s)
    return found if all(reached(video) for video in found) else await _get_videos(gateway, caller, wanted)


async def _get_videos(gateway: Gateway, caller: Caller, wanted: list[str]) -> list[Video]:
    async with gateway.db.reading() as connection:
        return await videos.get_videos(connection, wanted, project_id=caller.project_id)
