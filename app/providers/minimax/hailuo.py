"""Hailuo and the models before it, by version 1 of the API: their capabilities and the body of a request. Pure but for
uploads, which `Url` reads."""

import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote, urlencode

from app.capabilities import Capabilities, media_of
from app.providers.answers import is_usable
from app.providers.base import Task
from app.video import Media, Status, VideoRequest, without_fraction

PATH = "/v1/video_generation"
QUERY_PATH = "/v1/query/video_generation"
FILE_PATH = "/v1/files/retrieve?file_id="
"""Path of the call that names a file's address for an hour; the id follows."""
MODEL = re.compile(r"(?:MiniMax-Hailuo|[TIS]2V)-.+")
WAITING = "Preparing"
"""The vendor's first word for a task, which the answer to a submit does not have."""
DEFAULT_SECONDS = 6
DEFAULT_RESOLUTION = "768p"
TIERS = {"512p": "512P", "720p": "768P", "768p": "768P", "1080p": "1080P"}
"""The vendor's word for a resolution: Hailuo has no 720p."""

FIRST = frozenset({"first_frame"})
FRAMES = FIRST | {"last_frame"}
SUBJECT = frozenset({"reference_images"})
EVERY = frozenset({"expand_prompt"})
OWN_FIELDS = frozenset({"aigc_watermark"})
Url = Callable[[Media], Awaitable[str]]
"""Address of a medium, or an upload as a `data:` URL."""

Clips = dict[str, dict[int, float]]
STANDARD: Clips = {"768p": {6: 0.28, 10: 0.56}, "1080p": {6: 0.49}}
CLIPS: dict[str, Clips] = {
    "MiniMax-Hailuo-2.3": STANDARD,
    "MiniMax-Hailuo-2.3-Fast": {"768p": {6: 0.19, 10: 0.32}, "1080p": {6: 0.33}},
    "MiniMax-Hailuo-02": {"512p": {6: 0.1, 10: 0.15}, **STANDARD},
}
"""Price of a clip in US dollars by resolution and length, which are also the lengths that there are: the vendor's price
page as public notes of 2026 quote it, which agrees with ComfyUI's price list per second."""


def _hailuo(clips: Clips, parameters: frozenset[str], required: frozenset[str] = frozenset()) -> Capabilities:
    return Capabilities(
        seconds=(6, 10),
        default_seconds=DEFAULT_SECONDS,
        default_resolution=DEFAULT_RESOLUTION,
        resolutions=tuple(name for name in TIERS if name in clips or name == "720p"),
        aspect_ratios=("16:9",),
        parameters=parameters | EVERY,
        required=required,
        prices=_prices(clips, DEFAULT_SECONDS),
        vendor_fields=OWN_FIELDS | {"fast_pretreatment"},
    )


def _prices(clips: Clips, seconds: float) -> dict[str, int]:
    """Prices per second of clips of one length."""
    found = {name: _clip_micros(clips, name, seconds) for name in TIERS}
    return {name: round(micros / seconds) for name, micros in found.items() if micros}


def _clip_micros(clips: Clips, resolution: str, seconds: float) -> int:
    """Price of one clip; 0 where there is none of this length. 720p is made as 768p."""
    found = clips.get("768p" if resolution == "720p" else resolution, {})
    return round(found.get(int(seconds), 0) * 1_000_000) if seconds in found else 0


def _before(parameters: frozenset[str]) -> Capabilities:
    """Capabilities of a model before Hailuo, which makes nothing without its pictures."""
    return Capabilities(
        seconds=(6,),
        default_seconds=6,
        default_resolution="720p",
        resolutions=("720p",),
        aspect_ratios=("16:9",),
        parameters=parameters | EVERY,
        required=parameters,
        max_reference_images=1,
        vendor_fields=OWN_FIELDS,
    )


MODELS = {
    "MiniMax-Hailuo-2.3": _hailuo(CLIPS["MiniMax-Hailuo-2.3"], FIRST),
    "MiniMax-Hailuo-2.3-Fast": _hailuo(CLIPS["MiniMax-Hailuo-2.3-Fast"], FIRST, required=FIRST),
    "MiniMax-Hailuo-02": _hailuo(CLIPS["MiniMax-Hailuo-02"], FRAMES),
    **dict.fromkeys(("T2V-01", "T2V-01-Director"), _before(frozenset())),
    **dict.fromkeys(("I2V-01", "I2V-01-Director", "I2V-01-live"), _before(FIRST)),
    "S2V-01": _before(SUBJECT),
}
ANYTHING = Capabilities(parameters=FRAMES | SUBJECT | EVERY, passes_extra=True)
"""Capabilities of a model of this version that is newer than the table."""

STATUS = {
    **dict.fromkeys(("preparing", "queueing"), Status.queued),
    "processing": Status.in_progress,
    "success": Status.completed,
    **dict.fromkeys(("fail", "failed"), Status.failed),
}


def serves(model: str) -> bool:
    return MODEL.fullmatch(model) is not None


def capabilities_for(model: str, request: VideoRequest) -> Capabilities:
    """Capabilities of a model for this request: lengths and prices depend on the resolution, a clip has one price
    however long its file turns out, 512p needs a first frame and no last one, a last frame needs a first one, and
    frames decide on the ratio."""
    able = MODELS.get(model, ANYTHING)
    media = media_of(request)
    update: dict[str, Any] = {"aspect_ratios": None} if FRAMES & media.keys() else {}
    clips = CLIPS.get(model)
    if clips is not None:
        seconds = request.seconds if request.seconds is not None else DEFAULT_SECONDS
        update["prices"] = _prices(clips, seconds)
        update["least_micros"] = _clip_micros(clips, request.resolution or DEFAULT_RESOLUTION, seconds)
        if request.resolution in clips:
            update["seconds"] = tuple(clips[request.resolution])
        if "first_frame" not in media or "last_frame" in media:
            update["resolutions"] = tuple(name for name in able.resolutions or () if name != "512p")
        if "last_frame" in media:
            update["required"] = FIRST
    return able.model_copy(update=update)


async def body(task: Task, url: Url) -> dict[str, Any]:
    request = task.request
    asked: dict[str, Any] = {
        "model": task.model,
        "prompt": request.prompt or None,
        **_size(task.model, request),
        "first_frame_image": request.first_frame and await url(request.first_frame),
        "last_frame_image": request.last_frame and await url(request.last_frame),
        "prompt_optimizer": request.expand_prompt,
        "callback_url": task.callback_url,
    }
    if request.reference_images:
        images = [await url(image) for image in request.reference_images]
        asked["subject_reference"] = [{"type": "character", "image": images}]
    given = {name: value for name, value in asked.items() if value is not None}
    return given | {name: value for name, value in request.extra.items() if name not in (*given, "n")}


def _size(model: str, request: VideoRequest) -> dict[str, Any]:
    """Length and resolution: always said to Hailuo; never to a model before it, which has one of each."""
    if model in MODELS and model not in CLIPS:
        return {}
    seconds, resolution = request.seconds, request.resolution
    if model in CLIPS:
        seconds, resolution = seconds or DEFAULT_SECONDS, resolution or DEFAULT_RESOLUTION
    return {
        "duration": without_fraction(seconds),
        "resolution": resolution and TIERS.get(resolution, resolution.upper()),
    }


def poll_path(ref: str | None) -> str:
    return f"{QUERY_PATH}?{urlencode({'task_id': ref or ''})}"


def file_path(file_id: Any) -> str | None:
    """Path of the call for a finished task's file; None if its id, a text or a number, cannot be used."""
    name = str(file_id) if isinstance(file_id, int) and not isinstance(file_id, bool) else file_id
    return FILE_PATH + quote(name, safe="") if is_usable(name) else None
