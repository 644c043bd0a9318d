"""The language of the gateway: what is asked for, how far it is, what came out.

Every dialect parses into `VideoRequest`, every provider reads it; nobody else's words go further than those two. Pure
data: nothing here does I/O or knows a framework.
"""

import re
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

MAX_PROMPT_CHARACTERS = 32_000
MAX_SECONDS = 3_600
MAX_SIDE = 8_192

ASPECT_RATIO = re.compile(r"([1-9]\d{0,3}):([1-9]\d{0,3})")
RESOLUTION = re.compile(r"([1-9]\d{1,3})[pP]|([1248])[kK]")
SIZE = re.compile(r"([1-9]\d{0,4})[xX×*]([1-9]\d{0,4})")


def shorter_side(resolution: str) -> int:
    """The pixels that `720p` or `4k` stands for. Raises `ValueError`."""
    match = RESOLUTION.fullmatch(resolution)
    if match is None:
        raise ValueError(f"expected 480p, 720p, 1080p, 4k or the like, got {resolution!r:.60}")
    return int(match[1]) if match[1] else {"1": 1080, "2": 1440, "4": 2160, "8": 4320}[match[2]]


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


class DeliveryState(StrEnum):
    """Where one webhook delivery stands."""

    pending = "pending"
    delivered = "delivered"
    failed = "failed"


class Settlement(StrEnum):
    """Where the money of a video or an attempt stands, which is another question than its status."""

    held = "held"
    """It may yet cost something."""
    moved = "moved"
    """Of an attempt: another attempt was made in its place, and what was held for it is held for that one."""
    settled = "settled"
    """What it cost is known and charged, as far as a price is."""
    refunded = "refunded"
    """It cost nothing."""


class Billing(StrEnum):
    """Whether a project pays before or after."""

    prepaid = "prepaid"
    postpaid = "postpaid"


class Entry(StrEnum):
    """Kinds of entries in the ledger."""

    reserve = "reserve"
    """At create: the estimate, refused where a limit does not cover it."""
    hold = "hold"
    """The same for a second task in place of one that may have been taken; never refused, since it is the operator's
    decision."""
    settle = "settle"
    """What was held comes back, and what it cost goes."""
    refund = "refund"
    """What was held comes back."""
    credit = "credit"
    """The operator's: a payment, or with a minus a correction."""


class Media(BaseModel):
    """A picture or a film the caller gave; exactly one of `url`, `key` and `video_id` is set."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    url: str | None = None
    """An http(s) address of the caller's; hostile until fetched through the guarded client."""
    key: str | None = None
    """An upload kept in our own store."""
    video_id: str | None = None
    """A video of this gateway, of the same project."""
    seconds: float | None = None
    """How long that video is, where its file could be measured; for the estimate only."""
    content_type: str | None = None
    """Sniffed from the first bytes of an upload, never taken from the caller; None where the bytes say nothing."""
    filename: str | None = None


class Webhook(BaseModel):
    """Where the caller of one request wants to be told about its end. Never shown to anybody."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    url: str = Field(repr=False)
    """Hostile until called through the guarded client; its query often holds a token."""
    secret: str | None = Field(None, repr=False)
    """What to sign with; None: the project's own secret where the style signs at all."""
    style: str = "standard"
    """Name of the `WebhookStyle` of its dialect, which renders and signs the event."""
    origin: str | None = None
    """Where the caller reached this gateway, for links where no public address is set."""


class VideoRequest(BaseModel):
    """One request, whatever dialect it came in. Stored with the video as one JSON document.

    Absent means absent: defaults belong to the vendor, except where a dialect documents its own.
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    prompt: str
    model: str
    operation: Operation = Operation.generate
    source: Media | None = None
    """The film that a remix, an edit or an extension starts from."""
    seconds: Annotated[float, Field(gt=0, le=MAX_SECONDS)] | None = None
    size: str | None = None
    """`WIDTHxHEIGHT` in pixels; with `aspect_ratio` and `resolution` one triple, see `conversion.py`."""
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
    """The caller's word for its end user."""
    app: str | None = None
    """The caller's word for the application that asks, where its dialect has such; kept for the operator."""
    webhook: Webhook | None = None
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

    model_config = ConfigDict(hide_input_in_errors=True)

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
