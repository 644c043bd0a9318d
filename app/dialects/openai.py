"""The OpenAI dialect, at /v1 and /openai/v1: OpenAI's Videos API as its SDKs speak it, with Lumenfall's extensions.

Shapes: OpenAI SDK 3.52 and docs.lumenfall.ai, read 2026-11-21. All 13 keys of the video object are always there.
"""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from starlette.datastructures import UploadFile

from app import errors, ids, jobs, media, videos
from app.conversion import complete_size
from app.dialects import base
from app.dialects.base import CallerDep, Gateway, GatewayDep, Uploads
from app.dialects.bodies import Body, body_of, body_schema, extra_of, validated
from app.keys import Caller
from app.tables import Character, Video
from app.video import MAX_PROMPT_CHARACTERS, Media, Operation, VideoRequest

PREFIXES = ("/v1/", "/openai/v1/")
POLL_AFTER_MS = 1_000
DEFAULT_SECONDS, DEFAULT_SIZE = "4", "720x1280"
"""What OpenAI documents as defaults; shown where neither the request, the model nor the file says better."""

routes = APIRouter(tags=["videos"])


# Wire models


def _text(value: Any) -> Any:
    """JSON callers send numbers and booleans where multipart callers send text."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


def _no_truth(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("expected a number")
    return value


Prompt = Annotated[str, Field(max_length=MAX_PROMPT_CHARACTERS)]
Seconds = Annotated[float, BeforeValidator(_no_truth), Field(gt=0, le=3_600, allow_inf_nan=False)]


class _Prompted(BaseModel):
    prompt: Prompt

    @field_validator("prompt")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("must not be blank")
        return value


class CreateVideo(_Prompted):
    """POST /v1/videos. Fields not listed here are passed on to the provider untouched."""

    model_config = ConfigDict(extra="allow")

    model: Annotated[str, Field(min_length=1, max_length=300)] | None = None
    seconds: Seconds | None = None
    duration: Seconds | None = None
    """Lumenfall's other name for `seconds`."""
    size: str | None = None
    """`1280x720`, or a ratio such as `16:9`."""
    aspect_ratio: str | None = None
    resolution: str | None = None
    input_reference: Any = None
    """A file, a URL, a data URL, `{"image_url": ...}`, or a list of these."""
    negative_prompt: Annotated[str, Field(max_length=5_000)] | None = None
    n: Annotated[int, BeforeValidator(_no_truth), Field(ge=1, le=4)] = 1
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    generate_audio: bool | None = None
    loop: bool | None = None
    expand_prompt: bool | None = None
    characters: Annotated[list[dict[str, str]], Field(max_length=2)] = []
    metadata: dict[str, Annotated[str, BeforeValidator(_text)]] = {}
    user: str | None = None
    media_retention: Annotated[int, Field(ge=60, le=10 * 365 * 86_400)] | None = None
    """Seconds that the finished file is kept."""

    @model_validator(mode="after")
    def _one_length(self) -> "CreateVideo":
        if self.seconds is not None and self.duration is not None and self.seconds != self.duration:
            raise ValueError("seconds and duration contradict each other; send one of them")
        return self


class RemixVideo(_Prompted):
    """POST /v1/videos/{video_id}/remix."""

    model_config = ConfigDict(extra="allow")


class EditVideo(_Prompted):
    """POST /v1/videos/edits."""

    model_config = ConfigDict(extra="allow")

    video: Any
    """A file, or `{"id": "video_..."}`."""
    model: str | None = None


class ExtendVideo(EditVideo):
    """POST /v1/videos/extensions."""

    seconds: Seconds


class CreateCharacter(BaseModel):
    """POST /v1/videos/characters."""

    name: Annotated[str, Field(min_length=1, max_length=80)]
    video: Any
    model: str | None = None


# Parsing


def parse(body: Body, uploads: Uploads, *, default_model: str | None) -> VideoRequest:
    """Read the body of a create. Raises `InvalidRequest` naming the parameter."""
    if "webhook_url" in body:
        raise errors.UnsupportedParameter("webhook_url is not supported", param="webhook_url")
    wire = validated(CreateVideo, body)
    model = wire.model or default_model
    if model is None:
        raise errors.InvalidRequest("model is required; GET /v1/models lists all models", param="model")
    references = _references(wire.input_reference, uploads)
    several = len(references) > 1
    seconds = wire.seconds if wire.seconds is not None else wire.duration
    return VideoRequest(
        prompt=wire.prompt,
        model=model,
        seconds=seconds,
        first_frame=references[0] if len(references) == 1 else None,
        reference_images=tuple(references) if several else (),
        characters=tuple(_character_id(entry) for entry in wire.characters),
        negative_prompt=wire.negative_prompt,
        n=wire.n,
        seed=wire.seed,
        generate_audio=wire.generate_audio,
        loop=wire.loop,
        expand_prompt=wire.expand_prompt,
        metadata=wire.metadata,
        user=wire.user,
        retention_s=wire.media_retention,
        extra=extra_of(wire),
        **_size(wire),
    )


def _references(value: Any, uploads: Uploads) -> list[Media]:
    if value in (None, ""):
        return []
    values = value if isinstance(value, list) else [value]
    return [uploads.media(entry, "input_reference") for entry in values]


def _character_id(entry: Mapping[str, str]) -> str:
    if not ids.is_id(entry.get("id", ""), "char"):
        raise errors.InvalidRequest('characters: expected a list of {"id": "char_..."}', param="characters")
    return entry["id"]


def _size(wire: CreateVideo) -> dict[str, Any]:
    try:
        return dict(complete_size(wire.size, wire.aspect_ratio, wire.resolution))
    except ValueError as error:
        param = str(error).partition(":")[0]
        raise errors.InvalidRequest(str(error), param=param, code="invalid_value") from None


async def _from_source(
    gateway: Gateway, caller: Caller, wire: EditVideo, uploads: Uploads, operation: Operation
) -> tuple[VideoRequest, Video | None]:
    """The request of an edit or an extension, and the video of our own that it starts from, if it does."""
    seconds = getattr(wire, "seconds", None)
    if isinstance(wire.video, dict) and "id" in wire.video:
        source = await base.finished(gateway, caller, str(wire.video["id"]))
        model = wire.model or base.model_of(source)
        request = base.based_on(source, wire.prompt, model, operation, extra_of(wire))
        return request.model_copy(update={"seconds": seconds or request.seconds}), source
    if not isinstance(wire.video, UploadFile):
        raise errors.InvalidRequest('video: expected a file or {"id": "video_..."}', param="video")
    found = wire.model or gateway.router.default_model
    if found is None:
        raise errors.InvalidRequest("model is required with an uploaded video", param="model")
    request = VideoRequest(
        prompt=wire.prompt,
        model=found,
        operation=operation,
        source=uploads.media(wire.video, "video"),
        seconds=seconds,
        extra=extra_of(wire),
    )
    return request, None


# Rendering


def render(video: Video, gateway: Gateway, request: Request) -> dict[str, Any]:
    """The video object: OpenAI's 13 keys, then ours."""
    asked = video.request
    first = video.outputs[0] if video.outputs else {}
    now = gateway.clock()
    return {
        "id": video.id,
        "object": "video",
        "model": video.model,
        "status": str(video.status),
        "progress": video.progress,
        "created_at": int(video.created_at.timestamp()),
        "completed_at": int(video.completed_at.timestamp()) if video.completed_at else None,
        "expires_at": int(video.expires_at.timestamp()) if video.expires_at else None,
        "prompt": asked["prompt"],
        "size": asked.get("size") or _measured_size(first) or asked.get("aspect_ratio") or DEFAULT_SIZE,
        "seconds": _seconds(asked, first),
        "remixed_from_video_id": video.source_video_id,
        "error": {"code": video.error_code, "message": video.error_message} if video.error_code else None,
        "output": _output(video, gateway, request) if first and not _is_past(video, now) else None,
        "metadata": asked.get("metadata", {}),
        **({"warnings": video.warnings} if video.warnings else {}),
    }


def _is_past(video: Video, now: Any) -> bool:
    return video.expires_at is not None and video.expires_at <= now


def _measured_size(output: Mapping[str, Any]) -> str | None:
    return f"{output['width']}x{output['height']}" if output.get("width") and output.get("height") else None


def _seconds(asked: Mapping[str, Any], output: Mapping[str, Any]) -> str:
    """As asked for; the measured length where nothing was asked, and for an extension, whose total counts."""
    measured = output.get("duration_s")
    if measured and (asked.get("seconds") is None or asked.get("operation") == Operation.extend):
        return f"{round(measured)}"
    return f"{asked['seconds']:g}" if asked.get("seconds") is not None else DEFAULT_SECONDS


def _output(video: Video, gateway: Gateway, request: Request) -> dict[str, Any]:
    files = [
        {
            "url": base.media_url(video, output["index"], gateway, request),
            "content_type": output["content_type"],
            "size_bytes": output["size"],
            "duration_seconds": output["duration_s"],
            "width": output["width"],
            "height": output["height"],
        }
        for output in video.outputs
    ]
    return files[0] if len(files) == 1 else {**files[0], "files": files}


def answer(video: Video, gateway: Gateway, request: Request, *, status: int = 200) -> JSONResponse:
    headers = {"cache-control": "no-store"}
    if not video.status.ended:
        headers["openai-poll-after-ms"] = str(POLL_AFTER_MS)
    return JSONResponse(render(video, gateway, request), status_code=status, headers=headers)


def render_error(error: errors.GatewayError) -> dict[str, Any]:
    """OpenAI's envelope, all four keys always."""
    return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}


# Routes: literal segments before {video_id}


@routes.post("/v1/videos", status_code=202, openapi_extra=body_schema(CreateVideo))
@routes.post("/openai/v1/videos", status_code=202, include_in_schema=False)
async def create_video(request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Create a video. Answers 202 at once; poll it, or use the SDK's `create_and_poll`."""
    async with body_of(request) as body:
        idempotency = base.idempotency_of(request, body)
        uploads = Uploads(base.new_video_id())
        parsed = parse(body, uploads, default_model=gateway.router.default_model)
        provider = await _characters_provider(gateway, caller, parsed)
        return await _create(request, gateway, caller, parsed, uploads, idempotency, only_provider=provider)


async def _create(
    request: Request,
    gateway: Gateway,
    caller: Caller,
    parsed: VideoRequest,
    uploads: Uploads,
    idempotency: tuple[str, str] | None,
    *,
    only_provider: str | None = None,
    shown_model: str | None = None,
) -> Response:
    if request.query_params.get("dryRun", "false").lower() not in ("false", "0"):
        raise errors.UnsupportedParameter("dryRun is not supported; nothing was created", param="dryRun")
    created = await base.create(
        gateway,
        caller,
        parsed,
        uploads,
        dialect="openai",
        only_provider=only_provider,
        shown_model=shown_model,
        idempotency=idempotency,
    )
    response = answer(created.video, gateway, request, status=200 if created.replayed else 202)
    if created.replayed:
        response.headers["idempotent-replayed"] = "true"
    return response


async def _characters_provider(gateway: Gateway, caller: Caller, request: VideoRequest) -> str | None:
    """Characters live at the provider that made them, so the video has to be made there."""
    providers = set()
    for character_id in request.characters:
        async with gateway.db.reading() as connection:
            providers.add((await videos.get_character(connection, character_id, owner=caller.owner)).provider)
    if len(providers) > 1:
        raise errors.InvalidRequest(
            f"the characters live at different providers: {', '.join(sorted(providers))}", param="characters"
        )
    return next(iter(providers), None)


@routes.get("/v1/videos")
@routes.get("/openai/v1/videos", include_in_schema=False)
async def list_videos(
    request: Request,
    gateway: GatewayDep,
    caller: CallerDep,
    after: str | None = None,
    limit: Annotated[int, Query(ge=0, le=100)] = 20,
    order: Annotated[str, Query(pattern="^(asc|desc)$")] = "desc",
) -> Response:
    """List your videos, newest first; page on with `after=<last_id>` while `has_more`."""
    async with gateway.db.reading() as connection:
        page, has_more = await videos.list_page(
            connection, owner=caller.owner, after=after, limit=limit, ascending=order == "asc"
        )
    data = [render(video, gateway, request) for video in page]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    page_of = {"object": "list", "data": data, **ends, "has_more": has_more}
    return JSONResponse(page_of, headers={"cache-control": "no-store"})


@routes.post("/v1/videos/edits", status_code=202, openapi_extra=body_schema(EditVideo))
@routes.post("/openai/v1/videos/edits", status_code=202, include_in_schema=False)
async def edit_video(request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Make a new video from one of yours or an uploaded one, changed as the prompt says."""
    return await _derive(request, gateway, caller, EditVideo, Operation.edit)


@routes.post("/v1/videos/extensions", status_code=202, openapi_extra=body_schema(ExtendVideo))
@routes.post("/openai/v1/videos/extensions", status_code=202, include_in_schema=False)
async def extend_video(request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Make a longer video from one of yours or an uploaded one."""
    return await _derive(request, gateway, caller, ExtendVideo, Operation.extend)


async def _derive(
    request: Request, gateway: Gateway, caller: Caller, wire_model: type[EditVideo], operation: Operation
) -> Response:
    async with body_of(request) as body:
        idempotency = base.idempotency_of(request, body, str(operation))
        uploads = Uploads(base.new_video_id())
        wire = validated(wire_model, body)
        parsed, source = await _from_source(gateway, caller, wire, uploads, operation)
        where = _at(source) if source else {}
        if source and wire.model:
            where["shown_model"] = wire.model
        return await _create(request, gateway, caller, parsed, uploads, idempotency, **where)


def _at(source: Video) -> dict[str, str | None]:
    """What is made from a video is made where that was, and goes by the name the client knows."""
    return {"only_provider": source.provider, "shown_model": source.model}


# Characters: kept by the upstream that made them


def render_character(character: Character) -> dict[str, Any]:
    return {"id": character.id, "name": character.name, "created_at": int(character.created_at.timestamp())}


@routes.post("/v1/videos/characters", openapi_extra=body_schema(CreateCharacter))
@routes.post("/openai/v1/videos/characters", include_in_schema=False)
async def create_character(request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Make a reusable character from a film. The provider is that of `model`, else the first one that can."""
    async with body_of(request) as body:
        wire = validated(CreateCharacter, body)
        uploads = Uploads(ids.new("char"))
        video = uploads.media(wire.video, "video")
        provider = gateway.router.character_provider(wire.model)
        try:
            await uploads.store(gateway)
            ref = await provider.create_character(wire.name, video, partial(media.reading, gateway.store))
        finally:
            await uploads.discard(gateway)
    async with gateway.db.transaction() as session:
        character = await videos.add_character(
            session,
            uploads.video_id,
            owner=caller.owner,
            name=wire.name,
            provider=provider.name,
            upstream_ref=ref,
            now=gateway.clock(),
        )
    return JSONResponse(render_character(character))


@routes.get("/v1/videos/characters/{character_id}")
@routes.get("/openai/v1/videos/characters/{character_id}", include_in_schema=False)
async def get_character(character_id: str, gateway: GatewayDep, caller: CallerDep) -> Response:
    async with gateway.db.reading() as connection:
        return JSONResponse(render_character(await videos.get_character(connection, character_id, owner=caller.owner)))


# One video


@routes.get("/v1/videos/{video_id}")
@routes.get("/openai/v1/videos/{video_id}", include_in_schema=False)
async def retrieve_video(video_id: str, request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Read a video. While it is not finished, `openai-poll-after-ms` says when to ask again."""
    return answer(await base.get(gateway, caller, video_id), gateway, request)


@routes.delete("/v1/videos/{video_id}")
@routes.delete("/openai/v1/videos/{video_id}", include_in_schema=False)
async def delete_video(video_id: str, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Cancel a running video (it becomes failed, with the code `cancelled`), or delete one that has ended."""
    async with gateway.db.transaction() as session:
        await jobs.delete(session, video_id, owner=caller.owner, now=gateway.clock())
    gateway.wake()
    return JSONResponse({"id": video_id, "object": "video.deleted", "deleted": True})


@routes.post("/v1/videos/{video_id}/remix", status_code=202, openapi_extra=body_schema(RemixVideo))
@routes.post("/openai/v1/videos/{video_id}/remix", status_code=202, include_in_schema=False)
async def remix_video(video_id: str, request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Make a new video from a finished one, changed as the prompt says."""
    async with body_of(request) as body:
        idempotency = base.idempotency_of(request, body, f"remix {video_id}")
        wire = validated(RemixVideo, body)
    source = await base.finished(gateway, caller, video_id)
    parsed = base.based_on(source, wire.prompt, base.model_of(source), Operation.remix, extra_of(wire))
    uploads = Uploads(base.new_video_id())
    return await _create(request, gateway, caller, parsed, uploads, idempotency, **_at(source))


@routes.get("/v1/videos/{video_id}/content")
@routes.head("/v1/videos/{video_id}/content", include_in_schema=False)
@routes.api_route("/openai/v1/videos/{video_id}/content", methods=["GET", "HEAD"], include_in_schema=False)
async def download_content(
    video_id: str,
    request: Request,
    gateway: GatewayDep,
    caller: CallerDep,
    variant: Literal["video", "thumbnail", "spritesheet"] = "video",
    index: Annotated[int, Query(ge=0, le=3)] = 0,
) -> Response:
    """Download the film, a thumbnail (WebP) or a sprite sheet (JPEG). Ranges, ETags and HEAD work."""
    video = await base.get(gateway, caller, video_id)
    return await base.content(request, gateway, video, index, variant=variant)


# Models


def render_model(name: str, owned_by: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": owned_by}


@routes.get("/v1/models", tags=["models"])
@routes.get("/openai/v1/models", include_in_schema=False)
async def list_models(gateway: GatewayDep, caller: CallerDep) -> Response:
    """All names that `model` can be."""
    found = gateway.router.models()
    data = [render_model(name, candidates[0].provider.name) for name, candidates in found.items()]
    return JSONResponse({"object": "list", "data": data})


@routes.get("/v1/models/{model:path}", tags=["models"])
@routes.get("/openai/v1/models/{model:path}", include_in_schema=False)
async def retrieve_model(model: str, gateway: GatewayDep, caller: CallerDep) -> Response:
    return JSONResponse(render_model(model, gateway.router.routes(model)[0].provider.name))
