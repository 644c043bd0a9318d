"""The API of Google's video models, as far as its two hosts share it: Interactions and long-running operations, their
answers, and Google's errors. `adapter.py` has what is special at the Gemini API, `vertex.py` what is at Vertex AI."""

import re
from typing import Any, ClassVar

import httpx
from pydantic import Field

from app import errors
from app.capabilities import Capabilities
from app.providers.answers import CREDIT_WORDS, file_url, object_of, segment
from app.providers.base import ProviderConfig, Task
from app.providers.gemini import omni, veo
from app.providers.rest import CANCELLED_WORDS, RestProvider
from app.video import Failure, Media, Output, Progress, Status, Submission, VideoRequest

RETRY_DELAY = re.compile(r"(\d{1,5}(?:\.\d{1,9})?)s", re.ASCII)
DAILY = "PerDay"
DEPLETED = "credits are depleted"
MISSING_FILE = ("access the file", "may not exist")
"""Words of the refusal of a file that has expired; those of a missing role have the second one, too."""
Verdict = tuple[type[errors.UpstreamError], str]


class Google(RestProvider):
    """Accepts any model name: `veo-...` is one of Veo, any other one of Omni."""

    any_model = omni.ANYTHING
    any_veo: ClassVar[Capabilities] = veo.ANYTHING
    """Capabilities of a model of Veo that is not in the table."""
    poll_interval_s = 5
    poll_interval_max_s = 15

    class Config(ProviderConfig):
        api_version: str | None = Field(None, pattern=r"^v\w{1,20}$")

    config: Config

    async def submit(self, task: Task) -> Submission:
        if not veo.serves(task.model):
            response = await self.submit_call(task, "POST", self._interactions, json=task.prepared)
            return self.accepted(omni.STATUS, response)
        path = f"{self._model_path(task.model)}:predictLongRunning"
        response = await self.submit_call(task, "POST", path, json=task.prepared)
        ref = self.ref_of("submit", {"id": self.json("submit", response).get("name")}, response)
        return Submission(ref=ref, status=Status.in_progress, raw_status=veo.RUNNING)

    async def poll(self, task: Task) -> Progress:
        body = self.poll_body(task)
        method = "GET" if body is None else "POST"
        answer = self.json("poll", await self.call("poll", method, self.poll_path(task), json=body))
        return self._operation(task, answer) if veo.is_operation(task) else await self._interaction(answer)

    def poll_path(self, task: Task) -> str:
        return self._operation_path(task) if veo.is_operation(task) else f"{self._interaction_path(task)}?stream=false"

    async def cancel(self, task: Task) -> bool:
        if veo.is_operation(task):
            return False
        answer = await self.cancel_call("POST", f"{self._interaction_path(task)}/cancel")
        if isinstance(answer, bool):  # not even an unknown id: one that was made a moment ago may not be found yet
            return False
        return object_of(answer).get("status") in CANCELLED_WORDS

    def capabilities(self, model: str) -> Capabilities | None:
        return self.models.get(model, self.any_veo if veo.serves(model) else omni.ANYTHING)

    def capabilities_for(self, model: str, request: VideoRequest) -> Capabilities | None:
        if not veo.serves(model):
            return omni.capabilities_for(model, request)
        return veo.capabilities_for(self.models.get(model, self.any_veo), request)

    @property
    def auth(self) -> dict[str, str]:
        return {"x-goog-api-key": self._secret} if self._secret else {}

    @property
    def _interactions(self) -> str:
        """Path of the Interactions."""
        raise NotImplementedError

    def _model_path(self, model: str) -> str:
        """Path of a model of Veo."""
        raise NotImplementedError

    def _operation_path(self, task: Task) -> str:
        """Path of the poll of an operation."""
        raise NotImplementedError

    def _interaction_path(self, task: Task) -> str:
        return f"{self._interactions}/{segment(task.ref)}"

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

    def _no_source(self) -> errors.UpstreamRejected:
        message = f"{self.name} no longer has the file of the video to start from"
        return errors.UpstreamRejected(message, provider=self.name)

    # Reading answers

    def _operation(self, task: Task, operation: dict[str, Any]) -> Progress:
        """Progress of a task of Veo."""
        raise NotImplementedError

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
            return failed(raw, failure.model_copy(update={"body": self.kept(interaction)}))
        path, video = found
        if video.get("data") and isinstance(video["data"], str):
            return Progress(status=status, raw_status=raw, output=Output(inline=(*path, "data")))
        url = file_url(video.get("uri"))
        return await self._file(url, raw) if url is not None else failed(raw, self.no_output(raw, interaction))

    async def _file(self, url: str, raw: str) -> Progress:
        """The end of an interaction whose file has an address."""
        return Progress(status=Status.completed, raw_status=raw, output=Output(url=url, authenticated=True))

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
        if status == 403 and all(words in text.lower() for words in MISSING_FILE):
            return (errors.UpstreamRejected if verb == "submit" else errors.UpstreamGone), text
        if status in (401, 403) and not any(word in text.lower() for word in CREDIT_WORDS):
            return errors.UpstreamAccount, f"{self.name} refuses the gateway's credentials ({status})"
        if status == 400 and any(entry.get("reason") == "API_KEY_INVALID" for entry in entries):
            return errors.UpstreamAccount, f"{self.name} refuses the gateway's credentials (400)"
        if status == 400 and verb == "submit" and fault.get("status") == "FAILED_PRECONDITION":
            return errors.UpstreamAccount, f"{self.name} does not serve the gateway's account: {text}"
        return None


def failed(raw: str, failure: Failure) -> Progress:
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
