"""xAI's Grok Imagine by its REST API. Sources: @ai-sdk/xai 5.0.12, a client of others, recorded on 2026-11-25
(`tests/recordings/xai.json`); the types of the vendor's own client, xai-sdk 1.21.0, which speaks gRPC; issues and pages
of other public software, read on 2026-11-27, for limits and for the words of errors. Not tried live.

Inferred: the whole of this file, since none of it was seen in an answer of the vendor's own. Above all: that a 400
to a poll, which has nothing but the id, is about the task: that it is gone, or was moderated where it says so; that a
finished task without address and without `respect_moderation` was held back by moderation, since a false is left
out in JSON made of protobuf; that 503 does not say that nothing was begun; that the price of an edit, an extension or
key frames is not that of the seconds made.

Quirks: there is one word, `pending`, for a task that waits and for one that runs, and a poll may answer 202 with
nothing at all. Errors have three shapes: OpenAI's, a `code` in words beside the text `error`, and the text alone; a 422
is plain text, and a wrong key is a 400. A finished task may have `""` for its address: the file was moderated, or is at
`file_output` where the request asked for its storage. What a request lacks is made as 480p and 8 s. Costs are in ticks,
ten billion of which are a dollar. An edit takes neither length nor shape, an extension a length only, and both take the
video by its address. There is no call to stop a task, and no list. A file is kept for about 24 hours.
"""

import re
from datetime import date
from typing import Any

import httpx
from pydantic import Field, SecretStr

from app import errors
from app.capabilities import Capabilities, in_micros
from app.providers.answers import MAX_REPORTED_DOLLARS, object_of, percent, segment
from app.providers.base import ProviderConfig, Task
from app.providers.rest import RestProvider
from app.video import Media, Operation, Progress, Status, Submission, VideoRequest, without_fraction

BASE_URL = "https://api.x.ai/v1"
PATHS = {
    Operation.generate: "/videos/generations",
    Operation.edit: "/videos/edits",
    Operation.extend: "/videos/extensions",
}
DEFAULT_SECONDS = 8
DEFAULT_EXTENSION_SECONDS = 6
DEFAULT_RESOLUTION = "480p"
EXTENSION_SECONDS = (2, 10)
"""Shortest and longest new part. Source: two public descriptions of the API, 2026-04 and 2026-07."""
REFERENCE_RESOLUTIONS = ("480p", "720p")
"""Those of a video with reference images, of any model."""
TICKS_PER_MICRO = 10_000

RATIOS = ("16:9", "9:16", "1:1", "4:3", "3:4", "3:2", "2:3")
FIRST = frozenset({"first_frame"})
FRAMES = FIRST | {"last_frame"}
REFERENCES = frozenset({"reference_images"})
STORAGE = "storage_options"
OWN_FIELDS = frozenset({STORAGE})
UNPRICED_FIELDS = frozenset({"keyframes", "reference_audios"})
"""The vendor's own fields for further media, whose price is not known."""
BY_OPERATION = frozenset(PATHS)


def _grok(
    prices: dict[str, float],
    *,
    per_image: float,
    parameters: frozenset[str],
    fields: frozenset[str] = OWN_FIELDS,
    operations: frozenset[Operation] = frozenset({Operation.generate}),
) -> Capabilities:
    """Capabilities of one model; prices in US dollars per second by resolution, and of an input image."""
    return Capabilities(
        seconds=(1, 15),
        seconds_range=True,
        default_seconds=DEFAULT_SECONDS,
        default_resolution=DEFAULT_RESOLUTION,
        resolutions=tuple(prices),
        aspect_ratios=RATIOS,
        parameters=parameters,
        max_reference_images=7 if parameters >= REFERENCES else None,
        operations=operations,
        prices=in_micros(prices),
        image_micros=round(per_image * 1_000_000),
        vendor_fields=fields,
    )


MODELS = {
    "grok-imagine-video": _grok(
        {"480p": 0.05, "720p": 0.07}, per_image=0.002, parameters=FIRST | REFERENCES, operations=BY_OPERATION
    ),
    "grok-imagine-video-1.5": _grok(
        {"480p": 0.08, "720p": 0.14, "1080p": 0.25},
        per_image=0.01,
        parameters=FRAMES | REFERENCES | {"generate_audio"},
        fields=OWN_FIELDS | UNPRICED_FIELDS,
    ),
    "grok-imagine-video-1.5-lite": _grok({"480p": 0.02, "720p": 0.03, "1080p": 0.14}, per_image=0.01, parameters=FIRST),
}
"""Prices: the price map of LiteLLM 1.110.2, 2026-11, which OpenRouter's list of 2026-10-09 confirms."""
SAME_MODEL = re.compile(r"(grok-imagine-video-1\.5)-(?:preview|\d{4}-\d{2}-\d{2})")
"""Further names of a model, which have its price."""
ANYTHING = Capabilities(parameters=FRAMES | REFERENCES | {"generate_audio"}, operations=BY_OPERATION, passes_extra=True)
"""Capabilities of a model that is newer than the table."""

PENDING = "pending"
DONE = "done"
STATUS = {
    PENDING: Status.in_progress,
    DONE: Status.completed,
    **dict.fromkeys(("failed", "expired"), Status.failed),
}
FILE_PATHS = (("video", "url"), ("video", "file_output", "public_url"))
NO_CREDIT = ("available credits", "spending limit", "purchase more credits", "have any credits")
WRONG_KEY = "incorrect api key"
INVALID = ("client specified an invalid argument", "invalid-argument")
MODERATED = ("moderat", "usage guidelines")
UNSAFE = "content violates usage guidelines"
"""Words of a 403 to a submit that is about the content; any other is about the account."""
ACCOUNT_IDS = re.compile(r"\b(?:team|api key id):? (?=[\da-f-]{36})[\da-f-]{36}(?:, )?", re.IGNORECASE)
"""Names of the operator's account in messages, which are none of a client's business."""


class XAI(RestProvider):
    """Accepts any model name: a newer model is sent what the request has, without defaults."""

    kind = "xai"
    title = "Grok Imagine at xAI"
    key_variables = ("XAI_API_KEY",)
    key_page = "https://console.x.ai"
    prices_read = date(2026, 11, 25)
    models = MODELS
    any_model = ANYTHING
    poll_interval_s = 3
    poll_interval_max_s = 10

    class Config(ProviderConfig):
        api_key: SecretStr = Field(min_length=1)
        """`XAI_API_KEY`, of a team at console.x.ai."""
        base_url: str = BASE_URL

    config: Config

    async def prepare(self, task: Task) -> dict[str, Any]:
        refusal = _malformed(task.request).get(STORAGE)
        if refusal is not None:
            raise errors.UpstreamRejected(f"{STORAGE}: {refusal}", provider=self.name)
        return await self._body(task)  # uploads are read for it

    async def submit(self, task: Task) -> Submission:
        path = PATHS[task.request.operation]
        response = await self.submit_call(task, "POST", path, json=task.prepared)
        answer = self.json("submit", response)
        ref = self.ref_of("submit", {**answer, "id": answer.get("request_id")}, response)
        return Submission(ref=ref, status=Status.in_progress, raw_status=PENDING)

    async def poll(self, task: Task) -> Progress:
        try:
            response = await self.call("poll", "GET", self.poll_path(task))
        except errors.ContentPolicy as error:
            return self._moderated("failed", error.message, error.body)
        if response.status_code == 202 and not response.content.strip():
            return Progress(status=Status.in_progress, raw_status=PENDING)
        return self._read_job(task, self.json("poll", response), is_pending=response.status_code == 202)

    def poll_path(self, task: Task) -> str:
        return f"/videos/{segment(task.ref)}"

    def capabilities(self, model: str) -> Capabilities | None:
        same = SAME_MODEL.fullmatch(model)
        return MODELS.get(same[1] if same is not None else model, ANYTHING)

    def capabilities_for(self, model: str, request: VideoRequest) -> Capabilities | None:
        able = self.capabilities(model)
        update: dict[str, Any] = {"malformed": _malformed(request)}
        if able is None or able is ANYTHING:
            return able and able.model_copy(update=update)
        if request.operation is not Operation.generate:
            return able.model_copy(update=update | _of_source(request.operation))
        if request.reference_images:
            update["resolutions"] = tuple(name for name in able.resolutions or () if name in REFERENCE_RESOLUTIONS)
        if UNPRICED_FIELDS & request.extra.keys():
            update["prices"] = {}
        return able.model_copy(update=update)

    # Writing requests

    async def _body(self, task: Task) -> dict[str, Any]:
        request = task.request
        able = self.capabilities_for(task.model, request) or ANYTHING
        seconds = request.seconds if request.seconds is not None else able.default_seconds
        length = without_fraction(seconds)
        body: dict[str, Any] = {"model": task.model, "prompt": request.prompt or None}
        match request.operation:
            case Operation.edit:
                body |= {"video": self._video(task), "user": request.user}
            case Operation.extend:
                body |= {"duration": length, "video": self._video(task)}
            case _:
                body |= {
                    "duration": length,
                    "aspect_ratio": request.aspect_ratio,
                    "resolution": request.resolution or able.default_resolution,
                    "generate_audio": request.generate_audio,
                    "user": request.user,
                    **await self._pictures(task),
                }
        given = {name: value for name, value in body.items() if value is not None}
        return given | {name: value for name, value in request.extra.items() if name not in (*given, "n")}

    async def _pictures(self, task: Task) -> dict[str, Any]:
        async def entry(picture: Media) -> dict[str, str]:
            return {"url": picture.url or await task.data_url(picture, provider=self.name)}

        request = task.request
        frames = {"image": request.first_frame, "last_frame": request.last_frame}
        found: dict[str, Any] = {name: await entry(frame) for name, frame in frames.items() if frame is not None}
        if request.reference_images:
            found["reference_images"] = [await entry(picture) for picture in request.reference_images]
        return found

    def _video(self, task: Task) -> dict[str, str]:
        """The source, which the vendor takes by its address only."""
        link = task.link(task.request.source) if task.request.source is not None else None
        if link is None:
            raise errors.UpstreamRejected(
                f"{self.name} takes videos by their address only, and this gateway has none (GATEWAY_PUBLIC_URL)",
                provider=self.name,
            )
        return {"url": link}

    # Reading answers

    def _read_job(self, task: Task, job: dict[str, Any], *, is_pending: bool) -> Progress:
        video, error, word = job.get("video"), job.get("error"), job.get("status")
        if word is None and not error:  # a task without a word is done once it has a file
            word = PENDING if is_pending else DONE if isinstance(video, dict) else None
        status, raw = self.status_of(STATUS, word, erred=bool(error))
        details = error if isinstance(error, dict) else {"message": error}
        message, code = details.get("message"), details.get("code")
        if any(one in str(message).lower() for one in MODERATED):
            code = errors.ContentPolicy.default_code
        code = code if isinstance(code, str) and code and raw != "expired" else None
        progress = self.learned(task, job, status, raw, first=FILE_PATHS, error=self._words(message), code=code)
        micros = _reported_micros(job)
        verdict = video.get("respect_moderation") if isinstance(video, dict) else True
        if status is Status.completed and (verdict is False or (progress.output is None and verdict is None)):
            progress = self._moderated(raw, "", self.kept(job))
        return progress.model_copy(update={"progress": percent(job.get("progress")), "reported_micros": micros})

    def _moderated(self, raw: str, message: str, body: str | None) -> Progress:
        """A task that the vendor's moderation has held back."""
        message = message or f"{self.name} has held the video back: it did not respect the rules of its moderation"
        failure = self.failure(raw, message, code=errors.ContentPolicy.default_code)
        return Progress(status=Status.failed, raw_status=raw, failure=failure.model_copy(update={"body": body}))

    def _words(self, message: Any) -> Any:
        return ACCOUNT_IDS.sub("", message) if isinstance(message, str) else message

    # Reading errors

    def read_error(self, response: httpx.Response) -> tuple[str | None, str]:
        """Code and message of an error in any of the three shapes, or in plain text."""
        code, message = super().read_error(response)
        said = object_of(response)
        if isinstance(said.get("error"), str) and isinstance(said.get("code"), str):
            code = said["code"]
        if not message and response.headers.get("content-type", "").startswith("text/plain"):
            message = response.text
        return code, self._words(message)

    def error_from(self, verb: str, response: httpx.Response) -> errors.UpstreamError:
        error = super().error_from(verb, response)
        if verb == "fetch":  # a file's host, which is another
            return error
        status, (code, message) = response.status_code, self.read_error(response)
        kind = _kind_of(verb, status, str(code).lower(), message.lower(), type(error))
        if kind is type(error):
            return error
        text = self.scrub(message)
        if issubclass(kind, errors.UpstreamCredit):
            text = f"the gateway's account at {self.name} has no credit left"
        elif issubclass(kind, errors.UpstreamAccount):
            text = f"{self.name} refuses the gateway's credentials ({status})"
        details: dict[str, Any] = {"upstream_status": status, "body": error.body, "retry_after_s": error.retry_after_s}
        return kind(text, provider=self.name, **details)

    def _is_own_refusal(self, response: httpx.Response) -> bool:
        return False


def _of_source(operation: Operation) -> dict[str, Any]:
    """Differences of a model's capabilities for a video that is made of another: it has that one's shape, and its price
    is not known."""
    update: dict[str, Any] = {
        "resolutions": (),
        "aspect_ratios": (),
        "default_resolution": None,
        "parameters": frozenset(),
        "prices": {},
        "vendor_fields": OWN_FIELDS,
    }
    if operation is Operation.extend:
        return update | {"seconds": EXTENSION_SECONDS, "default_seconds": DEFAULT_EXTENSION_SECONDS}
    return update | {"seconds": (), "seconds_range": False, "default_seconds": None}


def _malformed(request: VideoRequest) -> dict[str, str]:
    """Fields that cannot be sent as they are: a video that is put into the account's storage without a public address
    is made, and charged, but cannot be fetched."""
    if STORAGE not in request.extra:
        return {}
    options = request.extra[STORAGE]
    public = options.get("public_url") if isinstance(options, dict) else None
    return {} if public is True or isinstance(public, dict) else {STORAGE: "expected a `public_url` in it"}


def _kind_of(
    verb: str, status: int, code: str, words: str, usual: type[errors.UpstreamError]
) -> type[errors.UpstreamError]:
    """The kind of an error by its words, else the `usual` one of its status. A program in between has such words, too:
    only a 400 to a poll can say that a task was moderated, and only a known sentence that a 403 to a submit is not
    about the account."""
    moderated = any(one in words for one in MODERATED)
    if status in (403, 429) and any(one in words for one in NO_CREDIT):
        return errors.UpstreamCredit
    if status in (401, 403):
        if verb == "submit" and status == 403 and UNSAFE in words:
            return errors.ContentPolicy
        return usual if issubclass(usual, errors.UpstreamCredit) else errors.UpstreamAccount
    if status == 400 and WRONG_KEY in words:
        return errors.UpstreamAccount
    if moderated and (status == 400 or (status == 422 and verb != "poll")):
        return errors.ContentPolicy
    if verb != "poll":
        return usual
    if status == 400 and code in INVALID:
        return errors.UpstreamGone
    return errors.UpstreamRejected if issubclass(usual, errors.ContentPolicy) else usual


def _reported_micros(job: dict[str, Any]) -> int | None:
    """The cost of a task in micro-dollars; None if there is no usable number."""
    usage = job.get("usage")
    ticks = usage.get("cost_in_usd_ticks") if isinstance(usage, dict) else None
    if isinstance(ticks, bool) or not isinstance(ticks, int | float):
        return None
    most = MAX_REPORTED_DOLLARS * 1_000_000 * TICKS_PER_MICRO
    return round(ticks / TICKS_PER_MICRO) if 0 <= ticks <= most else None
