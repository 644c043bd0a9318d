"""Rows of the provider contract suite: one `Upstream` for each fake, and the requests that are sent to all of them."""

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from app.providers.base import Provider
from app.video import Media, Operation, Status, VideoRequest
from fakes.server import KEY, Fake, File

CAT = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40
VIDEO = b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 80
UPLOADS = {"cat": ('c"at\r\n.png', "image/png", CAT), "clip": ("clip.mp4", "video/mp4", VIDEO)}
CAT_PART = File.of("c%22at%0D%0A.png", "image/png", CAT)
VIDEO_PART = File.of("clip.mp4", "video/mp4", VIDEO)
CAT_URL = f"data:image/png;base64,{base64.b64encode(CAT).decode()}"
HOOK = "https://gateway.example/hooks/x1"


def ask(prompt: str = "a paper boat", **fields: Any) -> VideoRequest:
    return VideoRequest.model_validate({"prompt": prompt, "model": "an-alias", **fields})


@dataclass(frozen=True)
class Wire:
    """A request, and the whole of what must arrive upstream for it."""

    request: VideoRequest
    json: Any = None
    form: list[tuple[str, Any]] | None = None
    path: str = "/v1/videos"
    headers: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    task: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Upstream:
    """One row of the suite: a provider, its fake, and their vocabulary."""

    name: str
    kind: type[Provider]
    fake: Callable[[], Fake]
    wires: dict[str, Wire]
    words: dict[str, Status]
    accepted: Callable[[Any], Any]
    """The body of an accepted submit, with this id."""
    config: dict[str, Any] = field(default_factory=dict)
    prefix: str = "/v1"
    model: str = "wan-2.2"
    auth: dict[str, str] = field(default_factory=lambda: {"authorization": f"Bearer {KEY}"})
    """Headers with the credential; those of a request add to them."""
    moderation: tuple[int, str, str] = (400, "Your request was blocked by our moderation system.", "moderation_blocked")
    credit: tuple[int, str, str | None] = (402, "You exceeded your current quota.", "insufficient_quota")
    worded: bool = True
    """Tasks have a status word."""
    file_query: str = ""
    """The query of a file's own address, or of the answer that it is in."""
    addressed: bool = True
    """Files have addresses; False: they are only ever within an answer."""
    cancels: bool = True
    """The upstream has a cancel call."""
    stops: bool = True
    """The cancel call certainly stops the work."""
    gone_costs_nothing: bool = True
    """A task that the cancel call does not find has certainly stopped."""
    streams: bool = True
    """Uploads are sent while they are read."""
    stopped_by: tuple[int, ...] = ()
    """Statuses of an empty answer to a cancel call that certainly stopped the work."""
    resubmits: bool = False
    """The same submit twice makes one task without any setting."""
    idempotent: tuple[dict[str, Any], ...] = ()
    """Settings under which the same submit twice makes one task."""


TEXT = ask(seconds=8, size="1280x720", aspect_ratio="16:9", resolution="720p")
EXTRA: dict[str, Any] = {
    "camera": {"pan": 1.5, "shake": False},
    "tags": ["a", "b"],
    "steps": 30,
    "cfg": None,
    "hd": True,
    "prompt": "mine",
    "n": 4,
    "seconds": 60,
    'x"\r\n': "y",
}
FULL = ask(
    seconds=4.5,
    aspect_ratio="16:9",
    resolution="720p",
    negative_prompt="blur",
    seed=0,
    generate_audio=False,
    loop=True,
    expand_prompt=True,
    n=2,
    metadata={"a": "b"},
    user="u1",
    retention_s=60,
    extra=EXTRA,
)
PICTURE = ask(first_frame=Media(url="https://x.example/a.png"))
PICTURES = ask(
    first_frame=Media(url="https://x.example/a.png"), reference_images=(Media(url="https://x.example/b.png"),)
)
UPLOADED = ask(seconds=8, first_frame=Media(key="cat"))
MIXED = ask(
    first_frame=Media(key="cat"),
    last_frame=Media(url="https://x.example/z.png"),
    reference_images=(Media(url="https://x.example/b.png"),),
    reference_video=Media(key="clip"),
    extra=EXTRA,
)
EDIT_FILE = ask(operation=Operation.edit, source=Media(key="clip"))
FRAMES = ask(
    aspect_ratio="9:16",
    loop=False,
    expand_prompt=True,
    first_frame=Media(key="cat"),
    last_frame=Media(url="https://x.example/z.png"),
    n=2,
    metadata={"a": "b"},
    user="u1",
)

BASIC = {"prompt": "a paper boat", "model": "wan-2.2"}
FORM = list(BASIC.items())
MADE = {"source_ref": "video_9/?"}
LINK = {"link": lambda media: media.url or f"https://gateway.example/{media.key}"}

LUMA_WORDS = {
    "pending": Status.queued,
    "queued": Status.queued,
    "processing": Status.in_progress,
    "dreaming": Status.in_progress,
    "completed": Status.completed,
    "Completed": Status.completed,
    "failed": Status.failed,
}


def luma_accepted(ref: Any) -> Any:
    return {"id": ref, "state": "queued"}
