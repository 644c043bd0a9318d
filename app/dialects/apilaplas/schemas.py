"""Models of the responses of Apilaplas' API, for the OpenAPI document."""

from typing import ClassVar, Literal

from pydantic import AwareDatetime

from app.http.openapi import Json, ResponseModel, may_be_absent


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
