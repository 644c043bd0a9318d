"""Google's Gemini API: Omni by its Interactions (`omni.py`), Veo by `predictLongRunning` (`veo.py`). Sources:
google-genai 2.34.0 (the last one with Veo), 3.4.0 and 3.6.1, @google/genai 3.3.0 and @ai-sdk/google 4.0.121, recorded
on 2026-11-25 (`tests/recordings/google.json`), and the vendor's pages as of 2026-11-21. Not tried live.

Quirks: the model's name decides on the API, and so does a task's id: that of an operation is a path. Veo takes uploads
only, within the request, and 8 seconds are the only length with references, a last frame, 1080p or 4k. A file is
fetched with the key, for two days; one of Omni may have to be processed first, and may come within the answer although
its address was asked for. A filtered video is an end without a file. Errors hide the time to wait in `details`, and a
403 is also the answer for a file that has expired. Callbacks only mean "poll now"; their signature is not checked.
Inferred: that an extension by Veo is asked for as 8 s of 720p, whatever it adds, and that Veo takes a seed, which one
of Google's clients refuses and another one sends; that Omni makes 8 s where the request has no length, reads any https
address, of the type of its suffix, and delivers by address at this host; that an interaction that a cancel has stopped
is not charged; that a quota by the day, FAILED_PRECONDITION and depleted credits at a submit are matters of the
account; that "support code" in the message of a failure means a filter.
"""

import re
from dataclasses import replace
from datetime import date
from typing import Any

import httpx
from pydantic import Field, SecretStr

from app import errors
from app.capabilities import Capabilities
from app.providers.answers import file_url, object_of, segment
from app.providers.base import ProviderConfig, Task
from app.providers.gemini import omni, veo
from app.providers.rest import CANCELLED_WORDS, RestProvider
from app.video import Failure, Media, Output, Progress, Status, Submission, VideoRequest

FILE = re.compile(r"(?P<file>/v\w+/files/[\w\-]+)(?::download)?", re.ASCII)
"""Path of a file of the Files API, or of its bytes."""
RETRY_DELAY = re.compile(r"(\d{1,5}(?:\.\d{1,9})?)s", re.ASCII)
MODELS = {**omni.MODELS, **veo.MODELS}
DAILY = "PerDay"
DEPLETED = "credits are depleted"
MISSING_FILE = "may not exist"
Verdict = tuple[type[errors.UpstreamError], str]


class Gemini(RestProvider):
    """Accepts any model name: `veo-...` is one of Veo, any other one of Omni."""

    kind = "gemini"
    title = "Google Gemini API"
    key_variables = ("GEMINI_API_KEY", "GOOGLE_API_KEY")
    key_page = "https://aistudio.google.com/apikey"
    prices_read = date(2026, 11, 25)
    callbacks = True
    models = MODELS
    any_model = omni.ANYTHING
    poll_interval_s = 5
    poll_interval_max_s = 15

    class Config(ProviderConfig):
        api_key: SecretStr = Field(min_length=1)
        """From Google AI Studio."""
        base_url: str = "https://generativelanguage.googleapis.com"
        api_version: str | None = Field(None, pattern=r"^v\w{1,20}$")
        """Version of both APIs; unset: v1 for Omni, v1beta for Veo."""

    config: Config

    async def prepare(self, task: Task) -> dict[str, Any]:
        refusal = None if veo.serves(task.model) else omni.refusal(task.request)
        if refusal is not None:
            raise errors.UpstreamRejected(refusal, provider=self.name)
        uri = await self._source_uri(task)
        body = veo.body if veo.serves(task.model) else omni.body

        async def blob(media: Media) -> tuple[str, str]:
            return await self._blob(media, task)

        return await body(task, blob, uri)

    async def submit(self, task: Task) -> Submission:
        if not veo.serves(task.model):
            path = f"/{self._omni_version}/interactions"
            return self.accepted(omni.STATUS, await self.submit_call(task, "POST", path, json=task.prepared))
        path = f"/{self._veo_version}/models/{segment(task.model)}:predictLongRunning"
        response = await self.submit_call(task, "POST", path, json=task.prepared)
        ref = self.ref_of("submit", {"id": self.json("submit", response).get("name")}, response)
        return Submission(ref=ref, status=Status.in_progress, raw_status=veo.RUNNING)

    async def poll(self, task: Task) -> Progress:
        answer = self.json("poll", await self.call("poll", "GET", self.poll_path(task)))
        return self._operation(task, answer) if _is_veo(task) else await self._interaction(answer)

    def poll_path(self, task: Task) -> str:
        if not _is_veo(task):
            return f"{self._interaction_path(task)}?stream=false"
        name = segment(task.ref, safe="/" if veo.OPERATION.fullmatch(task.ref or "") else "")
        return f"/{self._veo_version}/{name}"

    async def cancel(self, task: Task) -> bool:
        if _is_veo(task):
            return False
        answer = await self.cancel_call("POST", f"{self._interaction_path(task)}/cancel")
        return answer if isinstance(answer, bool) else object_of(answer).get("status") in CANCELLED_WORDS

    def capabilities(self, model: str) -> Capabilities | None:
        return self.models.get(model, veo.ANYTHING if veo.serves(model) else omni.ANYTHING)

    def capabilities_for(self, model: str, request: VideoRequest) -> Capabilities | None:
        capabilities_for = veo.capabilities_for if veo.serves(model) else omni.capabilities_for
        return capabilities_for(model, request)

    @property
    def auth(self) -> dict[str, str]:
        return {"x-goog-api-key": self._secret} if self._secret else {}

    @property
    def _omni_version(self) -> str:
        return self.config.api_version or "v1"

    @property
    def _veo_version(self) -> str:
        return self.config.api_version or "v1beta"

    def _interaction_path(self, task: Task) -> str:
        return f"/{self._omni_version}/interactions/{segment(task.ref)}"

    # Writing requests

    async def _blob(self, media: Media, task: Task) -> tuple[str, str]:
        """Content type and base64 of an upload."""
        if media.video_id is not None:
            raise self.foreign_source()
        if media.key is None:
            message = f"{self.name} takes the file itself only, not an address"
            raise errors.UpstreamRejected(message, provider=self.name)
        head, _, content = (await task.data_url(media, provider=self.name)).partition(",")
        return head.removeprefix("data:").removesuffix(";base64"), content

    async def _source_uri(self, task: Task) -> str | None:
        """Address of the source at the vendor, by a poll of the task that made it; None if its id or its bytes are
        sent."""
        made_by = task.source_ref
        if made_by is None or not (veo.serves(task.model) or veo.OPERATION.fullmatch(made_by)):
            return None
        try:
            progress = await self.poll(replace(task, model="", ref=made_by))
        except errors.UpstreamGone as error:
            raise self._no_source() from error
        if progress.output is None or progress.output.url is None:
            raise self._no_source()
        return progress.output.url

    def _no_source(self) -> errors.UpstreamRejected:
        message = f"{self.name} no longer has the file of the video to start from"
        return errors.UpstreamRejected(message, provider=self.name)

    # Reading answers

    def _operation(self, task: Task, operation: dict[str, Any]) -> Progress:
        status, raw = veo.state(operation)
        message, code = veo.failure(operation)
        progress = self.learned(task, operation, status, raw, first=veo.FILE_PATHS, error=message, code=code)
        if progress.output is None or progress.output.url is None:
            return progress
        output = Output(url=self._content_url(progress.output.url), authenticated=True)
        return progress.model_copy(update={"output": output})

    async def _interaction(self, interaction: dict[str, Any]) -> Progress:
        message, blocked = omni.failure(interaction)
        status, raw = self.status_of(omni.STATUS, interaction.get("status"), erred=message is not None)
        if status is Status.failed:
            code = errors.ContentPolicy.default_code if blocked else None
            return Progress(status=status, raw_status=raw, failure=self.failure(raw, message, code=code))
        if status is not Status.completed:
            return Progress(status=status, raw_status=raw)
        found = omni.video_of(interaction)
        if found is None:
            words = omni.text_of(interaction) or f"{self.name} reports the video as {raw}, but a filter kept it back"
            failure = self.failure(raw, words, code=errors.ContentPolicy.default_code)
            return _failed(raw, failure.model_copy(update={"body": self.kept(interaction)}))
        path, video = found
        if video.get("data") and isinstance(video["data"], str):
            return Progress(status=status, raw_status=raw, output=Output(inline=(*path, "data")))
        url = file_url(video.get("uri"))
        return await self._file(url, raw) if url is not None else _failed(raw, self.no_output(raw, interaction))

    async def _file(self, url: str, raw: str) -> Progress:
        """The end of an interaction whose file has an address: the Files API may still process it, or have failed."""
        named = FILE.fullmatch(httpx.URL(url).path)
        if named is not None:
            file = self.json("poll", await self.call("poll", "GET", named["file"]))
            if file.get("state") == "PROCESSING":
                return Progress(status=Status.in_progress, raw_status="PROCESSING")
            if file.get("state") == "FAILED":
                error = file.get("error")
                return _failed(raw, self.failure("failed", error.get("message") if isinstance(error, dict) else error))
        output = Output(url=self._content_url(url), authenticated=True)
        return Progress(status=Status.completed, raw_status=raw, output=output)

    def _content_url(self, url: str) -> str:
        """The address of a file's bytes: of the Files API at the configured base URL, which may be a proxy's."""
        named = FILE.fullmatch(httpx.URL(url).path)
        return url if named is None else f"{self.config.base_url}{named['file']}:download?alt=media"

    # Reading errors

    def _is_own_refusal(self, response: httpx.Response) -> bool:
        return False  # every error is JSON, and UNAVAILABLE does not say that nothing was begun

    def error_from(self, verb: str, response: httpx.Response) -> errors.UpstreamError:
        error = super().error_from(verb, response)
        fault = object_of(response).get("error")
        if not isinstance(fault, dict):
            return error
        entries = fault.get("details")
        entries = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
        waits = [match for entry in entries if (match := RETRY_DELAY.fullmatch(str(entry.get("retryDelay"))))]
        error.retry_after_s = min(float(waits[0][1]), 86_400) if waits else error.retry_after_s
        verdict = self._verdict(verb, response.status_code, fault, entries)
        if verdict is None:
            return error
        kind, message = verdict
        return kind(
            message,
            provider=self.name,
            upstream_status=response.status_code,
            body=error.body,
            retry_after_s=error.retry_after_s,
        )

    def _verdict(self, verb: str, status: int, fault: dict[str, Any], entries: list[dict[str, Any]]) -> Verdict | None:
        """The error that a fault is where the status alone misleads."""
        text = self.scrub(str(fault.get("message") or ""))
        if status == 429:  # the words for it name "billing details" whatever the limit
            if DEPLETED in text.lower():
                return errors.UpstreamCredit, f"the gateway's account at {self.name} has no credit left"
            quota = _daily_quota(entries)
            if quota is not None:
                return errors.UpstreamAccount, f"{self.name} has reached a limit of its account ({self.scrub(quota)})"
            return errors.UpstreamRateLimited, f"{self.name} is busy (429)"
        if status == 403 and MISSING_FILE in text:
            return (errors.UpstreamRejected if verb == "submit" else errors.UpstreamGone), text
        if status == 400 and any(entry.get("reason") == "API_KEY_INVALID" for entry in entries):
            return errors.UpstreamAccount, f"{self.name} refuses the gateway's credentials (400)"
        if status == 400 and verb == "submit" and fault.get("status") == "FAILED_PRECONDITION":
            return errors.UpstreamAccount, f"{self.name} does not serve the gateway's account: {text}"
        return None


def _is_veo(task: Task) -> bool:
    return veo.serves(task.model) or veo.OPERATION.fullmatch(task.ref or "") is not None


def _failed(raw: str, failure: Failure) -> Progress:
    return Progress(status=Status.failed, raw_status=raw, failure=failure)


def _daily_quota(entries: list[dict[str, Any]]) -> str | None:
    """The quota by the day that is used up, if that is the reason."""
    for entry in entries:
        violations = entry.get("violations")
        for violation in violations if isinstance(violations, list) else ():
            quota = violation.get("quotaId") if isinstance(violation, dict) else None
            if isinstance(quota, str) and DAILY in quota:
                return quota
    return None
