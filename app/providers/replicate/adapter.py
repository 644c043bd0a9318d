"""Replicate: models of many makers behind one API. Sources: replicate 1.0.7 and 2.0.0-beta.4 (Python), 1.4.0 (Node) and
@ai-sdk/replicate 3.0.46, recorded 2026-11-25 (`tests/recordings/replicate.json`), and the vendor's OpenAPI document and
pages on predictions, files and webhooks in public copies of 2026. Not tried live.

Quirks: an official model is part of the path, any other is named by the 64 hexadecimal digits of a version in the body;
the `input` follows the schema of the model (`inputs.py`). A `Prefer` header would hold the answer until the end. A
prediction that is stopped before it starts is `aborted`, and free; one that is stopped later is `canceled`, and
charged; where a model is billed by its time, up to then. Files are kept for an hour, and so is the input: a prediction
read later has neither. A create may be refused by 429 with the time to wait in its text only. There is no idempotency
key. Callbacks are signed by Standard Webhooks.
Inferred: that a `canceled` prediction of a model in the table costs as much as a whole one, since the vendor reports no
cost; that a 503 does not say that nothing was made.
"""

import re
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from pydantic import Field, SecretStr, field_validator

from app import errors
from app.capabilities import Capabilities, media_of
from app.providers.answers import is_usable, object_of, segment
from app.providers.base import ListedTask, ProviderConfig, Task, data_url_of
from app.providers.replicate import inputs, storage
from app.providers.rest import CANCELLED_WORDS, RestProvider
from app.providers.signatures import is_standard_webhook, usable_secret
from app.video import Failure, Media, Progress, Status, Submission, VideoRequest

STATUS = {
    **dict.fromkeys(("starting", "queued"), Status.queued),
    "processing": Status.in_progress,
    **dict.fromkeys(("succeeded", "successful"), Status.completed),
    **dict.fromkeys(("failed", *CANCELLED_WORDS), Status.failed),
}
FREE, CHARGED = "aborted", "canceled"
FILE_PATHS = (("output", "video"), ("output",))
VIDEO_NAME = re.compile(r"\.(?:mp4|webm|mov|mkv)(?:[?#]|$)", re.IGNORECASE)
PREDICTIONS = "/predictions"
VERSION = re.compile(r"[0-9a-f]{64}")
NAME = re.compile(r"(?!.*(?:^|/)\.{1,2}(?:/|$))([\w.\-]{1,100}/[\w.\-]{1,100})(?::([0-9a-f]{64}))?", re.ASCII)
"""Name of a model, which becomes a path, and a version of it."""
INLINE_BYTES = 1_000_000
"""Longest upload within a request, as the vendor recommends."""
CONTENT = re.compile(r"\bE005\b")
"""In the error of a prediction that the vendor's moderation has ended."""
RESETS = re.compile(r"resets in ~?(\d{1,5})s")
MAX_TIME_CHARACTERS = 40


class Replicate(RestProvider):
    """Accepts any model or version: one that is not in the table gets the prompt, and what the request passes on."""

    kind = "replicate"
    title = "Replicate"
    key_variables = ("REPLICATE_API_TOKEN",)
    key_page = "https://replicate.com/account/api-tokens"
    prices_read = date(2026, 11, 25)
    callbacks = True
    lists_tasks = True
    models = inputs.MODELS
    any_model = inputs.UNKNOWN
    poll_interval_s = 3
    poll_interval_max_s = 15

    class Config(ProviderConfig):
        api_key: SecretStr = Field(min_length=1)
        """`REPLICATE_API_TOKEN`, from replicate.com/account/api-tokens."""
        base_url: str = "https://api.replicate.com/v1"
        webhook_secret: SecretStr | None = None
        """The account's secret of webhooks, `whsec_...`. With it, callbacks without a valid signature are refused."""

        @field_validator("webhook_secret")
        @classmethod
        def _usable(cls, value: SecretStr | None) -> SecretStr | None:
            return usable_secret(value, prefixed=True)

    config: Config

    async def prepare(self, task: Task) -> tuple[str, dict[str, Any]]:
        """The path and the body of the submit; uploads are read for it, and long ones sent to the store."""
        urls: dict[str, list[str]] = {}
        for name, media in media_of(task.request).items():
            urls[name] = [await self._url(medium, task) for medium in media]
        path, version = _place(task.model)
        body: dict[str, Any] = {"input": inputs.input_of(task.model, task.request, urls)}
        body |= {"version": version} if version is not None else {}
        if task.callback_url is not None and task.callback_url.startswith("https://"):  # the vendor refuses others
            body |= {"webhook": task.callback_url, "webhook_events_filter": ["completed"]}
        return path, body

    async def submit(self, task: Task) -> Submission:
        path, body = task.prepared
        return self.accepted(STATUS, await self.submit_call(task, "POST", path, json=body))

    async def poll(self, task: Task) -> Progress:
        job = self.json("poll", await self.call("poll", "GET", self.poll_path(task)))
        error = job.get("error")
        status, raw = self.status_of(STATUS, job.get("status"), erred=bool(error))
        code = errors.ContentPolicy.default_code if CONTENT.search(str(error)) else None
        places = (*FILE_PATHS, *_videos(job.get("output")))
        found = self.learned(task, job, status, raw, first=places, error=error, code=code)
        if raw.lower() == CHARGED:
            cost = inputs.price_micros(task.model, task.request)
            return found.model_copy(update={"reported_micros": cost})
        return found

    def no_output(self, raw: str, job: dict[str, Any]) -> Failure:
        """The failure of a finished prediction without a file, which may have been deleted."""
        failure = super().no_output(raw, job)
        if job.get("data_removed") is not True:
            return failure
        message = f"{self.name} has deleted the video, which it keeps for an hour"
        return failure.model_copy(update={"message": message})

    def poll_path(self, task: Task) -> str:
        return f"{PREDICTIONS}/{segment(task.ref)}"

    async def cancel(self, task: Task) -> bool:
        if task.status is Status.in_progress and task.model in inputs.ROWS:  # charged either way: its end is waited for
            return False
        answer = await self.cancel_call("POST", f"{self.poll_path(task)}/cancel")
        # Predictions are never deleted: one that a poll has just found, and this call does not, may run on.
        return not isinstance(answer, bool) and object_of(answer).get("status") == FREE

    async def list_tasks(self, page: str | None) -> tuple[list[ListedTask], str | None]:
        query = f"?cursor={segment(page)}" if page is not None else ""
        response = await self.call("list", "GET", f"{PREDICTIONS}{query}")
        document = self.json("list", response)
        rows, following = document.get("results"), document.get("next")
        tasks, cursor = _listed(rows), _cursor(following)
        is_cut = bool(following) and cursor in (None, page)
        if not isinstance(rows, list) or len(tasks) < len(rows) or is_cut:
            # Read as it is, the list would show that there are no further tasks.
            raise self.unreadable("list", "the list of predictions cannot be read", response)
        return tasks, cursor

    def is_callback(self, headers: Mapping[str, str], body: bytes, *, secret: str, now: datetime) -> bool:
        own = self.config.webhook_secret
        return own is None or is_standard_webhook(own.get_secret_value(), headers, body, now)

    def capabilities(self, model: str) -> Capabilities | None:
        is_name = NAME.fullmatch(model) or VERSION.fullmatch(model)
        return super().capabilities(model) if is_name else None

    def capabilities_for(self, model: str, request: VideoRequest) -> Capabilities | None:
        return inputs.capabilities_for(model, request)

    # Writing requests

    async def _url(self, media: Media, task: Task) -> str:
        """The address of a medium, or an upload as a `data:` URL or an address in the vendor's store."""
        if media.url is not None:
            return media.url
        if media.video_id is not None:
            link = task.link(media)
            if link is None:
                message = f"{self.name} needs an address of the video to start from, and this gateway has none "
                raise errors.UpstreamRejected(message + "(GATEWAY_PUBLIC_URL)", provider=self.name)
            return link
        async with task.read(media) as upload:
            if upload.size <= INLINE_BYTES:
                return await data_url_of(upload, provider=self.name)
            return await storage.store(self, upload)

    # Reading errors

    def error_from(self, verb: str, response: httpx.Response) -> errors.UpstreamError:
        error = super().error_from(verb, response)
        words = RESETS.search(self.read_error(response)[1]) if response.status_code == 429 else None
        if words is None:
            return error
        return errors.UpstreamRateLimited(  # never the end of the credit, of which the text may speak, too
            f"{self.name} is busy (429)",
            provider=self.name,
            upstream_status=429,
            body=error.body,
            retry_after_s=float(words[1]) if error.retry_after_s is None else error.retry_after_s,
        )

    def _is_own_refusal(self, response: httpx.Response) -> bool:
        return False


def _place(model: str) -> tuple[str, str | None]:
    """The path at which a model is run, and the version for the body."""
    if VERSION.fullmatch(model):
        return PREDICTIONS, model
    match = NAME.fullmatch(model)
    if match is None:
        raise AssertionError("a name without capabilities is never planned")
    return (PREDICTIONS, match[2]) if match[2] else (f"/models/{match[1]}{PREDICTIONS}", None)


def _videos(output: Any) -> list[tuple[str, str]]:
    """Places of an output by names of the model's own: those whose address ends as that of a video."""
    entries = output.items() if isinstance(output, dict) else ()
    return [("output", name) for name, url in entries if isinstance(url, str) and VIDEO_NAME.search(url)]


def _cursor(following: Any) -> str | None:
    """The cursor in the address of the next page, of which nothing else is used."""
    if not isinstance(following, str):
        return None
    try:
        found = parse_qs(urlsplit(following).query).get("cursor", [])
    except ValueError:
        return None
    return found[0] if found and is_usable(found[0]) else None


def _listed(rows: Any) -> list[ListedTask]:
    """The predictions of a page that have a usable id and time."""
    found = []
    for row in rows if isinstance(rows, list) else []:
        ref, made = (row.get("id"), _time(row.get("created_at"))) if isinstance(row, dict) else (None, None)
        if is_usable(ref) and made is not None:
            found.append(ListedTask(ref, made, _word(row.get("model")), _word(row.get("status"))))
    return found


def _time(value: Any) -> datetime | None:
    """A time with its zone, from ISO 8601."""
    if not isinstance(value, str) or len(value) > MAX_TIME_CHARACTERS:
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def _word(value: Any) -> str | None:
    return value[:200].encode(errors="replace").decode() if isinstance(value, str) else None
