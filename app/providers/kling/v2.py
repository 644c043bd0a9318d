"""Kling's API 2.0: its models, the body of a submit, and what a task says. Pure but for the media that are read by
`Address`."""

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from app.capabilities import Capabilities, in_micros
from app.providers.answers import MAX_UNIX_S, is_usable, reported_micros
from app.providers.base import ListedTask, Task
from app.providers.kling.names import V2
from app.video import Media, Operation, VideoRequest, without_fraction

TASKS = "/tasks"
TEXT, PICTURE, OMNI = "/text-to-video", "/image-to-video", "/omni-video"
RATIOS = ("16:9", "9:16", "1:1")
DEFAULT_SECONDS = 5
DEFAULT_RESOLUTION = "720p"
DEFAULT_RATIO = "16:9"
FRAMES = frozenset({"first_frame", "last_frame"})
REFERENCES = frozenset({"reference_images", "reference_video"})
IN_OPTIONS = frozenset({"watermark_info"})
"""Fields of the vendor that stand in `options`; all others stand in `settings`."""
ELEMENTS = "elements"
"""The vendor's `element` items of `contents`, each `{"element_id": ..., "id": ...}`, as a list of this gateway's."""
SHOT = "multi_shot"
MAX_IMAGES = 7
MAX_IMAGES_WITH_VIDEO = 4
MAX_BILLS = 16
AMOUNT = re.compile(r"\d{1,9}(?:\.\d{1,9})?", re.ASCII)
Address = Callable[[Media], Awaitable[str]]


def _kling(
    seconds: tuple[int, int],
    *resolutions: str,
    any_length: bool = True,
    parameters: frozenset[str],
    fields: frozenset[str] = frozenset(),
    operations: tuple[Operation, ...] = (),
    prices: dict[str, float],
    silent: dict[str, float] | None = None,
) -> Capabilities:
    """Capabilities of one model; prices in US dollars per second, with sound and without. `any_length`: every length
    between the two, rather than these two."""
    return Capabilities(
        seconds=seconds,
        seconds_range=any_length,
        default_seconds=DEFAULT_SECONDS,
        default_resolution=DEFAULT_RESOLUTION,
        resolutions=resolutions,
        aspect_ratios=RATIOS,
        parameters=parameters,
        max_reference_images=MAX_IMAGES if "reference_images" in parameters else None,
        operations=frozenset({Operation.generate, *operations}),
        prices=in_micros(prices),
        silent_prices=in_micros(silent or {}),
        vendor_fields=fields | IN_OPTIONS,
    )


MODELS = {
    "kling-3.0": _kling(
        (3, 15),
        *("720p", "1080p", "2160p"),
        parameters=FRAMES | {"generate_audio"},
        fields=frozenset({SHOT, ELEMENTS}),
        prices={"720p": 0.126, "1080p": 0.168, "2160p": 0.42},
        silent={"720p": 0.084, "1080p": 0.112, "2160p": 0.42},
    ),
    "kling-3.0-omni": _kling(
        (3, 15),
        *("720p", "1080p", "2160p"),
        parameters=FRAMES | REFERENCES | {"generate_audio"},
        fields=frozenset({SHOT, ELEMENTS}),
        operations=(Operation.edit,),
        prices={"720p": 0.112, "1080p": 0.14, "2160p": 0.42},
        silent={"720p": 0.084, "1080p": 0.112, "2160p": 0.42},
    ),
    "kling-3.0-turbo": _kling(
        (3, 15),
        *("720p", "1080p"),
        parameters=frozenset({"first_frame"}),
        prices={"720p": 0.112, "1080p": 0.14},
    ),
    "kling-2.6": _kling(
        (5, 10),
        *("720p", "1080p"),
        any_length=False,
        parameters=FRAMES | {"generate_audio"},
        prices={"720p": 0.042, "1080p": 0.14},
        silent={"720p": 0.042, "1080p": 0.07},
    ),
    "kling-2.5-turbo": _kling(
        (5, 10),
        *("720p", "1080p"),
        any_length=False,
        parameters=FRAMES,
        prices={"720p": 0.042, "1080p": 0.07},
    ),
    "kling-o1": _kling(
        (5, 10),
        *("720p", "1080p"),
        any_length=False,
        parameters=FRAMES | REFERENCES,
        fields=frozenset({ELEMENTS}),
        operations=(Operation.edit,),
        prices={"720p": 0.084, "1080p": 0.112},
    ),
}
"""Lengths, resolutions, inputs and prices: the vendor's pages as mirrored on 2026-09-20. The sound of `kling-2.6` is
that of 1080p only."""
VIDEO_INPUT_PRICES = in_micros({"720p": 0.126, "1080p": 0.168})
"""Prices of the omni models where a video is given; that of 4k is not known."""
ANYTHING = Capabilities(parameters=FRAMES | {"generate_audio"}, passes_extra=True)
ANYTHING_OMNI = Capabilities(
    parameters=FRAMES | REFERENCES | {"generate_audio"},
    operations=frozenset({Operation.generate, Operation.edit}),
    passes_extra=True,
)
"""Capabilities of models that are newer than the table."""
SOUND_AT_1080P = frozenset({"kling-2.6"})
LAST_FRAME_AT_1080P = frozenset({"kling-2.6", "kling-2.5-turbo"})
ONE_SHOT = frozenset({"kling-3.0", "kling-3.0-omni"})
"""Models that would cut to several shots unless they are asked for one."""
OMNI_NAME = re.compile(r"kling-o\d|.*-omni\b")
"""Models with an endpoint of their own for all kinds of input."""


def is_omni(model: str) -> bool:
    return OMNI_NAME.match(model) is not None


def capabilities(model: str) -> Capabilities:
    return MODELS.get(model, ANYTHING_OMNI if is_omni(model) else ANYTHING)


def capabilities_for(model: str, request: VideoRequest) -> Capabilities:
    """Capabilities for this request: its pictures and videos decide on the rest."""
    able = capabilities(model)
    changes: dict[str, Any] = {"malformed": malformed(model, request)}
    if model not in MODELS:
        return able.model_copy(update=changes)
    if request.first_frame is not None:
        changes |= {"aspect_ratios": ()}  # that of the picture
    elif not is_omni(model):
        changes |= {"vendor_fields": able.vendor_fields - {ELEMENTS}}
    if request.last_frame is not None:
        changes |= {"required": frozenset({"first_frame"})}
    needs_1080p = (request.last_frame is not None and model in LAST_FRAME_AT_1080P) or (
        request.generate_audio is True and model in SOUND_AT_1080P
    )
    if needs_1080p:
        changes |= {"resolutions": ("1080p",), "default_resolution": "1080p"}
    if model == "kling-o1" and request.reference_images:
        changes |= {"seconds": (3, 10), "seconds_range": True}
    if is_omni(model):
        changes |= _with_video(able, request)
    return able.model_copy(update=changes)


def malformed(model: str, request: VideoRequest) -> dict[str, str]:
    """The vendor's own fields that cannot be sent as they are given, each with the reason."""
    found: dict[str, str] = {}
    elements = request.extra.get(ELEMENTS, [])
    if not isinstance(elements, list) or not all(isinstance(one, dict) and "element_id" in one for one in elements):
        found[ELEMENTS] = "expected a list of objects with element_id and id"
    elif ELEMENTS in request.extra and endpoint(model, request) == TEXT:
        found[ELEMENTS] = "it takes them beside a first frame only"
    if not isinstance(request.extra.get(SHOT, False), bool):
        found[SHOT] = "expected true or false"
    return found


def _with_video(able: Capabilities, request: VideoRequest) -> dict[str, Any]:
    """Changes of an omni model for a request that has a video: as reference, or to be edited."""
    if request.operation is not Operation.edit and request.reference_video is None:
        return {}
    changes: dict[str, Any] = {
        "parameters": able.parameters - {"generate_audio"},
        "media": frozenset({"url"}),
        "max_reference_images": MAX_IMAGES_WITH_VIDEO,
        "prices": VIDEO_INPUT_PRICES,
        "silent_prices": {},
        "vendor_fields": able.vendor_fields - {SHOT},
    }
    if request.operation is Operation.edit:  # as long as its source, and of its shape
        changes |= {
            "parameters": frozenset({"reference_images", "generate_audio"}),
            "seconds": (),
            "seconds_range": False,
            "default_seconds": None,
            "aspect_ratios": (),
        }
        if request.source is not None and request.source.video_id is not None:  # no 4k for a price that is not known
            changes |= {"resolutions": tuple(VIDEO_INPUT_PRICES)}
    return changes


# Writing requests


def path_of(task: Task) -> str:
    return endpoint(task.model, task.request)


def endpoint(model: str, request: VideoRequest) -> str:
    """The endpoint of a request, without the model."""
    if is_omni(model):
        return OMNI
    has_frame = request.first_frame is not None or request.last_frame is not None
    return PICTURE if has_frame else TEXT


async def body(task: Task, picture: Address, video: Address) -> dict[str, Any]:
    """The body of a submit; only that of a text alone has the prompt at the top."""
    request = task.request
    extra = {name: value for name, value in request.extra.items() if name not in ("n", ELEMENTS)}
    own = {name: extra.pop(name) for name in IN_OPTIONS if name in extra}
    options = own | {"external_task_id": task.id} | ({"callback_url": task.callback_url} if task.callback_url else {})
    content: dict[str, Any] = {"prompt": request.prompt}
    if path_of(task) != TEXT:
        content = {"contents": await _contents(request, picture, video)}
    return {**content, "settings": extra | _settings(task), "options": options}


async def _contents(request: VideoRequest, picture: Address, video: Address) -> list[dict[str, Any]]:
    contents: list[dict[str, Any]] = [{"type": "prompt", "text": request.prompt}]
    for name, frame in (("first_frame", request.first_frame), ("last_frame", request.last_frame)):
        if frame is not None:
            contents.append({"type": name, "url": await picture(frame)})
    for number, image in enumerate(request.reference_images, 1):
        contents.append({"type": "refer_image", "url": await picture(image), "id": f"image_{number}"})
    for name, given in (("base_video", request.source), ("feature_video", request.reference_video)):
        if given is not None:
            contents.append({"type": name, "url": await video(given), "id": "video_1"})
    return contents + [{**element, "type": "element"} for element in request.extra.get(ELEMENTS, ())]


def refusal(task: Task) -> str | None:
    """The reason why a request cannot be sent, or None."""
    return next((f"{name}: {why}" for name, why in malformed(task.model, task.request).items()), None)


def _settings(task: Task) -> dict[str, Any]:
    """Settings of a request, with the values on which the vendor would decide: so the price is known, and the video is
    one shot. A field that a model lacks would be ignored without a word."""
    request, able = task.request, capabilities_for(task.model, task.request)
    resolution = request.resolution or able.default_resolution
    seconds = request.seconds if request.seconds is not None else able.default_seconds
    ratio = request.aspect_ratio or _default_ratio(task)
    if request.operation is Operation.edit:  # what the request inherits from its source is the source's anyway
        seconds, ratio = None, None
    found: dict[str, Any] = {
        "resolution": "4k" if resolution == "2160p" else resolution,
        "duration": without_fraction(seconds),
        "aspect_ratio": ratio,
        "audio": _audio(task, resolution),
    }
    if task.model in ONE_SHOT and request.reference_video is None:  # a reference video needs the vendor's default
        found[SHOT] = request.extra.get(SHOT) is True
    return {name: value for name, value in found.items() if value is not None}


def _default_ratio(task: Task) -> str | None:
    """The ratio where no picture or video decides on it: the omni models want one then."""
    request = task.request
    deciding = (request.first_frame, request.last_frame, request.source, request.reference_video)
    is_free = all(medium is None for medium in deciding)
    return DEFAULT_RATIO if is_free and (task.model in MODELS or is_omni(task.model)) else None


def _audio(task: Task, resolution: str | None) -> str | None:
    """The vendor's word for sound; None where the model has no such setting."""
    request, model = task.request, task.model
    if request.operation is Operation.edit:
        return "off" if request.generate_audio is False else "original"
    if request.reference_video is not None or model == "kling-o1":
        return "off"
    if model not in MODELS:
        return {True: "native", False: "off", None: None}[request.generate_audio]
    if "generate_audio" not in MODELS[model].parameters:
        return None
    silent = request.generate_audio is False or (model in SOUND_AT_1080P and resolution != "1080p")
    return "off" if silent else "native"


# Reading answers


def charged_micros(job: dict[str, Any]) -> int | None:
    """The cost of a task that was paid in US dollars; None for units of a resource pack, other money, or nothing."""
    bills = job.get("billing")
    if not isinstance(bills, list) or not 0 < len(bills) <= MAX_BILLS:
        return None
    amounts = [_micros_of(bill) if isinstance(bill, dict) else None for bill in bills]
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if len(known) == len(bills) else None


def _micros_of(bill: dict[str, Any]) -> int | None:
    if (bill.get("charge_type"), bill.get("currency")) != ("cash", "USD"):
        return None
    amount = bill.get("amount")
    dollars = float(amount) if isinstance(amount, str) and AMOUNT.fullmatch(amount) else amount
    return reported_micros({"amount": dollars}, ("amount",))


def listed_tasks(rows: Any) -> list[ListedTask]:
    """The tasks of a list: those with a usable id and a time, which is in milliseconds."""
    found = []
    for row in rows if isinstance(rows, list) else ():
        ref, created = (row.get("id"), row.get("create_time")) if isinstance(row, dict) else (None, None)
        if is_usable(ref) and isinstance(created, int | float) and 0 <= created < MAX_UNIX_S * 1000:
            status = row.get("status")
            word = status[:100].encode(errors="replace").decode() if isinstance(status, str) else None
            own = row.get(V2.own_id[0])
            own_id = own if isinstance(own, str) else None
            found.append(ListedTask(ref, datetime.fromtimestamp(created / 1000, UTC), raw_status=word, own_id=own_id))
    return found
