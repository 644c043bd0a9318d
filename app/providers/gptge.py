"""Luma through the reseller gpt.ge. Not tried live.

Wire: gpt.morphogen.top/en/video/luma/generate.html, query-single.html and expand.html, read 2026-11-21; inner fields
of an answer and all states but `pending` are from the pages of other resellers with the same adapter (v98store, kkiai,
xunxkj, yutoai). Quirks: images as a URL or as base64 within the JSON; there is no model field, no cancel and no list.
An extension takes neither `loop` nor `aspect_ratio`.
Not used, since only those other resellers document them: `duration`, `resolution` and `model_name`, so length and
resolution cannot be chosen here; `POST /luma/tasks` for several tasks at once. A remix is sent as an extension with
the new prompt, the closest operation.
Inferred: errors have the shape of new-api, the panel software of such resellers: `{"code", "message", "data"}` or
OpenAI's envelope. The body of a `notify_hook` call is documented nowhere, and is never read.
"""

from typing import Any

import httpx
from pydantic import Field, SecretStr

from app import errors
from app.capabilities import Capabilities
from app.providers.answers import segment
from app.providers.base import ProviderConfig, Task
from app.providers.rest import RestProvider
from app.video import Media, Operation, Progress, Status, Submission

PATH = "/luma/generations"

REFUSED = ("invalid_request", "sensitive_words_detected")
"""new-api's codes for requests that it refuses before it forwards them. See `GptGe.ref_of`."""

MODELS = {
    "luma": Capabilities(
        seconds=(),
        aspect_ratios=("1:1", "4:3", "3:4", "16:9", "9:16"),
        resolutions=(),
        parameters=frozenset({"first_frame", "last_frame", "loop", "expand_prompt"}),
        operations=frozenset({Operation.generate, Operation.extend, Operation.remix}),
    )
}

STATUS = {
    **dict.fromkeys(("pending", "queued", "submitted", "not_start"), Status.queued),
    **dict.fromkeys(("processing", "dreaming", "in_progress", "running"), Status.in_progress),
    **dict.fromkeys(("completed", "succeeded", "success"), Status.completed),
    **dict.fromkeys(("failed", "failure", "error"), Status.failed),
}
"""`pending` is the vendor's; processing, completed and failed are from the other resellers; the rest from Luma and
new-api."""

FILE_PATHS = (
    ("video", "url"),
    ("video", "download_url"),
    ("artifact", "video", "url"),
    ("artifact", "video", "download_url"),
    ("result", "video_url"),
    ("video_raw", "url"),
)
"""Paths to the file URL: from the pages of the vendor and of the other resellers; `result` from one public client."""


class GptGe(RestProvider):
    kind = "gptge"
    title = "Luma via gpt.ge"
    callbacks = True
    models = MODELS
    poll_interval_s = 3

    class Config(ProviderConfig):
        api_key: SecretStr = Field(min_length=1)
        """A token from the console of gpt.ge."""
        base_url: str = "https://api.gpt.ge"

    config: Config

    async def prepare(self, task: Task) -> dict[str, Any]:
        return await self._body(task)  # uploads are read for it

    async def submit(self, task: Task) -> Submission:
        path = PATH
        if task.request.operation is not Operation.generate:
            if task.source_ref is None:
                raise self.foreign_source()
            path = f"{PATH}/{segment(task.source_ref)}/extend"
        response = await self.submit_call(task, "POST", path, json=task.prepared)
        return self.accepted(STATUS, response, key="state")

    async def poll(self, task: Task) -> Progress:
        response = await self.call("poll", "GET", self.poll_path(task))
        job = self.json("poll", response)
        if not isinstance(job.get("state"), str):
            raise self.unreadable("poll", "the answer carries no state", response)
        status, raw = self.status_of(STATUS, job["state"])
        reason = job.get("failure_reason")
        blacklisted = "blacklist" in str(reason).lower()  # Luma's word for a prompt that it will not have
        return self.learned(
            task,
            job,
            status,
            raw,
            first=FILE_PATHS,
            error=reason,
            code=errors.ContentPolicy.default_code if blacklisted else None,
        )

    def poll_path(self, task: Task) -> str:
        return f"{PATH}/{segment(task.ref)}"

    async def _body(self, task: Task) -> dict[str, Any]:
        """The JSON body, with given fields only: the vendor documents no defaults."""
        request = task.request
        body: dict[str, Any] = {
            "user_prompt": request.prompt,
            "expand_prompt": request.expand_prompt,
            "image_url": await self._picture(task, request.first_frame),
            "image_end_url": await self._picture(task, request.last_frame),
            "notify_hook": task.callback_url,
        }
        if request.operation is Operation.generate:
            body |= {"loop": request.loop, "aspect_ratio": request.aspect_ratio}
        elif request.loop is not None:
            message = f"loop: {self.name} has no such parameter where it extends a video"
            raise errors.UpstreamRejected(message, provider=self.name)
        return {name: value for name, value in body.items() if value is not None}

    async def _picture(self, task: Task, picture: Media | None) -> str | None:
        """The caller's URL, or an upload as a `data:` URL, as one public client sends it."""
        if picture is None:
            return None
        return picture.url or await task.data_url(picture, provider=self.name)

    # Reading errors

    def ref_of(self, verb: str, document: dict[str, Any], response: httpx.Response) -> str:
        """The id of a 2xx answer. Raises the error that a 2xx without an id stands for.

        An error envelope in a 2xx is documented nowhere; with most codes of new-api the task may have been created.
        The codes in `REFUSED` come before the request is forwarded; they may end the job, but never resubmit it.
        """
        code, message = self.read_error(response)
        if document.get("id") is not None or code not in REFUSED:
            return super().ref_of(verb, document, response)
        kind = errors.ContentPolicy if code == "sensitive_words_detected" else errors.UpstreamRejected
        raise kind(
            self.scrub(message) or f"{self.name} answered {code}",
            provider=self.name,
            upstream_status=response.status_code,
            body=self.scrub(response.text),
        )
