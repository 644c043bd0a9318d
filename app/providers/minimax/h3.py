"""H3, by version 2 of the API: its models and the body of a request. Pure but for uploads, which `Url` reads."""

from collections.abc import Awaitable, Callable
from typing import Any

from app.capabilities import Capabilities, in_micros, media_of
from app.providers.base import Task
from app.providers.rest import CANCELLED_WORDS
from app.video import Media, Status, VideoRequest, without_fraction

PATH = "/v2/video_generation"
QUERY_PATH = "/v2/query/video_generation"
FILE_PATHS = (("content", "url"),)
DEFAULT_SECONDS = 5
DEFAULT_RESOLUTION = "768p"
DEFAULT_RATIO = "16:9"
ADAPTIVE = "adaptive"
"""The ratio of the pictures and videos given; a text alone has none, and is refused with it."""

RATIOS = ("16:9", "9:16", "4:3", "3:4", "1:1", "21:9")
TIERS = {"480p": "480P", "720p": "768P", "768p": "768P", "1440p": "2K"}
"""The vendor's word for a resolution: it has no 720p, and what it does not know becomes 2K, the dearest."""
FRAMES = frozenset({"first_frame", "last_frame"})
REFERENCES = frozenset({"reference_images", "reference_video"})
OWN_FIELDS = frozenset({"aigc_watermark"})
Url = Callable[[Media], Awaitable[str]]
"""Address of a medium, or an upload as a `data:` URL."""


def _h3(
    seconds: tuple[int, int],
    prices: dict[str, float],
    *,
    images: tuple[float, int],
    parameters: frozenset[str],
    references: int | None = None,
) -> Capabilities:
    """Capabilities of one model; prices in US dollars per second, and of an input image beyond the free ones."""
    per_image, free = images
    return Capabilities(
        seconds=seconds,
        seconds_range=True,
        default_seconds=DEFAULT_SECONDS,
        default_resolution=DEFAULT_RESOLUTION,
        resolutions=tuple(prices),
        aspect_ratios=RATIOS,
        parameters=parameters,
        max_reference_images=references,
        prices=in_micros(prices),
        image_micros=round(per_image * 1_000_000),
        free_images=free,
        vendor_fields=OWN_FIELDS,
    )


MODELS = {
    "MiniMax-H3": _h3(
        (4, 15),
        {"720p": 0.08, "768p": 0.08, "1440p": 0.13},
        images=(0.04, 5),
        parameters=FRAMES | REFERENCES,
        references=9,
    ),
    "MiniMax-H3-Max": _h3((5, 15), {"480p": 0.05, "720p": 0.08, "768p": 0.08}, images=(0.074, 2), parameters=FRAMES),
}
"""Prices: the price map of LiteLLM 1.110.2, 2026-11, which two surveys of 2026-09 and 2026-10 confirm."""
ANYTHING = Capabilities(
    default_seconds=DEFAULT_SECONDS,
    default_resolution=DEFAULT_RESOLUTION,
    parameters=FRAMES | REFERENCES,
    passes_extra=True,
)
"""Capabilities of a model that is newer than the table."""

STATUS = {
    "queued": Status.queued,
    "running": Status.in_progress,
    "succeeded": Status.completed,
    **dict.fromkeys(("failed", "expired", *CANCELLED_WORDS), Status.failed),
}


def capabilities_for(model: str, request: VideoRequest) -> Capabilities:
    """Capabilities of a model for this request: a last frame needs a first one, and frames exclude references. A
    reference video is billed by its length, too, which is not known: the price of the output is the least it costs."""
    able, given = MODELS.get(model, ANYTHING), media_of(request).keys()
    if able is ANYTHING or not FRAMES & given:
        return able
    needed = FRAMES - {"last_frame"} if "last_frame" in given else frozenset()
    return able.model_copy(update={"required": needed, "parameters": able.parameters - REFERENCES})


async def body(task: Task, url: Url) -> dict[str, Any]:
    """The body of the request; length, resolution and ratio are always said, so that what is billed is known."""
    request = task.request
    content: list[dict[str, Any]] = [{"type": "text", "text": request.prompt}]
    pictures = [
        (request.first_frame, "first_frame"),
        (request.last_frame, "last_frame"),
        *((image, "reference_image") for image in request.reference_images),
    ]
    for picture, role in pictures:
        if picture is not None:
            content.append({"type": "image_url", "image_url": {"url": await url(picture)}, "role": role})
    if request.reference_video is not None:
        video = {"url": await url(request.reference_video)}
        content.append({"type": "video_url", "video_url": video, "role": "reference_video"})
    seconds = request.seconds if request.seconds is not None else DEFAULT_SECONDS
    given = {
        "model": task.model,
        "content": content,
        "resolution": tier(request.resolution or DEFAULT_RESOLUTION),
        "duration": without_fraction(seconds),
        "ratio": request.aspect_ratio or (ADAPTIVE if media_of(request) else DEFAULT_RATIO),
        **({"callback_url": task.callback_url} if task.callback_url else {}),
    }
    return given | {name: value for name, value in request.extra.items() if name not in (*given, "n")}


def tier(resolution: str) -> str:
    return TIERS.get(resolution, resolution.upper())
