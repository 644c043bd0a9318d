"""Kling by its own API 2.0 (`v2.py`), and by the older v1 (`v1.py`). Sources: the vendor's pages as mirrored in public
repositories on 2026-09-20, published notes of live runs by other clients, and for v1 @ai-sdk/klingai 4.0.31, recorded
on 2026-11-25 (`tests/recordings/kling.json`; its `v2_` cases were put together from those pages). Not tried live.

Quirks: the model is part of the path, and an unknown field is ignored without a word. `external_task_id` is unique in
an account: a repeat was seen refused (400, code 1201), which the vendor does not promise, and the task can be read by
it. So a create with unknown outcome is looked up and never sent again. Up to twenty tasks are read in one call; one
that the vendor does not list yet is missing from an answer of 200. At 429 the code tells a rate limit from an empty
account, and any code but 0 may come with HTTP 200. A text alone is flat, all else is a list `contents`; omni wants
`contents` and a ratio even then. Several shots are the default of two models. v1 takes a token of access key and secret
key, which 2.0 refuses, and reads a task below the path on which it was made. Files are kept for 30 days and need no
key. Callbacks are signed by Standard Webhooks once the account has a secret.
Inferred: that a task is listed a minute after its create; that `already` or `duplicate`, and `external` or the id
itself, are in the refusal of a repeat, whose wording is not published; that a link is taken for every picture, and
base64 without a prefix where there is none, on which sources disagree; that the list has the newest first; that 5001
with 503 comes before a task is made. Resellers of v1 say that an edit is as long as its source, and billed so.
"""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from typing import Any, Literal, Self

import httpx
from pydantic import Field, SecretStr, field_validator, model_validator

from app import errors
from app.capabilities import Capabilities
from app.providers.answers import secret_pattern, segment
from app.providers.base import OPEN, ListedTask, Outbound, ProviderConfig, Task
from app.providers.kling import v1, v2
from app.providers.kling.names import V1, V2
from app.providers.rest import RestProvider
from app.providers.signatures import is_standard_webhook, usable_secret
from app.video import Media, Progress, Status, Submission, VideoRequest

POLLS_AT_ONCE = 20
LISTED_AFTER_S = 60
LOOK_AGAIN_S = 15
LOOKED_FOR_S = 300
"""Time for which the task of a lost answer is looked for."""
PAGE_TASKS = 100
MAX_CURSOR_CHARACTERS = 1_000
STATUS = {
    **dict.fromkeys(("submitted", "pending", "queued"), Status.queued),
    **dict.fromkeys(("processing", "running"), Status.in_progress),
    **dict.fromkeys(("succeeded", "succeed"), Status.completed),
    "failed": Status.failed,
}
RISK = "risk control"
"""In the message of a task that the vendor's moderation has ended."""
INVALID = "1201"
REPEATED = ("already", "duplicate", "repeated")
"""Words of a refusal of a value that something has, by the code `INVALID`."""
NAME_OF_ID = "external"
"""In a refusal of the `external_task_id`, unless the id itself is."""
NOT_NOW = "5001"
"""Code of a 503 that came before a task was made."""
IN_CHINA = re.compile(r"https?://api-beijing\.klingai\.com(?:[:/]|$)")
REFUSALS = {
    **dict.fromkeys(("1000", "1001", "1002", "1003", "1004"), 401),
    **dict.fromkeys(("1100", "1101", "1102", "1302", "1303", "1304"), 429),
    "1103": 403,
    **dict.fromkeys(("1200", "1201", "1300", "1301"), 400),
    **dict.fromkeys(("1202", "1203"), 404),
}
"""Codes of certain refusals with the HTTP status that belongs to each, for answers of 200."""
TOKEN = re.compile(r"eyJ[\w\-]{8,}\.[\w\-]+\.[\w\-]+", re.ASCII)


class Kling(RestProvider):
    """Accepts any model name: one that is newer than the table is passed on."""

    kind = "kling"
    title = "Kling"
    key_variables = ("KLING_API_KEY",)
    key_page = "https://kling.ai/dev/api-key"
    prices_read = date(2026, 11, 25)
    callbacks = True
    lists_tasks = True
    models = v2.MODELS
    any_model = v2.ANYTHING
    poll_interval_s = 5
    poll_interval_max_s = 15

    class Config(ProviderConfig):
        api_key: SecretStr = Field(min_length=1)
        """From kling.ai/dev/api-key. Not needed with `ACCESS_KEY` and `SECRET_KEY`."""
        base_url: str = "https://api-singapore.klingai.com"
        api: Literal["2.0", "v1"] = "2.0"
        """Version of the API; `v1` is the older one."""
        access_key: SecretStr | None = None
        """With `SECRET_KEY` in place of an API key, for API `v1` only."""
        secret_key: SecretStr | None = None
        """Signs the tokens; it is never sent."""
        webhook_secret: SecretStr | None = None
        """The account's secret of callbacks, `whsec_...`. With it, callbacks without a valid signature are refused."""

        @field_validator("api", mode="before")
        @classmethod
        def _text(cls, value: Any) -> Any:
            return str(value) if isinstance(value, float) else value  # as TOML reads it without quotes

        @field_validator("webhook_secret")
        @classmethod
        def _usable(cls, value: SecretStr | None) -> SecretStr | None:
            return usable_secret(value, prefixed=True)

        @model_validator(mode="before")
        @classmethod
        def _pair_for_key(cls, values: Any) -> Any:
            pair = [values.get(name) for name in ("access_key", "secret_key")] if isinstance(values, dict) else []
            if not any(pair):
                return values
            if not all(pair) or values.get("api_key"):
                raise ValueError("expected either API_KEY, or ACCESS_KEY and SECRET_KEY together")
            texts = (one.get_secret_value() if isinstance(one, SecretStr) else str(one) for one in pair)
            return {**values, "api_key": ":".join(texts)}

        @model_validator(mode="after")
        def _pair_for_v1(self) -> Self:
            if self.access_key is not None and self.api != "v1":
                raise ValueError("ACCESS_KEY and SECRET_KEY are refused by API 2.0: set API_KEY, or API to v1")
            return self

    config: Config

    def __init__(self, name: str, config: ProviderConfig, outbound: Outbound = OPEN) -> None:
        super().__init__(name, config, outbound)
        self.polls_at_once = 1 if self._is_old else POLLS_AT_ONCE
        self._names = V1 if self._is_old else V2
        secrets = (self.config.api_key, self.config.access_key, self.config.secret_key)
        known = [secret_pattern(one.get_secret_value()).pattern for one in secrets if one is not None]
        self._secret_pattern = re.compile("|".join([*known, TOKEN.pattern]))

    async def prepare(self, task: Task) -> Submission | tuple[str, dict[str, Any]]:
        """The path and the body of the submit, for which uploads are read; for one in doubt, the task that it made."""
        if task.in_doubt:
            return await self._made(task)
        if self._is_old:
            return v1.path_of(task), await v1.body(task, lambda picture: self._picture(picture, task))
        refusal = v2.refusal(task)
        if refusal is not None:
            raise errors.UpstreamRejected(refusal, provider=self.name)
        body = await v2.body(task, lambda picture: self._picture(picture, task), lambda video: self._video(video, task))
        return f"{v2.path_of(task)}/{segment(task.model)}", body

    async def submit(self, task: Task) -> Submission:
        if isinstance(task.prepared, Submission):
            return task.prepared
        path, body = task.prepared
        try:
            return self._accepted(await self.submit_call(task, "POST", path, json=body))
        except errors.UpstreamRejected as error:
            first = await self._first(task, error)
            if first is None:
                raise
            return first

    async def poll(self, task: Task) -> Progress:
        response = await self.call("poll", "GET", self.poll_path(task))
        progress = self._progress(task, self._tasks(response))
        if isinstance(progress, errors.UpstreamError):
            raise progress
        return progress

    async def poll_many(self, tasks: Sequence[Task]) -> dict[str, Progress | errors.UpstreamError]:
        refs = ",".join(segment(task.ref) for task in tasks)
        found = self._tasks(await self.call("poll", "GET", f"{v2.TASKS}?task_ids={refs}"))
        return {task.id: self._progress(task, found) for task in tasks}

    def poll_path(self, task: Task) -> str:
        if self._is_old:
            return f"{v1.path_of(task)}/{segment(task.ref)}"
        return f"{v2.TASKS}?task_ids={segment(task.ref)}"

    async def list_tasks(self, page: str | None) -> tuple[list[ListedTask], str | None]:
        if self._is_old:
            raise errors.UpstreamRejected("API v1 has a list for each endpoint only", provider=self.name)
        asked: dict[str, Any] = {"limit": PAGE_TASKS, "filters": [{"key": "product_type", "values": ["video"]}]}
        response = await self.call("list", "POST", v2.TASKS, json=asked | ({"cursor": page} if page else {}))
        data = self._data("list", response)
        data = data if isinstance(data, dict) else {}
        cursor = data.get("next_cursor") if data.get("has_more") is True else None
        usable = isinstance(cursor, str) and 0 < len(cursor) <= MAX_CURSOR_CHARACTERS and cursor != page
        return v2.listed_tasks(data.get("result")), cursor if usable else None

    @property
    def looks_up(self) -> bool:
        return True  # see `prepare`

    def is_callback(self, headers: Mapping[str, str], body: bytes, *, secret: str, now: datetime) -> bool:
        own = self.config.webhook_secret
        return own is None or is_standard_webhook(own.get_secret_value(), headers, body, now)

    def capabilities(self, model: str) -> Capabilities | None:
        return self._in_region(v1.capabilities(model) if self._is_old else v2.capabilities(model))

    def capabilities_for(self, model: str, request: VideoRequest) -> Capabilities | None:
        narrowed = v1.capabilities_for(model, request) if self._is_old else v2.capabilities_for(model, request)
        return self._in_region(narrowed)

    @property
    def region(self) -> str:
        return "cn" if IN_CHINA.match(self.config.base_url) else "intl"

    @property
    def listed(self) -> tuple[str, ...]:
        known = v1.MODELS if self._is_old else v2.MODELS
        return self.config.models if self.config.models is not None else tuple(known)

    @property
    def auth(self) -> dict[str, str]:
        access, secret = self.config.access_key, self.config.secret_key
        if access is None or secret is None:
            return super().auth
        token = v1.token(access.get_secret_value(), secret.get_secret_value(), int(time.time()))
        return {"authorization": f"Bearer {token}"}

    @property
    def _is_old(self) -> bool:
        return self.config.api == "v1"

    def _in_region(self, able: Capabilities | None) -> Capabilities | None:
        """Capabilities with list prices only where they are those of the region."""
        if able is None or self.region == "intl":
            return able
        return able.model_copy(update={"prices": {}, "silent_prices": {}})

    # Writing requests

    async def _picture(self, media: Media, task: Task) -> str:
        if media.url is not None:
            return media.url
        link = task.link(media)
        if link is not None and link.startswith("https://"):
            return link
        return (await task.data_url(media, provider=self.name)).partition(",")[2]

    async def _video(self, media: Media, task: Task) -> str:
        if media.video_id is not None:
            return await self._source_url(task)
        link = task.link(media)
        if link is None:
            message = f"{self.name} takes videos by URL only; send an https:// URL or set GATEWAY_PUBLIC_URL"
            raise errors.UpstreamRejected(message, provider=self.name)
        return link

    async def _source_url(self, task: Task) -> str:
        """Address of a video of this gateway at the vendor, by a poll of the task that made it."""
        if task.source_ref is None:
            raise self.foreign_source()
        try:
            output = (await self.poll(replace(task, ref=task.source_ref, submitted_at=None))).output
        except errors.UpstreamGone:
            output = None
        if output is None or output.url is None:
            message = f"{self.name} no longer has the file of the video to start from"
            raise errors.UpstreamRejected(message, provider=self.name)
        return output.url

    # Reading answers

    def _data(self, verb: str, response: httpx.Response) -> Any:
        """The content of an answer. Raises the error that its code is, also with HTTP 200."""
        answer = self.json(verb, response)
        code = str(answer.get("code") or 0)
        if code == "0":
            return answer.get("data")
        status = REFUSALS.get(code)
        if status is None:
            raise self.unreadable(verb, f"the answer carries no task, and the code {self.scrub(code)[:50]}", response)
        error = self.error_from(verb, httpx.Response(status, headers=response.headers, content=response.content))
        error.upstream_status = response.status_code
        raise error

    def _tasks(self, response: httpx.Response) -> list[dict[str, Any]]:
        """The tasks in the answer to a poll: a list, or in v1 one."""
        data = self._data("poll", response)
        data = [data] if isinstance(data, dict) and self._is_old else data
        if not isinstance(data, list):
            raise self.unreadable("poll", "the answer is no list of tasks", response)
        return [task for task in data if isinstance(task, dict)]

    def _accepted(self, response: httpx.Response) -> Submission:
        """The task of an accepted submit. Raises the error of the answer's code, or of `unreadable`."""
        task = self.json("submit", response).get("data")
        task = task if isinstance(task, dict) else {}
        if not task.get(self._names.ref):
            self._data("submit", response)
        return self._submission(task, response)

    def _submission(self, task: dict[str, Any], response: httpx.Response) -> Submission:
        ref = self.ref_of("submit", {"id": task.get(self._names.ref)}, response)
        status, raw = self.status_of(STATUS, task.get(self._names.status))
        return Submission(ref=ref, status=Status.in_progress if status.ended else status, raw_status=raw)

    async def _find(self, task: Task) -> Submission | None:
        """The task that has the attempt's id at the vendor; None if it lists none."""
        name = segment(task.id)
        path = f"{v1.path_of(task)}/{name}" if self._is_old else f"{v2.TASKS}?external_task_ids={name}"
        try:
            response = await self.call("prepare", "GET", path)
            found = self._tasks(response)
        except errors.UpstreamGone:
            return None
        own = [one for one in found if self._names.own_id_of(one) == task.id]
        return self._submission(own[0], response) if own else None

    async def _made(self, task: Task) -> Submission:
        """The task of a submit whose answer was lost. Raises `UpstreamRateLimited` while it may not be listed yet,
        `UpstreamRejected` after that: then it is for the operator to decide."""
        found = await self._find(task)
        if found is not None:
            return found
        message = f"{self.name} lists no task of the submit whose answer was lost"
        if _age_s(task) < LOOKED_FOR_S:
            raise errors.UpstreamRateLimited(message, provider=self.name, retry_after_s=LOOK_AGAIN_S)
        raise errors.UpstreamRejected(message, provider=self.name)

    async def _first(self, task: Task, error: errors.UpstreamRejected) -> Submission | None:
        """The task because of which this submit was refused as a repeat; None if it was refused for another reason.
        Raises `UpstreamUnknown` if that task does not show: the id is ours alone, so it exists, and may not be listed
        yet."""
        said = error.message.lower()
        if not isinstance(error, Repeated) or not (NAME_OF_ID in said or task.id.lower() in said):
            return None
        message = f"{self.name} has a task of this id, and does not show it: {error.message}"
        hidden = errors.UpstreamUnknown(message, provider=self.name, body=error.body)
        try:
            found = await self._find(task)
        except errors.UpstreamError as failed:
            raise hidden from failed
        if found is None:
            raise hidden from error
        return found

    def _progress(self, task: Task, found: list[dict[str, Any]]) -> Progress | errors.UpstreamError:
        """Progress of one task of an answer; one that is missing just after its submit is not listed yet."""
        names = self._names
        job = next((one for one in found if one.get(names.ref) == task.ref), None)
        if job is None:
            if _age_s(task) < LISTED_AFTER_S:
                return Progress(status=Status.queued)
            return errors.UpstreamGone(f"{self.name} does not list the task", provider=self.name)
        status, raw = self.status_of(STATUS, job.get(names.status))
        message = job.get(names.message)
        is_risk = isinstance(message, str) and RISK in message.lower()
        code = errors.ContentPolicy.default_code if is_risk else None
        progress = self.learned(task, job, status, raw, first=names.files, error=message, code=code)
        output = progress.output
        if output is not None and output.inline is not None:
            above = ("data",) if self._is_old else ("data", 0)  # as `poll_path` answers
            output = output.model_copy(update={"inline": (*above, *output.inline)})
        return progress.model_copy(update={"output": output, "reported_micros": v2.charged_micros(job)})

    # Reading errors

    def error_from(self, verb: str, response: httpx.Response) -> errors.UpstreamError:
        error = super().error_from(verb, response)
        code, message = self.read_error(response)
        if code not in REFUSALS or not 400 <= response.status_code < 500:
            return error
        verdict = self._verdict(code, self.scrub(message))
        if verdict is None:
            return error
        kind, text = verdict
        return kind(
            text,
            provider=self.name,
            upstream_status=response.status_code,
            body=error.body,
            retry_after_s=error.retry_after_s,
        )

    def _verdict(self, code: str, text: str) -> tuple[type[errors.UpstreamError], str] | None:
        """The error that a code is where the status misleads, or says less."""
        match code:
            case "1000" | "1001" | "1002":
                hint = "" if self._is_old else "; API 2.0 takes an API key, not an access key"
                return errors.UpstreamAccount, f"{self.name} refuses the gateway's credentials ({code}){hint}"
            case "1003" | "1004":
                return errors.UpstreamAccount, f"{self.name} refuses the token's time ({code}); compare the clocks"
            case "1100" | "1103" | "1304":
                return errors.UpstreamAccount, f"{self.name} refuses the gateway's account ({code}): {text}"
            case "1101" | "1102":
                return errors.UpstreamCredit, f"the gateway's account at {self.name} has no credit left"
            case "1300" | "1301":
                return errors.ContentPolicy, text
            case "1302" | "1303":
                return errors.UpstreamRateLimited, f"{self.name} is busy ({code})"
            case _ if code == INVALID and any(word in text.lower() for word in REPEATED):
                return Repeated, text
        return None

    def _is_own_refusal(self, response: httpx.Response) -> bool:
        return self.read_error(response)[0] == NOT_NOW


class Repeated(errors.UpstreamRejected):
    """A refusal of a value that something has already: perhaps of the attempt's id."""


def _age_s(task: Task) -> float:
    """Seconds since the submit; infinite if it is not known."""
    return (task.now - task.submitted_at).total_seconds() if task.submitted_at is not None else float("inf")
