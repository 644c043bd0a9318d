"""Data model of the gateway: request, status, progress and output of a video.

Every dialect parses into `VideoRequest`, every provider reads it; a vendor's own terms stay inside those two. Pure
data: no I/O, no framework.
"""

import re
from enum import StrEnum
from typing import Annotated, Any, overload

from pydantic import BaseModel, ConfigDict, Field

MAX_PROMPT_CHARACTERS = 32_000
MAX_NAME_CHARACTERS = 300
"""Longest name of a model, also at an upstream, and longest id in a request."""
MAX_SECONDS = 3_600
MAX_SIDE = 8_192

ASPECT_RATIO = re.compile(r"([1-9]\d{0,3}):([1-9]\d{0,3})")
RESOLUTION = re.compile(r"([1-9]\d{1,3})[pP]|([1248])[kK]")
SIZE = re.compile(r"([1-9]\d{0,4})[xX×*]([1-9]\d{0,4})")


@overload
def without_fraction(seconds: float) -> int | float: ...


@overload
def without_fraction(seconds: None) -> None: ...


def without_fraction(seconds: float | None) -> int | float | None:
    """The same number, as an int if it is whole: JSON writes `5`, not `5.0`, which some vendors refuse."""
    return int(seconds) if seconds is not None and seconds == int(seconds) else seconds


def shorter_side(resolution: str) -> int:
    """Return the pixels that `720p` or `4k` stands for. Raises `ValueError`.

    `1k` is inferred: Lumenfall sells its tier `1K` as sizes of about 1024 x 1024 pixels, at the price of 720p (model
    page of seedance-2.0, read 2026-11-25).
    """
    match = RESOLUTION.fullmatch(resolution)
    if match is None:
        raise ValueError(f"expected 480p, 720p, 1080p, 4k or the like, got {resolution!r:.60}")
    return int(match[1]) if match[1] else {"1": 720, "2": 1440, "4": 2160, "8": 4320}[match[2]]


class Status(StrEnum):
    """Status of a video as clients see it; each dialect translates it into its own words."""

    queued = "queued"
    in_progress = "in_progress"
    completed = "completed"
    failed = "failed"

    @property
    def ended(self) -> bool:
        return self in (Status.completed, Status.failed)


class AttemptState(StrEnum):
    """State of an attempt; the allowed transitions are in `jobs/transitions.py`."""

    pending = "pending"
    submitting = "submitting"
    running = "running"
    storing = "storing"
    succeeded = "succeeded"
    failed = "failed"
    cancelled = "cancelled"
    lost = "lost"


class Operation(StrEnum):
    """Operation of a request: a new video, or one made from an existing video (`VideoRequest.source`)."""

    generate = "generate"
    remix = "remix"
    edit = "edit"
    extend = "extend"
    prepend = "prepend"
    """An extension whose new part comes before the source."""

    @property
    def lengthens(self) -> bool:
        """True if the result contains the source, and the requested length is that of the new part."""
        return self in (Operation.extend, Operation.prepend)


class DeliveryState(StrEnum):
    """State of a webhook delivery."""

    pending = "pending"
    delivered = "delivered"
    failed = "failed"


class Settlement(StrEnum):
    """State of the money of a video or an attempt, independent of its status."""

    held = "held"
    """It may still cost something."""
    moved = "moved"
    """Of an attempt: another attempt was made in its place and has taken over its hold."""
    settled = "settled"
    """The cost is charged, as far as a price is known."""
    refunded = "refunded"
    """It cost nothing."""


class SessionKind(StrEnum):
    """The key that a session of the console was opened with."""

    key = "key"
    """An API key: the pages of its project."""
    admin = "admin"
    """An admin key: the pages of the operator."""


class Billing(StrEnum):
    """Payment mode of a project: in advance or afterwards."""

    prepaid = "prepaid"
    postpaid = "postpaid"


class Entry(StrEnum):
    """Kinds of entries in the ledger."""

    reserve = "reserve"
    """At create: the estimate, refused where a limit does not cover it."""
    hold = "hold"
    """The same for a second task in place of one that the upstream may have accepted; never refused, since it is the
    operator's decision."""
    settle = "settle"
    """The hold is returned and the cost is charged."""
    refund = "refund"
    """The hold is returned."""
    credit = "credit"
    """Booked by the operator: a payment, or a correction if negative."""


class Media(BaseModel):
    """A picture or video that the client gave; exactly one of `url`, `key` and `video_id` is set."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    url: str | None = None
    """An http(s) URL from the client; untrusted, so only fetched through the guarded client."""
    key: str | None = None
    """An upload kept in our own store."""
    video_id: str | None = None
    """A video of this gateway, of the same project."""
    seconds: float | None = None
    """Duration of that video, if its file could be measured."""
    content_type: str | None = None
    """Sniffed from the first bytes of an upload, never taken from the client; None if the bytes show no known type."""
    filename: str | None = None


class Webhook(BaseModel):
    """Webhook given with one request, called when its video ends. Never shown in a response."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    url: str = Field(repr=False)
    """Untrusted, so only called through the guarded client; its query often holds a token."""
    secret: str | None = Field(None, repr=False)
    """Signing secret; None: the project's own secret, if the style signs at all."""
    style: str = "standard"
    """Name of the `WebhookStyle` of its dialect, which renders and signs the event."""
    origin: str | None = None
    """Origin at which the client reached this gateway, for links if no public URL is set."""


class VideoRequest(BaseModel):
    """One request of any dialect. Stored with the video as one JSON document.

    Absent means absent: defaults belong to the vendor, except where a dialect documents its own.
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    prompt: str
    model: str
    operation: Operation = Operation.generate
    source: Media | None = None
    """The video that a remix, an edit or an extension starts from."""
    seconds: Annotated[float, Field(gt=0, le=MAX_SECONDS)] | None = None
    size: str | None = None
    """`WIDTHxHEIGHT` in pixels; with `aspect_ratio` and `resolution` one triple, see `sizes.py`."""
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
    """The client's name for its end user."""
    app: str | None = None
    """The client's name for the application that sends the request, if its dialect has one; kept for the operator."""
    webhook: Webhook | None = None
    retention_s: Annotated[int, Field(ge=60, le=10 * 365 * 86_400)] | None = None
    """Seconds for which the finished file is kept; None: the gateway's setting."""
    extra: dict[str, Any] = {}
    """Fields only the vendor knows, passed through unchanged."""
    warnings: Annotated[tuple[str, ...], Field(exclude=True)] = ()
    """Sentences for the client about what was read otherwise than it was written; they go into the video's warnings."""
    client_names: Annotated[dict[str, str | None], Field(exclude=True)] = {}
    """The client's own names of fields, for messages; None for a field that its API does not have."""
    drop_unsupported: Annotated[bool, Field(exclude=True)] = False
    """True: parameters that the model does not have at all are left out with a warning, except media."""
    preferred: Annotated[dict[str, Any], Field(exclude=True)] = {}
    """The dialect's own defaults of absent fields, used if every route is known to support them."""


class Submission(BaseModel):
    """An upstream's acceptance of a task."""

    ref: str
    """The upstream's name for the task, as its poll call needs it."""
    status: Status = Status.queued
    progress: int | None = None
    raw_status: str | None = None
    poll_after_s: float | None = None


class Output(BaseModel):
    """Location of the finished file; kept with the attempt until the file is in our store."""

    model_config = ConfigDict(hide_input_in_errors=True)

    url: str | None = None
    """None where the provider has a content call of its own."""
    direct: bool = False
    """True: the file is at `url`, which an operator gave; a content call is not asked."""
    inline: tuple[str | int, ...] | None = None
    """Path to the string in the upstream's answer that is the file itself, as a `data:` URL or base64."""
    authenticated: bool = False
    """True: the upstream requires our key for the download; the key is only sent to the configured origin."""
    index: int = 0
    """Index of the file, for a task that made several."""


class Failure(BaseModel):
    """Reason for a failed generation upstream, in words for the client."""

    code: str
    message: str
    body: str | None = None
    """The upstream's answer, trimmed and without secrets; for the operator."""


CANCELLED = Failure(code="cancelled", message="The video was cancelled on request.")
"""The end of a video that its client cancelled."""


def is_own_cancel(code: str | None, message: str | None) -> bool:
    """Return True for the end of a video that its client cancelled; the code alone may be that of an upstream's
    cancel."""
    return (code, message) == (CANCELLED.code, CANCELLED.message)


class Progress(BaseModel):
    """Result of one poll."""

    status: Status
    progress: int | None = None
    raw_status: str | None = None
    poll_after_s: float | None = None
    output: Output | None = None
    """Set with `completed`."""
    reported_micros: int | None = None
    """Cost of the task that the upstream reports, in millionths of a US dollar."""
    failure: Failure | None = None
    """Set with `failed`."""
