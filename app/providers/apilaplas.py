"""Luma's Dream Machine through the reseller Apilaplas, API version 2. Not tried live.

Wire: docs.apilaplas.com/api-references/video-models/luma-ai/luma-ai-v2 and /errors-and-messages/general-info, read
2026-11-21. The OpenAPI file behind the first was not available. From AI/ML API (aimlapi.com), whose documentation
Apilaplas repeats word for word: `aspect_ratio` is required; `model`, `resolution`, `duration`, `callback_url`; the 201.
Quirks: an extension is a create with the older generation as key frame 0, or as key frame 1 to put the new part before
it; images by URL only; error bodies contain the
HTTP status as a string. No cancel is documented. A remix is sent as an extension with the new prompt, the closest
operation.
Inferred: the format of `duration` (`5s`) and `resolution` (`720p`, `4k`), which are Luma's own; the whole answer, since
none is published: `id`, `state`, `failure_reason`, `assets.video` as at Luma, `video.url` as one client reads it, and
that several generations come as an array, bare or under `data` or `generations`.
"""

from collections.abc import Sequence
from typing import Any

import httpx
from pydantic import Field, SecretStr

from app import errors
from app.capabilities import Capabilities
from app.providers.answers import segment
from app.providers.base import ProviderConfig, Task
from app.providers.rest import RestProvider
from app.video import Media, Operation, Progress, Status, Submission

GENERATION = "/v2/generate/video/luma-ai/generation"
GENERATIONS = "/v2/generate/video/luma-ai/generations"

DEFAULT_RATIO = "16:9"
"""Sent if a request has no ratio: the vendor requires one, for an extension too, and the ratio of the source is not
known here."""

LUMA = Capabilities(
    aspect_ratios=("1:1", "16:9", "9:16", "4:3", "3:4", "21:9", "9:21"),
    default_size=DEFAULT_RATIO,
    parameters=frozenset({"first_frame", "last_frame", "loop"}),
    media=frozenset({"url"}),
    operations=frozenset({Operation.generate, Operation.extend, Operation.prepend, Operation.remix}),
    vendor_fields=frozenset({"concepts", "generation_type"}),
)
MODELS = {"ray-1-6": LUMA, "ray-2": LUMA, "ray-flash-2": LUMA}

STATUS = {
    "queued": Status.queued,
    "pending": Status.queued,
    "dreaming": Status.in_progress,
    "processing": Status.in_progress,
    "completed": Status.completed,
    "failed": Status.failed,
}
"""The vendor's four words, and `pending` and `processing` from other resellers of Luma."""

FILE_PATHS = (("assets", "video"), ("video", "url"))


class Apilaplas(RestProvider):
    """Polls without `state`: with it the vendor holds the request for up to 30 s, which would occupy a worker slot and
    a connection for one task; a plain poll answers at once for up to fifty."""

    kind = "apilaplas"
    title = "Luma via Apilaplas"
    key_variables = ("LAPLASAPI_KEY",)
    callbacks = True
    models = MODELS
    poll_interval_s = 3
    polls_at_once = 50

    class Config(ProviderConfig):
        api_key: SecretStr = Field(min_length=1)
        """Called LAPLASAPI_KEY in the vendor's documentation."""
        base_url: str = "https://api.apilaplas.com"

    config: Config

    async def submit(self, task: Task) -> Submission:
        response = await self.submit_call(task, "POST", GENERATION, json=self._body(task))
        return self.accepted(STATUS, response, key="state")

    async def poll(self, task: Task) -> Progress:
        response = await self.call("poll", "GET", self.poll_path(task))
        progress = self._progress(task, self.json("poll", response), response)
        if isinstance(progress, errors.UpstreamError):
            raise progress
        return progress

    def poll_path(self, task: Task) -> str:
        return f"{GENERATION}?generation_id={segment(task.ref)}"

    async def poll_many(self, tasks: Sequence[Task]) -> dict[str, Progress | errors.UpstreamError]:
        """See the base class. The effect of one unknown id on the whole request is not documented: a 404 is raised as
        `UpstreamRejected`, since it must not count as a failure of each task."""
        params = {"generation_ids[]": [task.ref or "" for task in tasks]}
        try:
            response = await self.call("poll", "GET", GENERATIONS, params=params)
        except errors.UpstreamGone as error:
            raise errors.UpstreamRejected(
                error.message, provider=self.name, upstream_status=error.upstream_status, body=error.body
            ) from error
        found = {job.get("id"): job for job in self._jobs(response) if isinstance(job.get("id"), str)}
        return {
            task.id: self._progress(task, found[task.ref], response) if task.ref in found else self._missing(response)
            for task in tasks
        }

    def _body(self, task: Task) -> dict[str, Any]:
        request = task.request
        resolution = "4k" if request.resolution == "2160p" else request.resolution
        body: dict[str, Any] = {
            "model": task.model,
            "prompt": request.prompt,
            "aspect_ratio": request.aspect_ratio or DEFAULT_RATIO,
            "loop": request.loop,
            "keyframes": self._keyframes(task),
            "duration": f"{request.seconds:g}s" if request.seconds is not None else None,
            "resolution": resolution,
            "callback_url": task.callback_url,
            **request.extra,
        }
        return {name: value for name, value in body.items() if value is not None}

    def _keyframes(self, task: Task) -> dict[str, Any] | None:
        """Key frames: images; for an extension the source generation as frame 0, for one in front of it as frame 1."""
        request = task.request
        frames: dict[str, Any] = {
            "frame0": self._picture(task, request.first_frame),
            "frame1": self._picture(task, request.last_frame),
        }
        if request.operation is not Operation.generate:
            if task.source_ref is None:
                raise self.foreign_source()
            in_front = request.operation is Operation.prepend
            at, field = ("frame1", "last_frame") if in_front else ("frame0", "first_frame")
            if frames[at] is not None:
                message = f"{field}: {self.name} has no such parameter where it extends a video"
                raise errors.UpstreamRejected(message, provider=self.name)
            frames[at] = {"type": "generation", "id": task.source_ref}
        return {name: frame for name, frame in frames.items() if frame is not None} or None

    def _picture(self, task: Task, picture: Media | None) -> dict[str, str] | None:
        if picture is None:
            return None
        url = task.link(picture)
        if url is None:
            message = f"{self.name} takes images by URL only; send an https:// URL or set GATEWAY_PUBLIC_URL"
            raise errors.UpstreamRejected(message, provider=self.name)
        return {"type": "image", "url": url}

    # Reading answers

    def _jobs(self, response: httpx.Response) -> list[dict[str, Any]]:
        """The generations in an answer of the list call. Raises the error of `unreadable`."""
        try:
            found = response.json()
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict):
            found = next((found[name] for name in ("data", "generations") if isinstance(found.get(name), list)), None)
        if not isinstance(found, list):
            raise self.unreadable("poll", "the answer is no list of generations", response)
        return [job for job in found if isinstance(job, dict)]

    def _missing(self, response: httpx.Response) -> errors.UpstreamGone:
        message = f"{self.name} left the generation out of its answer"
        return errors.UpstreamGone(message, provider=self.name, upstream_status=response.status_code)

    def _progress(self, task: Task, job: dict[str, Any], response: httpx.Response) -> Progress | errors.UpstreamError:
        """Progress of one generation, or the error if its entry cannot be read."""
        if not isinstance(job.get("state"), str):
            return self.unreadable("poll", "the answer carries no state", response)
        status, raw = self.status_of(STATUS, job["state"])
        reason = job.get("failure_reason")
        blacklisted = "blacklist" in str(reason).lower()  # Luma's word for a refused prompt
        return self.learned(
            task,
            job,
            status,
            raw,
            first=FILE_PATHS,
            error=reason,
            code=errors.ContentPolicy.default_code if blacklisted else None,
        )

    def read_error(self, response: httpx.Response) -> tuple[str | None, str]:
        """Read the vendor's flat envelope, whose `message` may be a list; else any of the usual envelopes."""
        try:
            document = response.json()
        except (ValueError, RecursionError):
            return None, ""
        message = document.get("message") if isinstance(document, dict) else None
        if isinstance(message, list):
            return None, "; ".join(str(part) for part in message)
        return (None, message) if isinstance(message, str) else super().read_error(response)
