"""Veo at the Gemini API and at Vertex AI: its models, the body of `predictLongRunning`, what an operation says. Pure
but for the uploads that are read by `Blob`."""

import re
from collections.abc import Awaitable, Callable
from typing import Any

from app import errors
from app.capabilities import Capabilities, in_micros
from app.providers.base import Task
from app.video import Media, Operation, Output, Status, VideoRequest

OPERATION = re.compile(
    r"(?P<model>(?:projects/\w[\w.:\-]*/locations/\w[\w\-]*/publishers/google/)?models/\w[\w.\-]*)/operations/\w[\w.\-]*",
    re.ASCII,
)
"""Names of operations, which are paths; those of Vertex AI begin with the project."""
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
SOUND = frozenset({"generate_audio"})
OWN_FIELDS = frozenset({"personGeneration"})
CAPITALS = frozenset({"compressionQuality", "resizeMode"})
"""Fields of Vertex AI whose words its own client writes in capitals."""
CLOUD_FIELDS = OWN_FIELDS | CAPITALS | {"labels"}
NEVER_EXTRA = ("n", "sampleCount")
"""Fields that would change how many videos are made."""
Blob = Callable[[Media], Awaitable[tuple[str, str]]]
"""Content type and base64 of an upload."""


def _veo(
    prices: dict[str, float], silent: dict[str, float] | None = None, *, lite: bool = False, cloud: bool = False
) -> Capabilities:
    """Capabilities of one model, at Vertex AI with `cloud`; prices in US dollars per second, by resolution, with sound
    and without."""
    parameters = FRAMES | PLAIN | (frozenset() if lite else REFERENCES) | (SOUND if cloud else frozenset())
    return Capabilities(
        seconds=(4, 6, 8),
        default_seconds=DEFAULT_SECONDS,
        resolutions=tuple(prices),
        aspect_ratios=("16:9", "9:16"),
        parameters=parameters,
        media=frozenset({"upload"}),
        max_reference_images=3,
        operations=frozenset({Operation.generate} if lite else {Operation.generate, Operation.extend}),
        prices=in_micros(prices),
        silent_prices=in_micros(silent or {}),
        default_resolution=DEFAULT_RESOLUTION,
        vendor_fields=CLOUD_FIELDS if cloud else OWN_FIELDS,
    )


STANDARD_PRICES = {"720p": 0.4, "1080p": 0.4, "2160p": 0.6}
FAST_PRICES = {"720p": 0.1, "1080p": 0.12, "2160p": 0.3}
LITE_PRICES = {"720p": 0.05, "1080p": 0.08}
STANDARD, FAST = _veo(STANDARD_PRICES), _veo(FAST_PRICES)
MODELS = {
    "veo-3.1-generate-preview": STANDARD,
    "veo-3.1-fast-generate-preview": FAST,
    "veo-3.1-lite-generate-preview": _veo(LITE_PRICES, lite=True),
    "veo-3.1-generate-001": STANDARD,
    "veo-3.1-fast-generate-001": FAST,
}
"""Prices: the price map of LiteLLM 1.110.2, 2026-11. It dates the end of the previews 2026-10-22, and is the only
source for the two other models at this API. Inferred from what fal sells: Lite has no references and no extension."""
CLOUD_STANDARD = _veo(STANDARD_PRICES, {"720p": 0.2, "1080p": 0.2, "2160p": 0.4}, cloud=True)
CLOUD_FAST = _veo(FAST_PRICES, {"720p": 0.08, "1080p": 0.1, "2160p": 0.25}, cloud=True)
CLOUD_MODELS = {
    "veo-3.1-lite-generate-001": _veo(LITE_PRICES, {"720p": 0.03, "1080p": 0.05}, lite=True, cloud=True),
    "veo-3.1-generate-001": CLOUD_STANDARD,
    "veo-3.1-fast-generate-001": CLOUD_FAST,
    "veo-3.1-generate-preview": CLOUD_STANDARD,
    "veo-3.1-fast-generate-preview": CLOUD_FAST,
}
"""The models of Vertex AI, of the same source, which dates the end of the two other `-001` 2026-11-17. Inferred: that
the previews cost the same without sound."""
ANYTHING = Capabilities(
    parameters=FRAMES | PLAIN | REFERENCES,
    media=frozenset({"upload"}),
    operations=frozenset({Operation.generate, Operation.extend}),
    passes_extra=True,
)
"""Capabilities of a model that is newer than the table."""
CLOUD_ANYTHING = ANYTHING.model_copy(update={"parameters": ANYTHING.parameters | SOUND})
"""The same at Vertex AI."""


def serves(model: str) -> bool:
    return model.startswith("veo-")


def is_operation(task: Task) -> bool:
    """True for a task of Veo, by its model or its id."""
    return serves(task.model) or OPERATION.fullmatch(task.ref or "") is not None


def capabilities_for(able: Capabilities, request: VideoRequest) -> Capabilities:
    """Capabilities for this request: references, a last frame and a high resolution allow one length only."""
    changes: dict[str, Any] = {}
    if able.passes_extra:
        return able
    if request.operation is Operation.extend:
        # The size of the source is not asked for: an extension is always made at 720p.
        prices, silent = ({"": one[DEFAULT_RESOLUTION]} if one else {} for one in (able.prices, able.silent_prices))
        changes = {"seconds": (), "resolutions": (DEFAULT_RESOLUTION,), "prices": prices, "silent_prices": silent}
        changes["parameters"] = able.parameters - FRAMES - REFERENCES
    elif request.reference_images:
        changes = {"seconds": (DEFAULT_SECONDS,), "parameters": able.parameters - FRAMES}
    elif request.last_frame is not None:
        changes = {"seconds": (DEFAULT_SECONDS,), "required": frozenset({"first_frame"})}
    elif request.resolution not in (None, DEFAULT_RESOLUTION):
        changes = {"seconds": (DEFAULT_SECONDS,)}
    return able.model_copy(update=changes)


# Writing requests


async def body(task: Task, blob: Blob, source_uri: str | None, *, is_known: bool) -> dict[str, Any]:
    """The body at the Gemini API; `is_known`: the model is in the table."""
    request = task.request
    instance = await _instance(request, blob)
    if source_uri is not None:
        instance["video"] = {"uri": source_uri, "encoding": "video/mp4"}
    elif request.source is not None:
        encoding, content = await blob(request.source)
        instance["video"] = {"encodedVideo": content, "encoding": encoding}
    hook = {"webhookConfig": {"uris": [task.callback_url]}} if task.callback_url is not None else {}
    parameters = _parameters(request, is_known=is_known, has_media=len(instance) > bool(request.prompt))
    return {"instances": [instance], **({"parameters": parameters} if parameters else {}), **hook}


async def cloud_body(task: Task, blob: Blob, *, is_known: bool) -> dict[str, Any]:
    """The body at Vertex AI, which writes its words in capitals and has the labels beside the parameters."""
    request = task.request
    instance = await _instance(request, blob)
    if request.source is not None:
        instance["video"] = await _picture(blob, request.source)
    has_media = len(instance) > bool(request.prompt)
    parameters = _parameters(request, is_known=is_known, has_media=has_media)
    if request.generate_audio is not None or is_known:
        parameters["generateAudio"] = request.generate_audio is not False
    for name in CAPITALS & parameters.keys():
        value = parameters[name]
        parameters[name] = value.upper() if isinstance(value, str) else value
    labels = {"labels": parameters.pop("labels")} if "labels" in parameters else {}
    return {"instances": [instance], **({"parameters": parameters} if parameters else {}), **labels}


async def _instance(request: VideoRequest, blob: Blob) -> dict[str, Any]:
    """The prompt and the pictures of a request."""
    instance: dict[str, Any] = {"prompt": request.prompt} if request.prompt else {}
    if request.first_frame is not None:
        instance["image"] = await _picture(blob, request.first_frame)
    if request.last_frame is not None:
        instance["lastFrame"] = await _picture(blob, request.last_frame)
    if request.reference_images:
        instance["referenceImages"] = [
            {"image": await _picture(blob, image), "referenceType": "ASSET"} for image in request.reference_images
        ]
    return instance


async def _picture(blob: Blob, media: Media) -> dict[str, str]:
    content_type, content = await blob(media)
    return {"bytesBase64Encoded": content, "mimeType": content_type}


def _parameters(request: VideoRequest, *, is_known: bool, has_media: bool) -> dict[str, Any]:
    """The client's values, and for a known model those that the vendor would decide on, so that the price is known."""
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
    given |= {name: value for name, value in request.extra.items() if name not in (*given, *NEVER_EXTRA)}
    if not is_known:
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
    if made.get("raiMediaFilteredCount") and not (made.get("generatedSamples") or made.get("videos")):
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


def cloud_output(operation: dict[str, Any]) -> Output | None:
    """The first video within an operation of Vertex AI; None if it has none, or its files are in a bucket."""
    for index, video in enumerate(cloud_videos(operation)):
        content = video.get("bytesBase64Encoded")
        if isinstance(content, str) and content:
            return Output(inline=("response", "videos", index, "bytesBase64Encoded"))
    return None


def cloud_videos(operation: dict[str, Any]) -> list[dict[str, Any]]:
    """The videos of an operation of Vertex AI; empty objects for what is none."""
    videos = _made(operation).get("videos")
    return [video if isinstance(video, dict) else {} for video in (videos if isinstance(videos, list) else ())]


def _made(operation: dict[str, Any]) -> dict[str, Any]:
    """The result of an operation; the Gemini API has a level more than Vertex AI."""
    response = operation.get("response")
    response = response if isinstance(response, dict) else {}
    made = response.get("generateVideoResponse", response)
    return made if isinstance(made, dict) else {}
