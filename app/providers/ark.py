"""ByteDance's Seedance at Volcengine Ark (China) and BytePlus ModelArk (all others), one API. Sources: the runtimes
volcengine-ark-runtime 5.0.54, byteplus-python-sdk-v2 3.0.63 and @ai-sdk/bytedance 1.0.29, recorded on 2026-11-25
(`tests/recordings/bytedance-ark.json`), and their documentation as of 2026-11-21. Not tried live.

Quirks: all input is a list `content` of texts, pictures and videos with a role; frames and references exclude each
other. A parameter that a model lacks is a 400, so each model is in the table; an endpoint of the account (`ep-...`) is
not, and the vendor judges. A key works at one of the two hosts only. DELETE stops a task that is queued; one that runs
it refuses, and of one that has ended it deletes the record. A task is kept for seven days, its file for 24 hours.
Inferred: that the list of tasks has the newest first and takes 100 a page; that a length of 5 s and 720p, which every
model has, may be sent where the request has none; that 429 of `QuotaExceeded` and `SetLimitExceeded` are limits of the
account that time does not lift soon.
"""

import re
from datetime import date
from typing import Any

import httpx
from pydantic import Field, SecretStr

from app import errors
from app.capabilities import Capabilities, in_micros, media_of
from app.providers.answers import listed_tasks, segment
from app.providers.base import ListedTask, ProviderConfig, Task
from app.providers.rest import CANCELLED_WORDS, NOT_STOPPED, RestProvider
from app.sizes import nearest_ratio
from app.video import Media, Operation, Progress, Status, Submission, VideoRequest, without_fraction

PAGE_TASKS = 100
PATH = "/contents/generations/tasks"
BYTEPLUS = "https://ark.ap-southeast.bytepluses.com/api/v3"
VOLCENGINE = "https://ark.cn-beijing.volces.com/api/v3"
ACCOUNT_LIMITS = ("QuotaExceeded", "SetLimitExceeded")
DEFAULT_SECONDS = 5
DEFAULT_RESOLUTION = "720p"

RATIOS = ("16:9", "9:16", "4:3", "3:4", "1:1", "21:9")
FRAMES = frozenset({"first_frame", "last_frame"})
REFERENCES = frozenset({"reference_images", "reference_video"})
OWN_FIELDS = frozenset({"watermark", "return_last_frame", "execution_expires_after"})
TWO = OWN_FIELDS | {"priority", "tools"}
ONE = OWN_FIELDS | {"camera_fixed", "service_tier"}
LITE_PRICES = {"480p": 0.0175, "720p": 0.0371, "1080p": 0.088}
"""Prices of 1.0 Lite at 16:9, at 1.8 dollars per million tokens. Source: ComfyUI's price list, which has the ranges
over all ratios for the model that animates pictures. Inferred: that the one for texts costs the same."""


def _seedance(
    seconds: tuple[int, int],
    *resolutions: str,
    parameters: frozenset[str],
    fields: frozenset[str],
    references: int | None = None,
    operations: tuple[Operation, ...] = (),
    prices: dict[str, float],
    silent: dict[str, float] | None = None,
) -> Capabilities:
    """Capabilities of one model; prices in US dollars per second at 16:9, with sound and without."""
    return Capabilities(
        seconds=seconds,
        seconds_range=True,
        default_seconds=DEFAULT_SECONDS,
        default_resolution=DEFAULT_RESOLUTION,
        resolutions=resolutions,
        aspect_ratios=RATIOS,
        parameters=parameters,
        max_reference_images=references,
        operations=frozenset({Operation.generate, *operations}),
        prices=in_micros(prices),
        silent_prices=in_micros(silent or {}),
        vendor_fields=fields,
    )


FAMILIES: dict[str, Capabilities] = {
    "2-5": _seedance(
        (4, 30),
        *("480p", "720p", "1080p"),
        parameters=FRAMES | REFERENCES | {"generate_audio"},
        fields=TWO | {"output_format", "omni_reference_task_type"},
        references=30,
        operations=(Operation.edit, Operation.extend),
        prices={"480p": 0.1028, "720p": 0.2311, "1080p": 0.5686},
    ),
    "2-0": _seedance(
        (4, 15),
        *("480p", "720p", "1080p", "2160p"),
        parameters=FRAMES | REFERENCES | {"generate_audio"},
        fields=TWO,
        references=9,
        prices={"480p": 0.0703, "720p": 0.1512, "1080p": 0.3742, "2160p": 0.7776},
    ),
    "2-0-fast": _seedance(
        (4, 15),
        *("480p", "720p"),
        parameters=FRAMES | REFERENCES | {"generate_audio"},
        fields=TWO,
        references=9,
        prices={"480p": 0.0562, "720p": 0.121},
    ),
    "2-0-mini": _seedance(
        (4, 15),
        *("480p", "720p"),
        parameters=FRAMES | REFERENCES | {"generate_audio"},
        fields=TWO,
        references=9,
        prices={"480p": 0.0352, "720p": 0.0756},
    ),
    "1-5-pro": _seedance(
        (4, 12),
        *("480p", "720p", "1080p"),
        parameters=FRAMES | {"generate_audio", "seed"},
        fields=ONE | {"draft"},
        prices={"480p": 0.024, "720p": 0.0518, "1080p": 0.1166},
        silent={"480p": 0.012, "720p": 0.0259, "1080p": 0.0583},
    ),
    "1-0-pro": _seedance(
        (2, 12),
        *("480p", "720p", "1080p"),
        parameters=FRAMES | {"seed"},
        fields=ONE,
        prices={"480p": 0.024, "720p": 0.0515, "1080p": 0.12},
    ),
    "1-0-pro-fast": _seedance(
        (2, 12),
        *("480p", "720p", "1080p"),
        parameters=frozenset({"first_frame", "seed"}),
        fields=ONE,
        prices={"480p": 0.0097, "720p": 0.0216, "1080p": 0.0486},
    ),
    "1-0-lite-t2v": _seedance(
        (2, 12),
        *("480p", "720p", "1080p"),
        parameters=frozenset({"seed"}),
        fields=ONE - {"camera_fixed"},
        prices=LITE_PRICES,
    ),
    "1-0-lite-i2v": _seedance(
        (2, 12),
        *("480p", "720p", "1080p"),
        parameters=FRAMES | {"reference_images", "seed"},
        fields=ONE,
        references=4,
        prices=LITE_PRICES,
    ),
}
"""By the part of a model's name between `seedance-` and its date. Lengths, resolutions and inputs: the vendor's pages
and SDK types, of 1.0 Lite a public summary of Volcengine's pages read on 2026-11-27 (with references it makes no 1080p,
which the vendor judges); prices: those of BytePlus as its pages, OpenRouter and ComfyUI showed them in 2026-10."""
CHINESE = "doubao-"
"""Begins the names of models at Volcengine."""
PRICES_IN_CHINA = {
    "2-5": {"480p": 0.096075, "720p": 0.216, "1080p": 0.5346},
    "2-0": {"480p": 0.066003, "720p": 0.141943, "1080p": 0.354086, "2160p": 0.722057},
    "2-0-fast": {"480p": 0.05309, "720p": 0.114171},
    "2-0-mini": {"480p": 0.033002, "720p": 0.070971},
}
"""Source: the price map of LiteLLM 1.110.2, 2026-11; it has none of 1.x."""
FAMILIES_IN_CHINA = {
    name: able.model_copy(update={"prices": in_micros(PRICES_IN_CHINA.get(name, {})), "silent_prices": {}})
    for name, able in FAMILIES.items()
}
PIXELS = {
    "480p": {"16:9": 864 * 496, "4:3": 752 * 560, "1:1": 640 * 640, "21:9": 992 * 432},
    "720p": {"16:9": 1280 * 720, "4:3": 1112 * 834, "1:1": 960 * 960, "21:9": 1470 * 630},
}
"""Pixels of a frame by resolution and ratio, the same upright: the vendor counts tokens, which are pixels times
seconds. Source: the same price map, for 2.x; inferred: 1.x makes the same frames. From 1080p on they are not known."""
PIXELS_2_5 = {"480p": {**PIXELS["480p"], "16:9": 854 * 480}, "720p": PIXELS["720p"]}
MODEL = re.compile(r"(?:doubao-|dreamina-)?seedance-([\d\-]+?(?:-(?:pro-fast|pro|fast|mini|lite-t2v|lite-i2v))?)-\d{6}")
LISTED = (
    "dreamina-seedance-2-5-260628",
    "dreamina-seedance-2-0-260128",
    "dreamina-seedance-2-0-fast-260128",
    "dreamina-seedance-2-0-mini-260615",
    "seedance-1-5-pro-251215",
    "seedance-1-0-pro-250528",
    "seedance-1-0-pro-fast-251015",
    "seedance-1-0-lite-t2v-250428",
    "seedance-1-0-lite-i2v-250428",
)
MODELS = {name: FAMILIES[match[1]] for name in LISTED if (match := MODEL.fullmatch(name)) is not None}
ANYTHING = Capabilities(
    parameters=FRAMES | REFERENCES | {"generate_audio", "seed"},
    operations=frozenset({Operation.generate, Operation.edit, Operation.extend}),
    passes_extra=True,
)
"""Capabilities of an endpoint of the account, and of a model that is newer than the table."""

STATUS = {
    **dict.fromkeys(("queued", "pending"), Status.queued),
    **dict.fromkeys(("running", "in_progress"), Status.in_progress),
    **dict.fromkeys(("succeeded", "success"), Status.completed),
    **dict.fromkeys(("failed", "expired", *CANCELLED_WORDS), Status.failed),
}
FILE_PATHS = (("content", "video_url"),)


class Ark(RestProvider):
    """Accepts any model name: an endpoint of the account has a name of its own."""

    kind = "ark"
    title = "Seedance at ModelArk and Volcengine Ark"
    key_variables = ("ARK_API_KEY",)
    key_page = "https://console.byteplus.com/ark/region:ark+ap-southeast-1/apikey"
    prices_read = date(2026, 11, 25)
    callbacks = True
    lists_tasks = True
    models = MODELS
    any_model = ANYTHING
    poll_interval_s = 5
    poll_interval_max_s = 15

    class Config(ProviderConfig):
        api_key: SecretStr = Field(min_length=1)
        """`ARK_API_KEY`, of one region: a key of BytePlus does not work at Volcengine, nor the other way round."""
        base_url: str = BYTEPLUS

    config: Config

    async def prepare(self, task: Task) -> dict[str, Any]:
        return await self._body(task)  # uploads are read for it

    async def submit(self, task: Task) -> Submission:
        response = await self.submit_call(task, "POST", PATH, json=task.prepared)
        answer = self.json("submit", response)
        return Submission(ref=self.ref_of("submit", answer, response), raw_status="queued")

    async def poll(self, task: Task) -> Progress:
        job = self.json("poll", await self.call("poll", "GET", self.poll_path(task)))
        error = job.get("error")
        status, raw = self.status_of(STATUS, job.get("status"), erred=bool(error))
        details = error if isinstance(error, dict) else {"message": error}
        code = details.get("code")
        code = _code(code) if isinstance(code, str) and code and raw != "expired" else None
        return self.learned(task, job, status, raw, first=FILE_PATHS, error=details.get("message"), code=code)

    def poll_path(self, task: Task) -> str:
        return f"{PATH}/{segment(task.ref)}"

    async def cancel(self, task: Task) -> bool:
        try:
            progress = await self.poll(task)
        except errors.UpstreamGone:
            return True
        if progress.status is not Status.queued:  # DELETE would remove the record of one that has just ended
            return False
        answer = await self.cancel_call("DELETE", self.poll_path(task), refusals=(*NOT_STOPPED, 403))
        return not isinstance(answer, bool)  # gone since the poll: deleted, not stopped

    async def list_tasks(self, page: str | None) -> tuple[list[ListedTask], str | None]:
        number = int(page or 1)
        query = f"page_num={number}&page_size={PAGE_TASKS}"
        answer = self.json("list", await self.call("list", "GET", f"{PATH}?{query}"))
        tasks = listed_tasks(answer.get("items"))
        rows = answer.get("items")
        is_full = isinstance(rows, list) and len(rows) >= PAGE_TASKS
        return tasks, str(number + 1) if is_full else None

    def capabilities(self, model: str) -> Capabilities | None:
        families = FAMILIES_IN_CHINA if model.startswith(CHINESE) else FAMILIES
        named = MODEL.fullmatch(model)
        return families.get(named[1], ANYTHING) if named is not None else ANYTHING

    @property
    def region(self) -> str:
        return "cn" if self.config.base_url == VOLCENGINE else "intl"

    def capabilities_for(self, model: str, request: VideoRequest) -> Capabilities | None:
        able = self.capabilities(model)
        if able is not None and request.operation is Operation.edit:  # as long as its source
            able = able.model_copy(update={"seconds": (), "seconds_range": False, "default_seconds": None})
        if able is None or not able.prices:
            return able
        pixels = PIXELS_2_5 if "-2-5-" in model else PIXELS
        ratio = request.aspect_ratio or (None if media_of(request) else "16:9")
        prices, silent = (_at_ratio(prices, pixels, ratio) for prices in (able.prices, able.silent_prices))
        return able.model_copy(update={"prices": prices, "silent_prices": silent})

    # Writing requests

    async def _body(self, task: Task) -> dict[str, Any]:
        request = task.request
        body: dict[str, Any] = {
            "model": task.model,
            "content": await self._content(task),
            "ratio": request.aspect_ratio,
            "resolution": "4k" if request.resolution == "2160p" else request.resolution,
            "duration": without_fraction(request.seconds),
            "seed": request.seed,
            "generate_audio": request.generate_audio,
            "safety_identifier": request.user if request.user and len(request.user) <= 64 else None,
            "callback_url": task.callback_url,
        }
        if request.operation is not Operation.generate:
            body["omni_reference_task_type"] = str(request.operation)
        if request.operation is Operation.edit:  # both are the source's
            body |= {"ratio": "adaptive", "duration": -1}
        given = {name: value for name, value in body.items() if value is not None}
        given |= {name: value for name, value in request.extra.items() if name not in (*given, "n")}
        return {**_defaults(given), **given} if self.capabilities(task.model) is not ANYTHING else given

    async def _content(self, task: Task) -> list[dict[str, Any]]:
        request = task.request
        content: list[dict[str, Any]] = [{"type": "text", "text": request.prompt}]
        pictures = [
            (request.first_frame, "first_frame"),
            (request.last_frame, "last_frame"),
            *((image, "reference_image") for image in request.reference_images),
        ]
        for picture, role in pictures:
            if picture is not None:
                url = await self._url(picture, task)
                content.append({"type": "image_url", "image_url": {"url": url}, "role": role})
        for video in (request.reference_video, request.source):
            if video is not None:
                url = await self._url(video, task)
                content.append({"type": "video_url", "video_url": {"url": url}, "role": "reference_video"})
        return content

    async def _url(self, media: Media, task: Task) -> str:
        if media.video_id is not None:
            raise self.foreign_source()
        return media.url or await task.data_url(media, provider=self.name)

    # Reading errors

    def error_from(self, verb: str, response: httpx.Response) -> errors.UpstreamError:
        error = super().error_from(verb, response)
        code, message = self.read_error(response)
        details: dict[str, Any] = {
            "provider": self.name,
            "upstream_status": response.status_code,
            "body": error.body,
            "retry_after_s": error.retry_after_s,
        }
        if code == "AccountOverdueError":
            return errors.UpstreamCredit(f"the gateway's account at {self.name} has no credit left", **details)
        if code is not None and "SensitiveContentDetected" in code:
            return errors.ContentPolicy(self.scrub(message), **details)
        if response.status_code == 429 and code in ACCOUNT_LIMITS:
            return errors.UpstreamAccount(f"{self.name} has reached a limit of its account ({code})", **details)
        if response.status_code == 401:
            other = "Volcengine in China" if "byteplus" in self.config.base_url else "BytePlus"
            return errors.UpstreamAccount(
                f"{self.name} refuses the gateway's credentials (401); a key of {other} needs the other base URL, "
                f"{VOLCENGINE} or {BYTEPLUS}",
                **details,
            )
        return error


def _code(code: str) -> str:
    return errors.ContentPolicy.default_code if "SensitiveContentDetected" in code else code


def _defaults(given: dict[str, Any]) -> dict[str, Any]:
    """Values that the vendor would decide on, sent so that the price is known; media decide on the ratio."""
    ratio = {"ratio": "16:9"} if len(given["content"]) == 1 else {}
    return {**ratio, "resolution": DEFAULT_RESOLUTION, "duration": DEFAULT_SECONDS}


def _at_ratio(prices: dict[str, int], pixels: dict[str, dict[str, int]], ratio: str | None) -> dict[str, int]:
    """The prices at a ratio; at the one with most pixels if the media decide on it."""
    near = nearest_ratio(ratio, RATIOS) if ratio is not None else None
    wide = ":".join(sorted(near.split(":"), key=int, reverse=True)) if near is not None else None
    found = {}
    for resolution, micros in prices.items():
        frames = pixels.get(resolution, {"16:9": 1})
        area = max(frames.values()) if wide is None else frames.get(wide, frames["16:9"])
        found[resolution] = round(micros * area / frames["16:9"])
    return found
