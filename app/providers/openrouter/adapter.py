"""OpenRouter: Seedance, Veo, Kling, Wan, Hailuo and others by one key. Sources: the vendor's clients openrouter 1.3.84
(Python), @openrouter/sdk 1.3.19 and @openrouter/ai-sdk-provider 3.1.0, recorded on 2026-11-25
(`tests/recordings/openrouter.json`), and its page for agents (github.com/OpenRouterTeam/skills, openrouter-video, as a
public copy had it in 2026-11). Not tried live.

Quirks: a list of the vendor's has what each model takes and costs, see `listing.py` and `refresh.py`. `polling_url` may
be a bare path and is not used: a task is polled by its id. A finished task has `urls`, signed links to a copy that need
no key until `expires_at`, or only `unsigned_urls`, which stand for `/content` and need the key in spite of their name.
One without either is `completed` all the same. `size` stands for resolution and ratio, which are sent instead. Frames
win over references where both are sent, so that a request with both is refused. Sound is on by default where a model
makes any; it is always asked for or declined. `previous_job_id` goes on from a finished task of the same model. No
cancel, no list of tasks, no idempotency key. A body has 50 MiB at most. Callbacks are signed where the workspace has a
secret, over the time, a comma and the body. A 499 says that the connection broke, not that nothing was made; nor
does a 503 in other words than `NO_PROVIDER`. A 409 refuses a `previous_job_id` that is not finished.
Inferred: that `previous_job_id` extends with the models that have a price for a continuation; that the video to edit is
a `video_url` of `input_references`; that an uploaded video may be a `data:` URL where this gateway has no public
address; that a 403 with `reasons` is about the content, and any other about the key; `dead`, which only the vendor's
AI SDK provider treats as failed.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import date, datetime
from typing import Any

import httpx
from pydantic import Field, SecretStr

from app import errors
from app.capabilities import Capabilities, media_of
from app.providers.answers import file_url, object_of, segment
from app.providers.base import OPEN, Download, Outbound, ProviderConfig, Task
from app.providers.openrouter.listing import ANYTHING, FRAMES, REFERENCES, Model, read_models, released
from app.providers.openrouter.refresh import ModelList
from app.providers.rest import CANCELLED_WORDS, RestProvider
from app.providers.signatures import is_timed_digest
from app.video import Media, Operation, Output, Progress, Status, Submission, VideoRequest, without_fraction

MODELS = {name: model.able for name, model in released().items()}
PATH = "/videos"
MODELS_PATH = "/videos/models"
MAX_BODY_BYTES = 50 * 2**20
WORDS = {"1440p": "2K", "2160p": "4K"}
"""The vendor's words for resolutions of a model that is in no list."""
STATUS = {
    "pending": Status.queued,
    "in_progress": Status.in_progress,
    "completed": Status.completed,
    **dict.fromkeys(("failed", "expired", "dead", *CANCELLED_WORDS), Status.failed),
}
FILE_PATHS = (("urls",),)
NO_PROVIDER = re.compile(r"no available\b.{0,60}\bprovider", re.IGNORECASE | re.DOTALL)
"""The documented words of a 503 that comes before any maker was asked."""
FIRST_READ_S = 2
"""Seconds until a request for a model that is not known yet is prepared again."""


class OpenRouter(RestProvider):
    """Accepts any model name: the vendor's list, which changes, says what each can do."""

    kind = "openrouter"
    title = "OpenRouter"
    key_variables = ("OPENROUTER_API_KEY",)
    key_page = "https://openrouter.ai/settings/keys"
    prices_read = date(2026, 10, 9)
    callbacks = True
    models = MODELS
    any_model = ANYTHING
    poll_interval_s = 10
    poll_interval_max_s = 30
    cost_place = ("usage", "cost")

    class Config(ProviderConfig):
        api_key: SecretStr = Field(min_length=1)
        """`OPENROUTER_API_KEY`, `sk-or-...`."""
        base_url: str = "https://openrouter.ai/api/v1"
        webhook_secret: SecretStr | None = Field(None, min_length=1)
        """The workspace's signing secret for video callbacks. With it, callbacks without a valid signature are
        refused."""

    config: Config

    def __init__(self, name: str, config: ProviderConfig, outbound: Outbound = OPEN) -> None:
        super().__init__(name, config, outbound)
        self._list = ModelList(name, self._read_list)

    async def aclose(self) -> None:
        await self._list.close()
        await super().aclose()

    async def prepare(self, task: Task) -> dict[str, Any]:
        if task.model not in self._list.models and self._list.is_first_pending:
            # Another process may have it, and quoted the values that a request without them gets.
            message = f"{self.name}: the vendor's list of models, which may have {task.model}, is being read"
            raise errors.UpstreamUnavailable(message, provider=self.name, retry_after_s=FIRST_READ_S)
        body = await self._body(task)
        if sum(map(len, _urls(body))) > MAX_BODY_BYTES:
            limit = f"{self.name} takes requests of at most {MAX_BODY_BYTES // 2**20} MiB with all uploads as base64"
            raise errors.UpstreamRejected(f"{limit}; send https:// addresses", provider=self.name)
        return body

    async def submit(self, task: Task) -> Submission:
        try:
            response = await self.submit_call(task, "POST", PATH, json=task.prepared)
        except errors.UpstreamUnknown as error:
            if error.upstream_status == 409 and "previous_job_id" in task.prepared:  # what it goes on from is not done
                raise errors.UpstreamRejected(
                    error.message, provider=self.name, upstream_status=409, body=error.body
                ) from error
            raise
        return self.accepted(STATUS, response)

    async def poll(self, task: Task) -> Progress:
        job = self.json("poll", await self.call("poll", "GET", self.poll_path(task)))
        error = job.get("error")
        status, raw = self.status_of(STATUS, job.get("status"), erred=bool(error))
        message = error.get("message") if isinstance(error, dict) else error
        expires_at = job.get("expires_at")
        if isinstance(expires_at, int | float) and expires_at <= task.now.timestamp():
            job = {**job, "urls": None}
        progress = self.learned(task, job, status, raw, first=FILE_PATHS, error=message)
        if status is Status.completed and progress.output is None and _has_content(job):
            return progress.model_copy(update={"status": status, "output": Output(), "failure": None})
        return progress

    def poll_path(self, task: Task) -> str:
        return f"{PATH}/{segment(task.ref)}"

    @asynccontextmanager
    async def fetch(self, task: Task, output: Output) -> AsyncIterator[Download]:
        """Open the finished file: the signed copy where there is one, else, or once it is gone, by the content call."""
        content = f"{self.config.base_url}{self.poll_path(task)}/content?index=0"
        async with AsyncExitStack() as stack:
            named = output.url is not None or output.inline is not None
            try:
                copy = super().fetch(task, output) if named else self.download(content, authenticated=True)
                download = await stack.enter_async_context(copy)
            except errors.UpstreamGone:
                if output.direct or not named:
                    raise
                download = await stack.enter_async_context(self.download(content, authenticated=True))
            yield download

    def is_callback(self, headers: Mapping[str, str], body: bytes, *, secret: str, now: datetime) -> bool:
        own = self.config.webhook_secret
        given = headers.get("x-openrouter-signature", "")
        return own is None or is_timed_digest(own.get_secret_value(), given, body, now)

    # The list of models

    @property
    def listed(self) -> tuple[str, ...]:
        self._list.refresh_if_old()
        return self.config.models if self.config.models is not None else self._list.listed

    def capabilities(self, model: str) -> Capabilities | None:
        self._list.refresh_if_old()
        found = self._list.models.get(model)
        return ANYTHING if found is None else found.able

    def capabilities_for(self, model: str, request: VideoRequest) -> Capabilities | None:
        self._list.refresh_if_old()
        found = self._list.models.get(model)
        if found is not None:
            return found.able_for(request)
        if not any(name in media_of(request) for name in FRAMES):
            return ANYTHING
        return ANYTHING.model_copy(update={"parameters": ANYTHING.parameters - set(REFERENCES)})

    async def _read_list(self) -> Mapping[str, Model]:
        response = await self.call("list", "GET", MODELS_PATH)
        return await asyncio.to_thread(lambda: read_models(self.json("list", response)))

    # Writing requests

    async def _body(self, task: Task) -> dict[str, Any]:
        request, model = task.request, self._list.models.get(task.model)
        seconds = request.seconds
        body: dict[str, Any] = {
            "model": task.model,
            "prompt": request.prompt or None,
            "duration": without_fraction(seconds),
            "seed": request.seed,
            "generate_audio": request.generate_audio,
            "user": request.user,
            "callback_url": task.callback_url if (task.callback_url or "").startswith("https://") else None,
            **await self._media(task),
        }
        source = request.source
        if request.operation is Operation.edit:  # as long as its source
            body["duration"] = None
        if source is None or (request.operation is Operation.edit and source.video_id is None):  # else the source's own
            words = WORDS if model is None else {**WORDS, **model.words}
            body["resolution"] = words.get(request.resolution or "", request.resolution)
            body["aspect_ratio"] = request.aspect_ratio
        given = {name: value for name, value in body.items() if value is not None}
        given |= {name: value for name, value in request.extra.items() if name not in (*given, "n")}
        return {**_defaults(model, request), **given} if model is not None else given

    async def _media(self, task: Task) -> dict[str, Any]:
        request = task.request
        if request.operation is Operation.extend:
            if task.source_ref is None:
                raise self.foreign_source()
            return {"previous_job_id": task.source_ref}
        frames = [
            {**_part("image", await self._picture(frame, task)), "frame_type": name}
            for name, frame in zip(FRAMES, (request.first_frame, request.last_frame), strict=True)
            if frame is not None
        ]
        references = [_part("image", await self._picture(image, task)) for image in request.reference_images]
        clips = [clip for clip in (request.reference_video, request.source) if clip is not None]
        references += [_part("video", await self._clip(clip, task)) for clip in clips]
        return {"frame_images": frames or None, "input_references": references or None}

    async def _picture(self, picture: Media, task: Task) -> str:
        return picture.url or await task.data_url(picture, provider=self.name)

    async def _clip(self, clip: Media, task: Task) -> str:
        link = task.link(clip)
        if link is None and clip.video_id is not None:
            raise errors.UpstreamRejected(
                f"{self.name} takes a video of this gateway by its address only, and it has none (GATEWAY_PUBLIC_URL)",
                provider=self.name,
            )
        return link or await task.data_url(clip, provider=self.name)

    # Reading errors

    def error_from(self, verb: str, response: httpx.Response) -> errors.UpstreamError:
        error = super().error_from(verb, response)
        if response.status_code == 499:
            return self.unreadable(verb, "the connection broke before the end (499)", response)
        if response.status_code == 403 and (reasons := _reasons(response)):
            message = self.scrub(self.read_error(response)[1] or ", ".join(reasons))
            return errors.ContentPolicy(message, provider=self.name, upstream_status=403, body=error.body)
        return error

    def _is_own_refusal(self, response: httpx.Response) -> bool:
        # Any other 503 may be a maker's, after it took the task.
        return NO_PROVIDER.search(self.read_error(response)[1]) is not None


def _part(kind: str, url: str) -> dict[str, Any]:
    return {"type": f"{kind}_url", f"{kind}_url": {"url": url}}


def _urls(body: Mapping[str, Any]) -> list[str]:
    """The addresses of all media of a body."""
    parts = [*(body.get("frame_images") or ()), *(body.get("input_references") or ())]
    return [part[part["type"]]["url"] for part in parts]


def _defaults(model: Model, request: VideoRequest) -> dict[str, Any]:
    """Values that the vendor would decide on, sent so that the price is known; media decide on the ratio, and the video
    that is edited or goes on decides on all that is its own."""
    able = model.able
    found: dict[str, Any] = {"generate_audio": True if "generate_audio" in able.parameters else None}
    if request.operation is not Operation.edit:
        found["duration"] = None if able.default_seconds is None else int(able.default_seconds)
    if request.operation is Operation.generate:
        found["resolution"] = model.words.get(able.default_resolution or "")
        found["aspect_ratio"] = None if media_of(request) else model.ratio
    return {name: value for name, value in found.items() if value is not None}


def _has_content(job: Mapping[str, Any]) -> bool:
    """True if the content call has the file: its address is in the answer, and is not believed beyond that."""
    named = job.get("unsigned_urls")
    return isinstance(named, list) and bool(named) and file_url(named[0]) is not None


def _reasons(response: httpx.Response) -> list[str]:
    """The reasons of a refusal about the content."""
    error = object_of(response).get("error")
    metadata = error.get("metadata") if isinstance(error, dict) else None
    reasons = metadata.get("reasons") if isinstance(metadata, dict) else None
    return [reason for reason in reasons[:16] if isinstance(reason, str)] if isinstance(reasons, list) else []
