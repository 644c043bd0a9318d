"""Lunos' video API. Docs: lunos.tech/docs/generative/video and the client @lunos/client 1.5.0, read 2026-11-21;
lunos.tech/docs/api/models, read 2026-11-26.

Quirks: errors are plain strings; the client repeats a create three times on every error but 401, so an idempotency key
(header or body) should be sent. Beyond the vendor: any model, and any ratio. An unfinished video is always `pending`:
the documented states are `pending` and `completed`, though the client's types have `processing`. Ids are ours; the part
of an id before its last colon is ignored, since the vendor's ids have colons. The model list is public at the vendor;
here it needs a key, which the client sends with every call. Inferred: the capability word `video-generation`. What
counts tokens is null, since a video has none. Not here: the client's `/v1/usage` and `/v1/account`.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from app import errors
from app.db.models import Video
from app.dialects import shared
from app.http.body import Body, body_of, extra_of, validated
from app.http.context import CallerDep, GatewayDep, get_video, origin_of
from app.http.create import app_name, create_job, new_video_id, take_idempotency, take_routing
from app.http.fields import Name, Word
from app.http.openapi import Json, ResponseModel, create_schema, may_be_absent, returns
from app.http.uploads import Uploads
from app.media.signed_links import SignedLinks
from app.providers.routing import Route
from app.video import Status, VideoRequest

TITLE = "Lunos"
PREFIXES = ("/v1/video/", "/public/")
CAPABILITY = "video-generation"
NAMES = {"size": None, "aspect_ratio": "parameters.aspectRatio", "negative_prompt": "parameters.negativePrompt"}

STATUS = {
    Status.queued: "pending",
    Status.in_progress: "pending",
    Status.completed: "completed",
    Status.failed: "failed",
}

routes = APIRouter(tags=["lunos"])


class LunosParameters(BaseModel):
    """Optional parameters. Fields not listed here are passed on to the provider unchanged."""

    model_config = ConfigDict(extra="allow")

    aspectRatio: Word | None = None  # noqa: N815  the vendor's name
    negativePrompt: str | None = Field(None, max_length=5_000)  # noqa: N815  the vendor's name


class CreateGeneration(BaseModel):
    """POST /v1/video/generations. Fields not listed here are passed on to the provider unchanged."""

    model_config = ConfigDict(
        title="CreateLunosGeneration",
        extra="allow",
        use_attribute_docstrings=True,
        json_schema_extra={
            "examples": [
                {
                    "model": "google/veo-3.0-generate-preview",
                    "prompt": "a paper boat on a pond",
                    "parameters": {"aspectRatio": "16:9"},
                }
            ]
        },
    )

    model: Name
    prompt: shared.Prompt
    parameters: LunosParameters = LunosParameters()
    response_format: Literal["mp4"] | None = None
    user: str | None = Field(None, max_length=1_000)
    appId: str | None = Field(None, max_length=1_000)  # noqa: N815  the vendor's name
    """Takes precedence over the header `X-App-ID`."""


class LunosCreated(ResponseModel):
    """The response to a create of Lunos' API."""

    id: str
    operation_name: str
    status: Literal["pending", "completed", "failed"]


class LunosGeneration(ResponseModel):
    """A video in Lunos' API."""

    example: ClassVar[Json] = {
        "id": "video_01kb3v9zq4e8tq6j8x2m5n7r9s",
        "status": "completed",
        "video_url": "https://video.example.com/media/video_01kb3v9zq4e8tq6j8x2m5n7r9s/0.mp4?exp=1764183660&sig=x",
    }

    id: str
    status: Literal["pending", "completed", "failed"]
    video_url: str | None = may_be_absent()
    """Signed URL of a completed video, which plays without a key until it expires; else absent."""
    error: str = may_be_absent()
    """The reason for `failed`; else absent."""


class LunosModelParameters(ResponseModel):
    context: None
    max_output_tokens: None
    size: None


class LunosModelPricing(ResponseModel):
    input: None
    output: None


class LunosModel(ResponseModel):
    """A model in the list of Lunos' API."""

    id: str
    name: str
    description: str
    provider: str
    parameters: LunosModelParameters
    pricePerMillionTokens: LunosModelPricing  # noqa: N815  the vendor's name
    capabilities: list[str]
    status: Literal["available"]


class LunosError(ResponseModel):
    """An error in the shape of Lunos' API."""

    error: str


ErrorModel = LunosError


def parse(body: Body) -> VideoRequest:
    """Read the body of a create. Raises `InvalidRequest`."""
    wire = validated(CreateGeneration, {**body, "parameters": body.get("parameters") or {}})
    return VideoRequest(
        prompt=wire.prompt,
        model=wire.model,
        negative_prompt=wire.parameters.negativePrompt,
        user=wire.user,
        app=wire.appId or None,
        extra=extra_of(wire.parameters) | extra_of(wire),
        client_names=NAMES,
        **shared.sized(wire.parameters.aspectRatio),
    )


def render(video: Video) -> dict[str, Any]:
    """The response to a create."""
    return {"id": video.id, "operation_name": f"operations/{video.model}/{video.id}", "status": STATUS[video.status]}


def query_object(video: Video, links: SignedLinks, origin: str) -> dict[str, Any]:
    """The response to a GET."""
    body: dict[str, Any] = {"id": video.id, "status": STATUS[video.status]}
    if video.status is Status.completed:
        body["video_url"] = shared.link_of(video, links, origin)
    if video.status is Status.failed:
        body["error"] = video.error_message
    return body


def render_model(name: str, routes: Sequence[Route]) -> dict[str, Any]:
    """An entry of the model list; the provider is that of the first route."""
    provider = routes[0].provider
    return {
        "id": name,
        "name": name,
        "description": f"Video model of {provider.title}",
        "provider": provider.name,
        "parameters": {"context": None, "max_output_tokens": None, "size": None},
        "pricePerMillionTokens": {"input": None, "output": None},
        "capabilities": [CAPABILITY],
        "status": "available",
    }


def render_error(error: errors.GatewayError, *, path: str, request_id: str) -> dict[str, Any]:
    return {"error": error.message}


@routes.post("/v1/video/generations", responses=returns(LunosCreated), openapi_extra=create_schema(CreateGeneration))
async def create_generation(request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Create a video with Lunos' API."""
    async with body_of(request, CreateGeneration) as body:
        routing = take_routing(request, body)
        idempotency = take_idempotency(request, body, "lunos")
        uploads = Uploads(new_video_id(), gateway.settings.allow_networks)
        parsed = parse(body)
        created = await create_job(
            gateway,
            caller,
            parsed,
            uploads,
            dialect="lunos",
            app=app_name(request),
            idempotency=idempotency,
            routing=routing,
        )
    return shared.answer(render(created.video), created=created)


@routes.get("/v1/video/generations/{video_id:path}", responses=returns(LunosGeneration))
async def retrieve_generation(video_id: str, request: Request, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Read a video with Lunos' API."""
    video = await get_video(gateway, caller, video_id.rpartition(":")[2])
    return shared.answer(query_object(video, gateway.links, origin_of(request)))


@routes.get("/public/models", responses=returns(list[LunosModel]))
async def list_models(gateway: GatewayDep, caller: CallerDep) -> Response:
    """List the models that this key may use, in the shape that Lunos' client reads."""
    usable = gateway.router.permitted_models(caller.may_use)
    return shared.answer([render_model(name, routes) for name, routes in usable.items()])
