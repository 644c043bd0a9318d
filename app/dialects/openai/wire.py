"""Wire models of the OpenAI dialect, parsing of bodies into a `VideoRequest`, and rendering of objects.

Shapes: OpenAI SDK 3.52 and docs.lumenfall.ai, read 2026-11-21. Plain functions; the routes are in `videos.py`.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Any

from fastapi import Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, field_validator, model_validator

from app import errors, ids
from app.accounts import pricing
from app.db.models import Attempt, Character, Video
from app.dialects.openai.lumenfall import RetentionSeconds, executed_model, routing_of
from app.http.body import Body, extra_of, reject_bool, validated
from app.http.context import Gateway, origin_of
from app.http.fields import SOURCE_VIDEO, Address, Medium, MediumOrList, Name, Secret, Word
from app.http.files import media_link
from app.http.uploads import Uploads
from app.media import ffmpeg
from app.media.signed_links import SignedLinks
from app.sizes import complete_by_size
from app.video import MAX_PROMPT_CHARACTERS, Media, Operation, Status, VideoRequest

DEFAULT_SECONDS, DEFAULT_SIZE = "4", "720x1280"
"""OpenAI's documented defaults; shown until the file is there if the request has no value."""
AGREEMENT_S = 0.5
"""Difference between the requested and the measured length up to which the requested one is shown."""


# Wire models


def _text(value: Any) -> Any:
    """Convert numbers and booleans of JSON clients to the text that multipart clients send."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


def _not_auto(value: Any) -> Any:
    """Convert Lumenfall's `auto` to None: the model decides, as without the field."""
    return None if isinstance(value, str) and value.strip().lower() == "auto" else value


Prompt = Annotated[str, Field(max_length=MAX_PROMPT_CHARACTERS)]
Seconds = Annotated[float, Field(gt=0, le=3_600, allow_inf_nan=False), BeforeValidator(reject_bool)]
Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=2_000), BeforeValidator(_text)]],
    Field(max_length=64),
]

Shape = Annotated[Word | None, BeforeValidator(_not_auto)]
SourceVideo = Annotated[Any, WithJsonSchema(SOURCE_VIDEO)]
"""A file, or `{"id": "video_..."}`."""

CharacterId = Annotated[dict[Word, Word], Field(max_length=8)]
"""`{"id": "char_..."}`."""


PROMPT_EXAMPLE: dict[str, Any] = {"examples": [{"prompt": "the same boat in the snow"}]}


class _Prompted(BaseModel):
    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True, json_schema_extra=PROMPT_EXAMPLE)

    prompt: Prompt
    # `create.take_webhook` takes both fields out of the body.
    webhook_url: Address | None = None
    """Receives an event when the video ends."""
    webhook_secret: Secret | None = None
    """Signs the event; unset: the secret of GET /v1/webhooks/secret."""

    @field_validator("prompt")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("must not be blank")
        return value


class CreateVideo(_Prompted):
    """POST /v1/videos. Fields not listed here are passed on to the provider unchanged."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model": "sora-2", "prompt": "a paper boat on a pond", "seconds": 4, "size": "1280x720"}]
        }
    )

    model: Name | None = None
    """A model or an alias, see GET /v1/models; absent: the default model, if the gateway has one."""
    seconds: Seconds | None = None
    duration: Seconds | None = None
    """Lumenfall's alias of `seconds`."""
    size: Shape = None
    """`1280x720`, or a ratio such as `16:9`; pixels take precedence over the next two. `auto` means as if absent."""
    aspect_ratio: Shape = None
    resolution: Shape = None
    """`720p`, or a tier: `1K` is 720p, `2K` 1440p, `4K` 2160p."""
    input_reference: MediumOrList | None = None
    """The first frame, or a list of reference images."""
    image_url: MediumOrList | None = None
    """Lumenfall's alias of `input_reference`, as its model pages show it."""
    last_frame: Medium | None = None
    reference_images: MediumOrList | None = None
    reference_video: Medium | None = None
    video_url: Medium | None = None
    """Lumenfall's alias of `reference_video`; `input_video` is another."""
    input_video: Medium | None = None
    negative_prompt: Annotated[str, Field(max_length=5_000)] | None = None
    n: Annotated[int, Field(ge=1, le=4), BeforeValidator(reject_bool)] = 1
    """Number of outputs."""
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    generate_audio: bool | None = None
    loop: bool | None = None
    expand_prompt: bool | None = None
    characters: Annotated[list[CharacterId], Field(max_length=2)] = []
    metadata: Metadata = {}
    user: Annotated[str, Field(max_length=1_000)] | None = None
    media_retention: RetentionSeconds | None = None
    """Time that the finished file is kept: seconds, `12h`, `7d` or `P7D`."""

    @model_validator(mode="after")
    def _one_length(self) -> "CreateVideo":
        if self.seconds is not None and self.duration is not None and self.seconds != self.duration:
            raise ValueError("seconds and duration contradict each other; send one of them")
        return self


class RemixVideo(_Prompted):
    """POST /v1/videos/{video_id}/remix."""


class EditVideo(_Prompted):
    """POST /v1/videos/edits."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"prompt": "the same boat in the snow", "video": {"id": "video_01kb3v9zq4e8tq6j8x2m5n7r9s"}}]
        }
    )

    video: SourceVideo
    model: Word | None = None


class ExtendVideo(EditVideo):
    """POST /v1/videos/extensions."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"prompt": "it turns around", "video": {"id": "video_01kb3v9zq4e8tq6j8x2m5n7r9s"}, "seconds": 4}
            ]
        }
    )

    seconds: Seconds


class CreateCharacter(BaseModel):
    """POST /v1/videos/characters."""

    model_config = ConfigDict(
        use_attribute_docstrings=True,
        json_schema_extra={"examples": [{"name": "Ada", "video": "https://videos.example.com/ada.mp4"}]},
    )

    name: Annotated[str, Field(min_length=1, max_length=80)]
    video: Medium
    model: Word | None = None


# Parsing


def parse(body: Body, uploads: Uploads, *, default_model: str | None) -> VideoRequest:
    """Read the body of a create. Raises `InvalidRequest` naming the parameter."""
    wire = validated(CreateVideo, body)
    model = wire.model or default_model
    if model is None:
        raise errors.InvalidRequest("model is required; GET /v1/models lists all models", param="model")
    given, reference_name = _one_of(wire, "input_reference", "image_url")
    references = _media(given, reference_name, uploads)
    given_video, video_name = _one_of(wire, "reference_video", "input_video", "video_url")
    several = references if len(references) > 1 else []
    seconds = wire.seconds if wire.seconds is not None else wire.duration
    size, ignored = _size(wire)
    return VideoRequest(
        prompt=wire.prompt,
        model=model,
        seconds=seconds,
        first_frame=references[0] if len(references) == 1 else None,
        last_frame=_one(wire.last_frame, "last_frame", uploads),
        reference_images=(*several, *_media(wire.reference_images, "reference_images", uploads)),
        reference_video=_one(given_video, video_name, uploads),
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
        client_names=_names(wire, reference_name, video_name),
        warnings=tuple(f"{name} {value} was ignored: the size {size['size']} holds" for name, value in ignored.items()),
        **size,
    )


def _names(wire: CreateVideo, reference_name: str, video_name: str) -> dict[str, str | None]:
    """The client's names of fields that have several."""
    names: dict[str, str | None] = {"first_frame": reference_name, "reference_video": video_name}
    names["reference_images"] = "reference_images" if wire.reference_images else reference_name
    names["seconds"] = "seconds" if wire.seconds is not None else "duration"
    if wire.size is None:
        names["size"] = None
    elif wire.aspect_ratio is None:
        names["aspect_ratio"] = "size"
    return names


def _one_of(wire: CreateVideo, *names: str) -> tuple[Any, str]:
    """Return the value of one input that has several names, and the name it was given under, else the first one. Raises
    `InvalidRequest` where two of them name different media: none is dropped silently."""
    given = {name: value for name in names if (value := getattr(wire, name)) not in (None, "", [])}
    name = next(iter(given), names[0])
    for other in given:
        if _plain(given[other]) != _plain(given[name]):
            raise errors.InvalidRequest(
                f"{other} and {name} are two names of one input and contradict each other; send one of them",
                param=other,
                code="invalid_value",
            )
    return given.get(name), name


def _plain(value: Any) -> Any:
    """The address alone of `{"image_url": ...}` or a list of one, so that the forms of one medium are equal."""
    while isinstance(value, list | dict) and len(value) == 1:
        value = next(iter(value.values() if isinstance(value, dict) else value))
    return value


def _media(value: Any, name: str, uploads: Uploads) -> list[Media]:
    if value in (None, ""):
        return []
    values = value if isinstance(value, list) else [value]
    return [uploads.media(entry, name) for entry in values]


def _one(value: Any, name: str, uploads: Uploads) -> Media | None:
    found = _media(value, name, uploads)
    if len(found) > 1:
        raise errors.InvalidRequest(f"{name}: expected one, got {len(found)}", param=name)
    return found[0] if found else None


def _character_id(entry: Mapping[str, str]) -> str:
    if not ids.is_id(entry.get("id", ""), "char"):
        raise errors.InvalidRequest('characters: expected a list of {"id": "char_..."}', param="characters")
    return entry["id"]


def _size(wire: CreateVideo) -> tuple[dict[str, Any], dict[str, str]]:
    """The triple of a request, and the values over which its size in pixels takes precedence."""
    try:
        triple, ignored = complete_by_size(wire.size, wire.aspect_ratio, wire.resolution)
        return dict(triple), ignored
    except ValueError as error:
        param = str(error).partition(":")[0]
        raise errors.InvalidRequest(str(error), param=param, code="invalid_value") from None


# Rendering


def render(
    video: Video, gateway: Gateway, request: Request, *, attempts: Sequence[Attempt] | None = None
) -> dict[str, Any]:
    """The video object: OpenAI's 13 keys, then ours. With its attempts, `metadata` has the routing beside the caller's
    strings, which take precedence."""
    requested = video.request
    output = render_output(video, gateway.links, origin_of(request), gateway.clock())
    routing = {} if attempts is None else routing_of(video, attempts, gateway.providers)
    first = video.outputs[0] if video.outputs else {}
    provider, _, upstream_model = executed_model(video).partition("/")
    return {
        "id": video.id,
        "object": "video",
        "model": video.model,
        "status": str(video.status),
        "progress": video.progress,
        "created_at": int(video.created_at.timestamp()),
        "completed_at": int(video.completed_at.timestamp()) if video.completed_at else None,
        "expires_at": int(video.expires_at.timestamp()) if video.expires_at else None,
        "prompt": requested["prompt"],
        "size": _size_of(video, first),
        "seconds": _seconds_of(video, first),
        "remixed_from_video_id": video.source_video_id,
        "error": {"code": video.error_code, "message": video.error_message} if video.error_code else None,
        "url": output and output["url"],
        "output": output,
        "metadata": {**routing, **requested.get("metadata", {})},
        "provider": provider,
        "upstream_model": upstream_model,
        "cost_estimate": pricing.dollars(video.cost_estimate_micros),
        "cost": pricing.dollars(video.cost_micros),
        "cost_currency": "USD",
        **({"warnings": video.warnings} if video.warnings else {}),
    }


def _size_of(video: Video, output: Mapping[str, Any]) -> str | None:
    """The measured size; of a video that is not finished the requested or documented one. None: it is finished and its
    size is unknown."""
    if output.get("width") and output.get("height"):
        return f"{output['width']}x{output['height']}"
    requested = video.request.get("size") or video.request.get("aspect_ratio")
    return requested or (None if video.status is Status.completed else DEFAULT_SIZE)


def _seconds_of(video: Video, output: Mapping[str, Any]) -> str | None:
    """The measured length in whole seconds, of an extension the total; the requested one where it agrees. Else as for
    the size."""
    requested, measured = video.request.get("seconds"), output.get("duration_s")
    is_extension = Operation(video.request.get("operation", "generate")).lengthens
    if measured and (requested is None or is_extension or abs(requested - measured) > AGREEMENT_S):
        return f"{max(1, round(measured))}"
    if requested is not None:
        return f"{requested:g}"
    return None if video.status is Status.completed else DEFAULT_SECONDS


def render_output(video: Video, links: SignedLinks, origin: str, now: datetime) -> dict[str, Any] | None:
    """The finished files, None if there are none or they have expired or were purged."""
    if not video.outputs or video.purged_at is not None or (video.expires_at is not None and video.expires_at <= now):
        return None
    files = [_file(video, output, links, origin) for output in video.outputs]
    return files[0] if len(files) == 1 else {**files[0], "files": files}


def _file(video: Video, output: Mapping[str, Any], links: SignedLinks, origin: str) -> dict[str, Any]:
    url, link_end = media_link(video, output, links, origin)
    picture = partial(links.picture, video.id, output["index"], end=link_end, origin=origin)
    pictures = ffmpeg.is_installed()  # without it none can be made
    return {
        "url": url,
        "thumbnail_url": picture("thumbnail") if pictures else None,
        "spritesheet_url": picture("spritesheet") if pictures else None,
        "expires_at": link_end,  # of the link; the file's own is that of the video
        "content_type": output["content_type"],
        "size_bytes": output["size"],
        "duration_seconds": output["duration_s"],
        "width": output["width"],
        "height": output["height"],
    }


def render_error(error: errors.GatewayError, *, path: str, request_id: str) -> dict[str, Any]:
    """OpenAI's envelope, always with all four keys."""
    return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}


def render_character(character: Character) -> dict[str, Any]:
    return {"id": character.id, "name": character.name, "created_at": int(character.created_at.timestamp())}
