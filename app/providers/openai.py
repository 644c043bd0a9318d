"""Servers that speak the OpenAI Videos API: other gateways, resellers, vLLM-Omni, SGLang.

Wire: https://github.com/openai/openai-openapi (2026-08-21), https://github.com/vllm-project/vllm-omni (0.30.0),
https://github.com/sgl-project/sglang (0.5.23), https://docs.lumenfall.ai; read 2026-11-21. Not tried live.
Quirks. OpenAI: `seconds` is a string; its own service ended 2026-09-24. vLLM-Omni: create takes a form only, nested
values as JSON text; a poll of a failed job answers its 4xx or 5xx status with the job as body; DELETE answers 409 while
the task is still stopping. SGLang: `seconds` is an int, images by URL are `reference_url`; DELETE answers a job with
status `deleted` and does not stop the task; content answers 400 if the file is in cloud storage. Some resellers have
no content call, only a URL in the job. `variant` is never sent: SGLang reads it as an index.
Inferred: OpenAI-style names for fields that OpenAI lacks (`last_frame`, `reference_video`, a video as `video_url`), and
that `short_edge` is vLLM-Omni's name for a resolution.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Any, Literal

import httpx
from pydantic import Field

from app import errors
from app.capabilities import OPTIONAL_PARAMETERS, Capabilities
from app.providers.answers import listed_tasks, object_of, percent, reported_micros, segment
from app.providers.base import Download, ListedTask, ProviderConfig, ReadMedia, Task
from app.providers.forms import Form
from app.providers.outputs import find_output, sent_urls
from app.providers.rest import CANCELLED_WORDS, RestProvider
from app.telemetry import traces
from app.video import Failure, Media, Operation, Output, Progress, Status, Submission, VideoRequest, without_fraction

MAX_POLL_AFTER_S = 300
PAGE_TASKS = 100
NO_CONTENT_CALL = (400, 404, 405, 501)

ANYTHING = Capabilities(
    parameters=frozenset(OPTIONAL_PARAMETERS),
    operations=frozenset(Operation) - {Operation.prepend},
    passes_extra=True,
)

PATHS = {Operation.generate: "/videos", Operation.edit: "/videos/edits", Operation.extend: "/videos/extensions"}

PLAIN = ("negative_prompt", "seed", "generate_audio", "loop", "expand_prompt", "user")
RENAMED = {
    "openai": {},
    "vllm-omni": {"generate_audio": "generate_sound"},
    "sglang": {"expand_prompt": "enhance_prompt"},
}

STATUS = {
    **dict.fromkeys(
        ("queued", "pending", "created", "submitted", "waiting", "preprocessing", "throttled"), Status.queued
    ),
    **dict.fromkeys(("in_progress", "processing", "running", "generating"), Status.in_progress),
    **dict.fromkeys(("completed", "complete", "succeeded", "success", "done"), Status.completed),
    **dict.fromkeys(("failed", "failure", "error", "rejected", "incomplete", "timeout"), Status.failed),
    **dict.fromkeys((*CANCELLED_WORDS, "expired"), Status.failed),
}


class OpenAI(RestProvider):
    """Accepts any model name and all parameters: the server decides what a model supports."""

    kind = "openai"
    title = "OpenAI-shaped servers"
    key_variables = ("OPENAI_API_KEY",)
    any_model = ANYTHING
    characters = True
    lists_tasks = True
    cost_place = ("usage", "cost")  # of OpenRouter and servers of its shape

    class Config(ProviderConfig):
        base_url: str = Field(min_length=1)
        """Base URL including the version, e.g. http://localhost:8000/v1."""
        flavor: Literal["openai", "vllm-omni", "sglang"] = "openai"
        """Format of requests: `vllm-omni` creates by form, `sglang` sends whole seconds as a number, and both have
        other names for images by URL. Answers of all three are understood with any flavor."""
        idempotency: Literal["none", "header", "body"] = "none"
        """Place of the idempotency key: header `Idempotency-Key` or body field `idempotency_key`. Set it only for a
        server that documents it: a create with unknown outcome is then sent again."""
        traceparent: bool = True
        """true: while traces are on, its requests carry the header `traceparent`, for a server of one's own; false: for
        a reseller."""

    config: Config

    @property
    def auth(self) -> dict[str, str]:
        return {**super().auth, **(traces.headers() if self.config.traceparent else {})}

    async def submit(self, task: Task) -> Submission:
        by_header = self.config.idempotency == "header"
        response = await self._post(
            partial(self.submit_call, task),
            self._submit_path(task),
            self._body(task),
            task.read,
            form=self.config.flavor == "vllm-omni" and task.request.operation is Operation.generate,
            headers={"idempotency-key": task.id} if by_header else {},
        )
        job = self.json("submit", response)
        status, raw = self.status_of(STATUS, job.get("status"))
        return Submission(
            ref=self.ref_of("submit", job, response),
            status=Status.in_progress if status.ended else status,  # its outcome is read by the first poll
            progress=percent(job.get("progress")),
            raw_status=raw,
            poll_after_s=_poll_after_s(response.headers),
        )

    async def poll(self, task: Task) -> Progress:
        try:
            response = await self.call("poll", "GET", self.poll_path(task))
        except _FailedJob as failed:
            if failed.job.get("id") != task.ref:
                raise failed.error from None
            return self._progress(task, failed.job)
        return self._progress(task, self.json("poll", response), poll_after_s=_poll_after_s(response.headers))

    def poll_path(self, task: Task) -> str:
        return _path(task.ref)

    async def cancel(self, task: Task) -> bool:
        answer = await self.cancel_call("DELETE", _path(task.ref))
        return answer if isinstance(answer, bool) else object_of(answer).get("deleted") is True

    @asynccontextmanager
    async def fetch(self, task: Task, output: Output) -> AsyncIterator[Download]:
        """Open the finished file by the content call, or where the job names it. Raises `UpstreamGone` with the code
        `no_output` and the job as it is now if there is neither: both may still come, so it is tried again."""
        async with AsyncExitStack() as stack:
            named = super().fetch(task, output)
            if output.direct:
                yield await stack.enter_async_context(named)
                return
            content = self.config.base_url + _path(task.ref, "/content")
            try:
                download = await stack.enter_async_context(self.download(content, authenticated=True))
            except errors.UpstreamError as error:
                if error.upstream_status not in NO_CONTENT_CALL:
                    raise
                if output.url is None and output.inline is None:
                    raise await self._no_file(task, error) from error
                download = await stack.enter_async_context(named)
            yield download

    async def _no_file(self, task: Task, refusal: errors.UpstreamError) -> errors.UpstreamGone:
        """The error for a finished job that names no file, after the content call was refused."""
        try:
            job = self.json("poll", await self.call("poll", "GET", self.poll_path(task)))
        except errors.UpstreamError:
            job = {}
        failure = self.no_output(self.scrub(str(job.get("status", "completed")))[:100], job)
        return errors.UpstreamGone(
            failure.message,
            provider=self.name,
            code=failure.code,
            upstream_status=refusal.upstream_status,
            body=failure.body if job else refusal.body,
        )

    async def create_character(self, name: str, video: Media, read: ReadMedia) -> str:
        body = {"name": name, "video": _reference(video, "video_url")}
        response = await self._post(partial(self.call, "character"), "/videos/characters", body, read)
        return self.ref_of("character", self.json("character", response), response)

    async def check(self, now: datetime) -> bool:
        """See the base class. The list of models, which some servers show without a key, tells a wrong base URL from a
        task that does not exist: both are a 404."""
        accepted = await super().check(now)
        try:
            await self.call("check", "GET", "/models")
        except errors.UpstreamGone as error:
            message = f"{self.name} has neither tasks nor a list of models at its base URL, which may lack the version"
            raise errors.UpstreamGone(message, provider=self.name, upstream_status=error.upstream_status) from error
        except errors.UpstreamRejected:
            pass
        return accepted

    @property
    def can_resubmit(self) -> bool:
        return self.config.idempotency != "none"

    # Writing requests

    def _submit_path(self, task: Task) -> str:
        if task.request.operation is not Operation.remix:
            return PATHS[task.request.operation]
        if task.source_ref is None:
            raise errors.UpstreamRejected(f"{self.name} can only remix a video it has made", provider=self.name)
        return _path(task.source_ref, "/remix")

    def _body(self, task: Task) -> dict[str, Any]:
        """The request in the server's fields; a `Media` in it is an upload that is read later."""
        request = task.request
        body: dict[str, Any] = {"prompt": request.prompt}
        if request.operation is Operation.generate or task.source_ref is None:
            body["model"] = task.model
        if request.operation in (Operation.edit, Operation.extend):
            body["video"] = {"id": task.source_ref} if task.source_ref else _reference(request.source, "video_url")
        if request.seconds is not None and request.operation in (Operation.generate, Operation.extend):
            body["seconds"] = self._seconds(request.seconds)
        if request.operation is Operation.generate:  # else the source decides the size; the API has no such fields
            body |= self._shape(request)
        body |= self._references(task)
        renamed = RENAMED[self.config.flavor]
        body |= {renamed.get(name, name): getattr(request, name) for name in PLAIN}
        if task.character_refs:
            body["characters"] = [{"id": ref} for ref in task.character_refs]
        if self.config.idempotency == "body":
            body["idempotency_key"] = task.id
        given = {name: value for name, value in body.items() if value is not None}
        return given | {k: v for k, v in request.extra.items() if k not in given and k != "n"}

    def _seconds(self, seconds: float) -> str | int | float:
        number = without_fraction(seconds)
        return number if self.config.flavor == "sglang" else str(number)

    def _shape(self, request: VideoRequest) -> dict[str, Any]:
        if request.size is not None:
            return {"size": request.size}
        return {"aspect_ratio": request.aspect_ratio, **self._resolution(request.resolution)}

    def _resolution(self, resolution: str | None) -> dict[str, Any]:
        if resolution is not None and self.config.flavor == "vllm-omni":
            return {"short_edge": int(resolution.removesuffix("p"))}
        return {"resolution": resolution}

    def _references(self, task: Task) -> dict[str, Any]:
        request, flavor = task.request, self.config.flavor
        images = [image for image in (request.first_frame, *request.reference_images) if image is not None]
        last, video = request.last_frame, request.reference_video
        found: dict[str, Any] = {"last_frame": _reference(last, "image_url")}
        if flavor == "openai":
            found["input_reference"] = _one_or_all([_reference(image, "image_url") for image in images])
            found["reference_video"] = _reference(video, "video_url")
            return found
        by_url = [image.url for image in images if image.url is not None]
        files = [image for image in images if image.url is None]
        if flavor == "sglang":
            found |= {"reference_url": _one_or_all(by_url), "input_reference": _one_or_all(files)}
            name = "video_reference" if video is not None and video.url is None else "video_url"
            return found | {name: (video.url or video) if video is not None else None}
        if video is not None and video.url is None:
            files.append(video)  # the server detects video or image from the bytes
        found["input_references" if len(files) > 1 else "input_reference"] = _one_or_all(files)
        found["image_reference"] = _one_or_all([{"image_url": url} for url in by_url])
        if video is not None and video.url is not None:
            found["video_reference"] = {"video_url": video.url}
        return found

    async def _post(
        self,
        send: Callable[..., Awaitable[httpx.Response]],
        path: str,
        body: dict[str, Any],
        read: ReadMedia,
        *,
        form: bool = False,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        """Send `body` with `send`, as JSON, or as a streamed form if it has files or `form` is set."""
        parts = list(_parts(body, brackets=self.config.flavor == "openai"))
        if not form and not any(isinstance(value, Media) for _, value in parts):
            return await send("POST", path, json=body, headers=headers or {})
        parts.sort(key=lambda part: isinstance(part[1], Media))
        async with AsyncExitStack() as stack:
            content = Form(
                [
                    (name, await stack.enter_async_context(read(value)) if isinstance(value, Media) else value)
                    for name, value in parts
                ]
            )
            return await send("POST", path, content=content, headers=(headers or {}) | content.headers)

    async def list_tasks(self, page: str | None) -> tuple[list[ListedTask], str | None]:
        after = f"&after={segment(page)}" if page is not None else ""
        response = await self.call("list", "GET", f"/videos?limit={PAGE_TASKS}&order=desc{after}")
        answer = self.json("list", response)
        tasks = listed_tasks(answer.get("data"))
        return tasks, tasks[-1].ref if tasks and answer.get("has_more") is True else None

    # Reading answers

    def _progress(self, task: Task, job: dict[str, Any], *, poll_after_s: float | None = None) -> Progress:
        status, raw = self.status_of(STATUS, job.get("status"))
        named = find_output(job, sent=sent_urls(task)) if status is Status.completed else None
        return Progress(
            status=status,
            progress=percent(job.get("progress")),
            raw_status=raw,
            poll_after_s=None if status.ended else poll_after_s,
            output=named or Output() if status is Status.completed else None,
            failure=self._failure(job, raw) if status is Status.failed else None,
            reported_micros=reported_micros(job, self.cost_place),
        )

    def _failure(self, job: dict[str, Any], raw: str) -> Failure:
        error = job.get("error")
        details = error if isinstance(error, dict) else {"message": error}
        message = details.get("message") or details.get("detail") or ""
        code = details.get("code") or details.get("type")
        usable = isinstance(code, str) and not code.isdigit()
        return self.failure(raw, message, code=code if usable else None)

    def error_from(self, verb: str, response: httpx.Response) -> errors.UpstreamError:
        error = super().error_from(verb, response)
        job = object_of(response)
        if verb == "poll" and STATUS.get(str(job.get("status"))) is Status.failed:
            return _FailedJob(job, error)
        return error


class _FailedJob(errors.UpstreamFailed):
    """Error status with a failed job as body: how vLLM-Omni answers the poll of a failed job; the id must match."""

    def __init__(self, job: dict[str, Any], error: errors.UpstreamError) -> None:
        super().__init__(error.message, provider=error.provider, upstream_status=error.upstream_status)
        self.job = job
        self.error = error


def _parts(value: Any, name: str = "", *, brackets: bool) -> Iterator[tuple[str, str | Media]]:
    """Flatten to form parts: with `brackets` as `f[k]` and `f[]`, like OpenAI's SDKs; else repeated names for files and
    JSON text for all other nested values."""
    if isinstance(value, Media | str):
        yield name, value
    elif isinstance(value, dict) and (brackets or not name):
        for key, inner in value.items():
            yield from _parts(inner, f"{name}[{key}]" if name else str(key), brackets=brackets)
    elif isinstance(value, list) and (brackets or any(isinstance(inner, Media) for inner in value)):
        for inner in value:
            yield from _parts(inner, f"{name}[]" if brackets else name, brackets=brackets)
    elif value is not None:
        yield name, str(value) if type(value) in (int, float) else json.dumps(value)


def _reference(media: Media | None, url_name: str) -> Media | dict[str, str] | None:
    return {url_name: media.url} if media is not None and media.url is not None else media


def _one_or_all(values: list[Any]) -> Any:
    return values if len(values) > 1 else next(iter(values), None)


def _path(ref: str | None, tail: str = "") -> str:
    return f"/videos/{segment(ref)}{tail}"


def _poll_after_s(headers: httpx.Headers) -> float | None:
    value = headers.get("openai-poll-after-ms", "")
    return min(int(value) / 1000, MAX_POLL_AFTER_S) if value.isascii() and value.isdigit() and len(value) < 10 else None
