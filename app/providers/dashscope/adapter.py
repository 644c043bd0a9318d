"""Alibaba's Wan and HappyHorse at DashScope, the API of its Model Studio. Sources: the vendor's client dashscope 2.0.2
and @ai-sdk/alibaba 2.0.58, recorded on 2026-11-25 (`tests/recordings/dashscope.json`), and its documentation as of
2026-11-21. Not tried live.

Quirks: a submit without the header X-DashScope-Async is refused. The shape of a request depends on the model's
generation: up to Wan 2.6 each picture has a field of its own, and the format is a `size` in pixels for texts and
references, a `resolution` for pictures; from Wan 2.7 on, and for HappyHorse, all media are in one list, and the format
is `resolution` and `ratio`. An error may have the status 200: it has a `code` then, and no task. A task that is gone,
or of another region or key, is UNKNOWN. A task can be stopped only while it waits. Times are those of Beijing and do
not say so. Task and file are kept for 24 hours.
Inferred: a code that is documented as a refusal is one with the status 200, too; 503 does not say that nothing was
begun; the list of tasks has the newest first. How many it takes a page is not known: it ends by its `total`.
"""

import json
import re
from datetime import date, datetime, timedelta, timezone
from typing import Any

import httpx
from pydantic import Field, SecretStr, field_validator

from app import errors
from app.capabilities import Capabilities
from app.providers.answers import is_usable, listed_tasks, object_of, segment
from app.providers.base import ListedTask, ProviderConfig, Task
from app.providers.dashscope import families
from app.providers.rest import RestProvider
from app.video import Media, Operation, Progress, Status, Submission, VideoRequest, without_fraction

SINGAPORE = "https://dashscope-intl.aliyuncs.com"
BEIJING = "https://dashscope.aliyuncs.com"
IN_CHINA = re.compile(r"https?://(?:dashscope|[^/]+\.cn-beijing\.maas)\.aliyuncs\.com(?:[:/]|$)")
"""Addresses in mainland China, which has other prices."""
API_PATHS = ("/api/v1", "/compatible-mode/v1")
"""Endings of the addresses that other clients of the vendor are given."""
SUBMIT = "/api/v1/services/aigc/video-generation/video-synthesis"
SUBMIT_KEYFRAMES = "/api/v1/services/aigc/image2video/video-synthesis"
TASKS = "/api/v1/tasks"
PAGE_TASKS = 100
CHINA_TIME = timezone(timedelta(hours=8))
INPUT_FIELDS = frozenset({"prompt", "negative_prompt", "function", "template", "img_url", "audio_url", "reference_url"})
INPUT_FIELDS |= {"first_frame_url", "last_frame_url", "reference_urls", "reference_video_urls", "media"}
"""The vendor's own fields that belong to `input`; all others are `parameters`."""

STATUS = {
    **dict.fromkeys(("pending", "suspended"), Status.queued),
    "running": Status.in_progress,
    "succeeded": Status.completed,
    **dict.fromkeys(("failed", "canceled"), Status.failed),
}
GONE = "UNKNOWN"
FILE_PATHS = (("output", "video_url"),)
CONTENT_CODES = ("DataInspectionFailed", "IPInfringementSuspect")
REFUSALS: dict[str, type[errors.UpstreamError]] = {
    **dict.fromkeys(CONTENT_CODES, errors.ContentPolicy),
    "Arrearage": errors.UpstreamCredit,
    **dict.fromkeys(("InvalidApiKey", "AccessDenied"), errors.UpstreamAccount),
    "Throttling": errors.UpstreamRateLimited,
    **dict.fromkeys(("InvalidParameter", "InvalidURL", "ModelNotFound", "Model.NotExist"), errors.UpstreamRejected),
}
"""Errors by the code, or what is before its first dot, in answers that certainly made no task."""


class DashScope(RestProvider):
    """Accepts any model name: a newer model has the shape of the newest generation."""

    kind = "dashscope"
    title = "Wan and HappyHorse at Alibaba DashScope"
    key_variables = ("DASHSCOPE_API_KEY",)
    key_page = "https://www.alibabacloud.com/help/en/model-studio/get-api-key"
    prices_read = date(2026, 11, 25)
    lists_tasks = True
    models = families.MODELS
    any_model = families.ANYTHING
    poll_interval_s = 5
    poll_interval_max_s = 15

    class Config(ProviderConfig):
        api_key: SecretStr = Field(min_length=1)
        """`DASHSCOPE_API_KEY`, of one region: it works at the address of that region only."""
        base_url: str = SINGAPORE
        workspace: str = Field("", pattern="^[!-~]*$")
        """The workspace of the account to which tasks and costs are counted; unset: that of the key."""

        @field_validator("base_url")
        @classmethod
        def _origin(cls, value: str) -> str:
            """The address alone, also where it is one that another client of the vendor is given."""
            ending = next((path for path in API_PATHS if value.endswith(path)), "")
            return value.removesuffix(ending)

    config: Config

    async def prepare(self, task: Task) -> dict[str, Any]:
        return await self._body(task)  # uploads are read for it

    async def submit(self, task: Task) -> Submission:
        path = SUBMIT_KEYFRAMES if families.takes_keyframes(task.model) else SUBMIT
        headers = {"x-dashscope-async": "enable"}
        if '"oss://' in json.dumps(task.request.extra):  # a file that the client has put into the vendor's store
            headers["x-dashscope-ossresourceresolve"] = "enable"
        response = await self.submit_call(task, "POST", path, json=task.prepared, headers=headers)
        answer = self.json("submit", response)
        output = _output(answer)
        if not is_usable(output.get("task_id")) and _code(answer):
            raise self._fault("submit", response)
        ref = self.ref_of("submit", {**answer, "id": output.get("task_id")}, response)
        status, raw = self.status_of(STATUS, output.get("task_status", "PENDING"))
        status = Status.in_progress if status.ended else status
        return Submission(ref=ref, status=status, raw_status=raw)

    async def poll(self, task: Task) -> Progress:
        response = await self.call("poll", "GET", self.poll_path(task))
        job = self.json("poll", response)
        output = _output(job)
        word = output.get("task_status")
        if not word and _code(job):
            raise self._fault("poll", response)
        if str(word).upper() == GONE:
            raise errors.UpstreamGone(
                f"{self.name} has no such task: it is older than 24 hours, or of another region or key",
                provider=self.name,
                upstream_status=response.status_code,
                body=self.kept(job),
            )
        code = _code(output) or _code(job)
        status, raw = self.status_of(STATUS, word, erred=code is not None)
        code = errors.ContentPolicy.default_code if code is not None and _family(code) in CONTENT_CODES else code
        message = output.get("message") or job.get("message")
        return self.learned(task, job, status, raw, first=FILE_PATHS, error=message, code=code)

    def poll_path(self, task: Task) -> str:
        return f"{TASKS}/{segment(task.ref)}"

    async def cancel(self, task: Task) -> bool:
        answer = await self.cancel_call("POST", f"{self.poll_path(task)}/cancel")
        if isinstance(answer, bool):
            return answer
        said = object_of(answer)
        return bool(said) and _code(said) is None

    async def list_tasks(self, page: str | None) -> tuple[list[ListedTask], str | None]:
        number, seen = map(int, (page or "1 0").split())
        response = await self.call("list", "GET", f"{TASKS}?page_no={number}&page_size={PAGE_TASKS}")
        answer = self.json("list", response)
        rows = next((rows for name in ("tasks", "data") if isinstance(rows := answer.get(name), list)), [None])
        tasks = listed_tasks([_row(row) for row in rows])
        if len(tasks) < len(rows) or tasks != sorted(tasks, key=lambda task: task.created_at, reverse=True):
            # Read as it is, the list would show that there are no further tasks.
            raise self.unreadable("list", "the list of tasks cannot be read", response)
        seen += len(rows)
        is_last = not rows or answer.get("total") == seen  # the vendor may give less than the page asked for
        return tasks, None if is_last else f"{number + 1} {seen}"

    def capabilities(self, model: str) -> Capabilities | None:
        return families.known(model, in_china=self.region == "cn")

    def capabilities_for(self, model: str, request: VideoRequest) -> Capabilities | None:
        return families.narrowed(model, families.known(model, in_china=self.region == "cn"), request)

    @property
    def region(self) -> str:
        return "cn" if IN_CHINA.match(self.config.base_url) else "intl"

    @property
    def auth(self) -> dict[str, str]:
        workspace = {"x-dashscope-workspace": self.config.workspace} if self.config.workspace else {}
        return {**super().auth, **workspace}

    # Writing requests

    async def _body(self, task: Task) -> dict[str, Any]:
        request = task.request
        media = await (self._fields(task) if families.is_legacy(task.model) else self._media(task))
        given = {"prompt": request.prompt or None, "negative_prompt": request.negative_prompt, **media}
        inputs, parameters = _without_blanks(given), _without_blanks(self._parameters(task))
        for name, value in request.extra.items():
            match name, value:
                case "media" | "reference_urls", []:
                    pass
                case "media", list():
                    inputs["media"] = [*inputs.get("media", ()), *value]
                case "input", dict():
                    inputs = {**value, **inputs}
                case "parameters", dict():
                    parameters = {**value, **parameters}
                case _ if name != "n":
                    (inputs if name in INPUT_FIELDS else parameters).setdefault(name, value)
        return {"model": task.model, "input": inputs, **({"parameters": parameters} if parameters else {})}

    def _parameters(self, task: Task) -> dict[str, Any]:
        request, able = task.request, families.known(task.model, in_china=False)
        if families.takes_size(task.model):
            shape = {"size": families.size_for(request, able)}
        else:
            # The format of a request for an extension or an edit is that of its source, which may be another model's.
            resolution = _one_of(able.resolutions, request.resolution) or able.default_resolution
            ratio = _one_of(able.aspect_ratios, request.aspect_ratio)
            shape = {"resolution": resolution.upper() if resolution else None, "ratio": ratio}
        return {
            **shape,
            "duration": self._duration(request, able),
            "seed": request.seed,
            "audio": request.generate_audio,
            "prompt_extend": request.expand_prompt,
        }

    def _duration(self, request: VideoRequest, able: Capabilities) -> int | float | None:
        """The length as the model takes it: none where there is no choice, that of the whole video for an extension, -1
        for one of its own choice."""
        if able.seconds is not None and len(able.seconds) <= 1:
            return None
        if request.operation is Operation.edit:
            return -1
        seconds = request.seconds if request.seconds is not None else able.default_seconds
        if request.operation is Operation.extend:
            source = families.seconds_of(request.source)
            if source is None or seconds is None:
                message = f"{self.name} needs the length of the video to extend: name a video of this gateway by its id"
                raise errors.UpstreamRejected(message, provider=self.name)
            seconds += source
        return without_fraction(seconds)

    async def _fields(self, task: Task) -> dict[str, Any]:
        """Media of an older model."""
        references, frames = await self._references(task), await self._frames(task)
        return {
            "first_frame_url" if families.takes_keyframes(task.model) else "img_url": frames.get("first_frame"),
            "last_frame_url": frames.get("last_frame"),
            "reference_urls": [url for _, url in references] or None,
        }

    async def _media(self, task: Task) -> dict[str, Any]:
        """Media of a model of the newer generations, in the order in which the vendor's clients have them."""
        source, kind = task.request.source, "video"
        if task.request.operation is Operation.extend:
            kind = "first_clip"
        elif families.takes_all(task.model):
            kind = "reference_video"
        items = [] if source is None else [(kind, self._clip(source, task))]
        items += [*await self._references(task), *(await self._frames(task)).items()]
        return {"media": [{"type": kind, "url": url} for kind, url in items] or None}

    async def _references(self, task: Task) -> list[tuple[str, str]]:
        request = task.request
        found = [("reference_image", await self._picture(picture, task)) for picture in request.reference_images]
        if request.reference_video is not None:
            found.append(("reference_video", self._clip(request.reference_video, task)))
        return found

    async def _frames(self, task: Task) -> dict[str, str]:
        given = {"first_frame": task.request.first_frame, "last_frame": task.request.last_frame}
        return {kind: await self._picture(frame, task) for kind, frame in given.items() if frame is not None}

    async def _picture(self, picture: Media, task: Task) -> str:
        return picture.url or await task.data_url(picture, provider=self.name)

    def _clip(self, clip: Media, task: Task) -> str:
        """The address of a clip, which the vendor takes in no other form."""
        link = task.link(clip)
        if link is None:
            raise errors.UpstreamRejected(
                f"{self.name} takes videos by their address only, and this gateway has none (GATEWAY_PUBLIC_URL)",
                provider=self.name,
            )
        return link

    # Reading errors

    def _fault(self, verb: str, response: httpx.Response) -> errors.UpstreamError:
        """The error in an answer with the status 200."""
        refusal = self._refusal(response)
        words = self.scrub(" ".join(filter(None, self.read_error(response))))
        return refusal or self.unreadable(verb, f"the answer is an error: {words}", response)

    def _is_own_refusal(self, response: httpx.Response) -> bool:
        return False

    def error_from(self, verb: str, response: httpx.Response) -> errors.UpstreamError:
        error = super().error_from(verb, response)
        judged = 400 <= response.status_code < 500 and response.status_code != 404
        return (self._refusal(response, error) if judged else None) or error

    def _refusal(
        self, response: httpx.Response, error: errors.UpstreamError | None = None
    ) -> errors.UpstreamError | None:
        """The error that the code of an answer is documented as."""
        code = _code(object_of(response))
        kind = REFUSALS.get(code, REFUSALS.get(_family(code))) if code is not None else None
        if code is None or kind is None:
            return None
        _, message = self.read_error(response)
        text = self.scrub(message) or f"{self.name} answered {self.scrub(code)}"
        if kind is errors.UpstreamCredit:
            text = f"the gateway's account at {self.name} has no credit left"
        elif kind is errors.UpstreamRateLimited:
            text = f"{self.name} is busy ({self.scrub(code)})"
        elif code == "InvalidApiKey":
            text = f"{self.name} refuses the gateway's credentials; a key of another region needs its base URL, "
            text += f"{SINGAPORE}, {BEIJING} or that of its workspace"
        elif kind is errors.UpstreamAccount:
            text = f"{self.name} does not serve the gateway's account ({self.scrub(code)}): {text}"
        return kind(
            text,
            provider=self.name,
            upstream_status=response.status_code,
            body=error.body if error is not None else self.scrub(response.text),
            retry_after_s=error.retry_after_s if error is not None else None,
        )


def _output(answer: dict[str, Any]) -> dict[str, Any]:
    output = answer.get("output")
    return output if isinstance(output, dict) else {}


def _code(document: dict[str, Any]) -> str | None:
    code = document.get("code")
    return code if isinstance(code, str) and code else None


def _family(code: str) -> str:
    return code.partition(".")[0]


def _one_of(values: tuple[str, ...] | None, value: str | None) -> str | None:
    """The value, if the model has it or nothing is known of that."""
    return value if values is None or value in values else None


def _without_blanks(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _row(row: Any) -> dict[str, Any]:
    """A row of the list of tasks as others have it; it has one of two forms, and its time may be text."""
    row = row if isinstance(row, dict) else {}
    at = row.get("gmt_create", row.get("submit_time"))
    seconds = None
    try:
        if isinstance(at, str):
            moment = datetime.fromisoformat(at)
            seconds = moment.replace(tzinfo=moment.tzinfo or CHINA_TIME).timestamp()
        elif isinstance(at, int | float):
            seconds = at / 1000
    except (ValueError, OverflowError):
        pass
    model, status = row.get("model_name", row.get("model")), row.get("status", row.get("task_status"))
    return {"id": row.get("task_id"), "created_at": seconds, "model": model, "status": status}
