"""Lumen. Docs: https://lumen-ai.uk/api-docs/video, read 2026-11-21. Not tried live.

Quirks: images and videos by URL only. The vendor silently ignores parameters that a model cannot use. There is no
cancel call; failed tasks are refunded. A `webhook_url` needs a `webhook_secret`; both are sent only if this gateway has
a public address, and a call to it only means "poll now". Of each pair of names for a medium (`image_url` or
`first_frame_url`, ...) the first is sent. 404 on a create means a model or length that the account's group does not
have.
Inferred: that the API answers at the site's own address (the samples on that page name the host lumen.mengfanlab.top);
an upper limit of the length (only "at least 4" is documented); ratios; the envelope of HTTP errors (OpenAI's) and their
wording for blocked content; the status words besides the five documented.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import httpx
from pydantic import Field, SecretStr, field_validator

from app import errors
from app.capabilities import Capabilities
from app.providers.answers import segment
from app.providers.base import ProviderConfig, Task
from app.providers.rest import CANCELLED_WORDS, RestProvider
from app.providers.signatures import is_hex_digest
from app.video import MAX_SECONDS, Media, Progress, Status, Submission

PATH = "/v1/videos/generations"

ANYTHING = Capabilities(
    seconds=(4, MAX_SECONDS),
    seconds_range=True,
    default_seconds=5,
    default_size="1280x720",
    resolutions=("480p", "720p", "1080p"),
    parameters=frozenset({"first_frame", "last_frame", "reference_images", "reference_video", "generate_audio"}),
    media=frozenset({"url"}),
)
MODELS = {"seedance-2": ANYTHING, "seedance-2-fast": ANYTHING, "veo-3-1": ANYTHING}

STATUS = {
    **dict.fromkeys(("queued", "pending", "submitted"), Status.queued),
    **dict.fromkeys(("processing", "running", "in_progress"), Status.in_progress),
    **dict.fromkeys(("succeeded", "success", "completed"), Status.completed),
    **dict.fromkeys(("failed", "error", "expired", *CANCELLED_WORDS), Status.failed),
}

FILE_PATHS = (("data", "url"),)
BLOCKED_WORDS = ("content blocked", "content is blocked", "content was blocked", "blocked content")


class Lumen(RestProvider):
    """Accepts any model name: the available models depend on the account's group."""

    kind = "lumen"
    title = "Lumen"
    callbacks = True
    models = MODELS
    any_model = ANYTHING
    poll_interval_s = 5
    poll_interval_max_s = 20

    class Config(ProviderConfig):
        api_key: SecretStr = Field(min_length=1)
        """From the Lumen console, `sk-lumen-...`."""
        base_url: str = "https://lumen.mengfanlab.top"
        """The address in every sample of the vendor's page. A trailing /v1 is removed."""

        @field_validator("base_url")
        @classmethod
        def _origin(cls, value: str) -> str:
            return value.removesuffix("/v1").rstrip("/")

    config: Config

    async def submit(self, task: Task) -> Submission:
        return self.accepted(STATUS, await self.submit_call(task, "POST", PATH, json=self._body(task)))

    async def poll(self, task: Task) -> Progress:
        job = self.json("poll", await self.call("poll", "GET", self.poll_path(task)))
        error = job.get("error")
        status, raw = self.status_of(STATUS, job.get("status"), erred=bool(error))
        message = error.get("message") or error if isinstance(error, dict) else error
        code = errors.ContentPolicy.default_code if _is_blocked(message) else None
        return self.learned(task, job, status, raw, first=FILE_PATHS, error=message, code=code)

    def poll_path(self, task: Task) -> str:
        return f"{PATH}/{segment(task.ref)}"

    def is_callback(self, headers: Mapping[str, str], body: bytes, *, secret: str, now: datetime) -> bool:
        return is_hex_digest(secret, headers.get("x-lumen-signature", ""), body)

    # Writing requests

    def _body(self, task: Task) -> dict[str, Any]:
        request = task.request
        body = {
            "model": task.model,
            "prompt": request.prompt,
            "duration": int(request.seconds) if request.seconds is not None else None,
            "resolution": request.resolution,
            "aspect_ratio": request.aspect_ratio,
            "generate_audio": request.generate_audio,
            "image_url": self._link(task, request.first_frame),
            "last_image_url": self._link(task, request.last_frame),
            "reference_image_urls": [self._link(task, image) for image in request.reference_images] or None,
            "reference_video_url": self._link(task, request.reference_video),
        }
        if task.callback_url and task.callback_secret:
            body |= {"webhook_url": task.callback_url, "webhook_secret": task.callback_secret}
        return {name: value for name, value in body.items() if value is not None}

    def _link(self, task: Task, media: Media | None) -> str | None:
        if media is None:
            return None
        url = task.link(media)
        if url is None:
            raise errors.UpstreamRejected(
                f"{self.name} takes media by URL only; send an https:// URL or set GATEWAY_PUBLIC_URL",
                provider=self.name,
            )
        return url

    # Reading errors

    def error_from(self, verb: str, response: httpx.Response) -> errors.UpstreamError:
        error = super().error_from(verb, response)
        if response.status_code == 400 and _is_blocked(error.message):
            return errors.ContentPolicy(error.message, provider=self.name, upstream_status=400, body=error.body)
        return error


def _is_blocked(message: Any) -> bool:
    return isinstance(message, str) and any(words in message.lower() for words in BLOCKED_WORDS)
