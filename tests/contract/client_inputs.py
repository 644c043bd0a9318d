"""Fields of each dialect for the tests of what clients send: a picture, a webhook, an object or a list."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.video import VideoRequest

PICTURE_URL = "https://example.com/boat.png"


@dataclass(frozen=True)
class Inputs:
    """Fields of one dialect; None: it has no such field."""

    prompt: str
    structured: tuple[str, Any]
    """A field that is an object, a list or a medium, with a value."""
    keyed: dict[str, str]
    """The same or another such field as form fields with keys in brackets."""
    read: Callable[[VideoRequest], bool]
    """True for a request that has the value of `structured` and `keyed`."""
    picture: Callable[[Any], dict[str, Any]] | None = None
    """Body fields with this value as the first frame."""
    picture_param: str = ""
    """Name of that field in errors."""
    picture_part: str = ""
    """Name of that field in a form."""
    hook: str | None = None
    hook_secret: str | None = None


def _has_picture(request: VideoRequest) -> bool:
    return request.first_frame is not None and request.first_frame.url == PICTURE_URL


def _openai() -> Inputs:
    return Inputs(
        prompt="prompt",
        structured=("input_reference", {"image_url": PICTURE_URL}),
        keyed={"input_reference[image_url]": PICTURE_URL},
        read=_has_picture,
        picture=lambda value: {"input_reference": value},
        picture_param="input_reference",
        picture_part="input_reference",
        hook="webhook_url",
    )


INPUTS = {
    "/v1/": _openai(),
    "/openai/v1/": _openai(),
    "/v1/videos/generations/": Inputs(
        prompt="prompt",
        structured=("first_frame_url", {"url": PICTURE_URL}),
        keyed={"first_frame_url[url]": PICTURE_URL},
        read=_has_picture,
        picture=lambda value: {"image_url": value},
        picture_param="image_url",
        picture_part="image_url",
        hook="webhook_url",
        hook_secret="webhook_secret",
    ),
    "/luma/": Inputs(
        prompt="user_prompt",
        structured=("image_url", {"url": PICTURE_URL}),
        keyed={"image_url[url]": PICTURE_URL},
        read=_has_picture,
        picture=lambda value: {"image_url": value},
        picture_param="image_url",
        picture_part="image_url",
        hook="notify_hook",
    ),
    "/v2/": Inputs(
        prompt="prompt",
        structured=("keyframes", {"frame0": {"type": "image", "url": PICTURE_URL}}),
        keyed={"keyframes[frame0][type]": "image", "keyframes[frame0][url]": PICTURE_URL},
        read=_has_picture,
        picture=lambda value: {"keyframes": {"frame0": {"type": "image", "url": value}}},
        picture_param="keyframes.frame0.url",
        picture_part="keyframes[frame0][url]",
        hook="callback_url",
    ),
    "/v1/video/": Inputs(
        prompt="prompt",
        structured=("parameters", {"negativePrompt": "rain"}),
        keyed={"parameters[negativePrompt]": "rain"},
        read=lambda request: request.negative_prompt == "rain",
    ),
}
"""By prefix, as `CASES`."""
WITH_PICTURE = {prefix: inputs for prefix, inputs in INPUTS.items() if inputs.picture is not None}
WITH_HOOK = {prefix: inputs for prefix, inputs in INPUTS.items() if inputs.hook is not None}
