"""Kling's older API, v1: its token, its models, and the body of a submit. Pure but for the pictures that are read by
`Address`."""

import base64
import hmac
import json
from collections.abc import Awaitable, Callable
from typing import Any

from app.capabilities import Capabilities
from app.providers.base import Task
from app.video import Media, VideoRequest

TOKEN_S = 1_800
CLOCK_LAG_S = 5
RATIOS = ("16:9", "9:16", "1:1")
DEFAULT_SECONDS = 5
DEFAULT_RESOLUTION = "720p"
DEFAULT_RATIO = "16:9"
FRAMES = frozenset({"first_frame", "last_frame"})
OWN_FIELDS = frozenset({"watermark_info", "element_list", "voice_list"})
SHOT = "multi_shot"
SHOTS = frozenset({SHOT, "shot_type", "multi_prompt"})
MODES = {"720p": "std", "1080p": "pro"}
NAMES = {"kling-3.0": "kling-v3", "kling-2.6": "kling-v2-6", "kling-2.5-turbo": "kling-v2-5-turbo"}
"""The vendor's names in this API, by those of API 2.0."""
OWN_NAME = "kling-v"
"""Begins the vendor's names in this API."""
Address = Callable[[Media], Awaitable[str]]


def _kling(
    seconds: tuple[int, int],
    *,
    any_length: bool = False,
    parameters: frozenset[str] = frozenset(),
    fields: frozenset[str] = frozenset(),
) -> Capabilities:
    return Capabilities(
        seconds=seconds,
        seconds_range=any_length,
        default_seconds=DEFAULT_SECONDS,
        default_resolution=DEFAULT_RESOLUTION,
        resolutions=tuple(MODES),
        aspect_ratios=RATIOS,
        parameters=FRAMES | {"negative_prompt"} | parameters,
        vendor_fields=OWN_FIELDS | fields,
    )


MODELS = {
    "kling-3.0": _kling((3, 15), any_length=True, parameters=frozenset({"generate_audio"}), fields=SHOTS),
    "kling-2.6": _kling((5, 10), parameters=frozenset({"generate_audio"})),
    "kling-2.5-turbo": _kling((5, 10)),
}
"""The vendor sells units here: no price in US dollars is known."""
ANYTHING = Capabilities(
    parameters=FRAMES | {"reference_images", "negative_prompt", "generate_audio"}, passes_extra=True
)
"""Capabilities of the older models, under the vendor's own names."""


def token(access_key: str, secret_key: str, now: int) -> str:
    """A JSON Web Token by HS256 that is valid from shortly before `now`, in seconds since 1970, for half an hour."""
    claims = {"iss": access_key, "exp": now + TOKEN_S, "nbf": now - CLOCK_LAG_S}
    parts = ({"alg": "HS256", "typ": "JWT"}, claims)
    signed = ".".join(_encoded(json.dumps(part, separators=(",", ":")).encode()) for part in parts)
    return f"{signed}.{_encoded(hmac.digest(secret_key.encode(), signed.encode(), 'sha256'))}"


def _encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def capabilities(model: str) -> Capabilities | None:
    """Capabilities of a model; None for one that only API 2.0 serves."""
    named = next((name for name, own in NAMES.items() if own == model), model)
    return MODELS.get(named, ANYTHING if model.startswith(OWN_NAME) else None)


def capabilities_for(model: str, request: VideoRequest) -> Capabilities | None:
    """Capabilities for this request: a picture decides on the ratio."""
    able = capabilities(model)
    if able is None or able is ANYTHING:
        return able
    changes: dict[str, Any] = {}
    if request.first_frame is not None:
        changes |= {"aspect_ratios": ()}
    if request.last_frame is not None:
        changes |= {"required": frozenset({"first_frame"})}
    if not isinstance(request.extra.get(SHOT, False), bool):
        changes |= {"malformed": {SHOT: "expected true or false"}}
    return able.model_copy(update=changes)


def path_of(task: Task) -> str:
    """The endpoint of a request; its tasks are read below it."""
    request = task.request
    if request.reference_images:
        return "/v1/videos/multi-image2video"
    has_frame = request.first_frame is not None or request.last_frame is not None
    return "/v1/videos/image2video" if has_frame else "/v1/videos/text2video"


async def body(task: Task, picture: Address) -> dict[str, Any]:
    request, able = task.request, capabilities(task.model) or ANYTHING
    seconds = request.seconds if request.seconds is not None else able.default_seconds
    resolution = request.resolution or able.default_resolution
    ratio = request.aspect_ratio or (DEFAULT_RATIO if able is not ANYTHING else None)
    name = NAMES.get(task.model, task.model)
    values: dict[str, Any] = {
        "model_name": name,
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "image": await picture(request.first_frame) if request.first_frame else None,
        "image_tail": await picture(request.last_frame) if request.last_frame else None,
        "image_list": [{"image": await picture(image)} for image in request.reference_images] or None,
        "mode": MODES.get(resolution or ""),
        "duration": f"{seconds:g}" if seconds is not None else None,
        "aspect_ratio": ratio if request.first_frame is None else None,
        "sound": {True: "on", False: "off", None: None}[request.generate_audio],
        "callback_url": task.callback_url,
        "external_task_id": task.id,
    }
    given = {name: value for name, value in values.items() if value is not None}
    given |= {name: value for name, value in request.extra.items() if name not in (*given, "n")}
    is_one = name == NAMES["kling-3.0"] and not isinstance(given.get(SHOT), bool)
    return given | ({SHOT: False} if is_one else {})
