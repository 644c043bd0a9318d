"""Models of DashScope: capabilities and list prices, and the shape of requests of each generation. Pure.

Lengths, resolutions and inputs: the vendor's clients and pages as of 2026-11-21, and for the lengths of references and
for `negative_prompt` copies of its pages of 2026-09. Inferred: a length of 5 s and 720p, which every model has, may be
sent where the request has none; Wan 3.0 edits what it gets as a reference, at a length of its own choice; an edit costs
the seconds of its source and of the output, an extension those of the whole video.
"""

import re
from collections.abc import Mapping
from typing import Any

from app.capabilities import Capabilities, in_micros, media_of
from app.video import Media, Operation, VideoRequest

DEFAULT_SECONDS = 5
DEFAULT_RESOLUTION = "720p"
LONGEST_EXTENDED_S = 15
"""Longest video that an extension results in, its source included."""
RATIOS = ("16:9", "9:16", "1:1", "4:3", "3:4")
RATIOS_480P = RATIOS[:3]
"""Those of 480p of the models that take a size."""
SIZES = {
    "480p": dict(zip(RATIOS_480P, ("832*480", "480*832", "624*624"), strict=True)),
    "720p": dict(zip(RATIOS, ("1280*720", "720*1280", "960*960", "1088*832", "832*1088"), strict=True)),
    "1080p": dict(zip(RATIOS, ("1920*1080", "1080*1920", "1440*1440", "1632*1248", "1248*1632"), strict=True)),
}
"""Source: the vendor's page of Wan 2.1 to 2.6, as two public clients have it."""
LEGACY = re.compile(r"wanx|wan2\.[0-6]")
DATED = re.compile(r"-\d{4}-\d{2}-\d{2}$")
MODE = re.compile(r"-(?:t2v|i2v|r2v)(?:-preview)?$")

HD = ("720p", "1080p")
ALL = ("480p", *HD)
FIRST = frozenset({"first_frame"})
FRAMES = FIRST | {"last_frame"}
REFERENCES = frozenset({"reference_images", "reference_video"})
WAN = frozenset({"seed", "negative_prompt", "expand_prompt"})
LISTS: dict[str, type] = {"media": dict, "reference_urls": str}
"""The vendor's own fields that are lists, and what their entries are."""
PARAMETERS = {
    **dict.fromkeys(("first_frame", "first_clip"), "first_frame"),
    "last_frame": "last_frame",
    "reference_image": "reference_images",
    "reference_video": "reference_video",
}
"""The parameter that an entry of `media` takes the place of, by its type: a clip that is continued stands for the first
frame."""

PRICES = {
    "wan3.0-video": {"480p": 0.05, "720p": 0.1, "1080p": 0.2},
    "wan3.0-video-prime": {"480p": 0.068, "720p": 0.14, "1080p": 0.28},
    "happyhorse-1.1": {"480p": 0.07, "720p": 0.14, "1080p": 0.18},
    "happyhorse-1.0": {"720p": 0.14, "1080p": 0.24},
    "wan2.7": {"720p": 0.1, "1080p": 0.15},
    "wan2.6": {"720p": 0.1, "1080p": 0.15},
    "wan2.5": {"480p": 0.05, "720p": 0.1, "1080p": 0.15},
}
"""US dollars per second in Singapore, by the beginning of a model's name. Sources: the price map of LiteLLM 1.110.2,
2026-11, and for 2.5 and 2.6 a partner's price list; those of the variants `flash` are not known."""
PRICES_IN_CHINA = {
    "wan3.0-video": {"480p": 0.041256, "720p": 0.082513, "1080p": 0.165025},
    "wan3.0-video-prime": {"480p": 0.0636, "720p": 0.127199, "1080p": 0.254399},
    "happyhorse-1.1": {"480p": 0.061885, "720p": 0.123769, "1080p": 0.165026},
    "happyhorse-1.0": {"720p": 0.123769, "1080p": 0.220034},
    "wan2.7": {"720p": 0.086012, "1080p": 0.143353},
}
"""Source: the same price map; it has none of 2.5 and 2.6."""


def _prices_of(model: str, prices: Mapping[str, Mapping[str, float]]) -> dict[str, int]:
    return in_micros(prices.get(MODE.sub("", model), {}))


def _able(
    seconds: tuple[int, ...],
    resolutions: tuple[str, ...],
    parameters: frozenset[str],
    *own: str,
    seconds_range: bool = True,
    ratios: tuple[str, ...] = RATIOS,
    operations: tuple[Operation, ...] = (Operation.generate,),
    **more: Any,
) -> Capabilities:
    """Capabilities of one model; without ratios where the picture decides, `own` are the vendor's own fields."""
    return Capabilities(
        seconds=seconds,
        seconds_range=seconds_range,
        default_seconds=DEFAULT_SECONDS if seconds else None,
        resolutions=resolutions,
        default_resolution=DEFAULT_RESOLUTION,
        aspect_ratios=ratios,
        parameters=parameters,
        operations=frozenset(operations),
        vendor_fields=frozenset({"watermark", *own}),
        **more,
    )


def _animates(
    seconds: tuple[int, ...],
    resolutions: tuple[str, ...],
    parameters: frozenset[str],
    *own: str,
    required: frozenset[str] = FIRST,
    **more: Any,
) -> Capabilities:
    """Capabilities of a model that makes nothing without a picture, which decides on the ratio."""
    return _able(seconds, resolutions, parameters | required, *own, ratios=(), required=required, **more)


WAN_3 = _able(
    (2, 30),
    ALL,
    FRAMES | REFERENCES | {"seed", "expand_prompt", "generate_audio"},
    *("media", "enable_thinking"),
    ratios=(*RATIOS, "21:9"),
    max_reference_images=10,
    operations=(Operation.generate, Operation.edit),
)
HORSE = frozenset({"seed"})
IMAGES = frozenset({"reference_images"})
OLD_REFERENCES = _able(
    (5, 10),
    HD,
    REFERENCES | {"seed", "generate_audio"},
    *("shot_type", "reference_urls"),
    seconds_range=False,
)
UNPRICED: dict[str, Capabilities] = {
    "wan3.0-video": WAN_3,
    "wan3.0-video-prime": WAN_3,
    "happyhorse-1.1-t2v": _able((3, 15), ALL, HORSE),
    "happyhorse-1.1-i2v": _animates((3, 15), ALL, HORSE),
    "happyhorse-1.1-r2v": _able((3, 15), ALL, HORSE | IMAGES, required=IMAGES, max_reference_images=9),
    "happyhorse-1.0-t2v": _able((3, 15), HD, HORSE),
    "happyhorse-1.0-i2v": _animates((3, 15), HD, HORSE),
    "happyhorse-1.0-r2v": _able((3, 15), HD, HORSE | IMAGES, required=IMAGES, max_reference_images=9),
    "happyhorse-1.0-video-edit": _able(
        (), HD, HORSE | IMAGES, "audio_setting", ratios=(), max_reference_images=5, operations=(Operation.edit,)
    ),
    "wan2.7-t2v": _able((2, 15), HD, WAN, "audio_url"),
    "wan2.7-i2v": _animates((2, 15), HD, WAN | FRAMES, "media", operations=(Operation.generate, Operation.extend)),
    "wan2.7-r2v": _able((2, 10), HD, WAN | FIRST | REFERENCES, "media", max_reference_images=5),
    "wan2.6-t2v": _able((5, 10, 15), HD, WAN | {"generate_audio"}, "audio_url", "shot_type", seconds_range=False),
    "wan2.6-i2v": _animates((5, 10, 15), HD, WAN, "audio_url", "shot_type", seconds_range=False),
    "wan2.6-i2v-flash": _animates(
        (5, 10, 15), HD, WAN | {"generate_audio"}, "audio_url", "shot_type", seconds_range=False
    ),
    "wan2.6-r2v": OLD_REFERENCES,
    "wan2.6-r2v-flash": OLD_REFERENCES,
    "wan2.5-t2v-preview": _able((5, 10), ALL, WAN | {"generate_audio"}, "audio_url", seconds_range=False),
    "wan2.5-i2v-preview": _animates((5, 10), ALL, WAN, "audio_url", seconds_range=False),
    "wan2.2-kf2v-flash": _animates((DEFAULT_SECONDS,), ALL, WAN, required=FRAMES, seconds_range=False),
}
MODELS, MODELS_IN_CHINA = (
    {name: able.model_copy(update={"prices": _prices_of(name, prices)}) for name, able in UNPRICED.items()}
    for prices in (PRICES, PRICES_IN_CHINA)
)
ANYTHING = Capabilities(parameters=WAN | FRAMES | REFERENCES | {"generate_audio"}, passes_extra=True)
"""Capabilities of a model that is not in the table."""


def known(model: str, *, in_china: bool) -> Capabilities:
    """Capabilities of a model by its name, in which a date makes no difference."""
    return (MODELS_IN_CHINA if in_china else MODELS).get(DATED.sub("", model), ANYTHING)


def narrowed(model: str, able: Capabilities, request: VideoRequest) -> Capabilities:
    """Capabilities of a model for one request: clips are taken by address; an edit is as long as its source; an
    extension ends with the longest video; the seconds of a source are charged, too, where they are known."""
    changes = _of_fields(able, request)
    clips = [clip for clip in (request.reference_video, request.source) if clip is not None]
    if any(clip.key is not None for clip in clips):
        changes["media"] = frozenset({"url"})
    if able is ANYTHING:
        return able.model_copy(update=changes)
    entries = _entries(request)
    changes["required"] = able.required - entries if request.operation is Operation.generate else frozenset()
    if takes_all(model):
        changes["parameters"] = able.parameters - _excluded(request, entries)
    if request.operation is Operation.edit:
        changes |= {"seconds": (), "seconds_range": False, "default_seconds": None}
    if request.operation is Operation.extend:
        left = max(1, LONGEST_EXTENDED_S - (seconds_of(request.source) or 0))
        changes |= {"seconds": (1, left), "default_seconds": min(DEFAULT_SECONDS, left)}
        changes["parameters"] = able.parameters - FIRST
    if request.resolution == "480p" and takes_size(model):
        changes["aspect_ratios"] = RATIOS_480P
    if request.source is not None:
        changes |= _priced_with_source(able.model_copy(update=changes), request)
    return able.model_copy(update=changes)


def _of_fields(able: Capabilities, request: VideoRequest) -> dict[str, Any]:
    """Changes that keep out own fields which are not the list that the vendor has there."""
    wrong = {name for name in request.extra.keys() & LISTS.keys() if not _is_list_of(LISTS[name], request.extra[name])}
    if not wrong:
        return {}
    taken = able.vendor_fields | (request.extra.keys() if able.passes_extra else set())
    return {"vendor_fields": frozenset(taken - wrong), "passes_extra": False}


def _is_list_of(kind: type, value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, kind) for entry in value)


def _entries(request: VideoRequest) -> set[str]:
    """The parameters whose place the entries of `media` take."""
    media = request.extra.get("media")
    kinds = [entry.get("type") for entry in media if isinstance(entry, dict)] if isinstance(media, list) else []
    return {PARAMETERS[kind] for kind in kinds if isinstance(kind, str) and kind in PARAMETERS}


def _excluded(request: VideoRequest, entries: set[str]) -> frozenset[str]:
    """The parameters that a model of every kind of input does not take beside what is given: frames or references."""
    excluded: frozenset[str] = frozenset()
    if FRAMES & (media_of(request).keys() | entries):
        excluded |= REFERENCES
    if request.operation is Operation.edit or REFERENCES & entries:
        excluded |= FRAMES
    return excluded


def _priced_with_source(able: Capabilities, request: VideoRequest) -> dict[str, Any]:
    """Prices of a request with a source: a resolution of the source's that the model lacks is made as the default one.
    The least price is that of the source and the output together; where the length of the source is not known, the
    output alone is charged."""
    resolution, default = request.resolution or DEFAULT_RESOLUTION, able.prices.get(DEFAULT_RESOLUTION)
    prices = able.prices if default is None else {resolution: default, **able.prices}
    if request.source is None or request.source.seconds is None:
        return {"prices": prices}
    charged = 2 * max(1, request.source.seconds)
    if request.operation is Operation.extend:
        added = request.seconds if request.seconds is not None else able.default_seconds
        charged = (seconds_of(request.source) or 0) + (added or 0)
    return {"prices": prices, "least_micros": round(charged * prices.get(resolution, 0))}


def seconds_of(clip: Media | None) -> int | None:
    """The whole seconds of a clip; None if they are not known."""
    return None if clip is None or clip.seconds is None else max(1, round(clip.seconds))


def is_legacy(model: str) -> bool:
    """True for a model that takes each picture in a field of its own."""
    return LEGACY.match(model) is not None


def takes_keyframes(model: str) -> bool:
    """True for an older model of a first and a last frame, which has a path of its own."""
    return "kf2v" in model


def takes_all(model: str) -> bool:
    """True for a model of every kind of input, which edits what it gets as a reference."""
    return model.startswith("wan3")


def takes_size(model: str) -> bool:
    """True for a model that takes a size instead of a resolution and a ratio."""
    return is_legacy(model) and ("t2v" in model or "r2v" in model)


def size_for(request: VideoRequest, able: Capabilities) -> str | None:
    """The size of a request as such a model takes it; None where neither the request nor the table has one."""
    resolution = request.resolution or able.default_resolution
    found = SIZES.get(resolution or "", {}).get(request.aspect_ratio or RATIOS[0])
    return found or (request.size.replace("x", "*") if request.size is not None else None)
