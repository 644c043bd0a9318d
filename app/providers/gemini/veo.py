"""Veo: its models, the body of `predictLongRunning`, and what an operation says. Pure but for the uploads that are read
by `Blob`."""

import re
from collections.abc import Awaitable, Callable
from typing import Any

from app import errors
from app.capabilities import Capabilities, in_micros
from app.providers.base import Task
from app.video import Media, Operation, Status, VideoRequest

OPERATION = re.compile(r"models/\w[\w.\-]*/operations/\w[\w.\-]*", re.ASCII)
"""Names of operations, which are paths."""
FILE_PATHS = (("response", "generateVideoResponse", "generatedSamples", "video", "uri"),)
RUNNING = "running"
"""Our word for an operation that is not done: it has none."""
RPC_CODES = {1: "cancelled", 3: "invalid_argument"}
"""Codes of google.rpc that say more than that the generation failed."""
SUPPORT_CODE = "support code"
DEFAULT_SECONDS = 8
DEFAULT_RESOLUTION = "720p"
DEFAULT_RATIO = "16:9"

FRAMES = frozenset({"first_frame", "last_frame"})
PLAIN = frozenset({"negative_prompt", "seed", "expand_prompt"})
REFERENCES = frozenset({"reference_images"})
OWN_FIELDS = frozenset({"personGeneration"})
Blob = Callable[[Media], Awaitable[tuple[str, str]]]
"""Content type and base64 of an upload."""


def _veo(prices: dict[str, float], *, lite: bool = False) -> Capabilities:
    """Capabilities of one model; prices in US dollars per second, by resolution."""
    return Capabilities(
        seconds=(4, 6, 8),
        default_seconds=DEFAULT_SECONDS,
        resolutions=tuple(prices),
        aspect_ratios=("16:9", "9:16"),
        parameters=FRAMES | PLAIN if lite else FRAMES | PLAIN | REFERENCES,
        media=frozenset({"upload"}),
        max_reference_images=3,
        operations=frozenset({Operation.generate} if lite else {Operation.generate, Operation.extend}),
        prices=in_micros(prices),
        default_resolution=DEFAULT_RESOLUTION,
        vendor_fields=OWN_FIELDS,
    )


STANDARD = _veo({"720p": 0.4, "1080p": 0.4, "2160p": 0.6})
FAST = _veo({"720p": 0.1, "1080p": 0.12, "2160p": 0.3})
MODELS = {
    "veo-3.1-generate-preview": STANDARD,
    "veo-3.1-fast-generate-preview": FAST,
    "veo-3.1-lite-generate-preview": _veo({"720p": 0.05, "1080p": 0.08}, lite=True),
    "veo-3.1-generate-001": STANDARD,
    "veo-3.1-fast-generate-001": FAST,
}
"""Prices: the price map of LiteLLM 1.110.2, 2026-11. It dates the end of the previews 2026-10-22, and is the only
source for the two other models at this API. Inferred from what fal sells: Lite has no references and no extension."""
ANYTHING = Capabilities(
    parameters=FRAMES | PLAIN | REFERENCES,
    media=frozenset({"upload"}),
    operations=frozenset({Operation.generate, Operation.extend}),
    passes_extra=True,
)
"""Capabilities of a model that is newer than the table."""


def serves(model: str) -> bool:
    return model.startswith("veo-")


def capabilities_for(model: str, request: VideoRequest) -> Capabilities:
    """Capabilities for this request: references, a last frame and a high resolution allow one length only."""
    able = MODELS.get(model, ANYTHING)
    changes: dict[str, Any] = {}
    if able is ANYTHING:
        return able
    if request.operation is Operation.extend:
        # The size of the source is not asked for: an extension is always made at 720p.
        prices = {"": able.prices[DEFAULT_RESOLUTION]}
        changes = {"seconds": (), "resolutions": (DEFAULT_RESOLUTION,), "parameters": PLAIN, "prices": prices}
    elif request.reference_images:
        changes = {"seconds": (DEFAULT_SECONDS,), "parameters": able.parameters - FRAMES}
    elif request.last_frame is not None:
        changes = {"seconds": (DEFAULT_SECONDS,), "required": frozenset({"first_frame"})}
    elif request.resolution not in (None, DEFAULT_RESOLUTION):
        changes = {"seconds": (DEFAULT_SECONDS,)}
    return able.model_copy(update=changes)


# Writing requests


async def body(task: Task, blob: Blob, source_uri: str | None) -> dict[str, Any]:
    request = task.request
    instance: dict[str, Any] = {"prompt": request.prompt} if request.prompt else {}
    if request.first_frame is not None:
        instance["image"] = await _picture(blob, request.first_frame)
    if request.last_frame is not None:
        instance["lastFrame"] = await _picture(blob, request.last_frame)
    if request.reference_images:
        instance["referenceImages"] = [
            {"image": await _picture(blob, image), "referenceType": "ASSET"} for image in request.reference_images
        ]
    if source_uri is not None:
        instance["video"] = {"uri": source_uri, "encoding": "video/mp4"}
    elif request.source is not None:
        encoding, content = await blob(request.source)
        instance["video"] = {"encodedVideo": content, "encoding": encoding}
    hook = {"webhookConfig": {"uris": [task.callback_url]}} if task.callback_url is not None else {}
    parameters = _parameters(task, has_media=len(instance) > bool(request.prompt))
    return {"instances": [instance], **({"parameters": parameters} if parameters else {}), **hook}


async def _picture(blob: Blob, media: Media) -> dict[str, str]:
    content_type, content = await blob(media)
    return {"bytesBase64Encoded": content, "mimeType": content_type}


def _parameters(task: Task, *, has_media: bool) -> dict[str, Any]:
    """The client's values, and for a known model those that the vendor would decide on, so that the price is known."""
    request = task.request
    resolution = DEFAULT_RESOLUTION if request.operation is Operation.extend else request.resolution
    values = {
        "aspectRatio": request.aspect_ratio,
        "resolution": "4k" if resolution == "2160p" else resolution,
        "durationSeconds": int(request.seconds) if request.seconds is not None else None,
        "negativePrompt": request.negative_prompt,
        "seed": request.seed,
        "enhancePrompt": request.expand_prompt,
    }
    given = {name: value for name, value in values.items() if value is not None}
    given |= {name: value for name, value in request.extra.items() if name not in (*given, "n", "sampleCount")}
    if task.model not in MODELS:
        return given
    ratio = {} if has_media else {"aspectRatio": DEFAULT_RATIO}
    return {**ratio, "resolution": DEFAULT_RESOLUTION, "durationSeconds": DEFAULT_SECONDS, **given}


# Reading answers


def state(operation: dict[str, Any]) -> tuple[Status, str]:
    """Status of an operation, and our word for it: an operation has none."""
    if operation.get("error"):
        return Status.failed, "failed"
    if operation.get("done") is not True:
        return Status.in_progress, RUNNING
    made = _made(operation)
    if made.get("raiMediaFilteredCount") and not made.get("generatedSamples"):
        return Status.failed, "filtered"
    return Status.completed, "done"


def failure(operation: dict[str, Any]) -> tuple[Any, str | None]:
    """Message and code of an operation that failed or whose video was filtered out."""
    error = operation.get("error")
    if not error:
        reasons = _made(operation).get("raiMediaFilteredReasons")
        words = [reason for reason in reasons if isinstance(reason, str)] if isinstance(reasons, list) else []
        return "; ".join(words), errors.ContentPolicy.default_code
    if not isinstance(error, dict):
        return error, None
    message, code = error.get("message"), error.get("code")
    if SUPPORT_CODE in str(message).lower():
        return message, errors.ContentPolicy.default_code
    return message, RPC_CODES.get(code) if isinstance(code, int) else None


def _made(operation: dict[str, Any]) -> dict[str, Any]:
    response = operation.get("response")
    made = response.get("generateVideoResponse") if isinstance(response, dict) else None
    return made if isinstance(made, dict) else {}
