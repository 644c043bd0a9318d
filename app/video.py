"""The language of the gateway: what is asked for, how far it is, what came out.

Every dialect parses into `VideoRequest`, every provider reads it; nobody else's words go further than those two. Pure
data: nothing here does I/O or knows a framework.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from math import gcd
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

MAX_PROMPT_CHARACTERS = 32_000
MAX_SECONDS = 3_600
MAX_SIDE = 8_192

ASPECT_RATIO = re.compile(r"([1-9]\d{0,2}):([1-9]\d{0,2})")
RESOLUTION = re.compile(r"([1-9]\d{2,3})[pP]|([1248])[kK]")
SIZE = re.compile(r"([1-9]\d{0,4})[xX×*]([1-9]\d{0,4})")


class Status(StrEnum):
    """What a client sees of a video, in whatever words its dialect has for it."""

    queued = "queued"
    in_progress = "in_progress"
    completed = "completed"
    failed = "failed"

    @property
    def ended(self) -> bool:
        return self in (Status.completed, Status.failed)


class AttemptState(StrEnum):
    """Where one upstream task stands; the arrows between these are in `jobs.py`."""

    pending = "pending"
    submitting = "submitting"
    running = "running"
    storing = "storing"
    succeeded = "succeeded"
    failed = "failed"
    cancelled = "cancelled"
    lost = "lost"


class Operation(StrEnum):
    """What is done: a new video, or something made from one that exists (`VideoRequest.source`)."""

    generate = "generate"
    remix = "remix"
    edit = "edit"
    extend = "extend"


class Media(BaseModel):
    """A picture or a film the caller gave; exactly one of `url`, `key` and `video_id` is set."""

    model_config = ConfigDict(frozen=True)

    url: str | None = None
    """An http(s) address of the caller's; hostile until fetched through the guarded client."""
    key: str | None = None
    """An upload kept in our own store."""
    video_id: str | None = None
    """A video of this gateway, of the same owner."""
    content_type: str | None = None
    """Sniffed from the first bytes of an upload, never taken from the caller; None where the bytes say nothing."""
    filename: str | None = None


class VideoRequest(BaseModel):
    """One request, whatever dialect it came in. Stored with the video as one JSON document.

    Absent means absent: defaults belong to the vendor, except where a dialect documents its own.
    """

    prompt: str
    model: str
    operation: Operation = Operation.generate
    source: Media | None = None
    """The film that a remix, an edit or an extension starts from."""
    seconds: Annotated[float, Field(gt=0, le=MAX_SECONDS)] | None = None
    size: str | None = None
    """`WIDTHxHEIGHT` in pixels; with `aspect_ratio` and `resolution` one triple, see `complete_size`."""
    aspect_ratio: str | None = None
    """`16:9`, in lowest terms."""
    resolution: str | None = None
    """The shorter side with a p, `720p`; 4k is `2160p`."""
    first_frame: Media | None = None
    last_frame: Media | None = None
    reference_images: tuple[Media, ...] = ()
    reference_video: Media | None = None
    characters: tuple[str, ...] = ()
    """Ids of characters made through this gateway."""
    negative_prompt: Annotated[str, Field(max_length=5_000)] | None = None
    n: Annotated[int, Field(ge=1, le=4)] = 1
    seed: int | None = None
    generate_audio: bool | None = None
    loop: bool | None = None
    expand_prompt: bool | None = None
    metadata: dict[str, str] = {}
    user: str | None = None
    retention_s: Annotated[int, Field(ge=60, le=10 * 365 * 86_400)] | None = None
    """How long the finished file is kept; None: as long as the gateway's setting says."""
    extra: dict[str, Any] = {}
    """Fields only the vendor knows, passed through untouched."""


class Submission(BaseModel):
    """An upstream took the task."""

    ref: str
    """Its name for the task, as its poll call wants it."""
    status: Status = Status.queued
    progress: int | None = None
    raw_status: str | None = None
    poll_after_s: float | None = None


class Output(BaseModel):
    """Where the finished file is to be had; kept with the attempt until it is in our store."""

    url: str | None = None
    """None where the provider has a content call of its own."""
    authenticated: bool = False
    """Whether the upstream wants our key for it, which only ever goes to the configured origin."""
    index: int = 0
    """Which file of a task that made several."""


class Failure(BaseModel):
    """Why a generation failed upstream, in words fit for the client."""

    code: str
    message: str


class Progress(BaseModel):
    """What one poll learned."""

    status: Status
    progress: int | None = None
    raw_status: str | None = None
    poll_after_s: float | None = None
    output: Output | None = None
    """Set with `completed`."""
    failure: Failure | None = None
    """Set with `failed`."""


class Capabilities(BaseModel):
    """What one model can express. None means not known: passed on for the upstream to judge."""

    model_config = ConfigDict(frozen=True)

    seconds: tuple[float, ...] | None = None
    """The lengths it makes; with `seconds_range` True, the two ends of a range."""
    seconds_range: bool = False
    sizes: tuple[str, ...] | None = None
    default_seconds: float | None = None
    """What it makes where the request says nothing, if that is known; shown to the client from the start."""
    default_size: str | None = None
    parameters: frozenset[str] = frozenset()
    """Names of the optional `VideoRequest` fields that it can express, beside prompt, seconds and the size triple."""
    operations: frozenset[Operation] = frozenset({Operation.generate})
    passes_extra: bool = False
    """Whether fields nobody knows are handed on."""


OPTIONAL_PARAMETERS = (
    "first_frame",
    "last_frame",
    "reference_images",
    "reference_video",
    "characters",
    "negative_prompt",
    "seed",
    "generate_audio",
    "loop",
    "expand_prompt",
)


def complete_size(size: str | None, aspect_ratio: str | None, resolution: str | None) -> dict[str, str]:
    """Return the triple size, aspect_ratio, resolution as far as it is implied by what was given.

    `size` may be `1280x720` or a ratio such as `16:9`. Any two imply the third, and a size implies both others.
    Raises `ValueError("<field>: <why>")` for what is none of these or contradicts itself.
    """
    triple: dict[str, str] = {}
    if size is not None and ASPECT_RATIO.fullmatch(size):
        if aspect_ratio is not None and _ratio(aspect_ratio, "aspect_ratio") != _ratio(size, "size"):
            raise ValueError(f"size: {size} contradicts the aspect_ratio {aspect_ratio}")
        size, aspect_ratio = None, size
    if aspect_ratio is not None:
        triple["aspect_ratio"] = "{}:{}".format(*_ratio(aspect_ratio, "aspect_ratio"))
    if resolution is not None:
        triple["resolution"] = f"{_shorter_side(resolution)}p"
    if size is not None:
        match = SIZE.fullmatch(size)
        if match is None:
            raise ValueError(f"size: expected WIDTHxHEIGHT such as 1280x720, or a ratio such as 16:9, got {size!r:.60}")
        width, height = int(match[1]), int(match[2])
        if max(width, height) > MAX_SIDE or min(width, height) < 16:
            raise ValueError(f"size: each side must be between 16 and {MAX_SIDE} pixels, got {width}x{height}")
        divisor = gcd(width, height)
        implied = {"aspect_ratio": f"{width // divisor}:{height // divisor}", "resolution": f"{min(width, height)}p"}
        for name, value in implied.items():
            if triple.setdefault(name, value) != value and not _close(triple, width, height, name):
                raise ValueError(f"size: {width}x{height} contradicts the {name} {triple[name]}")
        triple["size"] = f"{width}x{height}"
    elif len(triple) == 2:
        across, down = _ratio(triple["aspect_ratio"], "aspect_ratio")
        short = _shorter_side(triple["resolution"])
        long = round(short * max(across, down) / min(across, down) / 2) * 2
        triple["size"] = f"{long}x{short}" if across >= down else f"{short}x{long}"
    return triple


def problems(request: VideoRequest, able: Capabilities) -> Mapping[str, str]:
    """Return what `able` cannot express of the request: parameter name to what would be allowed."""
    found: dict[str, str] = {}
    if request.operation not in able.operations:
        found["operation"] = f"it cannot {request.operation}; it can {', '.join(sorted(able.operations))}"
    if request.seconds is not None and able.seconds is not None:
        if able.seconds_range:
            low, high = able.seconds
            if not low <= request.seconds <= high:
                found["seconds"] = f"it makes {low:g} to {high:g} seconds"
        elif request.seconds not in able.seconds:
            found["seconds"] = f"it makes {', '.join(f'{s:g}' for s in able.seconds)} seconds"
    if request.size is not None and able.sizes is not None and request.size not in able.sizes:
        found["size"] = f"it makes {', '.join(able.sizes)}"
    for name in OPTIONAL_PARAMETERS:
        if getattr(request, name) not in (None, ()) and name not in able.parameters:
            found[name] = "it has no such parameter"
    if request.extra and not able.passes_extra:
        for name in request.extra:
            found[name] = "it has no such parameter"
    return found


def _ratio(text: str, field: str) -> tuple[int, int]:
    match = ASPECT_RATIO.fullmatch(text)
    if match is None:
        raise ValueError(f"{field}: expected a ratio such as 16:9, got {text!r:.60}")
    across, down = int(match[1]), int(match[2])
    divisor = gcd(across, down)
    return across // divisor, down // divisor


def _shorter_side(text: str) -> int:
    match = RESOLUTION.fullmatch(text)
    if match is None:
        raise ValueError(f"resolution: expected 480p, 720p, 1080p, 4k or the like, got {text!r:.60}")
    return int(match[1]) if match[1] else {"1": 1080, "2": 1440, "4": 2160, "8": 4320}[match[2]]


def _close(triple: Mapping[str, str], width: int, height: int, name: str) -> bool:
    """Sizes of the trade are rarely exact: 1360x752 is sold as 16:9."""
    if name != "aspect_ratio":
        return False
    across, down = _ratio(triple[name], name)
    return abs(width / height - across / down) <= 0.02 * across / down
