"""Luma's video API as sold by the reseller Apilaplas, version 2 and the older version 1. Docs: docs.apilaplas.com
(luma-ai-v2, the page of version 1, errors-and-messages/general-info), read 2026-11-21; field rules and the 201 from
AI/ML API, whose text it repeats.

Quirks: an extension is a create with a generation as key frame 0, or as key frame 1 to put the new part before it; the
prose calls the key frames `keywords`; a GET with a `state` waits until the video reaches it, for 30 s at most; ids are
in the query; error bodies carry the status code as text. Inferred: the response's shape (none is published: Luma's
own, plus `video.url`, which one client reads), and that version 1 has the same; that a GET of several ids waits for
all of them and leaves out unknown ids. Unlike at the vendor, `aspect_ratio` is optional. `model` may name any model of
this gateway, else `GATEWAY_DIALECTS__APILAPLAS__MODEL` is used. `loop: false` is the behaviour of every model, so it
is not passed on.
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NamedTuple, cast

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from app import errors
from app.accounts.auth import Caller
from app.db.models import Video
from app.dialects import shared
from app.dialects.apilaplas.schemas import ApilaplasError, ApilaplasGeneration
from app.http.body import Body, body_of, extra_of, validated
from app.http.context import CallerDep, Gateway, GatewayDep, origin_of
from app.http.create import app_name, create_job, new_video_id, take_idempotency, take_routing, take_webhook
from app.http.fields import Address, Base64Medium, Name, Word
from app.http.openapi import Responses, create_schema, parameter, returns
from app.http.uploads import Uploads
from app.http.wait import wait_for_video
from app.jobs import videos
from app.media.signed_links import SignedLinks
from app.video import Media, Operation, Status, VideoRequest, Webhook
from app.webhooks.sender import WebhookStyle

TITLE = "Luma through Apilaplas"
PREFIXES = ("/v2/", "/luma-ai/")
PATH = "/v2/generate/video/luma-ai"
PATH_V1 = "/luma-ai"
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
IDS_V1 = parameter("query", "ids[0]", f"An id; `ids[1]` and so on for more, {MAX_IDS} at most.")

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
    keywords: ApilaplasKeyframes | None = None
    """`keyframes`, as the vendor's prose calls them."""
    generation_type: Literal["video"] | None = None
    callback_url: Address | None = None
    """Receives the video at its end."""
    model: Name | None = None
    resolution: Word | None = None
    duration: shared.Seconds | None = None
    """A number of seconds, or `5s`."""


ErrorModel = ApilaplasError
CREATED: Responses = {
    201: {"model": ApilaplasGeneration},
    200: {
        "description": "The video that an earlier request with the same idempotency key created.",
        "model": ApilaplasGeneration,
    },
}


class CreateGenerationV1(BaseModel):
    """POST /luma-ai/generations and /luma-ai/generations/{id}/extend. Fields not listed here are passed on to the
    provider unchanged."""

    model_config = ConfigDict(
        title="CreateApilaplasGenerationV1",
        extra="allow",
        json_schema_extra={"examples": [{"user_prompt": "a paper boat on a pond", "aspect_ratio": "16:9"}]},
    )

    user_prompt: shared.Prompt
    expand_prompt: bool | None = None
    aspect_ratio: Word | None = None
    model: Name | None = None


class Parsed(NamedTuple):
    """A create as it was read."""

    request: VideoRequest
    """Without its model."""
    model: str | None
    """The model name that was given."""
    source_id: str | None = None
    """The video to extend."""


def parse(body: Body, uploads: Uploads, webhook: Webhook | None) -> Parsed:
    """Read the body of a create. Raises `InvalidRequest`."""
    wire = validated(CreateGeneration, body)
    if wire.keyframes is not None and wire.keywords is not None:
        message = "keywords: send keyframes or keywords, which mean the same, and not both"
        raise errors.InvalidRequest(message, param="keywords")
    name = "keyframes" if wire.keywords is None else "keywords"
    frames = wire.keyframes or wire.keywords or ApilaplasKeyframes()
    sources = {at: frame for at, frame in frames if frame is not None and frame.type == "generation"}
    if len(sources) > 1:
        message = f"{name}.frame1: only one of the two frames can be a generation; send the other as an image"
        raise errors.UnsupportedParameter(message, param=f"{name}.frame1")
    for at, source in sources.items():
        if not source.id:
            raise errors.InvalidRequest(f"{name}.{at}.id is required", param=f"{name}.{at}.id")
    request = VideoRequest(
        prompt=wire.prompt,
        model="",
        operation=_OPERATIONS[next(iter(sources), None)],
        seconds=wire.duration,
        first_frame=None if "frame0" in sources else _picture(frames.frame0, f"{name}.frame0.url", uploads),
        last_frame=None if "frame1" in sources else _picture(frames.frame1, f"{name}.frame1.url", uploads),
        loop=wire.loop or None,
        client_names=_names(name, sources),
        webhook=webhook,
        extra=extra_of(wire),
        **shared.sized(wire.aspect_ratio, wire.resolution),
    )
    return Parsed(request, wire.model, next((source.id for source in sources.values()), None))


def _names(frames: str, sources: Mapping[str, ApilaplasFrame]) -> dict[str, str | None]:
    """The client's names of fields; the operation is named after the frame that is a generation."""
    own: dict[str, str | None] = {"size": None, "seconds": "duration"}
    own |= {"first_frame": f"{frames}.frame0", "last_frame": f"{frames}.frame1"}
    return {**own, "operation": f"{frames}.{next(iter(sources))}"} if sources else own


_OPERATIONS = {None: Operation.generate, "frame0": Operation.extend, "frame1": Operation.prepend}
"""Operations by the frame that is a generation."""


def parse_v1(body: Body, uploads: Uploads, webhook: Webhook | None) -> Parsed:
    """Read the body of a create or an extension in version 1. Raises `InvalidRequest`."""
    wire = validated(CreateGenerationV1, body)
    size = shared.sized(wire.aspect_ratio)
    request = VideoRequest(
        prompt=wire.user_prompt,
        model="",
        expand_prompt=wire.expand_prompt,
        webhook=webhook,
        extra=extra_of(wire),
        **size,
    )
    return Parsed(request, wire.model)


def _picture(frame: ApilaplasFrame | None, name: str, uploads: Uploads) -> Media | None:
    if frame is None:
        return None
    if frame.url in (None, ""):
        raise errors.InvalidRequest(f"{name} is required", param=name, code="missing_parameter")
    return shared.picture(frame.url, name, uploads)


def query_object(video: Video, links: SignedLinks, origin: str) -> dict[str, Any]:
    """The generation object, in every response and in webhooks."""
    done = video.status is Status.completed
    url = shared.link_of(video, links, origin) if done else None
    requested = video.request
    return {
        "id": video.id,
        "generation_type": "video",
        "state": STATE[video.status],
        "failure_reason": video.error_message,
        "created_at": shared.rfc3339(video.created_at, "milliseconds"),
        "assets": {"video": url} if url else None,
        "video": {"url": url} if url else None,
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
        at = "frame1" if requested.get("operation") == Operation.prepend else "frame0"
        found[at] = {"type": "generation", "id": source_id}
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
    """Create a video with Apilaplas' Luma API, or lengthen the generation given as a key frame: as `frame0` at its
    end, as `frame1` at its beginning."""
    return await _create(request, gateway, caller, CreateGeneration, parse)


async def _create(
    request: Request,
    gateway: Gateway,
    caller: Caller,
    model: type[BaseModel],
    parse_body: Callable[[Body, Uploads, Webhook | None], Parsed],
    *,
    source_id: str | None = None,
) -> Response:
    """Create a video, or an extension of the one in the path or in the body."""
    origin = origin_of(request)
    async with body_of(request, model) as body:
        routing = take_routing(request, body)
        idempotency = take_idempotency(request, body, f"apilaplas extend {source_id}" if source_id else "apilaplas")
        webhook = take_webhook(request, body, style=WEBHOOK_STYLE.name, url_field="callback_url", secret_field=None)
        uploads = Uploads(new_video_id(), gateway.settings.allow_networks)
        parsed = parse_body(body, uploads, webhook)
        wanted, source_id = parsed.request, source_id or parsed.source_id
        if source_id is None:
            wanted = wanted.model_copy(update={"model": shared.model_for(gateway, "apilaplas", parsed.model)})
            created = await create_job(
                gateway,
                caller,
                wanted,
                uploads,
                dialect="apilaplas",
                app=app_name(request),
                idempotency=idempotency,
                routing=routing,
            )
        else:
            created = await shared.extend(
                gateway,
                caller,
                source_id,
                wanted,
                uploads,
                dialect="apilaplas",
                app=app_name(request),
                named=parsed.model,
                idempotency=idempotency,
                routing=routing,
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
    wanted = ids_of(request, "generation_ids")
    found = await _wait_for_all(request, gateway, caller, wanted, reached_by(state or status))
    origin = origin_of(request)
    return shared.answer([query_object(video, gateway.links, origin) for video in found])


def ids_of(request: Request, param: str) -> list[str]:
    """Return the ids of a query without duplicates. Raises `InvalidRequest`."""
    given = request.query_params.multi_items()
    values = [value for name, value in given if re.fullmatch(rf"{param}(\[\d*\])?", name)]
    wanted = list(dict.fromkeys(part.strip() for value in values for part in value.split(",") if part.strip()))
    if not 1 <= len(wanted) <= MAX_IDS:
        raise errors.InvalidRequest(f"{param}: expected 1 to {MAX_IDS} ids", param=param)
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


# Version 1


@routes.post(
    f"{PATH_V1}/generations", status_code=201, responses=CREATED, openapi_extra=create_schema(CreateGenerationV1)
)
async def create_generation_v1(request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Create a video with the older version of Apilaplas' Luma API."""
    return await _create(request, gateway, caller, CreateGenerationV1, parse_v1)


@routes.get(
    f"{PATH_V1}/generation", responses=returns(list[ApilaplasGeneration]), openapi_extra={"parameters": [IDS_V1]}
)
async def list_generations_v1(request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Read one or several videos by `ids[0]` and so on, as a list. Ids that are unknown or not yours are left out."""
    found = await _get_videos(gateway, caller, ids_of(request, "ids"))
    origin = origin_of(request)
    return shared.answer([query_object(video, gateway.links, origin) for video in found])


@routes.post(
    f"{PATH_V1}/generations/{{video_id}}/extend",
    status_code=201,
    responses=CREATED,
    openapi_extra=create_schema(CreateGenerationV1),
)
async def extend_generation_v1(video_id: str, request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Create an extension of a finished video with the older version of Apilaplas' Luma API."""
    return await _create(request, gateway, caller, CreateGenerationV1, parse_v1, source_id=video_id)
