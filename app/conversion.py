"""Conversion, in one place for all dialects and providers: what a request means in the terms of one model.

Size, aspect ratio and resolution are one triple of which any two imply the third; a length is a number of seconds; a
medium is bytes or an address. `fit` says a request in the words of one model and lists what cannot be said. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd

from app.video import (
    ASPECT_RATIO,
    MAX_SIDE,
    OPTIONAL_PARAMETERS,
    SIZE,
    Capabilities,
    Media,
    Operation,
    VideoRequest,
    shorter_side,
)

RATIO_TOLERANCE = 0.02
"""Sizes of the trade are rarely exact: 1360x752 is sold as 16:9."""
COMMON_RATIOS = ("16:9", "9:16", "1:1", "4:3", "3:4", "3:2", "2:3", "21:9", "9:21")
"""What a size is called for a model that takes ratios, where it is not known which."""


@dataclass(frozen=True)
class Problem:
    """Something a model cannot express."""

    why: str
    drop: tuple[str, ...]
    """The fields of the request that would have to go."""
    forced: bool = False
    """Whether the client could not help saying it: left out with a warning rather than refused."""


@dataclass(frozen=True)
class Fitted:
    """A request in the words of one model."""

    request: VideoRequest
    problems: Mapping[str, Problem]
    """By the parameter's name as the client knows it; empty when all of it can be said."""

    @property
    def without_problems(self) -> VideoRequest:
        """What remains of the request when all that cannot be said is left out."""
        names = [name for problem in self.problems.values() for name in problem.drop]
        extra = {name: value for name, value in self.request.extra.items() if name not in names}
        fields = VideoRequest.model_fields
        empty = {name: fields[name].get_default(call_default_factory=True) for name in names if name in fields}
        return self.request.model_copy(update={**empty, "extra": extra})


def fit(request: VideoRequest, able: Capabilities, *, can_link: bool) -> Fitted:
    """Say the request in the words of a model.

    `can_link`: whether the upstream can be given an address at which it finds an upload, which needs a public address
    of this gateway.
    """
    found: dict[str, Problem] = {}
    if request.operation not in able.operations:
        can = ", ".join(sorted(able.operations))
        found["operation"] = Problem(f"it cannot {request.operation}; it can {can}", ())
    inherited = request.source is not None and request.source.video_id is not None
    if not inherited or request.operation is Operation.extend:
        _check_seconds(request, able, found)
    if not inherited:  # else the shape is the source's, not the client's wish
        request = _fit_size(request, able, found)
    for name in OPTIONAL_PARAMETERS:
        if getattr(request, name) not in (None, ()) and name not in able.parameters:
            found[name] = Problem("it has no such parameter", (name,))
    _check_media(request, able, can_link, found)
    if not able.passes_extra:
        strange = request.extra.keys() - able.vendor_fields
        found |= {name: Problem("it has no such parameter", (name,)) for name in sorted(strange)}
    return Fitted(request, found)


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
        # OpenAI's API insists on a length for an extension, also where the vendor decides.
        found["seconds"] = Problem(why, ("seconds",), forced=not allowed and request.operation is Operation.extend)


def _fit_size(request: VideoRequest, able: Capabilities, found: dict[str, Problem]) -> VideoRequest:
    if not (request.size or request.aspect_ratio or request.resolution):
        return request
    if able.sizes is not None:
        return _choose_size(request, able.sizes, found)
    if able.aspect_ratios is None and able.resolutions is None:
        return request
    asked_as = "size" if request.size else "aspect_ratio"
    if request.aspect_ratio and able.aspect_ratios is not None:
        near = nearest_ratio(request.aspect_ratio, able.aspect_ratios)
        if near is None:
            why = f"it makes {', '.join(able.aspect_ratios)}" if able.aspect_ratios else "its shape cannot be chosen"
            found[asked_as] = Problem(why, ("size", "aspect_ratio"))
        else:
            request = request.model_copy(update={"aspect_ratio": near})
    elif request.aspect_ratio:
        near = nearest_ratio(request.aspect_ratio, COMMON_RATIOS)
        request = request.model_copy(update={"aspect_ratio": near or request.aspect_ratio})
    if request.resolution and able.resolutions is not None and request.resolution not in able.resolutions:
        allowed = ", ".join(able.resolutions)
        why = f"it makes {allowed}" if allowed else "its resolution cannot be chosen, only the aspect_ratio"
        asked_as = "size" if request.size else "resolution"
        earlier = found.get(asked_as)
        drop = ("size", "resolution", *(earlier.drop if earlier else ()))
        found[asked_as] = Problem(f"{earlier.why}; {why}" if earlier else why, drop)
    return request


def _choose_size(request: VideoRequest, sizes: tuple[str, ...], found: dict[str, Problem]) -> VideoRequest:
    """The listed size that was asked for, or the first one that fits the ratio or resolution asked for."""
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
    asked_as = "size" if request.size else "aspect_ratio" if request.aspect_ratio else "resolution"
    found[asked_as] = Problem(f"it makes {', '.join(sizes)}", ("size", "aspect_ratio", "resolution"))
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


def media_of(request: VideoRequest) -> dict[str, tuple[Media, ...]]:
    """All media of a request, by the field they stand in."""
    found: dict[str, tuple[Media, ...]] = {}
    for name in ("source", "first_frame", "last_frame", "reference_video"):
        medium = getattr(request, name)
        if medium is not None:
            found[name] = (medium,)
    if request.reference_images:
        found["reference_images"] = request.reference_images
    return found


def nearest_ratio(ratio: str, allowed: tuple[str, ...]) -> str | None:
    """Return the allowed ratio that `ratio` is, give or take two per cent; None where there is none."""
    across, down = _ratio(ratio, "aspect_ratio")
    best = min(allowed, key=lambda other: _distance(across / down, other), default=None)
    return best if best is not None and _distance(across / down, best) <= RATIO_TOLERANCE else None


def _distance(quotient: float, other: str) -> float:
    across, down = _ratio(other, "aspect_ratio")
    return abs(quotient * down / across - 1)


def complete_size(size: str | None, aspect_ratio: str | None, resolution: str | None) -> dict[str, str]:
    """Return the triple size, aspect_ratio, resolution as far as it is implied by what was given.

    `size` may be `1280x720` or a ratio such as `16:9`. Any two imply the third, and a size implies both others.
    Raises `ValueError("<field>: <why>")` for what is none of these or contradicts itself.
    """
    triple: dict[str, str] = {}
    if size is not None and ASPECT_RATIO.fullmatch(size):
        if aspect_ratio is not None and _ratio(aspect_ratio, "aspect_ratio") != _ratio(size, "size"):
            raise ValueError(f"size: {size} contradicts the aspect_ratio {aspect_ratio}")
        size, aspect_ratio = None, size
    if aspect_ratio is not None:
        triple["aspect_ratio"] = "{}:{}".format(*_ratio(aspect_ratio, "aspect_ratio"))
    if resolution is not None:
        triple["resolution"] = f"{_shorter_side(resolution)}p"
    if size is not None:
        match = SIZE.fullmatch(size)
        if match is None:
            raise ValueError(f"size: expected WIDTHxHEIGHT such as 1280x720, or a ratio such as 16:9, got {size!r:.60}")
        width, height = int(match[1]), int(match[2])
        if max(width, height) > MAX_SIDE or min(width, height) < 16:
            raise ValueError(f"size: each side must be between 16 and {MAX_SIDE} pixels, got {width}x{height}")
        divisor = gcd(width, height)
        implied = {"aspect_ratio": f"{width // divisor}:{height // divisor}", "resolution": f"{min(width, height)}p"}
        for name, value in implied.items():
            if triple.setdefault(name, value) != value and not (
                name == "aspect_ratio" and nearest_ratio(value, (triple[name],))
            ):
                raise ValueError(f"size: {width}x{height} contradicts the {name} {triple[name]}")
        triple["size"] = f"{width}x{height}"
    elif len(triple) == 2:
        across, down = _ratio(triple["aspect_ratio"], "aspect_ratio")
        short = _shorter_side(triple["resolution"])
        long = round(short * max(across, down) / min(across, down) / 2) * 2
        triple["size"] = f"{long}x{short}" if across >= down else f"{short}x{long}"
    return triple


def _ratio(text: str, field: str) -> tuple[int, int]:
    match = ASPECT_RATIO.fullmatch(text)
    if match is None:
        raise ValueError(f"{field}: expected a ratio such as 16:9, got {text!r:.60}")
    across, down = int(match[1]), int(match[2])
    divisor = gcd(across, down)
    return across // divisor, down // divisor


def _shorter_side(text: str) -> int:
    try:
        return shorter_side(text)
    except ValueError as error:
        raise ValueError(f"resolution: {error}") from None
