"""Runway: its own Gen-4.5, Gen-4 Turbo and Aleph 2, and models of other makers. Sources: the vendor's clients runwayml
5.24.0 (Python) and 4.20.1 (Node), recorded on 2026-11-25 (`tests/recordings/runway.json`), the comments in their types,
and the vendor's pages on errors and failed tasks, read 2026-11-21. Not tried live.

Quirks: a request without the version header is refused. The kind of input decides on the path, the model on the names
of the fields (`endpoints.py`). A task may be read once in five seconds. THROTTLED is a task beyond the account's
concurrency, which waits; 429 is the limit of a day. An account without credit gets a 400. DELETE stops a task or
deletes one that has ended, both with an empty 204, and its id is unknown afterwards, or CANCELLED; one that runs is
charged in full all the same. Each read of a finished task signs the address of its file anew, for a day or two. Costs
are in credits of one cent. There are no callbacks, no list of tasks and no idempotency key.
Inferred: that a 503 does not say that no task was made, since the vendor names it beside 502 and 504; that a bare
address of a picture is a first frame only where the types know no other use of it; that a deleted task whose id is
unknown was not charged.
"""

import math
from datetime import date
from typing import Any

import httpx
from pydantic import Field, SecretStr, field_validator

from app import errors
from app.capabilities import Capabilities, media_of
from app.media.inputs import HEAD_BYTES, shape_of
from app.providers.answers import MAX_REPORTED_DOLLARS, object_of, retry_after_s, segment
from app.providers.base import ProviderConfig, Task, data_url_of
from app.providers.rest import CANCELLED_WORDS, RestProvider
from app.providers.runway import endpoints, storage
from app.sizes import distance
from app.video import Media, Progress, Status, Submission, VideoRequest

MODELS = {name: endpoints.merged(name) for name in endpoints.FACTS}
VERSION = "2024-11-06"
TASKS = "/v1/tasks"
FILE_PATHS = (("output",),)
LEAST_POLL_GAP_S = 5.0
INLINE_BYTES = 3_700_000
"""Longest upload within a request: as base64 it is shorter than the vendor's limit of 5 MB."""
MICROS_PER_CREDIT = 10_000
NO_CREDIT = "enough credits"
STATUS = {
    **dict.fromkeys(("pending", "throttled"), Status.queued),
    "running": Status.in_progress,
    "succeeded": Status.completed,
    **dict.fromkeys(("failed", *CANCELLED_WORDS), Status.failed),
}
CONTENT = "SAFETY"
"""A part, between dots, of the codes of tasks that failed for their content."""
INTERNAL = "INTERNAL"
"""A part of the codes of tasks that failed for no reason of the client's."""
CODES = {"ASSET.INVALID": errors.UpstreamRejected.default_code}


class Runway(RestProvider):
    """Accepts any model name: a newer model gets the commonest fields."""

    kind = "runway"
    title = "Runway"
    key_variables = ("RUNWAYML_API_SECRET",)
    key_page = "https://dev.runwayml.com"
    prices_read = date(2026, 11, 25)
    models = MODELS
    any_model = endpoints.ANYTHING
    poll_interval_s = 6
    poll_interval_max_s = 15

    class Config(ProviderConfig):
        api_key: SecretStr = Field(min_length=1)
        """`RUNWAYML_API_SECRET`, of an organization at dev.runwayml.com; accounts of the app have other credits."""
        base_url: str = "https://api.dev.runwayml.com"

        @field_validator("base_url")
        @classmethod
        def _without_version(cls, value: str) -> str:
            return value.removesuffix("/v1")

    config: Config

    @property
    def auth(self) -> dict[str, str]:
        return {**super().auth, "x-runway-version": VERSION}

    async def prepare(self, task: Task) -> tuple[str, dict[str, Any]]:
        """The path and the body of the submit; uploads are read for it, and long ones sent to the store."""
        request = task.request
        endpoint = endpoints.choose(task.model, request)
        given: dict[str, Any] = {}
        for name, media in media_of(request).items():
            urls = [await self._url(medium, task) for medium in media]
            given[name] = urls if name == "reference_images" else urls[0]
        if endpoint is None:
            return endpoints.body_of_unknown(task.model, request, given)
        given["ratio"] = await self._ratio_of_frame(task, endpoint)
        return endpoint.name, endpoint.body(request, given)

    async def submit(self, task: Task) -> Submission:
        name, body = task.prepared
        response = await self.submit_call(task, "POST", f"/v1/{name}", json=body)
        ref = self.ref_of("submit", self.json("submit", response), response)
        return Submission(ref=ref, raw_status="PENDING")

    async def poll(self, task: Task) -> Progress:
        job = self.json("poll", await self.call("poll", "GET", self.poll_path(task)))
        code = job.get("failureCode")
        status, raw = self.status_of(STATUS, job.get("status"), erred=bool(code))
        found = self.learned(task, job, status, raw, first=FILE_PATHS, error=job.get("failure"), code=_code(code))
        percent = _percent(job.get("progress")) if found.status is Status.in_progress else None
        return found.model_copy(update={"progress": percent, "reported_micros": _charged_micros(job.get("cost"))})

    def poll_path(self, task: Task) -> str:
        return f"{TASKS}/{segment(task.ref)}"

    def poll_gap_s(self, polls: int, default_s: float | None) -> float:
        return max(super().poll_gap_s(polls, default_s), LEAST_POLL_GAP_S)

    async def cancel(self, task: Task) -> bool:
        if task.status is Status.in_progress:  # charged in full either way: its end is waited for
            return False
        answer = await self.cancel_call("DELETE", self.poll_path(task))
        return answer if isinstance(answer, bool) else await self._is_free(task)

    async def _is_free(self, task: Task) -> bool:
        """True if a task that was deleted cost nothing: it is unknown now, or says so. It may have begun to run since
        it was polled; without an answer, the next poll decides."""
        try:
            left = await self.poll(task)
        except errors.UpstreamGone:
            return True
        except errors.UpstreamError:
            return False
        return left.status is Status.failed and left.reported_micros == 0

    def capabilities_for(self, model: str, request: VideoRequest) -> Capabilities | None:
        return endpoints.capabilities_for(model, request)

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

    async def _ratio_of_frame(self, task: Task, endpoint: endpoints.Endpoint) -> str | None:
        """The ratio of the model that is nearest to an uploaded frame, for a request that names none: the vendor would
        crop the picture to the format."""
        request = task.request
        frame = request.first_frame or request.last_frame
        if frame is None or frame.key is None or request.aspect_ratio is not None or not endpoint.formats:
            return None
        head = b""
        async with task.read(frame) as upload:
            async for chunk in upload.chunks:
                head += chunk
                if len(head) >= HEAD_BYTES:
                    break
        shape = shape_of(head[:HEAD_BYTES])
        if shape is None:
            return None
        return min(endpoint.ratios, key=lambda ratio: distance(f"{shape.width}:{shape.height}", ratio))

    # Reading errors

    def read_error(self, response: httpx.Response) -> tuple[str | None, str]:
        """Code and message of an error, with what the vendor found wrong in each field."""
        code, message = super().read_error(response)
        issues = object_of(response).get("issues")
        found = [_issue(issue) for issue in issues[:8]] if isinstance(issues, list) else []
        return code, ": ".join(filter(None, (message, "; ".join(filter(None, found)))))

    def error_from(self, verb: str, response: httpx.Response) -> errors.UpstreamError:
        error = super().error_from(verb, response)
        if response.status_code == 400 and NO_CREDIT in self.read_error(response)[1].lower():
            return errors.UpstreamCredit(
                f"the gateway's account at {self.name} has no credit left",
                provider=self.name,
                upstream_status=response.status_code,
                body=error.body,
                retry_after_s=retry_after_s(response.headers),
            )
        return error

    def _is_own_refusal(self, response: httpx.Response) -> bool:
        return False


def _issue(issue: Any) -> str:
    """One entry of a refused body: the field and the vendor's words."""
    if not isinstance(issue, dict) or not isinstance(issue.get("message"), str):
        return ""
    path = issue.get("path")
    place = ".".join(map(str, path[:8])) if isinstance(path, list) else ""
    return f"{place} {issue['message']}".strip()


def _code(code: Any) -> str | None:
    """The gateway's code for the vendor's, or the vendor's own; None: the generic one."""
    if not isinstance(code, str) or not code:
        return None
    parts = code.split(".")
    if CONTENT in parts:
        return errors.ContentPolicy.default_code
    return None if INTERNAL in parts else CODES.get(code, code)


def _percent(value: Any) -> int | None:
    """The share of 1 as a percentage."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return max(0, min(100, int(value * 100)))


def _charged_micros(cost: Any) -> int | None:
    """The credits that a task has cost, in micro-dollars; None if there is no usable number."""
    amount = cost.get("credits") if isinstance(cost, dict) else None
    if isinstance(amount, bool) or not isinstance(amount, int | float):
        return None
    return round(amount * MICROS_PER_CREDIT) if 0 <= amount <= MAX_REPORTED_DOLLARS * 100 else None
