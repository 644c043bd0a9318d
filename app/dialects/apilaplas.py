"""Luma's video API as the reseller Apilaplas sells it, second version. Docs: docs.apilaplas.com (luma-ai-v2,
errors-and-messages/general-info), read 2026-11-21; field rules and the 201 from AI/ML API, whose text it repeats.

Quirks: an extension is a create with a generation as key frame 0; a GET that names a state is held until the video is
there, for 30 s at most; ids stand in the query; the status code stands in error bodies as text. Inferred: the answer's
shape (nothing is published: Luma's own, and `video.url` as one client reads it); that a GET of many waits for all of
them, and leaves out ids it does not know. Lenient where the vendor insists: `aspect_ratio` may be absent. `model`
may name any model of this gateway, else `GATEWAY_DIALECTS__APILAPLAS__MODEL` says which. `loop: false` is what every
model does, so it asks for nothing.
"""

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from app import errors
from app.accounts.auth import Caller
from app.db.models import Video
from app.dialects import shared
from app.http.body import Body, body_of, strict_extra_of, validated
from app.http.context import CallerDep, Gateway, GatewayDep, origin_of
from app.http.create import app_name, create_job, new_video_id, take_idempotency
from app.http.openapi import Responses, create_schema, parameter
from app.http.uploads import Uploads
from app.http.wait import wait_for_video
from app.jobs import videos
from app.media.signed_links import SignedLinks
from app.video import Media, Status, VideoRequest
from app.webhooks import endpoints
from app.webhooks.sender import WebhookStyle

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
"""Each is at or above those before it."""

NOT_NEW: Responses = {200: {"description": "The video that the same idempotency key made before."}}
IDS = parameter("query", "generation_ids", f"Up to {MAX_IDS} ids, with commas between them.")

routes = APIRouter(tags=["apilaplas"])


class Config(shared.ModelConfig):
    hold_s: Annotated[float, Field(ge=0, le=30)] = 30
    """Longest hold of a GET that waits for a state; less where a proxy in front gives up earlier."""


class Frame(BaseModel):
    """A picture, or a video made before."""

    type: Literal["image", "generation"]
    url: Any = None
    id: str | None = None


class Keyframes(BaseModel):
    model_config = ConfigDict(extra="forbid")

    frame0: Frame | None = None
    frame1: Frame | None = None


class CreateGeneration(BaseModel):
    """POST /v2/generate/video/luma-ai/generation. Fields not listed here are passed on to the provider untouched."""

    model_config = ConfigDict(extra="allow")

    prompt: shared.Prompt
    aspect_ratio: str | None = None
    loop: bool | None = None
    keyframes: Keyframes | None = None
    generation_type: Literal["video"] | None = None
    callback_url: str | None = None
    model: shared.Name | None = None
    resolution: str | None = None
    duration: shared.Seconds | None = None
    """A number of seconds, or `5s`."""


def parse(body: Body, uploads: Uploads, origin: str) -> tuple[VideoRequest, str | None, str | None]:
    """Read the body of a create; the model is still open, so it comes as it was named, and the id of the video that is
    to be extended with it."""
    wire = validated(CreateGeneration, body)
    frames = wire.keyframes or Keyframes()
    if frames.frame1 is not None and frames.frame1.type == "generation":
        message = "keyframes.frame1: a video cannot be put in front of another here; as frame0 it is continued"
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
        extra=strict_extra_of(wire),
        **shared.sized(wire.aspect_ratio, wire.resolution),
    )
    return request, wire.model, source.id if source else None


def _picture(frame: Frame | None, name: str, uploads: Uploads) -> Media | None:
    if frame is None:
        return None
    if frame.url in (None, ""):
        raise errors.InvalidRequest(f"{name} is required", param=name, code="missing_parameter")
    return shared.picture(frame.url, name, uploads)


def query_object(video: Video, links: SignedLinks, origin: str) -> dict[str, Any]:
    """The generation, in every answer and in what a webhook is sent."""
    done = video.status is Status.completed
    url = shared.links_of(video, links, origin)[0] if done else None
    asked = video.request
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
            "prompt": asked["prompt"],
            "aspect_ratio": shared.ratio_of(asked),
            "loop": asked.get("loop", False),
            "keyframes": _keyframes(asked, video.source_video_id),
        },
    }


def _keyframes(asked: dict[str, Any], source_id: str | None) -> dict[str, Any] | None:
    """As they were given; a picture that came as bytes has no address to show."""
    found: dict[str, Any] = {}
    for name, field in (("frame0", "first_frame"), ("frame1", "last_frame")):
        if asked.get(field):
            found[name] = {"type": "image", "url": asked[field].get("url")}
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


@routes.post(f"{PATH}/generation", status_code=201, responses=NOT_NEW, openapi_extra=create_schema(CreateGeneration))
async def create_generation(request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Create a video, or with a generation as `keyframes.frame0` make a longer one, as Apilaplas' Luma does."""
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
            asked = parsed.model_copy(update={"model": shared.model_for(gateway, "apilaplas", named)})
            created = await create_job(
                gateway, caller, asked, uploads, dialect="apilaplas", app=app_name(request), idempotency=idempotency
            )
    return shared.answer(query_object(created.video, gateway.links, origin), status=201, created=created)


@routes.get(f"{PATH}/generation")
async def retrieve_generation(
    request: Request,
    gateway: GatewayDep,
    caller: CallerDep,
    generation_id: str = "",
    state: str | None = None,
    status: str | None = None,
) -> Response:
    """Read a video; with `state` (or `status`) held until it is there, for 30 s at most."""
    if not generation_id:
        raise errors.InvalidRequest("generation_id is required", param="generation_id", code="missing_parameter")
    reached = reached_by(state or status)
    hold_s = _hold_s(gateway)
    video = await wait_for_video(request, gateway, caller, generation_id, until=reached, timeout_s=hold_s)
    return shared.answer(query_object(video, gateway.links, origin_of(request)))


@routes.get(f"{PATH}/generations", openapi_extra={"parameters": [IDS]})
async def list_generations(
    request: Request, gateway: GatewayDep, caller: CallerDep, state: str | None = None, status: str | None = None
) -> Response:
    """Read many videos, `generation_ids[]=...` each or `generation_ids` with commas; with `state` (or `status`) held
    until all of them are there, for 30 s at most. Ids that are not yours or nobody's are left out."""
    wanted = ids_of(request)
    found = await _wait_for_all(request, gateway, caller, wanted, reached_by(state or status))
    origin = origin_of(request)
    return shared.answer([query_object(video, gateway.links, origin) for video in found])


def ids_of(request: Request) -> list[str]:
    """The ids of a query, each once. Raises `InvalidRequest`."""
    given = request.query_params.multi_items()
    values = [value for name, value in given if re.fullmatch(r"generation_ids(\[\d*\])?", name)]
    wanted = list(dict.fromkeys(part.strip() for value in values for part in value.split(",") if part.strip()))
    if not 1 <= len(wanted) <= MAX_IDS:
        raise errors.InvalidRequest(f"generation_ids: expected 1 to {MAX_IDS} ids", param="generation_ids")
    return wanted


def reached_by(state: str | None) -> Callable[[Video], bool]:
    """What says yes of a video that is at or above `state`. Raises `InvalidRequest`."""
    if not state:
        return lambda video: True
    if state not in ORDER[:-1]:
        why = "a failure cannot be waited for" if state == ORDER[-1] else f"expected {', '.join(ORDER[:-1])}"
        raise errors.InvalidRequest(f"state: {why}", param="state", code="invalid_value")
    return lambda video: ORDER.index(STATE[video.status]) >= ORDER.index(state)


def _hold_s(gateway: Gateway) -> float:
    return cast("Config", gateway.dialects["apilaplas"]).hold_s


async def _wait_for_all(
    request: Request, gateway: Gateway, caller: Caller, wanted: list[str], reached: Callable[[Video], bool]
) -> list[Video]:
    loop = asyncio.get_running_loop()
    until = loop.time() + _hold_s(gateway)
    found = await _several(gateway, caller, wanted)
    for video in found:
        if not reached(video):
            with suppress(errors.NotFound):  # deleted while it was waited for
                left_s = until - loop.time()
                await wait_for_video(request, gateway, caller, video.id, until=reached, timeout_s=left_s)
    return found if all(reached(video) for video in found) else await _several(gateway, caller, wanted)


async def _several(gateway: Gateway, caller: Caller, wanted: list[str]) -> list[Video]:
    async with gateway.db.reading() as connection:
        return await videos.get_videos(connection, wanted, project_id=caller.project_id)
