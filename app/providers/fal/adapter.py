"""fal, by its queue. Docs: https://docs.fal.ai (queue, errors), read 2026-11-21; fal-client 1.0.3 and @fal-ai/client
1.10.1, recorded 2026-11-25 (`tests/recordings/fal.json`). Not tried live.

Quirks: the path is the model, the body its input, with other names for each endpoint (`endpoints.py`). A task is
read below the first two segments of the path, three for `workflows/` and `comfy/`. COMPLETED is also the word for a
failed and a cancelled task: with an `error`, or when the call for the result answers an error of the model. That call
answers 400 while the task still runs. A key is sent as `Key`, not `Bearer`. Errors have a text or a list as `detail`.
Short uploads go as data URLs, others to fal's storage (`storage.py`). Not used: the signature of its callbacks, which
only mean "poll now".
Inferred: that any 5xx to a submit may have been accepted, a 503 of fal's own included; that an error of a result which
names no type is fal's and not the model's, so the result is asked for again.
"""

import json
import re
from datetime import date
from typing import Any, Self

import httpx
from pydantic import Field, SecretStr, model_validator

from app import errors
from app.capabilities import Capabilities
from app.providers.answers import is_usable, object_of, segment
from app.providers.base import MAX_DATA_URL_BYTES, ProviderConfig, Task, data_url_of
from app.providers.fal import endpoints, storage
from app.providers.fal.endpoints import UNKNOWN, Endpoint
from app.providers.rest import RestProvider
from app.video import Failure, Media, Progress, Status, Submission, VideoRequest, shorter_side, without_fraction

STATUS = {"in_queue": Status.queued, "in_progress": Status.in_progress, "completed": Status.completed}
FILE_PATHS = (("video", "url"), ("videos", "url"), ("video_url",))
STILL_RUNNING = "still in progress"
DEEPER = ("workflows", "comfy")
"""Namespaces in which the name of an app has three segments."""
IS_ENDPOINT = re.compile(r"(?!.*(?:^|/)\.{1,2}(?:/|$))[\w.\-]{1,100}(?:/[\w.\-]{1,100}){1,7}", re.ASCII)
"""Ids of endpoints and names of families: they become a path."""
CREDIT_WORDS = ("exhausted balance", "top up")
CANCELLED_TYPES = ("client_cancelled", "request_cancelled", "cancelled")
CODES = {"content_policy_violation": errors.ContentPolicy.default_code}
QUEUE, STORAGE = "https://queue.fal.run", "https://rest.fal.ai"
INFRASTRUCTURE = re.compile(r"internal_|runner_|startup_|request_timeout|generation_timeout|downstream_")
"""Types of errors that are not the client's; a client sees them as a failed generation."""


class Fal(RestProvider):
    """Accepts the id of any endpoint, and the name of a family, of which the request decides the endpoint."""

    kind = "fal"
    title = "fal"
    key_variables = ("FAL_KEY",)
    key_page = "https://fal.ai/dashboard/keys"
    prices_read = date(2026, 11, 25)
    callbacks = True
    any_model = UNKNOWN
    poll_interval_s = 3
    poll_interval_max_s = 15

    class Config(ProviderConfig):
        api_key: SecretStr = Field(min_length=1)
        """From fal.ai/dashboard/keys; `id:secret`."""
        base_url: str = QUEUE
        storage_url: str = ""
        """The address at which an upload asks for one in fal's storage; gets the key, too. Unset: https://rest.fal.ai
        if the base URL is fal's own, else none, and uploads are sent within the request."""
        inline_bytes: int = Field(2**20, ge=0, le=MAX_DATA_URL_BYTES)
        """Size from which uploads go to the storage; shorter ones are sent within the request."""

        @model_validator(mode="after")
        def _own_storage(self) -> Self:
            if not self.storage_url and self.base_url == QUEUE:
                self.storage_url = STORAGE
            return self

    config: Config
    key_origins = ("base_url", "storage_url")

    async def prepare(self, task: Task) -> tuple[str, dict[str, Any]]:
        """The path and the body of the submit; uploads are read for it."""
        endpoint = endpoints.choose(task.model, task.request)
        if endpoint is None:
            return task.model, {"prompt": task.request.prompt, **task.request.extra}
        return endpoint.id, await self._body(endpoint, task)

    async def submit(self, task: Task) -> Submission:
        name, body = task.prepared
        query = {"fal_webhook": task.callback_url} if task.callback_url is not None else None
        response = await self.submit_call(task, "POST", f"/{name}", json=body, params=query)
        answer = self.json("submit", response)
        ref = answer.get("request_id")
        if not is_usable(ref):
            raise self.unreadable("submit", "the answer carries no usable request_id", response)
        status, raw = self.status_of(STATUS, answer.get("status", "IN_QUEUE"))
        status = Status.in_progress if status.ended else status
        return Submission(ref=ref, status=status, raw_status=raw)

    async def poll(self, task: Task) -> Progress:
        job = self.json("poll", await self.call("poll", "GET", f"{self.poll_path(task)}/status?logs=0"))
        status, raw = self.status_of(STATUS, job.get("status"), erred=bool(job.get("error")))
        if not status.ended:
            return Progress(status=status, raw_status=raw)
        if job.get("error") or job.get("error_type") or status is Status.failed:
            return Progress(status=Status.failed, raw_status=raw, failure=self._failure(job))
        return await self._result(task, raw)

    async def _result(self, task: Task, raw: str) -> Progress:
        """The result of a task that has ended."""
        try:
            result = self.json("poll", await self.call("poll", "GET", self.poll_path(task)))
        except _ModelError as error:
            return Progress(status=Status.failed, raw_status=raw, failure=error.failure)
        except errors.UpstreamRejected as error:
            if error.upstream_status == 400 and STILL_RUNNING in error.message:
                return Progress(status=Status.in_progress, raw_status=raw)
            raise
        return self.learned(task, result, Status.completed, raw, first=FILE_PATHS)

    def poll_path(self, task: Task) -> str:
        return f"/{_app_of(task.model)}/requests/{segment(task.ref)}"

    async def cancel(self, task: Task) -> bool:
        return await self.cancel_call("PUT", f"{self.poll_path(task)}/cancel") is True  # else a later poll tells

    def capabilities(self, model: str) -> Capabilities | None:
        return endpoints.merged(model) if IS_ENDPOINT.fullmatch(model) else None

    def capabilities_for(self, model: str, request: VideoRequest) -> Capabilities | None:
        endpoint = endpoints.choose(model, request)
        return endpoint.capabilities if endpoint is not None else UNKNOWN

    @property
    def listed(self) -> tuple[str, ...]:
        return self.config.models if self.config.models is not None else endpoints.families()

    @property
    def auth(self) -> dict[str, str]:
        return {"authorization": f"Key {self._secret}"} if self._secret else {}

    # Writing requests

    async def _body(self, endpoint: Endpoint, task: Task) -> dict[str, Any]:
        request, fields = task.request, endpoint.fields
        body: dict[str, Any] = {"prompt": request.prompt} if "prompt" in fields else {}
        body |= {"duration": _duration(endpoint, request.seconds), **_shape(endpoint, request)}
        for parameter in endpoints.PLAIN:
            name, value = endpoint.name_of(parameter), getattr(request, parameter)
            if name is not None:
                body[name] = value
        if "end_user_id" in fields:
            body["end_user_id"] = request.user
        for parameter in endpoints.MEDIA:
            name, given = endpoint.name_of(parameter), getattr(request, parameter)
            media = [given] if isinstance(given, Media) else list(given or ())
            if name is None or not media:
                continue
            urls = [await self._url(medium, task) for medium in media]
            body[name] = urls if fields[name].type.startswith("Array") else urls[0]
        if endpoint.source_name is not None:
            body[endpoint.source_name] = await self._source(task)
        given = {name: value for name, value in body.items() if value is not None}
        needed = {name: field.default_value for name, field in fields.items() if field.required and field.default}
        extra = {name: value for name, value in request.extra.items() if name not in given and name != "n"}
        return {**needed, **given, **extra}

    async def _url(self, media: Media, task: Task) -> str:
        if media.url is not None:
            return media.url
        async with task.read(media) as upload:
            if upload.size < self.config.inline_bytes or not self.config.storage_url:
                return await data_url_of(upload, provider=self.name)
            return await storage.store(self, upload, origin=self.config.storage_url)

    async def _source(self, task: Task) -> str | None:
        """The video to extend or to edit: an address, an upload, or the link of a video of this gateway."""
        source = task.request.source
        if source is None:
            return None
        if source.video_id is None:
            return await self._url(source, task)
        link = task.link(source)
        if link is None:
            raise errors.UpstreamRejected(
                f"{self.name} needs an address of the video to start from, and this gateway has none "
                "(GATEWAY_PUBLIC_URL)",
                provider=self.name,
            )
        return link

    # Reading answers

    def _failure(self, document: dict[str, Any]) -> Failure:
        """The failure that `error` and `error_type`, or `detail`, describe."""
        code, message = _details(document)
        return self.failure("cancelled" if code in CANCELLED_TYPES else "failed", message, code=_code(code))

    def error_from(self, verb: str, response: httpx.Response) -> errors.UpstreamError:
        error = super().error_from(verb, response)
        if response.status_code == 403 and any(word in (error.body or "").lower() for word in CREDIT_WORDS):
            message = f"the gateway's account at {self.name} has no credit left"
            return errors.UpstreamCredit(message, provider=self.name, upstream_status=403, body=error.body)
        if verb == "poll" and isinstance(error, errors.UpstreamRejected | errors.UpstreamUnavailable):
            document = object_of(response)
            code, _ = _details(document)
            if code is not None or "x-fal-error-type" in response.headers:
                document.setdefault("error_type", response.headers.get("x-fal-error-type"))
                return _ModelError(error, self._failure(document))
        return error

    def read_error(self, response: httpx.Response) -> tuple[str | None, str]:
        code, message = _details(object_of(response))
        return (code, message) if message else super().read_error(response)

    def _is_own_refusal(self, response: httpx.Response) -> bool:
        return False


class _ModelError(errors.UpstreamFailed):
    """The model's own error, as the answer to the call for its result."""

    def __init__(self, error: errors.UpstreamError, failure: Failure) -> None:
        super().__init__(error.message, provider=error.provider, upstream_status=error.upstream_status, body=error.body)
        self.failure = failure


def _app_of(name: str) -> str:
    """The part of an endpoint's id below which its tasks are read."""
    parts = name.split("/")
    return "/".join(parts[: 3 if parts[0] in DEEPER else 2])


def _duration(endpoint: Endpoint, seconds: float | None) -> Any:
    """The length as this endpoint writes it; its own default if the request has none, so that it is known."""
    field = endpoint.fields.get("duration")
    if field is None:
        return None
    if seconds is None:
        return field.default_value
    number = without_fraction(seconds)
    if field.type == "number" or field.whole_numbers:
        return number
    ending = "s" if re.search(r"\ds\b", f"{field.type} {field.default}") else ""
    return f"{number}{ending}"


def _shape(endpoint: Endpoint, request: VideoRequest) -> dict[str, Any]:
    """Ratio and resolution in the words of the endpoint; its own defaults if the request has none."""
    found: dict[str, Any] = {}
    for name in ("aspect_ratio", "resolution"):
        field = endpoint.fields.get(name)
        if field is None:
            continue
        value = getattr(request, name)
        found[name] = field.default_value if value is None else _option(field.options, value)
    return {name: value for name, value in found.items() if value != "auto"}


def _option(options: tuple[str, ...], value: str) -> str:
    """The endpoint's word for a value: `4k` for 2160p, `768P` for 768p."""
    for option in options:
        if option == value or (re.fullmatch(r"\d+[pP]|\d[kK]", option) and f"{shorter_side(option.lower())}p" == value):
            return option
    return value


def _code(code: str | None) -> str | None:
    return None if code is None or code in CANCELLED_TYPES or INFRASTRUCTURE.match(code) else CODES.get(code, code)


def _details(document: dict[str, Any]) -> tuple[str | None, str]:
    """Type and text of an error, of which `detail` may be a list."""
    detail = document.get("detail") or document.get("error") or ""
    code = document.get("error_type")
    if isinstance(detail, list):
        entries = [entry for entry in detail if isinstance(entry, dict)]
        code = code or next((entry.get("type") for entry in entries), None)
        detail = "; ".join(f"{_place(entry)}{entry.get('msg', '')}" for entry in entries)
    text = detail if isinstance(detail, str) else json.dumps(detail)
    return (code if isinstance(code, str) and code else None), text


def _place(entry: dict[str, Any]) -> str:
    place = [str(part) for part in entry.get("loc") or () if part != "body"]
    return f"{'.'.join(place)}: " if place else ""
