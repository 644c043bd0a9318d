"""Luma as the reseller gpt.ge sells it (api.gpt.ge, also called V-API). None of it tried live.

Wire: gpt.morphogen.top/en/video/luma/generate.html, query-single.html and expand.html, read 2026-11-21; inner fields
of an answer and all states but `pending` from the pages of sibling resellers with the same adapter (v98store, kkiai,
xunxkj, yutoai). Quirks: pictures go as an address or as base64 within the JSON; there is no model field, no cancel and
no list. An extension takes neither `loop` nor `aspect_ratio`.
Not sent: `duration`, `resolution` and `model_name`, which only siblings document, so length and resolution cannot be
chosen here; siblings' `POST /luma/tasks` for many tasks at once. A remix exists nowhere: an extension is not one.
Inferred: that errors look as in new-api, the panel software of such resellers: `{"code", "message", "data"}` or
OpenAI's envelope, and that a callback needs no answer beyond 200.
"""

import json
from typing import Any
from urllib.parse import quote

import httpx
from pydantic import SecretStr

from app import errors
from app.providers.base import CONTENT_POLICY_WORDS, Provider, ProviderConfig, Task
from app.telemetry import log
from app.video import Capabilities, Failure, Media, Operation, Output, Progress, Status, Submission

MAX_REF_CHARACTERS = 512

REFUSED = ("invalid_request", "sensitive_words_detected")
"""new-api's words for what it refuses before it hands a request on. See `GptGe._refusal`."""
MODERATION_WORDS = (*CONTENT_POLICY_WORDS, "blacklist")
"""Luma's own `failure_reason` speaks of blacklisted words."""

MODELS = {
    "luma": Capabilities(
        seconds=(),
        aspect_ratios=("1:1", "4:3", "3:4", "16:9", "9:16"),
        resolutions=(),
        parameters=frozenset({"first_frame", "last_frame", "loop", "expand_prompt"}),
        operations=frozenset({Operation.generate, Operation.extend}),
    )
}

STATUS = {
    **dict.fromkeys(("pending", "queued", "submitted", "not_start"), Status.queued),
    **dict.fromkeys(("processing", "dreaming", "in_progress", "running"), Status.in_progress),
    **dict.fromkeys(("completed", "succeeded", "success"), Status.completed),
    **dict.fromkeys(("failed", "failure", "error"), Status.failed),
}
"""`pending` is the vendor's; processing, completed and failed its siblings'; the rest Luma's and new-api's words."""

FILE_AT = (
    ("video", "url"),
    ("video", "download_url"),
    ("artifact", "video", "url"),
    ("artifact", "video", "download_url"),
    ("result", "video_url"),
    ("video_raw", "url"),
)
"""Where the address of the film was seen: the vendor's page, its siblings', and for `result` one client in the wild."""


class GptGe(Provider):
    kind = "gptge"
    title = "Luma via gpt.ge"
    models = MODELS
    poll_interval_s = 3

    class Config(ProviderConfig):
        api_key: SecretStr
        """A token from the console of gpt.ge."""
        base_url: str = "https://api.gpt.ge"

    config: Config

    async def submit(self, task: Task) -> Submission:
        path = "/luma/generations"
        if task.request.operation is Operation.extend:
            if task.source_ref is None:
                raise errors.UpstreamRejected(f"{self.name} can only extend a video it has made", provider=self.name)
            path = _path(task.source_ref, "/extend")
        response = await self.call("submit", "POST", path, json=await self._body(task))
        job = self.json("submit", response)
        ref = job.get("id")
        if not isinstance(ref, str) or not _is_sane(ref):
            raise self._refusal(response)
        raw = job.get("state")
        status = self._status(raw) if isinstance(raw, str) else Status.queued
        return Submission(
            ref=ref,
            status=Status.in_progress if status.ended else status,  # how it ended is for the first poll to say
            raw_status=self.scrub(raw[:100]) if isinstance(raw, str) else None,
        )

    async def poll(self, task: Task) -> Progress:
        response = await self.call("poll", "GET", _path(task.ref))
        job = self.json("poll", response)
        raw = job.get("state")
        if not isinstance(raw, str):
            raise self.unreadable("poll", "the answer carries no state", response)
        status = self._status(raw)
        url = _file_url(job) if status is Status.completed else None
        failure = None
        if status is Status.completed and url is None:
            status = Status.failed
            message = f"{self.name} reports the video as {self.scrub(raw[:100])} but names no file"
            failure = Failure(code="no_output", message=message)
        elif status is Status.failed:
            failure = self._failure(job, raw)
        return Progress(
            status=status,
            raw_status=self.scrub(raw[:100]),
            output=Output(url=url) if url else None,
            failure=failure,
        )

    async def _body(self, task: Task) -> dict[str, Any]:
        """Only what was given: the vendor's page names no defaults."""
        request = task.request
        body: dict[str, Any] = {
            "user_prompt": request.prompt,
            "expand_prompt": request.expand_prompt,
            "image_url": await self._picture(task, request.first_frame),
            "image_end_url": await self._picture(task, request.last_frame),
            "notify_hook": task.callback_url,
        }
        only_new = {"loop": request.loop, "aspect_ratio": request.aspect_ratio}
        if request.operation is Operation.generate:
            body |= only_new
        else:
            for name, value in only_new.items():
                if value is not None:
                    message = f"{name}: {self.name} has no such parameter where it extends a video"
                    raise errors.UpstreamRejected(message, provider=self.name)
        return {name: value for name, value in body.items() if value is not None}

    async def _picture(self, task: Task, picture: Media | None) -> str | None:
        """The caller's own address, or an upload as the whole `data:` URL that a client in the wild sends as well."""
        if picture is None:
            return None
        return picture.url or await task.data_url(picture)

    # Reading answers

    def _status(self, raw: str) -> Status:
        status = STATUS.get(raw[:100].lower())
        if status is None:
            log.warning("unknown upstream status, taken as still running", provider=self.name, status=raw[:100])
        return status or Status.in_progress

    def _failure(self, job: dict[str, Any], raw: str) -> Failure:
        said = job.get("failure_reason") or ""
        message = self.scrub(said if isinstance(said, str) else json.dumps(said))
        moderated = any(word in message.lower() for word in MODERATION_WORDS)
        return Failure(
            code=errors.ContentPolicy.default_code if moderated else errors.UpstreamFailed.default_code,
            message=message or f"{self.name} reports the video as {self.scrub(raw[:100])}",
        )

    def _refusal(self, response: httpx.Response) -> errors.UpstreamError:
        """What a 2xx without an id means. An error envelope there is documented nowhere, and most words of new-api
        may also follow on a task that its upstream took: nobody knows. The words in `REFUSED` are said before anything
        is handed on, and are trusted only for a verdict that ends the job: never for one that sends it again."""
        code, message = self.read_error(response)
        if code not in REFUSED:
            said = self.scrub(" ".join(filter(None, (code, message))))
            why = f"the answer carries no usable id: {said}" if said else "the answer carries no usable id"
            return self.unreadable("submit", why, response)
        kind = errors.ContentPolicy if code == "sensitive_words_detected" else errors.UpstreamRejected
        return kind(
            self.scrub(message) or f"{self.name} answered {code}",
            provider=self.name,
            upstream_status=response.status_code,
            body=self.scrub(response.text),
        )


def _path(ref: str | None, tail: str = "") -> str:
    """An upstream's id is its own invention: it must not leave its place in the path."""
    return f"/luma/generations/{quote(ref or '', safe='')}{tail}"


def _is_sane(ref: str) -> bool:
    storable = not any(c == "\0" or "\ud800" <= c <= "\udfff" for c in ref[: MAX_REF_CHARACTERS + 1])
    return 0 < len(ref) <= MAX_REF_CHARACTERS and ref not in (".", "..") and storable


def _file_url(job: dict[str, Any]) -> str | None:
    for place in FILE_AT:
        found: Any = job
        for name in place:
            found = found.get(name) if isinstance(found, dict) else None
        if isinstance(found, str) and found.startswith(("http://", "https://")):
            return found
    return None
