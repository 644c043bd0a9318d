"""Lumenfall. Docs: https://docs.lumenfall.ai/api-reference (videos, errors, webhooks, openai-compatibility) and the
vendor's https://github.com/lumenfall-ai/agent-skill; read 2026-11-21. Not tried live.

Quirks: OpenAI's wire with additions. `idempotency_key` is a field of the body: the same key returns the existing video,
with 200 instead of 202, so a create with unknown outcome is sent again. DELETE cancels a running task; one public
client accepts 204, and treats 404 as ended. Files are kept on media.lumenfall.ai for about an hour and need no key. The
`metadata` of answers is the vendor's own (provider, cost); only the cost is read, where it is a number. A reference
video is `input_video`, a URL (model pages, read 2026-11-25). Unlisted fields go to the vendor of the model: a last
frame is sent so, under that vendor's name for it. `webhook_url` must be https on port 443 or 8443 and not a bare IP
address, else the create is refused: any other is not sent.
Inferred: that ALL_PROVIDERS_EXHAUSTED ("all available providers failed to process your request") means that no task
was created, while after UPSTREAM_ERROR with a 5xx one may exist; `seed`, `generate_audio`, `loop` and `expand_prompt`
under these names, as fields that are passed on; an uploaded video as a `data:` URL where this gateway has no public
address; codes on failed jobs; the status words besides the four documented;
that a DELETE answered with a job that has not failed has not stopped it.
"""

from collections.abc import Mapping
from datetime import datetime
from ipaddress import ip_address
from typing import Any

import httpx
from pydantic import Field, SecretStr, field_validator

from app import errors
from app.capabilities import Capabilities
from app.providers.answers import object_of, segment
from app.providers.base import ProviderConfig, Task
from app.providers.rest import CANCELLED_WORDS, RestProvider
from app.providers.signatures import is_standard_webhook, usable_secret
from app.video import Progress, Status, Submission

WEBHOOK_PORTS = (None, 443, 8443)
INNER_NAMES = (".localhost", ".local", ".internal")
PLAIN = ("negative_prompt", "seed", "generate_audio", "loop", "expand_prompt", "user")

ANYTHING = Capabilities(
    parameters=frozenset({"first_frame", "reference_images", "reference_video", *PLAIN} - {"user"}),
    passes_extra=True,
)

STATUS = {
    **dict.fromkeys(("queued", "pending"), Status.queued),
    **dict.fromkeys(("in_progress", "processing", "running"), Status.in_progress),
    **dict.fromkeys(("completed", "succeeded"), Status.completed),
    **dict.fromkeys(("failed", "error", "expired", *CANCELLED_WORDS), Status.failed),
}

FILE_PATHS = (("output", "url"), ("output",), ("data", "url"), ("data",))
"""Paths to the file URL: the first is documented, in the others public clients look for it."""

FAILED_CODES = {
    "CONTENT_POLICY_VIOLATION": errors.ContentPolicy.default_code,
    "ALL_PROVIDERS_EXHAUSTED": None,
    "UPSTREAM_ERROR": None,
}
"""Error codes of failed jobs, mapped to those of the gateway; None: the generic code of a failed task."""


class Lumenfall(RestProvider):
    """Accepts any model name: the setting `models` only selects those that are listed."""

    kind = "lumenfall"
    title = "Lumenfall"
    key_variables = ("LUMENFALL_API_KEY",)
    key_page = "https://lumenfall.ai/app"
    callbacks = True
    any_model = ANYTHING
    poll_interval_s = 3
    poll_interval_max_s = 30
    cost_place = ("metadata", "cost")

    class Config(ProviderConfig):
        api_key: SecretStr = Field(min_length=1)
        """From the Lumenfall dashboard, `lmnfl_...`."""
        base_url: str = "https://api.lumenfall.ai/openai/v1"
        webhook_secret: SecretStr | None = None
        """The organisation's signing secret, `whsec_...` (`GET /v1/webhooks/secret` there). With it, callbacks without
        a valid signature are refused."""

        @field_validator("webhook_secret")
        @classmethod
        def _usable(cls, value: SecretStr | None) -> SecretStr | None:
            return usable_secret(value)

    config: Config

    async def prepare(self, task: Task) -> dict[str, Any]:
        return await self._body(task)  # uploads are read for it

    async def submit(self, task: Task) -> Submission:
        return self.accepted(STATUS, await self.submit_call(task, "POST", "/videos", json=task.prepared))

    async def poll(self, task: Task) -> Progress:
        job = self.json("poll", await self.call("poll", "GET", self.poll_path(task)))
        error = job.get("error")
        status, raw = self.status_of(STATUS, job.get("status"), erred=bool(error))
        details = error if isinstance(error, dict) else {"message": error}
        code = details.get("code")
        code = FAILED_CODES.get(code, code.lower()) if code and isinstance(code, str) else None
        return self.learned(task, job, status, raw, first=FILE_PATHS, error=details.get("message"), code=code)

    def poll_path(self, task: Task) -> str:
        return f"/videos/{segment(task.ref)}"

    async def cancel(self, task: Task) -> bool:
        answer = await self.cancel_call("DELETE", f"/videos/{segment(task.ref)}")
        if isinstance(answer, bool):
            return answer
        word = object_of(answer).get("status")
        return word is None or STATUS.get(str(word)) is Status.failed

    @property
    def can_resubmit(self) -> bool:
        return True

    def is_callback(self, headers: Mapping[str, str], body: bytes, *, secret: str, now: datetime) -> bool:
        own = self.config.webhook_secret
        return own is None or is_standard_webhook(own.get_secret_value(), headers, body, now)

    # Writing requests

    async def _body(self, task: Task) -> dict[str, Any]:
        request = task.request
        body: dict[str, Any] = {"model": task.model, "prompt": request.prompt}
        if request.seconds is not None:
            body["seconds"] = f"{request.seconds:g}"
        if request.size is not None:
            body["size"] = request.size
        else:
            body |= {"aspect_ratio": request.aspect_ratio, "resolution": request.resolution}
        images = [image for image in (request.first_frame, *request.reference_images) if image is not None]
        addresses = [image.url or await task.data_url(image, provider=self.name) for image in images]
        references = [{"image_url": address} for address in addresses]
        body["input_reference"] = references if len(references) > 1 else next(iter(references), None)
        if (video := request.reference_video) is not None:
            body["input_video"] = task.link(video) or await task.data_url(video, provider=self.name)
        body |= {name: getattr(request, name) for name in PLAIN}
        body["metadata"] = request.metadata or None
        body["idempotency_key"] = task.id
        body["webhook_url"] = task.callback_url if _is_webhook_allowed(task.callback_url) else None
        given = {name: value for name, value in body.items() if value is not None}
        return given | {name: value for name, value in request.extra.items() if name not in (*given, "n")}

    # Reading errors

    def error_from(self, verb: str, response: httpx.Response) -> errors.UpstreamError:
        error = super().error_from(verb, response)
        if isinstance(error, errors.UpstreamUnknown) and self.read_error(response)[0] == "ALL_PROVIDERS_EXHAUSTED":
            return errors.UpstreamUnavailable(
                error.message,
                provider=self.name,
                upstream_status=error.upstream_status,
                body=error.body,
                retry_after_s=error.retry_after_s,
            )
        return error


def _is_webhook_allowed(url: str | None) -> bool:
    """True if the URL satisfies the vendor's rules for `webhook_url`."""
    if url is None:
        return False
    address = httpx.URL(url)
    try:
        ip_address(address.host)
    except ValueError:
        named = "." in address.host and not address.host.endswith(INNER_NAMES)
        return address.scheme == "https" and address.port in WEBHOOK_PORTS and named
    return False
