"""Sandbox: renders test videos locally, so that everything can be tried without a vendor's account.

No upstream and no state: progress follows from the time since the submit, and the video is rendered when it is
fetched. Quirks: a fetch takes as long as the rendering; rendering the same task again gives the same video.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path

from pydantic import Field

from app import errors
from app.capabilities import OPTIONAL_PARAMETERS, Capabilities
from app.media import ffmpeg, testcard
from app.media.uploads import file_chunks
from app.providers.base import Download, Provider, ProviderConfig, Task
from app.sizes import complete_size
from app.video import SIZE, Failure, Media, Operation, Output, Progress, Status, Submission, VideoRequest

DEFAULT_SECONDS = 4.0
DEFAULT_RATIO, DEFAULT_RESOLUTION, DEFAULT_SIZE = "16:9", "720p", "1280x720"
MIN_SIDE, MAX_SIDE = 16, 3_840
"""Sizes that a small machine renders in reasonable time."""
QUEUED_S = 0.4

ABLE = Capabilities(
    seconds=(1, 60),
    seconds_range=True,
    default_seconds=DEFAULT_SECONDS,
    default_size=DEFAULT_SIZE,
    parameters=frozenset(OPTIONAL_PARAMETERS),
    operations=frozenset(Operation),
    prices={"": 0},
    passes_extra=True,
)
MODELS = {"testcard": ABLE, "slow": ABLE, "fail": ABLE, "reject": ABLE}


class Sandbox(Provider):
    kind = "sandbox"
    title = "Sandbox"
    tried = date(2026, 11, 26)
    models = MODELS
    poll_interval_s = 0.5
    poll_interval_max_s = 2

    class Config(ProviderConfig):
        testcard_s: float = Field(2, ge=0)
        """Duration of a `testcard` or `fail` task in seconds."""
        slow_s: float = Field(60, ge=0)
        """Duration of a `slow` task in seconds."""

    config: Config

    @property
    def can_resubmit(self) -> bool:
        return True

    async def submit(self, task: Task) -> Submission:
        if task.model == "reject":
            raise errors.UpstreamRejected(
                f"{self.name}/reject refuses every request: that is what it is for", provider=self.name
            )
        request = task.request
        for picture in filter(None, (request.first_frame, request.last_frame, *request.reference_images)):
            self._check_picture(picture)
        self._check_size(request)
        await task.begin()
        return Submission(ref=f"card_{task.id}", raw_status="waiting", poll_after_s=self._gap_s(task.model, 0))

    async def poll(self, task: Task) -> Progress:
        age = (task.now - (task.submitted_at or task.now)).total_seconds()
        total = self._total_s(task.model)
        if age >= total:
            return await self._verdict(task)
        queued = min(QUEUED_S, total / 4)
        gap = self._gap_s(task.model, age)
        if age < queued:
            return Progress(status=Status.queued, progress=0, raw_status="waiting", poll_after_s=gap)
        percent = int(99 * (age - queued) / (total - queued))
        return Progress(status=Status.in_progress, progress=percent, raw_status="rendering", poll_after_s=gap)

    async def cancel(self, task: Task) -> bool:
        return True

    @asynccontextmanager
    async def fetch(self, task: Task, output: Output) -> AsyncIterator[Download]:
        """Render the video. Raises `UpstreamFailed` if that is not possible; a repeated fetch would fail, too."""
        request = task.request
        width, height = _size(request)
        seconds = request.seconds or DEFAULT_SECONDS
        with tempfile.TemporaryDirectory(prefix="sandbox-") as folder:
            video_file = Path(folder) / "video.mp4"
            try:
                await testcard.render_card(
                    video_file,
                    seconds=seconds,
                    width=width,
                    height=height,
                    prompt=request.prompt,
                    title=f"{self._title(task)} · {width}x{height} · {seconds:g} s",
                    notes=_notes(request),
                    timeout_s=self.config.timeout_s,
                )
            except ffmpeg.FfmpegFailed as error:
                raise errors.UpstreamFailed(error.message, provider=self.name, code=error.code) from error
            yield Download(chunks=file_chunks(video_file), content_type="video/mp4", size=video_file.stat().st_size)

    async def _verdict(self, task: Task) -> Progress:
        if task.model == "fail":
            failure = Failure(code="sandbox_failure", message=f"{self.name}/fail always fails: that is what it is for")
            return Progress(status=Status.failed, raw_status="failed", failure=failure)
        try:
            await asyncio.to_thread(ffmpeg.program)
        except ffmpeg.FfmpegMissing as error:
            failure = Failure(code=error.code, message=error.message)
            return Progress(status=Status.failed, raw_status="failed", failure=failure)
        return Progress(status=Status.completed, progress=100, raw_status="done", output=Output())

    def _total_s(self, model: str) -> float:
        return self.config.slow_s if model == "slow" else self.config.testcard_s

    def _gap_s(self, model: str, age: float) -> float:
        """Seconds to the next poll, at most until the task ends, so that its end is noticed at once."""
        total = self._total_s(model)
        return max(0.05, min(total - age, self.config.poll_interval_s or max(self.poll_interval_s, total / 40)))

    def _title(self, task: Task) -> str:
        request, own = task.request, f"{self.name}/{task.model}"
        if request.operation is Operation.generate or request.source is None:
            return own if request.model in (own, task.model) else f"{own} in place of {request.model}"
        return f"{request.operation} of {_name(request.source)}"

    def _check_size(self, request: VideoRequest) -> None:
        try:
            width, height = _size(request)
            if min(width, height) < MIN_SIDE or max(width, height) > MAX_SIDE:
                raise ValueError(f"size: it renders {MIN_SIDE} to {MAX_SIDE} pixels a side, got {width}x{height}")
        except ValueError as error:
            message = f"{self.name}: {error}"
            raise errors.UpstreamRejected(message, provider=self.name, code="invalid_size") from error

    def _check_picture(self, picture: Media) -> None:
        if picture.key is not None and not (picture.content_type or "").startswith("image/"):
            raise errors.UpstreamRejected(
                f"{picture.filename or 'the uploaded file'} is not a readable image; "
                "send a PNG, JPEG, WebP or GIF file",
                provider=self.name,
                code="invalid_image",
            )


def _size(request: VideoRequest) -> tuple[int, int]:
    """Width and height of the card: as requested, with defaults for missing values."""
    size = request.size
    if size is None or not SIZE.fullmatch(size):
        ratio = None if size else request.aspect_ratio or DEFAULT_RATIO
        size = complete_size(size, ratio, request.resolution or DEFAULT_RESOLUTION)["size"]
    match = SIZE.fullmatch(size)
    assert match is not None  # noqa: S101  complete_size gives no other
    return int(match[1]), int(match[2])


def _notes(request: VideoRequest) -> str:
    """The other requested parameters, as text on the card; they change nothing else."""
    notes = []
    for name in OPTIONAL_PARAMETERS:
        value = getattr(request, name)
        label = name.replace("_", " ")
        if isinstance(value, Media):
            notes.append(f"{label}: {_name(value)}")
        elif isinstance(value, bool):
            notes.append(label if value else f"no {label}")
        elif isinstance(value, tuple):
            notes += [f"{len(value)} {label}"] if value else []
        elif value is not None:
            notes.append(f"{label}: {value}")
    return " · ".join([*notes, *request.extra])


def _name(media: Media) -> str:
    """Name of an image or video on the card; never its URL, which may hold a secret."""
    return media.video_id or media.filename or "an upload"
