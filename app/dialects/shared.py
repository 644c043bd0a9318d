"""Helpers for the non-OpenAI dialects: common fields, the choice of the model, extensions, responses, links."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, cast

from fastapi.responses import JSONResponse
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from app import errors
from app.accounts.auth import Caller
from app.db.models import Video
from app.http.body import reject_bool
from app.http.context import Gateway
from app.http.create import create_job, get_finished_video, request_from_source, source_model
from app.http.files import media_url
from app.http.responses import no_store
from app.http.uploads import Uploads
from app.jobs.choose import Routing
from app.jobs.enqueue import Created, Idempotency
from app.media.signed_links import SignedLinks
from app.mistakes import seconds
from app.sizes import COMMON_RATIOS, complete_size, nearest_ratio
from app.video import MAX_PROMPT_CHARACTERS, MAX_SECONDS, Media, Operation, VideoRequest

VENDORS_MODEL = re.compile(r"(?i:ray|luma|dream)[\w.\- ]*")
"""Model names of Luma and its resellers; any other unknown name is an error of the client."""
BASE64 = re.compile(r"[A-Za-z0-9+/\s]{16,}+={0,2}+\s*+")


# Fields


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be blank")
    return value


def _plain_number(value: Any) -> Any:
    """Accept lengths such as `5s`, as Luma writes them."""
    value = reject_bool(value)
    return value[:-1] if isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?s", value) else value


Prompt = Annotated[str, Field(max_length=MAX_PROMPT_CHARACTERS), AfterValidator(_not_blank)]
Seconds = Annotated[float, Field(gt=0, le=MAX_SECONDS, allow_inf_nan=False), BeforeValidator(_plain_number)]


def sized(aspect_ratio: str | None, resolution: str | None = None) -> dict[str, Any]:
    """Return the size fields of a `VideoRequest`. Raises `InvalidRequest`."""
    try:
        return dict(complete_size(None, aspect_ratio or None, resolution or None))
    except ValueError as error:
        param = str(error).partition(":")[0]
        raise errors.InvalidRequest(str(error), param=param, code="invalid_value") from None


def picture(value: Any, name: str, uploads: Uploads) -> Media | None:
    """Read a medium as `Uploads.media` does, or as bare base64; None if none was given."""
    if value in (None, ""):
        return None
    if isinstance(value, str) and BASE64.fullmatch(value):
        value = "data:;base64," + "".join(value.split())
    return uploads.media(value, name)


# Models


class ModelConfig(BaseModel):
    """Settings of a dialect whose requests carry no model name, `[dialects.<name>]` in the TOML file."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = None
    """Model of all its requests; unset: `default_model`."""

    @field_validator("*", mode="before")
    @classmethod
    def _seconds(cls, value: Any, info: ValidationInfo) -> Any:
        return seconds(info.field_name, value)


def model_for(gateway: Gateway, dialect: str, named: str | None) -> str:
    """Return the gateway's model for a request: the named one; the configured one for a vendor's model name and for
    none. Raises `ModelNotFound`, `InvalidRequest`."""
    if named and is_ours(gateway, named):
        return named
    model = cast("ModelConfig", gateway.dialects[dialect]).model or gateway.router.default_model
    if model is None:
        raise errors.InvalidRequest(
            f"no model is configured for this API: set GATEWAY_DIALECTS__{dialect.upper()}__MODEL, or name one of "
            "GET /v1/models as `model`",
            param="model",
            code="missing_parameter",
        )
    return model


def is_ours(gateway: Gateway, named: str) -> bool:
    """True for a model of this gateway, and for an unknown one, which is reported later; False for a vendor's name."""
    try:
        return bool(gateway.router.routes(named))
    except errors.ModelNotFound:
        return VENDORS_MODEL.fullmatch(named) is None


# Creating


async def extend(
    gateway: Gateway,
    caller: Caller,
    source_id: str,
    wanted: VideoRequest,
    uploads: Uploads,
    *,
    dialect: str,
    app: str | None,
    named: str | None,
    idempotency: Idempotency | None,
    routing: Routing,
) -> Created:
    """Create an extension of a finished video at its provider and in its size; with its model, unless one of this
    gateway is named. The new part comes last unless `wanted` has the operation `prepend`.

    Raises `ModelNotFound`, `NotFound`, and `InvalidRequest` for a source that is not completed.
    """
    source = await get_finished_video(gateway, caller, source_id)
    given = named if named and is_ours(gateway, named) else None
    operation = wanted.operation if wanted.operation.lengthens else Operation.extend
    based = request_from_source(source, wanted.prompt, given or source_model(source), operation, wanted.extra)
    names = ("seconds", "first_frame", "last_frame", "loop", "expand_prompt", "webhook", "client_names")
    request = based.model_copy(update={name: getattr(wanted, name) for name in names})
    return await create_job(
        gateway,
        caller,
        request,
        uploads,
        dialect=dialect,
        app=app,
        only_provider=source.provider,
        shown_model=given or source.model,
        idempotency=idempotency,
        routing=routing,
    )


# Responses


def answer(content: Any, *, status: int = 200, created: Created | None = None) -> JSONResponse:
    """JSON response of a dialect, with `status` for a create; a repeated one, which created nothing, responds 200."""
    if created is not None and created.replayed:
        return no_store(content, headers={"idempotent-replayed": "true"})
    return no_store(content, status=status)


def links_of(video: Video, links: SignedLinks, origin: str) -> list[str]:
    """Signed URLs of a completed video's files; at least one, which is a dead link once the files have expired. None of
    a purged video."""
    if video.purged_at is not None:
        return []
    outputs: Sequence[Mapping[str, Any]] = video.outputs or [{"index": 0, "content_type": None}]
    return [media_url(video, output, links, origin) for output in outputs]


def link_of(video: Video, links: SignedLinks, origin: str) -> str | None:
    """Signed URL of a completed video's first file, as `links_of`."""
    return next(iter(links_of(video, links, origin)), None)


def ratio_of(requested: Mapping[str, Any]) -> str | None:
    """The ratio of a stored request by its common name: 7:3 is sold as 21:9."""
    ratio = requested.get("aspect_ratio")
    return ratio and (nearest_ratio(ratio, COMMON_RATIOS) or str(ratio))


def rfc3339(at: datetime, timespec: Literal["milliseconds", "microseconds"]) -> str:
    return at.astimezone(UTC).isoformat(timespec=timespec).replace("+00:00", "Z")
