"""Lunos. Docs: https://lunos.tech/docs/generative/video and `@lunos/client` 1.5.0 on npm; read 2026-11-21.

Not tried live. Quirks: text only, one model, no parameter for length or resolution. Ids contain colons, which stay
unescaped in the path (`video-op:user:1703123456789`). Errors are `{"error": "text"}`. There is no call to list, cancel
or download: the file is at `video_url`. `user`, `processing`, `failed` and the `error` of a failed job are known from
the client only.
Documented: 500 on a create is "could not start", so a 500 in that envelope is a refusal (docs/decisions/0004).
Inferred: that a bare "Internal Server Error" is no such refusal: the handler may have failed at any point; that success
is any 2xx; the status words besides the client's four.
"""

from typing import Any

import httpx
from pydantic import Field, SecretStr, field_validator

from app import errors
from app.capabilities import Capabilities
from app.providers.answers import segment
from app.providers.base import ProviderConfig, Task
from app.providers.rest import CANCELLED_WORDS, RestProvider
from app.video import Progress, Status, Submission

PATH = "/v1/video/generations"

MODELS = {
    "google/veo-3.0-generate-preview": Capabilities(
        seconds=(),
        aspect_ratios=("16:9",),
        resolutions=(),
        parameters=frozenset({"negative_prompt"}),
        media=frozenset(),
    )
}

STATUS = {
    **dict.fromkeys(("pending", "queued"), Status.queued),
    **dict.fromkeys(("processing", "running", "in_progress"), Status.in_progress),
    **dict.fromkeys(("completed", "complete", "succeeded", "success"), Status.completed),
    **dict.fromkeys(("failed", "error", "expired", *CANCELLED_WORDS), Status.failed),
}

FILE_PATHS = (("video_url",),)
CRASHED = ("internal server error", "internal error", "unknown error", "")
"""Messages of web frameworks for an unhandled exception; they do not prove that no task was started."""


class Lunos(RestProvider):
    kind = "lunos"
    title = "Lunos"
    key_page = "https://lunos.tech/dashboard/api-keys"
    models = MODELS
    poll_interval_s = 10
    poll_interval_max_s = 30

    class Config(ProviderConfig):
        api_key: SecretStr = Field(min_length=1)
        """From the Lunos dashboard."""
        base_url: str = "https://api.lunos.tech"
        """The origin without a path; a trailing /v1 is removed."""
        app_id: str | None = Field(None, pattern=r"^[!-~]+$")
        """Sent as `X-App-ID`, by which Lunos separates the usage of several applications."""

        @field_validator("base_url")
        @classmethod
        def _origin(cls, value: str) -> str:
            return value.removesuffix("/v1").rstrip("/")

    config: Config

    async def submit(self, task: Task) -> Submission:
        headers = {"x-app-id": self.config.app_id} if self.config.app_id else {}
        return self.accepted(STATUS, await self.submit_call(task, "POST", PATH, json=_body(task), headers=headers))

    async def poll(self, task: Task) -> Progress:
        job = self.json("poll", await self.call("poll", "GET", self.poll_path(task)))
        error = job.get("error")
        status, raw = self.status_of(STATUS, job.get("status"), erred=bool(error))
        message = error.get("message") or error if isinstance(error, dict) else error
        return self.learned(task, job, status, raw, first=FILE_PATHS, error=message)

    def poll_path(self, task: Task) -> str:
        return f"{PATH}/{segment(task.ref, safe=':')}"

    # Reading errors

    def error_from(self, verb: str, response: httpx.Response) -> errors.UpstreamError:
        error = super().error_from(verb, response)
        if verb == "submit" and response.status_code == 500 and _is_documented_refusal(response):
            return errors.UpstreamUnavailable(
                error.message,
                provider=self.name,
                upstream_status=500,
                body=error.body,
                retry_after_s=error.retry_after_s,
            )
        return error


def _body(task: Task) -> dict[str, Any]:
    request = task.request
    parameters = {"aspectRatio": request.aspect_ratio, "negativePrompt": request.negative_prompt}
    body: dict[str, Any] = {
        "model": task.model,
        "prompt": request.prompt,
        # May be empty: the vendor's own client sends an empty object, too.
        "parameters": {name: value for name, value in parameters.items() if value is not None},
        "response_format": "mp4",
    }
    return body | {"user": request.user} if request.user is not None else body


def _is_documented_refusal(response: httpx.Response) -> bool:
    """True for the documented `{"error": "text"}` with a specific text."""
    try:
        document = response.json()
    except (ValueError, RecursionError):
        return False
    if not isinstance(document, dict) or set(document) != {"error"} or not isinstance(document["error"], str):
        return False
    return document["error"].strip(" .!").lower() not in CRASHED
