"""Capabilities of a model, and the conversion of a request to them.

`fit` converts sizes, ratios and resolutions, and lists what the model cannot express. Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from app.sizes import COMMON_RATIOS, complete_size, distance, nearest_ratio
from app.video import Media, Operation, VideoRequest

OPTIONAL_PARAMETERS = (
    "first_frame",
    "last_frame",
    "reference_images",
    "reference_video",
    "characters",
    "negative_prompt",
    "seed",
    "generate_audio",
    "loop",
    "expand_prompt",
)


SAME = 0.03
"""Distance up to which two ratios are the same, in doublings: two per cent."""


class Capabilities(BaseModel):
    """Parameters and values that one model supports. None means not known: passed on for the upstream to judge; empty
    means that it has no such parameter."""

    model_config = ConfigDict(frozen=True)

    seconds: tuple[float, ...] | None = None
    """Supported lengths; with `seconds_range` True, the two ends of a range."""
    seconds_range: bool = False
    whole_seconds: bool = True
    """True: a range has whole seconds only."""
    default_seconds: float | None = None
    """The length if the request has none, where known; shown to the client from the start."""
    sizes: tuple[str, ...] | None = None
    """Supported sizes as `WIDTHxHEIGHT`; set this or the next two."""
    aspect_ratios: tuple[str, ...] | None = None
    """Supported ratios; a size is sent as ratio and resolution."""
    resolutions: tuple[str, ...] | None = None
    """Supported resolutions, such as `720p`."""
    default_size: str | None = None
    default_resolution: str | None = None
    """The resolution if the request has none, where known: the one that is priced."""
    parameters: frozenset[str] = frozenset()
    """Names of the optional `VideoRequest` fields it supports, beside prompt, seconds and the size triple."""
    required: frozenset[str] = frozenset()
    """Those of them without which it makes nothing, such as the first frame of a model that only animates."""
    media: frozenset[str] = frozenset({"upload", "url"})
    """Supported forms of pictures and videos: `upload` (the bytes, in whatever form), `url`."""
    max_reference_images: int | None = None
    operations: frozenset[Operation] = frozenset({Operation.generate})
    prices: dict[str, int] = {}
    """The vendor's list price in micro-dollars per second, by resolution; `""` for any other. Empty: not known."""
    silent_prices: dict[str, int] = {}
    """The same without sound; empty: sound makes no difference."""
    least_micros: int = 0
    """The vendor's least price of a task."""
    image_micros: int = 0
    """The vendor's price of an input image, beyond the first `free_images`."""
    free_images: int = 0
    passes_extra: bool = False
    """True: unknown fields are passed on."""
    vendor_fields: frozenset[str] = frozenset()
    """The vendor's own fields that are passed on even without `passes_extra`."""
    malformed: Mapping[str, str] = {}
    """Those of them whose value in this request cannot be sent, each with the reason."""


def in_micros(dollars: Mapping[str, float]) -> dict[str, int]:
    """A table of prices in US dollars as one in micro-dollars."""
    return {resolution: round(price * 1_000_000) for resolution, price in dollars.items()}


@dataclass(frozen=True)
class Problem:
    """A part of a request that a model cannot express."""

    why: str
    drop: tuple[str, ...]
    """Fields of the request to leave out; empty if that is no help."""
    absent: bool = False
    """True: the model has no such parameter at all, rather than other values of it."""
    forced: bool = False
    """True: the client's API requires the field, so it is left out with a warning rather than refused."""
    missing: bool = False
    """True: the model makes nothing without the parameter, which the request does not have."""


@dataclass(frozen=True)
class Fitted:
    """A request converted for one model."""

    request: VideoRequest
    problems: Mapping[str, Problem]
    """By the parameter's name as the client knows it; empty if the model can express all of the request."""

    @property
    def without_problems(self) -> VideoRequest:
        """The request without the fields that the model cannot express."""
        names = [name for problem in self.problems.values() for name in problem.drop]
        extra = {name: value for name, value in self.request.extra.items() if name not in names}
        fields = VideoRequest.model_fields
        empty = {name: fields[name].get_default(call_default_factory=True) for name in names if name in fields}
        return self.request.model_copy(update={**empty, "extra": extra})


def fit(request: VideoRequest, able: Capabilities, *, can_link: bool) -> Fitted:
    """Convert a request for a model.

    `can_link`: True if the upstream can fetch an upload from a URL, which needs a public address of this gateway.
    """
    found: dict[str, Problem] = {}
    if request.operation not in able.operations:
        can = ", ".join(sorted(able.operations))
        found["operation"] = Problem(f"it cannot {request.operation}; it can {can}", ())
    inherited = _is_inherited(request)
    if not inherited or request.operation.lengthens:
        _check_seconds(request, able, found)
    # Inherited, size and ratio are the source's, not the client's choice.
    request = _with_inherited(request, able) if inherited else _fit_size(request, able, found)
    for name in OPTIONAL_PARAMETERS:
        if getattr(request, name) not in (None, ()) and name not in able.parameters:
            found[name] = Problem("it has no such parameter", (name,), absent=True)
    for name in able.required:
        if getattr(request, name) in (None, ()):
            found[name] = Problem("it makes nothing without one", (), missing=True)
    _check_media(request, able, can_link, found)
    found |= {name: Problem(why, (name,)) for name, why in able.malformed.items()}
    if not able.passes_extra:
        unknown = request.extra.keys() - able.vendor_fields
        found |= {name: Problem("it has no such parameter", (name,), absent=True) for name in sorted(unknown)}
    return Fitted(request, found)


def brought_near(request: VideoRequest, able: Capabilities) -> tuple[VideoRequest, list[str]]:
    """Bring length and size of a request to the nearest ones of a model; returns a sentence for each change as well."""
    values: dict[str, Any] = {}
    said = []
    if request.seconds is not None and able.seconds:
        near = nearest_seconds(request.seconds, able)
        if near != request.seconds:
            values["seconds"] = near
            said.append(f"seconds became {near:g} instead of {request.seconds:g}")
    ratio, resolution = request.aspect_ratio, request.resolution
    if able.sizes:
        triples = [complete_size(size, None, None) for size in able.sizes]
        triple = min(
            triples, key=lambda one: distance(ratio, one["aspect_ratio"]) + distance(resolution, one["resolution"])
        )
        ratio, resolution = (ratio and triple["aspect_ratio"]), (resolution and triple["resolution"])
    else:
        if ratio is not None and able.aspect_ratios:
            ratio = min(able.aspect_ratios, key=lambda one: distance(ratio, one))
        if resolution is not None and able.resolutions:
            resolution = min(able.resolutions, key=lambda one: distance(resolution, one))
    changed = [
        f"{name} became {new} instead of {old}"
        for name, old, new in (
            ("aspect_ratio", request.aspect_ratio, ratio),
            ("resolution", request.resolution, resolution),
        )
        if old is not None and new is not None and distance(old, new) > SAME
    ]
    if changed:
        values |= {"size": None, **complete_size(None, ratio, resolution)}
    return request.model_copy(update=values), said + changed


def union_of(ables: Sequence[Capabilities]) -> Capabilities:
    """Capabilities of a model with several routes: what one or another of them can do. Not known for one is not known
    for all."""
    first, *others = ables
    if not others:
        return first
    values: dict[str, Any] = {}
    for name in ("sizes", "aspect_ratios", "resolutions"):
        lists = [getattr(able, name) for able in ables]
        values[name] = None if None in lists else tuple(dict.fromkeys(one for listed in lists for one in listed))
    for name in ("parameters", "media", "operations"):
        values[name] = frozenset[Any]().union(*(getattr(able, name) for able in ables))
    values["passes_extra"] = any(able.passes_extra for able in ables)
    values |= {"seconds": None, "seconds_range": False}
    lengths = [able.seconds for able in ables if able.seconds is not None]
    if len(lengths) == len(ables):
        known = sorted({length for listed in lengths for length in listed})
        values["seconds_range"] = any(able.seconds_range for able in ables)
        values["seconds"] = (known[0], known[-1]) if values["seconds_range"] and known else tuple(known)
        values["whole_seconds"] = all(able.whole_seconds for able in ables)
    return first.model_copy(update=values)


def with_defaults(request: VideoRequest, able: Capabilities) -> VideoRequest:
    """Fill in the model's default length and size, where known, and bring an inherited size to one that it has."""
    request = _with_inherited(request, able)
    values: dict[str, Any] = {}
    if request.seconds is None and able.default_seconds is not None:
        values["seconds"] = able.default_seconds
    if able.default_size is not None and not (request.size or request.aspect_ratio or request.resolution):
        values |= complete_size(able.default_size, None, None)
    return request.model_copy(update=values) if values else request


def nearest_seconds(seconds: float, able: Capabilities) -> float:
    """The supported length nearest to `seconds`; the longer of two."""
    if able.seconds is None or not able.seconds:
        return seconds
    if not able.seconds_range:
        return min(able.seconds, key=lambda one: (abs(one - seconds), -one))
    low, high = able.seconds
    within = min(max(seconds, low), high)
    return float(round(within)) if able.whole_seconds else within


def _is_inherited(request: VideoRequest) -> bool:
    """True if length and size are those of a video of this gateway, from which the request starts."""
    return request.source is not None and request.source.video_id is not None


def _with_inherited(request: VideoRequest, able: Capabilities) -> VideoRequest:
    """The request with an inherited resolution brought to the nearest one of a model that names its resolutions."""
    resolution = request.resolution
    if not _is_inherited(request) or resolution is None or not able.resolutions or resolution in able.resolutions:
        return request
    near = min(able.resolutions, key=lambda one: distance(resolution, one))
    return request.model_copy(update={"size": None, **complete_size(None, request.aspect_ratio, near)})


def _check_seconds(request: VideoRequest, able: Capabilities, found: dict[str, Problem]) -> None:
    if request.seconds is None or able.seconds is None:
        return
    if able.seconds_range:
        low, high = able.seconds
        whole = "whole seconds from" if able.whole_seconds else "seconds from"
        if not low <= request.seconds <= high or (able.whole_seconds and request.seconds % 1):
            found["seconds"] = Problem(f"it makes {whole} {low:g} to {high:g}", ("seconds",))
    elif request.seconds not in able.seconds:
        allowed = ", ".join(f"{seconds:g}" for seconds in able.seconds)
        why = f"it makes {allowed} seconds" if allowed else "its length cannot be chosen"
        # OpenAI's API requires a length for an extension, even if the vendor decides on it.
        forced = not allowed and request.operation.lengthens
        found["seconds"] = Problem(why, ("seconds",), absent=not allowed, forced=forced)


def _fit_size(request: VideoRequest, able: Capabilities, found: dict[str, Problem]) -> VideoRequest:
    if not (request.size or request.aspect_ratio or request.resolution):
        return request
    if able.sizes is not None:
        return _choose_size(request, able.sizes, found)
    if able.aspect_ratios is None and able.resolutions is None:
        return request
    requested_as = "size" if request.size else "aspect_ratio"
    if request.aspect_ratio and able.aspect_ratios is not None:
        near = nearest_ratio(request.aspect_ratio, able.aspect_ratios)
        if near is None:
            why = f"it makes {', '.join(able.aspect_ratios)}" if able.aspect_ratios else "its shape cannot be chosen"
            found[requested_as] = Problem(why, ("size", "aspect_ratio"), absent=not able.aspect_ratios)
        else:
            request = request.model_copy(update={"aspect_ratio": near})
    elif request.aspect_ratio:
        near = nearest_ratio(request.aspect_ratio, COMMON_RATIOS)
        request = request.model_copy(update={"aspect_ratio": near or request.aspect_ratio})
    if request.resolution and able.resolutions is not None and request.resolution not in able.resolutions:
        allowed = ", ".join(able.resolutions)
        why = f"it makes {allowed}" if allowed else "its resolution cannot be chosen, only the aspect_ratio"
        requested_as = "size" if request.size else "resolution"
        earlier = found.get(requested_as)
        drop = (*(earlier.drop if earlier else ("size",)), "resolution")
        absent = not allowed and (earlier is None or earlier.absent)
        found[requested_as] = Problem(f"{earlier.why}; {why}" if earlier else why, drop, absent=absent)
    return request


def _choose_size(request: VideoRequest, sizes: tuple[str, ...], found: dict[str, Problem]) -> VideoRequest:
    """Set the requested size if it is listed, else the first size that fits the requested ratio or resolution."""
    for size in sizes:
        triple = complete_size(size, None, None)
        fits = (
            size == request.size
            if request.size
            else (request.aspect_ratio is None or nearest_ratio(request.aspect_ratio, (triple["aspect_ratio"],)))
            and request.resolution in (None, triple["resolution"])
        )
        if fits:
            return request.model_copy(update=triple)
    requested_as = "size" if request.size else "aspect_ratio" if request.aspect_ratio else "resolution"
    why = f"it makes {', '.join(sizes)}" if sizes else "its size cannot be chosen"
    found[requested_as] = Problem(why, ("size", "aspect_ratio", "resolution"), absent=not sizes)
    return request


def _check_media(request: VideoRequest, able: Capabilities, can_link: bool, found: dict[str, Problem]) -> None:
    for name, given in media_of(request).items():
        if name in found:
            continue
        if "upload" not in able.media and not can_link and any(medium.key for medium in given):
            why = "it takes addresses only, and this gateway has none (GATEWAY_PUBLIC_URL) to offer the file at"
            found[name] = Problem(why, (name,))
        elif "url" not in able.media and any(medium.url for medium in given):
            found[name] = Problem("it takes the file itself only, not an address", (name,))
    limit = able.max_reference_images
    if limit is not None and len(request.reference_images) > limit:
        found.setdefault("reference_images", Problem(f"it takes {limit} at most", ("reference_images",)))


MEDIA_FIELDS = ("source", "first_frame", "last_frame", "reference_video", "reference_images", "characters")
"""Fields that hold a medium or stand for one."""


def media_of(request: VideoRequest) -> dict[str, tuple[Media, ...]]:
    """All media of a request, by field name."""
    found: dict[str, tuple[Media, ...]] = {}
    for name in ("source", "first_frame", "last_frame", "reference_video"):
        medium = getattr(request, name)
        if medium is not None:
            found[name] = (medium,)
    if request.reference_images:
        found["reference_images"] = request.reference_images
    return found
