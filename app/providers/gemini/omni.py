"""Gemini Omni: its models, the body of an interaction, and what an interaction says. Pure but for the uploads that are
read by `Blob`."""

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from app.capabilities import Capabilities
from app.providers.base import Task
from app.providers.rest import CANCELLED_WORDS
from app.video import Media, Operation, Status, VideoRequest

STATUS = {
    "queued": Status.queued,
    **dict.fromkeys(("in_progress", "idle"), Status.in_progress),
    "completed": Status.completed,
    **dict.fromkeys(("failed", "incomplete", "budget_exceeded", *CANCELLED_WORDS), Status.failed),
    **dict.fromkeys(("requires_action", "requires_continuation"), Status.failed),
}
"""`idle` may go on by itself; the two last words wait for a call that is never made here."""
BLOCKED_CODES = ("blocked", "safety", "prohibited")
DEFAULT_SECONDS = 8
DEFAULT_RESOLUTION = "720p"
DEFAULT_RATIO = "16:9"
LONGEST_EXTENSION_S = 10
TASKS = {Operation.edit: "edit", Operation.extend: "extend"}
PICTURES = frozenset({"first_frame", "reference_images"})
OWN_FIELDS = frozenset({"labels", "safety_settings", "task"})
"""`task` is that of `generation_config.video_config`, one of `TASKS_OF`."""
TASKS_OF = {
    Operation.generate: ("text_to_video", "image_to_video", "reference_to_video"),
    Operation.edit: ("edit", "upscale"),
    Operation.extend: ("extend",),
}
"""Tasks that a client may name: another one would be made, and charged, otherwise than it was quoted."""
TYPES = {
    **dict.fromkeys(("jpg", "jpeg"), "image/jpeg"),
    **{name: f"image/{name}" for name in ("png", "webp", "heic", "heif")},
    **{name: f"video/{name}" for name in ("mp4", "webm", "mpeg")},
    "mov": "video/quicktime",
}
"""Content types by the suffix of an address."""
NEVER_EXTRA = ("n", "task", "previous_interaction_id", "stream", "agent", "webhook_config", "service_tier")
"""Fields that would change the form of the answer, what is made, or its price."""
Blob = Callable[[Media], Awaitable[tuple[str, str]]]
"""Content type and base64 of an upload."""


def _omni(longest_s: int, parameters: frozenset[str], prices: dict[str, int] | None = None) -> Capabilities:
    """Capabilities of one model; prices in micro-dollars per second."""
    return Capabilities(
        seconds=(3, longest_s),
        seconds_range=True,
        default_seconds=DEFAULT_SECONDS,
        resolutions=("360p", "720p", "1080p", "2160p"),
        aspect_ratios=("16:9", "9:16"),
        parameters=parameters,
        operations=frozenset({Operation.generate, Operation.edit, Operation.extend}),
        prices=prices or {},
        default_resolution=DEFAULT_RESOLUTION,
        vendor_fields=OWN_FIELDS,
    )


MODELS = {
    "gemini-omni-1.2-flash": _omni(15, PICTURES | {"seed"}),
    "gemini-omni-1.1-flash": _omni(10, PICTURES, {"360p": 34_000, "720p": 101_000, "1080p": 152_000, "2160p": 304_000}),
}
"""The vendor charges by token; prices per second as worked out from its page in 2026-10. Of 1.2 sources disagree."""
ANYTHING = Capabilities(
    parameters=PICTURES | {"seed"},
    operations=frozenset({Operation.generate, Operation.edit, Operation.extend}),
    passes_extra=True,
)
"""Capabilities of a model that is newer than the table."""


def capabilities_for(model: str, request: VideoRequest) -> Capabilities:
    """Capabilities for this request: an edit is as long as its source, an extension has a limit of its own. Which
    resolution the vendor makes of a source is not known, so neither has a price without one; an upscale has none."""
    able = MODELS.get(model, ANYTHING)
    changes: dict[str, Any] = {}
    if able is ANYTHING:
        return able
    if request.operation is Operation.edit:
        changes = {"seconds": (), "seconds_range": False, "default_seconds": None}
    elif request.operation is Operation.extend:
        changes = {"seconds": (3, LONGEST_EXTENSION_S)}
    if request.operation is not Operation.generate and request.resolution is None:
        changes |= {"default_resolution": None, "prices": {}}
    if request.extra.get("task") == "upscale":
        changes["prices"] = {}
    if request.reference_images or request.operation is not Operation.generate:
        changes["parameters"] = able.parameters - {"first_frame"}
    return able.model_copy(update=changes)


# Writing requests


def refusal(request: VideoRequest) -> str | None:
    """The reason why a request cannot be sent, or None."""
    allowed = TASKS_OF.get(request.operation, ())
    if "task" in request.extra and request.extra["task"] not in allowed:
        return f"task: expected {' or '.join(allowed)}"
    return None


async def body(task: Task, blob: Blob, source_uri: str | None, *, delivery: str = "uri") -> dict[str, Any]:
    request = task.request
    blocks = [await _block("image", image, blob) for image in request.reference_images]
    if request.first_frame is not None:
        blocks.insert(0, await _block("image", request.first_frame, blob))
    previous = None
    if source_uri is not None:
        blocks.append({"type": "video", "uri": source_uri, "mime_type": "video/mp4"})
    elif task.source_ref is not None:
        previous = task.source_ref
    elif request.source is not None:
        blocks.append(await _block("video", request.source, blob))
    text = [{"type": "text", "text": request.prompt}] if request.prompt else []
    values: dict[str, Any] = {
        "model": task.model,
        "input": [{"type": "user_input", "content": [*text, *blocks]}] if blocks else request.prompt,
        "response_format": _format(task, delivery, has_media=bool(blocks)),
        "generation_config": _config(request),
        "previous_interaction_id": previous,
        "background": True,
        "store": True,
        "webhook_config": {"uris": [task.callback_url]} if task.callback_url is not None else None,
    }
    given = {name: value for name, value in values.items() if value is not None}
    return given | {name: value for name, value in request.extra.items() if name not in (*given, *NEVER_EXTRA)}


async def _block(kind: str, media: Media, blob: Blob) -> dict[str, str]:
    if media.url is None:
        content_type, content = await blob(media)
        return {"type": kind, "data": content, "mime_type": content_type}
    suffix = media.url.partition("#")[0].partition("?")[0].rpartition(".")[2].lower()
    default = "image/png" if kind == "image" else "video/mp4"
    return {"type": kind, "uri": media.url, "mime_type": TYPES.get(suffix, default)}


def _format(task: Task, delivery: str, *, has_media: bool) -> dict[str, Any]:
    """The client's values, and for a known model those that the vendor would decide on, so that what is made is
    known."""
    request = task.request
    seconds, resolution, ratio = request.seconds, request.resolution, request.aspect_ratio
    if request.operation is Operation.edit:  # that of the source
        seconds = None
    elif task.model in MODELS:
        seconds = seconds or DEFAULT_SECONDS
        if request.operation is Operation.generate:
            resolution = resolution or DEFAULT_RESOLUTION
            ratio = ratio or (None if has_media else DEFAULT_RATIO)
    values = {
        "type": "video",
        "delivery": delivery,
        "aspect_ratio": ratio,
        "resolution": "4k" if resolution == "2160p" else resolution,
        "duration": f"{seconds:g}s" if seconds is not None else None,
    }
    return {name: value for name, value in values.items() if value is not None}


def _config(request: VideoRequest) -> dict[str, Any] | None:
    task = request.extra.get("task") or TASKS.get(request.operation)
    if task is None and request.reference_images:
        task = "reference_to_video"
    elif task is None and request.first_frame is not None:
        task = "image_to_video"
    config: dict[str, Any] = {"video_config": {"task": task}} if task is not None else {}
    if request.seed is not None:
        config["seed"] = request.seed
    return config or None


# Reading answers


def video_of(interaction: dict[str, Any]) -> tuple[tuple[str | int, ...], dict[str, Any]] | None:
    """Path and value of the video in the last output that has one; None if there is none."""
    for path, part in _parts(interaction):
        if part.get("type") == "video":
            return path, part
    return None


def text_of(interaction: dict[str, Any]) -> str:
    """The text of the model, in place of a video."""
    return " ".join(part["text"] for _, part in _parts(interaction) if isinstance(part.get("text"), str))


def failure(interaction: dict[str, Any]) -> tuple[Any, bool]:
    """Message of a failed interaction, and True if its code says that a filter stopped it."""
    found = _objects(interaction.get("errors"))
    found += [step["error"] for step in _objects(interaction.get("steps")) if isinstance(step.get("error"), dict)]
    if not found:
        return None, False
    code = str(found[0].get("code")).lower()
    return found[0].get("message"), any(word in code for word in BLOCKED_CODES)


def _parts(interaction: dict[str, Any]) -> Iterator[tuple[tuple[str | int, ...], dict[str, Any]]]:
    """Every part of the model's output with its path, the last step first; then `outputs` of an older revision."""
    steps = interaction.get("steps")
    for number, step in reversed([*enumerate(steps)] if isinstance(steps, list) else []):
        if isinstance(step, dict) and step.get("type") == "model_output":
            yield from _entries(("steps", number, "content"), step.get("content"))
    yield from _entries(("outputs",), interaction.get("outputs"))


def _entries(place: tuple[str | int, ...], value: Any) -> Iterator[tuple[tuple[str | int, ...], dict[str, Any]]]:
    for index, entry in enumerate(value if isinstance(value, list) else ()):
        if isinstance(entry, dict):
            yield (*place, index), entry


def _objects(value: Any) -> list[dict[str, Any]]:
    return [entry for _, entry in _entries((), value)]
